"""The database of training reports: found by image or label, and read as sentence embeddings.

Shapes: R reports, N most sentences of one, U different sentences, E entities, P places, K observations, D text width.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from crossray.errors import UserError
from crossray.files.write import replacing

_FORMAT = "1"
#: Tensors of the file, in the order of the arguments of `ReportDatabase`.
_TENSORS = ("entities", "labels", "groups", "reports", "sentences", "sentence_rows", "phrases")


class ReportDatabase(nn.Module):
    """Reports of training studies, as tensors that move with the model but are not part of its weights.

    Sentences recur in many reports, so each distinct one is stored once, in half precision.

    Args:
        entities: (R, E) float, log-odds of each study's entities.
        labels: (R, K) int8, status codes; -1 throughout where a study has no labels.
        groups: (R,) int64, equal for studies of one patient.
        reports: (R, D), text features of whole reports.
        sentences: (U, D), text features of the different sentences.
        sentence_rows: (R, N) int32, rows of `sentences` in the order of the report; -1 behind its last one.
        phrases: (E, P, 2, D), text features of "entity at place", absent and present.
        studies: identifiers, R of them.
        texts: cleaned reports, R of them or none.
        encoder: fingerprint of the knowledge encoder that made entities and features.
    """

    entities: Tensor
    labels: Tensor
    groups: Tensor
    reports: Tensor
    sentences: Tensor
    sentence_rows: Tensor
    phrases: Tensor

    def __init__(
        self,
        entities: Tensor,
        labels: Tensor,
        groups: Tensor,
        reports: Tensor,
        sentences: Tensor,
        sentence_rows: Tensor,
        phrases: Tensor,
        *,
        studies: Sequence[str] = (),
        texts: Sequence[str] = (),
        encoder: str = "",
    ) -> None:
        super().__init__()
        tensors = (entities, labels, groups, reports, sentences, sentence_rows, phrases)
        for name, tensor in zip(_TENSORS, tensors, strict=True):
            self.register_buffer(name, tensor, persistent=False)
        self.studies, self.texts, self.encoder = tuple(studies), tuple(texts), encoder
        self._row_of = {study: row for row, study in enumerate(self.studies)}

    @classmethod
    def empty(cls, entities: int, places: int, classes: int, width: int, encoder: str = "") -> "ReportDatabase":
        """A database without reports, whose phrases are zeros."""
        return cls(
            entities=torch.zeros(0, entities),
            labels=torch.zeros(0, classes, dtype=torch.int8),
            groups=torch.zeros(0, dtype=torch.int64),
            reports=torch.zeros(0, width, dtype=torch.float16),
            sentences=torch.zeros(0, width, dtype=torch.float16),
            sentence_rows=torch.zeros(0, 1, dtype=torch.int32),
            phrases=torch.zeros(entities, places, 2, width, dtype=torch.float16),
            encoder=encoder,
        )

    def __len__(self) -> int:
        return len(self.entities)

    def groups_of(self, studies: Sequence[str]) -> Tensor:
        """Groups (B,) of studies by their identifiers; -1 for those that the database does not have."""
        rows = torch.tensor([self._row_of.get(study, -1) for study in studies], device=self.groups.device)
        return _pick(self.groups, rows).where(rows >= 0, -1)

    def sentences_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Sentence features of some reports.

        Args:
            rows: (B,) int64; -1 for no report.

        Returns:
            (B, N, D) float, and (B, N) bool, True where there is a sentence; zeros elsewhere.
        """
        found = _pick(self.sentence_rows, rows).long()
        mask = (found >= 0) & (rows >= 0).unsqueeze(1)
        return self._feature(_pick(self.sentences, found)) * mask.unsqueeze(2), mask

    def reports_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Features of reports (B, n, D) and a mask (B, n), for rows (B, n) int64; -1 for no report."""
        mask = rows >= 0
        return self._feature(_pick(self.reports, rows)) * mask.unsqueeze(2), mask

    def phrases_of(self, places: Tensor, present: Tensor) -> Tensor:
        """Features (B, E, D) of every entity at its place, for places (B, E) int64 and presence (B, E) bool."""
        entity = torch.arange(len(self.phrases), device=places.device)
        return self._feature(self.phrases[entity, places, present.long()])

    def save(self, path: Path) -> None:
        """Write the database to a file atomically."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        tensors["studies"], tensors["texts"] = _packed(self.studies), _packed(self.texts)
        with replacing(path) as beside:
            save_file(tensors, beside, {"format": _FORMAT, "encoder": self.encoder})

    @classmethod
    def load(cls, path: Path) -> "ReportDatabase":
        """Read a file that `save` wrote.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise UserError(f"{path}: field 'format' is not {_FORMAT}; build the index again.")
                tensors = {name: file.get_tensor(name) for name in (*_TENSORS, "studies", "texts")}
            studies, texts = _unpacked(tensors.pop("studies")), _unpacked(tensors.pop("texts"))
            return cls(**tensors, studies=studies, texts=texts, encoder=about.get("encoder", ""))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{path}: not a readable report database ({type(error).__name__}); copy the whole model folder again."
            ) from error

    def _feature(self, stored: Tensor) -> Tensor:
        # the model's own precision, which `entities` follow when the model is converted
        return stored.to(self.entities.dtype)


def _pick(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table, (...) int64; for -1 any of them, zeros where there is none."""
    return table[rows.clamp_min(0)] if len(table) else table.new_zeros(*rows.shape, *table.shape[1:])


def _packed(texts: Sequence[str]) -> Tensor:
    """Texts as a tensor of bytes, for a file that holds only tensors."""
    content: Any = bytearray(json.dumps(list(texts)).encode())
    return torch.frombuffer(content, dtype=torch.uint8).clone()


def _unpacked(stored: Tensor) -> tuple[str, ...]:
    return tuple(json.loads(stored.numpy().tobytes()))
