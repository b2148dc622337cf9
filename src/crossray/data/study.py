"""The records that everything upstream of the prepared dataset speaks: a study and its views."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

#: View positions by their code in `Inputs.view_position`. "frontal" is a frontal view of unknown direction.
VIEW_POSITIONS: tuple[str, ...] = ("unknown", "frontal", "pa", "ap", "lateral")


@dataclass(frozen=True, slots=True)
class FindingMask:
    """One finding drawn into one view, with its place in the picture.

    Attributes:
        finding: name from the phantom's catalogue, snake_case.
        side: "left", "right", "bilateral" or "" (patient's side).
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
    """The pixels of one view, (H, W) uint8 grey, and what is known to be drawn in them (phantom only).

    `warnings` are sentences about the file that it came from; each begins with the field that is odd.
    """

    pixels: NDArray[np.uint8]
    findings: tuple[FindingMask, ...] = ()
    warnings: tuple[str, ...] = ()


class ImageRef(Protocol):
    """A view that can be read: a file, or a drawing. Instances are picklable, so that workers can read them."""

    @property
    def position(self) -> str:
        """One of `VIEW_POSITIONS`."""

    @property
    def name(self) -> str:
        """What an error message calls this view: a path, or a drawing's identifier. Never patient data."""

    def read(self, size: int) -> View:
        """The view with its short side `size` pixels long, aspect ratio kept.

        Raises:
            UserError: the image cannot be read; the writer of the dataset quarantines the study with this reason.
        """


@dataclass(frozen=True)
class Study:
    """One examination: its views and its report.

    Attributes:
        id: unique within the source.
        patient: patient identifier; equal to `id` where the source has none.
        split: official split, or the one the source drew.
        findings: text of the findings section as in the source, uncleaned; "" when absent.
        impression: text of the impression section; "" when absent.
        indication: text of the indication; "" when absent.
        images: the views, in the source's order.
        labels: observation name (`crossray.text.observations.OBSERVATIONS`) -> status; observations left out are blank.
            None when the source has no labels.
        extra: source-specific values that are stored as JSON beside the study (for instance undrawn MeSH tags).
        refusal: filter step and reason for which the source itself leaves the study out; the writer lists it.
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
