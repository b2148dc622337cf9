"""CheXbert: a BERT that extracts the 14 observations of CheXpert from a report (docs/evaluation.md).

Each observation has a linear head on the last hidden state of [CLS]: thirteen heads have the four statuses, and the one
for "no finding" has blank and positive. Source: A. Smit et al., "CheXbert", EMNLP 2020, and the published code
(stanfordmlgroup/CheXbert: `label.py`, `bert_tokenizer.py`, `constants.py`). We may not redistribute the weights;
`crossray.evaluation.labelers.chexbert_weights` converts the published file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from crossray.errors import UserError
from crossray.evaluation.labelers import LABELERS, Labeler
from crossray.text.observations import CHEXPERT, STATUSES

#: Version of the folder of converted weights, in the field `format` of its `config.json`.
FORMAT = 1

#: Outputs of the head of each observation, in the order of `CHEXPERT`, which is that of the checkpoint. "No finding" is
#: only ever blank or positive. The classes are the codes of `STATUSES`.
CLASSES = (len(STATUSES),) * 13 + (2,)

#: Width of one attention head in every BERT of the original paper.
HEAD_WIDTH = 64

_UNKNOWN, _START, _END = "[UNK]", "[CLS]", "[SEP]"

# Number of reports labeled at once.
_BATCH = 32


@dataclass(frozen=True)
class CheXbertConfig:
    """Sizes of the encoder; those of bert-base-uncased by default.

    Attributes:
        vocabulary: pieces of the tokenizer.
        width: size of a hidden state; each attention head takes `HEAD_WIDTH` of it.
        layers: number of encoder layers.
        inner_width: hidden size of a layer's feed-forward network.
        positions: longest input in pieces, including [CLS] and [SEP].
        segments: rows of the segment embedding, of which only the first is used.
    """

    vocabulary: int = 30522
    width: int = 768
    layers: int = 12
    inner_width: int = 3072
    positions: int = 512
    segments: int = 2


class CheXbert(nn.Module):
    """The network: a BERT encoder without a pooler, and the heads."""

    def __init__(self, config: CheXbertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(
            BertConfig(
                vocab_size=config.vocabulary,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.width // HEAD_WIDTH,
                intermediate_size=config.inner_width,
                max_position_embeddings=config.positions,
                type_vocab_size=config.segments,
            ),
            add_pooling_layer=False,
        )
        self.linear_heads = nn.ModuleList(nn.Linear(config.width, classes) for classes in CLASSES)

    def forward(self, pieces: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Logits of all observations.

        Args:
            pieces: (B, T) ids.
            mask: (B, T) 1 for a piece, 0 for padding.

        Returns:
            One (B, 4) for each observation of `CHEXPERT`, and (B, 2) for the last.
        """
        hidden = self.bert(input_ids=pieces, attention_mask=mask).last_hidden_state[:, 0]
        return tuple(head(hidden) for head in self.linear_heads)


class CheXbertLabeler:
    """The `crossray.evaluation.labelers.Labeler` of converted weights.

    Args:
        network: the network with its weights.
        tokenizer: result of `word_pieces`.
        sha256: digest of the file of published weights.
        device: device to compute on; if None, a GPU if available.
    """

    def __init__(self, network: CheXbert, tokenizer: Tokenizer, sha256: str, device: str | None = None) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._network = network.eval().to(self._device)
        self._tokenizer = tokenizer
        self._tokenizer.enable_truncation(network.config.positions)
        self._sha256 = sha256

    @property
    def name(self) -> str:
        """Name, and the start of the digest of the published file: different weights make a different labeler."""
        return f"chexbert {self._sha256[:8]}"

    @property
    def observations(self) -> tuple[str, ...]:
        """The 14 observations of CheXpert."""
        return CHEXPERT

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        """Label reports.

        Args:
            reports: N reports; pieces beyond 512 are ignored.

        Returns:
            (N, 14) codes of `STATUSES`.
        """
        codes = np.empty((len(reports), len(CHEXPERT)), dtype=np.int8)
        pieces = [encoded.ids for encoded in self._tokenizer.encode_batch([" ".join(text.split()) for text in reports])]
        # Reports of similar length share a batch to reduce padding.
        order = sorted(range(len(reports)), key=lambda report: len(pieces[report]))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            logits = self.logits([pieces[report] for report in chosen])
            codes[chosen] = torch.stack([one.argmax(dim=1) for one in logits], dim=1).cpu().numpy()
        return codes

    @torch.inference_mode()
    def logits(self, pieces: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
        """Logits of B reports given as ids, including [CLS] and [SEP]: 13 of shape (B, 4), then one of shape (B, 2)."""
        rows = [torch.tensor(row) for row in pieces]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        logits: tuple[Tensor, ...] = self._network(padded.to(self._device), mask.to(self._device))
        return logits

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str | None = None) -> "CheXbertLabeler":
        """Load a folder written by `crossray convert chexbert`; nothing is unpickled.

        Raises:
            UserError: the folder is missing or incomplete, or contains something else.
        """
        folder = Path(folder)
        saved = _read_json(folder / "config.json")
        if saved.get("labeler") != "chexbert" or saved.get("format") != FORMAT:
            raise UserError(
                f"{folder / 'config.json'}: field 'labeler' is not CheXbert in format {FORMAT}; "
                "write the folder with: crossray convert chexbert"
            )
        provenance = _read_json(folder / "provenance.json")
        try:
            sha256 = str(provenance["weights"]["sha256"])
            network = CheXbert(CheXbertConfig(**saved["config"]))
            network.load_state_dict(load_file(folder / "model.safetensors"))
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # `tokenizers` raises nothing more specific
            reason = str(error).partition("\n")[0][:200]
            raise UserError(
                f"{folder}: the files are not a complete CheXbert ({reason}); convert chexbert.pth again"
            ) from None
        return cls(network, tokenizer, sha256, device)


def word_pieces(vocabulary: Mapping[str, int]) -> Tokenizer:
    """Build the tokenizer of bert-base-uncased: lower case, no accents, split punctuation, WordPiece, [CLS] ... [SEP].

    Args:
        vocabulary: id by piece, including [UNK], [CLS] and [SEP].
    """
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token=_UNKNOWN, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing((_END, vocabulary[_END]), (_START, vocabulary[_START]))
    return tokenizer


def config_values(config: CheXbertConfig) -> dict[str, Any]:
    """The content of `config.json`."""
    return {"format": FORMAT, "labeler": "chexbert", "config": asdict(config)}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}: cannot be read; --labeler takes rules, or a folder that crossray convert wrote")
    return values


@LABELERS.register("chexbert")
def open_chexbert(argument: str) -> Labeler:
    """The weights in this folder."""
    if not argument:
        raise UserError("--labeler chexbert: the folder of the weights is missing; give the one that `crossray convert "
                        "chexbert` wrote.")  # fmt: skip
    return CheXbertLabeler.from_pretrained(argument)
