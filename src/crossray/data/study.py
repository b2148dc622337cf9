"""Records of studies and views, as sources yield them before a dataset is prepared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

#: View positions, indexed by their code in `Inputs.view_position`. "frontal" is a frontal view of unknown direction.
VIEW_POSITIONS: tuple[str, ...] = ("unknown", "frontal", "pa", "ap", "lateral")


@dataclass(frozen=True, slots=True)
class FindingMask:
    """A finding drawn in a view, with its mask (phantom only).

    Attributes:
        finding: name from the phantom's catalog, in snake_case.
        side: patient's side: "left", "right", "bilateral" or "".
        place: anatomical place such as "upper_lobe", or "".
        degree: "minimal", "mild", "moderate", "severe" or "".
        status: "positive" or "uncertain" (drawn faintly).
        height: rows of the mask; `width`: its columns.
        runs: run lengths of the mask in row-major order, starting with the number of zeros.
    """

    finding: str
    side: str
    place: str
    degree: str
    status: str
    height: int
    width: int
    runs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The pixels of one view, (H, W) uint8 gray-scale, and the findings drawn in them (phantom only).

    `warnings` are sentences about the source file; each begins with the name of a field.
    """

    pixels: NDArray[np.uint8]
    findings: tuple[FindingMask, ...] = ()
    warnings: tuple[str, ...] = ()


class ImageRef(Protocol):
    """A view that can be read: a file or a drawing. Instances are picklable, so that workers can read them."""

    @property
    def position(self) -> str:
        """One of `VIEW_POSITIONS`."""

    @property
    def name(self) -> str:
        """Name of the view in messages: a path, or the identifier of a drawing; never patient data."""

    def read(self, size: int) -> View:
        """Read the view and resize it to a short side of `size` pixels, preserving the aspect ratio.

        Raises:
            UserError: the image cannot be read; the dataset writer then rejects the study with this reason.
        """


@dataclass(frozen=True)
class Study:
    """One imaging study: its views and its report.

    Attributes:
        id: unique within the source.
        patient: identifier of the patient; equal to `id` if the source has none.
        split: official split, or the one that the source assigned.
        findings: uncleaned text of the findings section; "" if absent.
        impression: text of the impression section; "" if absent.
        indication: text of the indication; "" if absent.
        images: the views in the order of the source.
        labels: status by observation name (`crossray.text.observations.OBSERVATIONS`); missing observations are blank.
            None if the source has no labels.
        extra: source-specific values that are stored as JSON with the study, such as MeSH tags.
        refusal: filter step and reason if the source rejects the study; the dataset lists both.
    """

    id: str
    patient: str
    split: Split
    findings: str
    impression: str = ""
    indication: str = ""
    images: tuple[ImageRef, ...] = ()
    labels: Mapping[str, str] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    refusal: tuple[str, str] | None = None
