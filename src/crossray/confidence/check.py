"""The input check: whether images look like those that a model was trained on and, if not, why.

A flag has a name, a reason in one sentence, and a score above its limit. The limits are chosen on the validation split
so that each flag marks a given share of its images (`crossray.confidence.fitting`).

Shapes: N images, P pooled width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossray.confidence.density import Density
from crossray.confidence.heads import Head
from crossray.data.study import VIEW_POSITIONS

#: Names of the flags with a limit, in the order in which they are reported.
FLAGS: tuple[str, ...] = ("unfamiliar", "inverted", "rotated", "mirrored", "view", "no_frontal_view")

#: Flag of a color image, for which no other check is made.
NOT_A_RADIOGRAPH = "not_a_radiograph"

_LATERAL = VIEW_POSITIONS.index("lateral")


@dataclass(frozen=True)
class Flag:
    """A reason not to report the images of a study.

    Attributes:
        name: one of `FLAGS`, or `NOT_A_RADIOGRAPH`.
        reason: one sentence for the reader, with a remedy.
        score: score of the image; `limit`: score above which images are flagged. The score of `unfamiliar` is a
            distance relative to the distances within the training images; the others are probabilities.
        view: index of the view, counted from 0; None for the whole study.
    """

    name: str
    reason: str
    score: float
    limit: float
    view: int | None = None

    def __str__(self) -> str:
        """The reason."""
        return self.reason


@dataclass(frozen=True)
class InputCheck:
    """The result of the input check for one study.

    Attributes:
        flags: reasons not to report the study; empty if there are none.
        views: "frontal" or "lateral" for each view, according to the image; "" if the model cannot tell.
        scores: all scores of each view by name, flagged or not.
    """

    flags: tuple[Flag, ...]
    views: tuple[str, ...] = ()
    scores: tuple[Mapping[str, float], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the images have no flags."""
        return not self.flags

    def __str__(self) -> str:
        """The reasons, or a sentence that nothing is flagged."""
        return " ".join(str(flag) for flag in self.flags) or "Nothing speaks against these images."


@dataclass(frozen=True)
class InputChecker:
    """The input check of one model, stored in its folder (`crossray.confidence.folder`).

    Attributes:
        mean: (P,) mean of the training images' vectors; `deviation`: (P,) their standard deviation. The other parts
            take standardized vectors.
        density: density of the training images.
        rotation: classifier of 4 classes, quarter-turns clockwise; `inverted`, `mirrored`: of 2 classes, the second of
            which is the mistake.
        lateral: classifier of 2 classes, frontal and lateral; None if the training images have no known positions.
        limits: score above which an image is flagged, by flag; unreliable flags are missing.
        weights: SHA-256 of the weights of the model that the check belongs to.
        about: dataset and numbers of images.
        measured: false alarms and detection rates on the validation split, as JSON values.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    density: Density
    rotation: Head
    inverted: Head
    mirrored: Head
    lateral: Head | None
    limits: Mapping[str, float]
    weights: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, vectors: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Score images independently of each other.

        Args:
            vectors: (N, P) pooled vectors of the encoder.

        Returns:
            Arrays (N,) by name: "unfamiliar" (distance), "inverted", "rotated", "turns" (the most probable number of
            quarter-turns clockwise, if rotated), "mirrored" (0 for lateral views, where it cannot be recognized), and
            "lateral" unless that classifier is None.
        """
        standard = (vectors - self.mean) / self.deviation
        turns = self.rotation.probabilities(standard)
        found = {
            "unfamiliar": self.density.distance(standard),
            "inverted": self.inverted.probabilities(standard)[:, 1],
            "rotated": 1 - turns[:, 0],
            "turns": 1 + turns[:, 1:].argmax(axis=1).astype(np.float64),
            "mirrored": self.mirrored.probabilities(standard)[:, 1],
        }
        if self.lateral is not None:
            found["lateral"] = self.lateral.probabilities(standard)[:, 1]
            found["mirrored"] = np.where(found["lateral"] < 0.5, found["mirrored"], 0.0)
        return found

    def check(self, vectors: NDArray[np.floating], positions: Sequence[int] = ()) -> InputCheck:
        """Check the views of one study.

        Args:
            vectors: (V, P) pooled vectors of its views.
            positions: positions according to the files, as indices into `VIEW_POSITIONS`; empty if unknown.
        """
        scores = self.scores(vectors)
        flags = [
            flag for view in range(len(vectors))
            for flag in self._flags({name: float(values[view]) for name, values in scores.items()}, view, positions)
        ]  # fmt: skip
        looks: tuple[str, ...] = ("",) * len(vectors)
        if "lateral" in scores:
            looks = tuple("lateral" if one >= 0.5 else "frontal" for one in scores["lateral"])
            least, limit = float(scores["lateral"].min()), self.limits.get("no_frontal_view", math.inf)
            if least > limit:
                reason = "No view looks frontal: the model was trained on reports of studies with a frontal view."
                flags.append(Flag("no_frontal_view", reason, least, limit))
        each = tuple({name: float(values[view]) for name, values in scores.items()} for view in range(len(vectors)))
        return InputCheck(tuple(flags), looks, each)

    def _flags(self, scores: Mapping[str, float], view: int, positions: Sequence[int]) -> list[Flag]:
        """Return the flags of one view."""
        name = f"View {view + 1}"
        degrees = 90 * int(scores["turns"])
        reasons = {
            "unfamiliar": f"{name} is unlike the radiographs that the model was trained on: it may not be a chest, or "
            "not a radiograph.",
            "inverted": f"{name} looks inverted, with bright air and dark bones: swap black and white.",
            "rotated": f"{name} looks rotated by {degrees} degrees clockwise: turn it upright.",
            "mirrored": f"{name} looks mirrored: left and right seem to be swapped.",
        }
        found = [
            Flag(flag, reason, scores[flag], self.limits[flag], view)
            for flag, reason in reasons.items()
            if scores[flag] > self.limits.get(flag, math.inf)
        ]
        said = positions[view] if view < len(positions) else 0
        if said and "lateral" in scores and "view" in self.limits:
            other = opposite(scores["lateral"], said)
            if other > self.limits["view"]:
                look, claim = ("frontal", "lateral") if said == _LATERAL else ("lateral", "frontal")
                reason = f"{name} looks {look}, but its file says {claim}: check which view it is."
                found.append(Flag("view", reason, other, self.limits["view"], view))
        return found


def opposite(lateral: float, said: int) -> float:
    """Return the probability that a view, frontal or lateral, is not what its file says.

    Args:
        lateral: probability that the view is lateral.
        said: position according to the file, as an index into `VIEW_POSITIONS` other than 0.
    """
    return 1 - lateral if said == _LATERAL else lateral
