"""A backbone that reads the drawn findings of phantom images instead of the images.

It separates errors of the decoder from those of the encoder: a collapse that persists with these features is due to the
decoder; one that disappears is due to the encoder.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossray.data.batches.batch import Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.models.parts.backbones import Backbone, BackboneConfig
from crossray.models.parts.networks import FAMILIES
from crossray.phantom.catalogue import ANY_SIDE, CATALOGUE
from crossray.phantom.scene import DEGREES

#: The name of this backbone (`BackboneConfig.name`).
ORACLE = "oracle:findings"
#: Name of the feature.
FINDINGS = "findings"
#: Number of slots per view, each with one token; more than the number of findings in any drawn view.
SLOTS = 24

_PLACES = sorted({place for kind in CATALOGUE.values() for place in kind.places})
#: The values of each column of the table. Code 0 is an empty slot and, in all columns but the first, also "".
_WORDS: dict[str, tuple[str, ...]] = {
    "finding": tuple(CATALOGUE), "side": ANY_SIDE, "place": tuple(_PLACES), "degree": DEGREES,
    "status": ("positive", "uncertain"),
}  # fmt: skip


class DrawnFindings(FeatureCache):
    """The drawn findings of every image of a dataset as cached features: (SLOTS, 5) int16 codes per image.

    Args:
        dataset: drawn images.

    Raises:
        UserError: its images are not drawn.
    """

    def __init__(self, dataset: Dataset) -> None:
        table = dataset.findings()
        if table is None:
            raise UserError(
                f"{dataset.path}: recipe field 'model.backbone.name' is {ORACLE}, which reads what is drawn, and these "
                "images are not drawn; use `crossray prepare phantom`, or another backbone."
            )
        codes = np.zeros((1, dataset.images, SLOTS, len(_WORDS)), np.int16)
        images = dataset.first_image[table.column("study").to_numpy()] + table.column("view").to_numpy()
        if int(np.bincount(images, minlength=1).max()) > SLOTS:
            raise UserError(
                f"{dataset.path}: a view has more than {SLOTS} findings, too many for {ORACLE}; draw fewer."
            )
        columns = [
            [0 if word == "" else 1 + words.index(word) for word in table.column(name).to_pylist()]
            for name, words in _WORDS.items()
        ]
        taken = np.zeros(dataset.images, np.int64)
        for image, finding in zip(images, np.array(columns).T, strict=True):
            codes[0, image, taken[image]] = finding
            taken[image] += 1
        super().__init__(dataset.path, 1, {FINDINGS: codes})

    def __reduce__(self) -> tuple[Any, ...]:
        return _drawn_findings, (self.path,)


def _drawn_findings(path: Path) -> DrawnFindings:
    return DrawnFindings(Dataset.open(path))


class FindingEmbedding(nn.Module):
    """Maps each drawn finding to a token: the sum of the embeddings of its name, side, place, degree and status.

    Args:
        width: channels C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        fields = {"model_type": "oracle", "width": width}
        self.config = SimpleNamespace(**fields, to_dict=lambda: dict(fields))
        self.columns = nn.ModuleList(nn.Embedding(len(words) + 1, width) for words in _WORDS.values())

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (..., SLOTS, 5) -> tokens (..., SLOTS, C), equal for all empty slots, and their sum (..., C)."""
        codes = codes.long()
        tokens = torch.stack([embed(codes[..., index]) for index, embed in enumerate(self.columns)]).sum(dim=0)
        there = codes[..., :1] > 0
        return tokens, (tokens * there).sum(dim=-2)


def refuse_images() -> UserError:
    """The error for images without drawn findings."""
    return UserError(f"backbone '{ORACLE}' reads what is drawn and cannot see images; give drawn studies with --data.")


@FAMILIES.register("oracle")
class OracleBackbone(Backbone):
    """Uses one token per drawn finding of a view; the pooled vector is their sum. It is always trainable."""

    placed = False

    model_type = "oracle"

    def __init__(self, network: nn.Module, config: BackboneConfig) -> None:
        super().__init__(network, replace(config, trainable=True))

    @classmethod
    def load(cls, name: str) -> nn.Module:
        """Create random embeddings; the only valid name is "findings"."""
        if f"oracle:{name}" != ORACLE:
            raise UserError(f"backbone 'oracle:{name}' does not exist; write {ORACLE}.")
        return FindingEmbedding(256)

    @classmethod
    def build(cls, architecture: dict[str, Any]) -> nn.Module:
        """Create random embeddings."""
        return FindingEmbedding(**architecture)

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return int(self.network.columns[0].embedding_dim)

    def tokens(self, size: int) -> int:
        """The maximum number of findings in a view."""
        return SLOTS

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Not supported: the backbone does not use images.

        Raises:
            UserError: always.
        """
        raise refuse_images()

    def views(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Tokens (B, V, S, C) and pooled vectors (B, V, C) of all views, zero for missing views."""
        if FINDINGS not in inputs.features:
            raise refuse_images()
        tokens, pooled = self.network(inputs.features[FINDINGS])
        missing = ~inputs.view_mask.unsqueeze(-1)
        return tokens.masked_fill(missing.unsqueeze(-1), 0.0), pooled.masked_fill(missing, 0.0)

    def cached_features(self, dataset: Dataset) -> FeatureCache | None:
        """The drawn findings."""
        return DrawnFindings(dataset)
