"""BERT as a decoder of reports: causal, with cross-attention in every layer, as in PromptMRG and REVTAF.

Shapes: B studies, N = B x beams rows, T text positions, S memory positions, D width, h heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.errors import UserError
from crossray.layers.attention import CrossAttention, SelfAttention
from crossray.layers.cache import Cache
from crossray.layers.dropout import Dropout
from crossray.layers.transformer import DecoderStack, Reading
from crossray.models.parts.networks import quiet
from crossray.text.tokenizer import ADDED_TOKENS

#: Epsilon of BERT's layer normalization, and standard deviation of its initial weights.
_EPSILON, _DEVIATION = 1e-12, 0.02


@dataclass(frozen=True, kw_only=True)
class BertDecoderConfig:
    """Size of a `BertDecoder`; the defaults are BERT-base.

    Attributes:
        vocabulary_size: number of token ids.
        layers: number of layers.
        width: width D of embeddings and layers.
        heads: number of attention heads; a divisor of `width`.
        feedforward: width of the hidden layer of the feed-forward blocks.
        dropout: dropout in embeddings, attention weights and residual paths.
        positions: maximum number of positions, including the prompt.
        memory_width: width of the memory that the cross-attention reads.
        name: released BERT with the initial weights, as a name on the Hugging Face hub or a local folder. Its sizes
            then replace `layers` to `positions`. Cross-attention is always random, and so are the token embeddings
            unless the vocabulary is the released one (`data.vocabulary`). Empty for random weights.
    """

    vocabulary_size: int = 0
    layers: int = 12
    width: int = 768
    heads: int = 12
    feedforward: int = 3072
    dropout: float = 0.1
    positions: int = 512
    memory_width: int = 2048
    name: str = ""


class BertLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, each as norm(x + dropout(f(x))).

    Args:
        config: configuration of the decoder.
    """

    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        width = config.width
        self.attention = SelfAttention(width, config.heads, config.dropout)
        self.attention_norm = nn.LayerNorm(width, _EPSILON)
        self.cross = CrossAttention(width, config.heads, config.dropout, config.memory_width)
        self.cross_norm = nn.LayerNorm(width, _EPSILON)
        self.expand = nn.Linear(width, config.feedforward)
        self.contract = nn.Linear(config.feedforward, width)
        self.feedforward_norm = nn.LayerNorm(width, _EPSILON)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, read: Reading) -> tuple[Tensor, Tensor | None]:
        """(N, T, D) -> (N, T, D) and cross-attention weights (N, h, T, S) or None."""
        x = self.attention_norm(x + self.dropout(read.text(self.attention, x)))
        attended, weights = read.memory(self.cross, x)
        x = self.cross_norm(x + self.dropout(attended))
        inner = self.contract(F.gelu(self.expand(x)))
        return self.feedforward_norm(x + self.dropout(inner)), weights


