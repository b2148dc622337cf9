"""Learns the input check of a model from its own training images, and chooses its limits on the validation split.

Training images are used as they are, and some of them again in a random pose. The familiar distribution is learned from
the former, orientation, inversion and mirroring from the latter, and frontal or lateral from both. No other images are
needed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.confidence.check import InputChecker, opposite
from crossray.confidence.density import fit_density
from crossray.confidence.features import Vectors, pooled_of_images, pooled_of_studies
from crossray.confidence.heads import fit_head
from crossray.confidence.poses import MISTAKES, Pose, draw_poses
from crossray.data.store import Dataset
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError
from crossray.models.base import ReportModel
from crossray.models.pretraining.vision import auroc

#: Maximum number of training studies, drawn at random.
MOST_STUDIES = 2500

#: Maximum number of training images in a random pose, for which there are no cached features.
POSED = 2000

#: Maximum number of validation images for each mistake.
TRIED = 200

#: Share of the validation images that each flag may mark by mistake.
FALSE_ALARMS = 0.01

#: Minimum area under the ROC curve of a flag on validation images with a mistake; a flag that cannot detect the mistake
#: would reject good images for no reason.
LEAST_AREA = 0.9

#: Minimum deviation of a channel, relative to the median.
LEAST_SPREAD = 0.1

_LATERAL = VIEW_POSITIONS.index("lateral")

Progress = Callable[[int, int], None]


def fit_check(
    model: ReportModel,
    dataset: Dataset,
    *,
    split: str = "val",
    false_alarms: float = FALSE_ALARMS,
    weights: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> InputChecker:
    """Learn the input check.

    Args:
        model: model in evaluation mode on its device, with its transform.
        dataset: dataset from whose training images the check is learned.
        split: split that determines the limits and is not used for learning.
        false_alarms: share of the images of `split` that each flag may mark.
        weights: SHA-256 of the model's weights.
        seed: random seed of the studies and poses.
        progress: called with images done and images in all.

    Raises:
        UserError: `false_alarms` cannot be measured with the split, or scikit-learn is not installed.
    """
    random = np.random.default_rng(seed)
    source = _Source(model, dataset, progress)
    rows, held = dataset.rows("train"), dataset.rows(split)
    rows = np.sort(random.permutation(rows)[:MOST_STUDIES])
    images, tried = source.images(rows), source.images(held)
    if not 1 / len(tried) <= false_alarms < 0.5:
        raise UserError(
            f"--false-alarms {false_alarms}: with {len(tried)} images in split '{split}', it can be "
            f"{1 / len(tried):.4f} "
            "to 0.5; give a share in this range."
        )
    few = np.sort(random.permutation(tried)[:TRIED])
    turned = np.sort(random.permutation(len(images))[:POSED])
    poses = draw_poses(len(turned), random)
    source.total = len(images) + len(turned) + len(tried) + len(MISTAKES) * len(few)
    plain, positions = source.studies(rows)
    posed = source.posed(images[turned], poses)
    checker = replace(learn(plain, positions, posed, positions[turned], poses), weights=weights)
    vectors, claims = source.studies(held)
    study = np.repeat(np.arange(len(held)), [len(source.images(held[[place]])) for place in range(len(held))])
    good = good_scores(checker, vectors, claims, study)
    bad = {
        name: _Tried.of(checker, pose, good, source.posed(few, [pose] * len(few)), dataset.image_positions[few])
        for name, pose in MISTAKES.items()
    }
    unsure = {tried.flag for tried in bad.values() if tried.area < LEAST_AREA}
    limits = {name: limit(name, values, false_alarms) for name, values in good.items() if name not in unsure}
    checker = replace(checker, limits=limits)
    flagged = [
        not checker.check(vectors[study == place], claims[study == place].tolist()).ok for place in range(len(held))
    ]
    measured = {
        "false_alarms": {name: float((good[name] > limits[name]).mean()) for name in limits},
        "studies_flagged": float(np.mean(flagged)),
        "mistakes": {name: tried.described(limits) for name, tried in bad.items()},
    }
    about = {
        "data_sha256": dataset.info.sha256,
        "training_images": len(images),
        "split": split,
        "studies": len(held),
        "images": len(tried),
        "images_tried": len(few),
        "allowed_false_alarms": false_alarms,
    }
    return replace(checker, measured=measured, about=about)


def learn(
    plain: Vectors,
    positions: NDArray[np.int64],
    posed: Vectors,
    posed_positions: NDArray[np.int64],
    poses: Sequence[Pose],
) -> InputChecker:
    """A checker without limits.

    Args:
        plain: (N, P) vectors of images as they are.
        positions: (N,) codes of `VIEW_POSITIONS`.
        posed: (M, P) vectors of images in `poses`.
        posed_positions: (M,) codes of theirs.
        poses: M of them.
    """
    mean, spread = plain.mean(axis=0), plain.std(axis=0)
    # a channel that no training image moves must not decide alone, as soon as another one does
    deviation = np.maximum(spread, max(LEAST_SPREAD * float(np.median(spread)), 1e-6)).astype(np.float32)
    standard, turned = (plain - mean) / deviation, (posed - mean) / deviation
    side, posed_side = (np.asarray(one == _LATERAL, np.int64) for one in (positions, posed_positions))
    known, posed_known = positions > 0, posed_positions > 0
    told = len(np.unique(side[known])) == 2
    one_sided = ~(posed_known & (posed_side == 1))  # a lateral view is as right from either side
    inverted, mirrored, turns = np.array([(pose.inverted, pose.mirrored, pose.turns) for pose in poses]).T
    both = np.concatenate([standard[known], turned[posed_known]])
    return InputChecker(
        mean=mean,
        deviation=deviation,
        density=fit_density(standard, side if told else np.zeros_like(side)),
        rotation=fit_head(turned, turns),
        inverted=fit_head(turned, inverted),
        mirrored=fit_head(turned[one_sided], mirrored[one_sided]),
        lateral=fit_head(both, np.concatenate([side[known], posed_side[posed_known]])) if told else None,
        limits={},
    )


def good_scores(
    checker: InputChecker, vectors: Vectors, positions: NDArray[np.int64], study: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Scores, by flag, of images that are as they should be: what limits are chosen on.

    Args:
        checker: limits do not matter.
        vectors: (N, P).
        positions: (N,) codes of `VIEW_POSITIONS`.
        study: (N,) number of each image's study, from 0.
    """
    scores = checker.scores(vectors)
    good = {name: scores[name] for name in ("unfamiliar", "inverted", "rotated")}
    good["mirrored"] = scores["mirrored"][positions != _LATERAL]  # of lateral ones it is 0, which would look easy
    if "lateral" in scores:
        said = np.flatnonzero(positions > 0)
        good["view"] = np.array([opposite(scores["lateral"][row], int(positions[row])) for row in said])
        good["no_frontal_view"] = np.full(int(study.max()) + 1, 1.0)
        np.minimum.at(good["no_frontal_view"], study, scores["lateral"])
    return good


