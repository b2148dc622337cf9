"""Text encoders: a small Transformer over hashed words, or any text model of `transformers`.

Shapes: n texts, T tokens, W width of a text vector.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import tokenizers
import torch
from torch import Tensor, nn

from crossray.errors import UserError
from crossray.layers.transformer import Encoder
from crossray.models.parts.networks import quiet
from crossray.text.labeling.tokens import tokens

#: Name of CrossRay's own text encoder.
WORDS = "words"

#: Number of hashes per word: two words share both hashes with probability 1 / buckets^2 only.
_HASHES = 2

#: Configuration fields of `transformers` that do not describe the network.
_INCIDENTAL = ("transformers_version", "architectures", "_name_or_path", "dtype", "id2label", "label2id")


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """Configuration of the text encoder.

    Attributes:
        name: `words` for CrossRay's own text encoder, which is trained with the model that uses it; or the hub name or
            folder of a text model of `transformers`, such as emilyalsentzer/Bio_ClinicalBERT, which is frozen.
        width: width of the vectors of `words`.
        layers: number of Transformer layers of `words`.
        heads: number of attention heads of `words`.
        buckets: number of rows in the embedding table of `words`; a word is the sum of the two rows that its letters
            hash to.
        max_length: maximum number of tokens of a text; the rest is cut off.
        architecture: set when a model of `transformers` is built, so that a saved folder is self-contained; leave it
            out.
    """

    name: str = WORDS
    width: int = 256
    layers: int = 2
    heads: int = 4
    buckets: int = 8192
    max_length: int = 128
    architecture: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Reject invalid sizes."""
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise UserError(
                f"field 'width' of a text encoder is {self.width}; give a multiple of 'heads' {self.heads}."
            )
        if self.layers < 1 or self.buckets < 2 or self.max_length < 2:
            raise UserError("fields 'layers', 'buckets' and 'max_length' of a text encoder need at least 1, 2 and 2.")


class TextEncoder(nn.Module, ABC):
    """Encodes texts as vectors.

    Attributes:
        config: the configuration it was built from.
    """

    config: TextEncoderConfig

    @property
    @abstractmethod
    def width(self) -> int:
        """Width W of a text vector."""

    @property
    @abstractmethod
    def trainable(self) -> bool:
        """Whether it is trained with the model that uses it."""

    @abstractmethod
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode n > 0 texts to vectors (n, W)."""


class WordEncoder(TextEncoder):
    """CrossRay's own text encoder: hashed word embeddings, position codes, Transformer layers, and mean pooling.

    It needs no vocabulary, so it can encode any sentence; the embedding of an unseen word is distinct but untrained.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.buckets, config.width)
        self.positions = nn.Embedding(config.max_length, config.width)
        self.encoder = Encoder(config.layers, config.width, config.heads, 2 * config.width, dropout=0.1)
        nn.init.normal_(self.words.weight, std=0.5)
        nn.init.normal_(self.positions.weight, std=0.02)

    @property
    def width(self) -> int:
        """Width W of a text vector, as configured."""
        return self.config.width

    @property
    def trainable(self) -> bool:
        """Always True."""
        return True

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; the time depends on the longest one."""
        rows = [
            [_buckets(word, self.config.buckets) for word in _words(text, self.config.max_length)] for text in texts
        ]
        longest = max(map(len, rows))
        device = self.words.weight.device
        mask = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
        ids = torch.zeros(len(rows), longest, _HASHES, dtype=torch.long)
        ids[mask] = torch.tensor([word for row in rows for word in row])
        ids, mask = ids.to(device), mask.to(device)
        x = self.words(ids).sum(dim=2) + self.positions.weight[:longest]
        x = self.encoder(x, mask).masked_fill(~mask.unsqueeze(-1), 0.0)
        return x.sum(dim=1) / mask.sum(dim=1, keepdim=True)


class PretrainedTextEncoder(TextEncoder):
    """A frozen text model of `transformers`, which returns the vector of the first token ([CLS]) in its last layer.

    Args:
        network: the model, without a pooler.
        tokenizer: its tokenizer.
        config: the configuration, whose `architecture` describes both.
    """

    def __init__(self, network: Any, tokenizer: tokenizers.Tokenizer, config: TextEncoderConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self._tokenizer = tokenizer
        # Padding is masked, so any token will do.
        tokenizer.enable_padding(pad_id=int(getattr(self.network.config, "pad_token_id", None) or 0))
        tokenizer.enable_truncation(min(config.max_length, int(self.network.config.max_position_embeddings)))
        self.requires_grad_(False)
        self.eval()

    @property
    def width(self) -> int:
        """Width W of the last layer."""
        return int(self.network.config.hidden_size)

    @property
    def trainable(self) -> bool:
        """Always False."""
        return False

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Encode texts; text beyond the maximum length is ignored."""
        encoded = self._tokenizer.encode_batch(list(texts))
        device = next(self.parameters()).device
        ids = torch.tensor([text.ids for text in encoded], device=device)
        mask = torch.tensor([text.attention_mask for text in encoded], device=device)
        vectors: Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        return vectors

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the encoder always stays in evaluation mode."""
        return super().train(False)


def build_text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """Build the encoder that `config` names: with its weights, or with random ones for `words` or a given architecture.

    The `config` of the result contains the architecture.

    Raises:
        UserError: there is no such model, or it cannot be loaded.
    """
    if config.name == WORDS:
        return WordEncoder(config)
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    described = config.architecture
    try:
        with quiet():
            if described is None:
                network = AutoModel.from_pretrained(config.name, dtype=torch.float32)
                tokenizer = tokenizers.Tokenizer.from_str(
                    AutoTokenizer.from_pretrained(config.name)._tokenizer.to_str()
                )
            else:
                network = AutoModel.from_config(AutoConfig.for_model(**described["network"]))
                tokenizer = tokenizers.Tokenizer.from_str(json.dumps(described["tokenizer"]))
    except (OSError, ValueError, RuntimeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"text encoder '{config.name}': cannot be loaded ({reason}); give the folder or the hub name of a text "
            "model with a fast tokenizer, or words."
        ) from error
    # The first token is used directly, so a pooler would not be used.
    network.pooler = None
    if described is None:
        fields = {key: value for key, value in network.config.to_dict().items() if key not in _INCIDENTAL}
        described = {"network": fields, "tokenizer": json.loads(tokenizer.to_str())}
    return PretrainedTextEncoder(network, tokenizer, replace(config, architecture=described))


def _words(text: str, longest: int) -> list[str]:
    return tokens(text)[:longest] or [""]


@lru_cache(maxsize=1 << 16)
def _buckets(word: str, buckets: int) -> tuple[int, ...]:
    digest = hashlib.blake2b(word.encode(), digest_size=4 * _HASHES).digest()
    return tuple(int.from_bytes(digest[4 * i : 4 * i + 4], "little") % buckets for i in range(_HASHES))