class BertDecoder(nn.Module):
    """Predicts the logits of the next tokens, given tokens and a memory. Output layer and embedding share weights.

    Args:
        config: size, and name of the released weights, if any.

    Attributes:
        config: the configuration as built: with the sizes of the released model and without its name, so that building
            it again requires neither the hub nor the folder.

    Raises:
        UserError: the released model cannot be read or is not a BERT.
    """

    def __init__(self, config: BertDecoderConfig) -> None:
        super().__init__()
        released = _load(config.name) if config.name else None
        if released is not None:
            config = replace(config, name="", **_sizes(released.config))
        self.config = config
        self.words = nn.Embedding(config.vocabulary_size, config.width)
        # Reports have a single token type, whose vector is added to the positions.
        self.positions = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, _EPSILON)
        self.dropout = Dropout(config.dropout)
        self.stack = DecoderStack((BertLayer(config) for _ in range(config.layers)), nn.Identity())
        self.transform = nn.Linear(config.width, config.width)
        self.transform_norm = nn.LayerNorm(config.width, _EPSILON)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary_size))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_DEVIATION)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        if released is not None:
            self._take(from_transformers(released.state_dict()))

    def start(self, memory: Tensor, memory_mask: Tensor, beams: int = 1) -> Cache:
        """An empty cache for `beams` rows per study; see `DecoderStack.start`."""
        return self.stack.start(memory, memory_mask, beams)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        cache: Cache | None = None,
        *,
        need_attention: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the token after each of `tokens`.

        Args:
            tokens: (N, T) int64; with a cache, the tokens after the positions in it.
            memory: (B, S, memory width); with a cache, its cached keys and values are used instead.
            memory_mask: (B, S) bool, True where a position is valid.
            cache: cache from `start`, which is updated in place.
            need_attention: also return the cross-attention weights.

        Returns:
            Logits (N, T, vocabulary), and the weights (N, layers, h, T, S) or None.

        Raises:
            UserError: the text is longer than the decoder has positions.
        """
        first = 0 if cache is None else cache.length
        end = first + tokens.shape[1]
        if end > self.config.positions:
            raise UserError(
                f"the decoder has {self.config.positions} positions, and {end} are asked for; lower "
                "decoding.max_length and data.max_length."
            )
        x = self.words(tokens) + self.positions.weight[first:end]
        x, attention = self.stack(self.dropout(self.norm(x)), memory, memory_mask, cache, need_attention=need_attention)
        x = self.transform_norm(F.gelu(self.transform(x)))
        return F.linear(x, self.words.weight, self.bias), attention

    def _take(self, released: dict[str, Tensor]) -> None:
        """Load released weights; cross-attention and added tokens keep their initial ones."""
        own = self.state_dict()
        rows = len(released["words.weight"])
        same = len(own["words.weight"]) == rows + len(ADDED_TOKENS)
        for name, tensor in released.items():
            if name in ("words.weight", "bias"):
                if same:  # otherwise rows belong to different tokens
                    own[name][:rows] = tensor
            elif ".cross" not in name:
                own[name].copy_(tensor)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of `BertLMHeadModel` in `transformers` to those of `BertDecoder`.

    Args:
        state: its state dict, with or without cross-attention.
    """
    names = {
        "bert.embeddings.LayerNorm": "norm",
        "cls.predictions.transform.dense": "transform",
        "cls.predictions.transform.LayerNorm": "transform_norm",
    }
    renamed = {
        "words.weight": state["bert.embeddings.word_embeddings.weight"],
        "positions.weight": state["bert.embeddings.position_embeddings.weight"]
        + state["bert.embeddings.token_type_embeddings.weight"][0],
        "bias": state["cls.predictions.bias"],
    }
    index = 0
    while f"bert.encoder.layer.{index}.output.dense.weight" in state:
        theirs, ours = f"bert.encoder.layer.{index}", f"stack.layers.{index}"
        names |= {
            f"{theirs}.attention.output.dense": f"{ours}.attention.output",
            f"{theirs}.attention.output.LayerNorm": f"{ours}.attention_norm",
            f"{theirs}.crossattention.self.query": f"{ours}.cross.query",
            f"{theirs}.crossattention.output.dense": f"{ours}.cross.output",
            f"{theirs}.crossattention.output.LayerNorm": f"{ours}.cross_norm",
            f"{theirs}.intermediate.dense": f"{ours}.expand",
            f"{theirs}.output.dense": f"{ours}.contract",
            f"{theirs}.output.LayerNorm": f"{ours}.feedforward_norm",
        }
        for kind in ("weight", "bias"):
            joined = {
                f"{ours}.attention.project.{kind}": [f"{theirs}.attention.self.{p}" for p in ("query", "key", "value")],
                f"{ours}.cross.project.{kind}": [f"{theirs}.crossattention.self.{part}" for part in ("key", "value")],
            }
            for name, parts in joined.items():
                if f"{parts[0]}.{kind}" in state:
                    renamed[name] = torch.cat([state[f"{part}.{kind}"] for part in parts])
        index += 1
    for name, ours in names.items():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in state:
                renamed[f"{ours}.{kind}"] = state[f"{name}.{kind}"]
    return renamed


def _sizes(config: Any) -> dict[str, int]:
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "feedforward": config.intermediate_size,
        "positions": config.max_position_embeddings,
    }


def _load(name: str) -> Any:
    """Load a released BERT with its output layer; only tensors are read, nothing is unpickled."""
    from transformers import AutoConfig, BertLMHeadModel

    remedy = "give the name of a BERT on the hub, or a folder with its config.json and model.safetensors"
    try:
        with quiet():
            config = AutoConfig.from_pretrained(name)
            if config.model_type != "bert":
                raise UserError(f"decoder '{name}': model type '{config.model_type}' is not bert; {remedy}.")
            model, report = BertLMHeadModel.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, weights_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"decoder '{name}': cannot be loaded ({str(error).splitlines()[0][:200]}); {remedy}."
        ) from error
    # A BERT without a language model head may be used.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("cls."))
    if missing:
        raise UserError(f"decoder '{name}': its weights lack '{missing[0]}'; {remedy}.")
    return model