def limit(flag: str, scores: NDArray[np.float64], false_alarms: float) -> float:
    """The smallest of the scores above which at most this share of them lies; of a probability at least one half."""
    ordered = np.sort(scores)[::-1]
    found = float(ordered[int(false_alarms * len(ordered))])
    return found if flag == "unfamiliar" else max(found, 0.5)


@dataclass(frozen=True)
class _Tried:
    """Validation images with one mistake.

    Attributes:
        flag: the flag that should be raised.
        scores: scores of the images, by flag.
        area: how well the flag's score tells them from images that are as they should be (AUROC).
    """

    flag: str
    scores: Mapping[str, NDArray[np.float64]]
    area: float

    @classmethod
    def of(
        cls,
        checker: InputChecker,
        pose: Pose,
        good: Mapping[str, NDArray[np.float64]],
        vectors: Vectors,
        positions: NDArray[np.int64],
    ) -> "_Tried":
        """Score images (N, P) in this pose; of mirrored ones those that are not lateral, by their positions (N,)."""
        flag = "inverted" if pose.inverted else "mirrored" if pose.mirrored else "rotated"
        if pose.mirrored:
            vectors = vectors[positions != _LATERAL]
        scores = checker.scores(vectors)
        told = np.concatenate([good[flag], scores[flag]])
        wrong = np.arange(len(told)) >= len(good[flag])
        return cls(flag, scores, auroc(torch.from_numpy(told), torch.from_numpy(wrong)) or 0.0)

    def described(self, limits: Mapping[str, float]) -> dict[str, float]:
        """Number of images, area, and the shares that the own flag and any flag mark."""
        marked = {name: self.scores[name] > limits[name] for name in limits if name in self.scores}
        none = np.zeros(len(self.scores[self.flag]), np.bool_)
        return {
            "images": len(none),
            "auroc": self.area,
            "named": float(marked.get(self.flag, none).mean()),
            "flagged": float(np.any([none, *marked.values()], axis=0).mean()),
        }


@dataclass
class _Source:
    """Vectors of a dataset's images, and how far the work is."""

    model: ReportModel
    dataset: Dataset
    progress: Progress | None
    total: int = 0
    done: int = 0

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Image rows of the views that the model takes of some studies."""
        most = self.model.config.views
        return np.array([view for row in rows.tolist() for view in self.dataset.views(row)[:most]], np.int64)

    def studies(self, rows: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.int64]]:
        """Vectors of their views, and the views' positions."""
        parts = []
        for vectors, positions in pooled_of_studies(self.model, self.dataset, rows):
            parts.append((vectors, positions))
            self._count(len(vectors))
        return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])

    def posed(self, images: NDArray[np.int64], poses: Sequence[Pose]) -> Vectors:
        """Vectors of images in poses."""
        parts = []
        for vectors in pooled_of_images(self.model, self._turned(images, poses)):
            parts.append(vectors)
            self._count(len(vectors))
        return np.concatenate(parts)

    def _turned(self, images: NDArray[np.int64], poses: Sequence[Pose]) -> Iterator[NDArray[np.uint8]]:
        for image, pose in zip(images.tolist(), poses, strict=True):
            yield pose(self.dataset.image(image))

    def _count(self, more: int) -> None:
        self.done += more
        if self.progress is not None:
            self.progress(self.done, self.total)
