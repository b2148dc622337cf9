"""Fits the input check of a model on its own training images, and chooses its limits on the validation split.

Training images are used unchanged, and some of them again in a random pose. The density of familiar images is estimated
from the former; the classifiers of rotation, inversion and mirroring are trained on the latter, and that of the view on
both. No other images are needed.
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

#: Maximum number of training studies to use, drawn at random.
MOST_STUDIES = 2500

#: Maximum number of training images to use in a random pose, for which no features are cached.
POSED = 2000

#: Maximum number of validation images to use for each mistake.
TRIED = 200

#: Share of the validation images that each flag may mark by mistake, by default.
FALSE_ALARMS = 0.01

#: Minimum AUROC of a flag on validation images with its mistake; a flag below it is omitted, because it would reject
#: good images without detecting bad ones.
LEAST_AREA = 0.9

#: Minimum standard deviation of a channel, relative to the median over channels.
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
    """Fit the input check of a model.

    Args:
        model: model in eval mode on its device, with its transform.
        dataset: dataset with the training images of the check.
        split: split on which the limits are chosen; it is not used for training.
        false_alarms: share of the images of `split` that each flag may mark.
        weights: SHA-256 of the model's weights.
        seed: random seed of the selected studies and the poses.
        progress: called with the number of finished and of all images.

    Raises:
        UserError: `false_alarms` cannot be measured with the split, or scikit-learn is not installed.
    """
    tried = held_images(model, dataset, split, false_alarms)
    random = np.random.default_rng(seed)
    source = _Source(model, dataset, progress)
    rows, held = dataset.rows("train"), dataset.rows(split)
    rows = np.sort(random.permutation(rows)[:MOST_STUDIES])
    images = source.images(rows)
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


def held_images(model: ReportModel, dataset: Dataset, split: str, false_alarms: float) -> NDArray[np.int64]:
    """Return the image rows of the views of a split, as many per study as the model takes.

    Raises:
        UserError: `false_alarms` cannot be measured with so few images.
    """
    images = _Source(model, dataset, None).images(dataset.rows(split))
    if not 1 / len(images) <= false_alarms < 0.5:
        raise UserError(
            f"--false-alarms {false_alarms}: with {len(images)} images in split '{split}', it can be "
            f"{1 / len(images):.4f} to 0.5; give a share in this range."
        )
    return images


def learn(
    plain: Vectors,
    positions: NDArray[np.int64],
    posed: Vectors,
    posed_positions: NDArray[np.int64],
    poses: Sequence[Pose],
) -> InputChecker:
    """Train a checker without limits.

    Args:
        plain: (N, P) vectors of unchanged images.
        positions: (N,) their positions, as indices into `VIEW_POSITIONS`.
        posed: (M, P) vectors of images in `poses`.
        posed_positions: (M,) their positions, as indices into `VIEW_POSITIONS`.
        poses: pose of each of the M images.
    """
    mean, spread = plain.mean(axis=0), plain.std(axis=0)
    # a channel that is constant in the training images must not dominate the distance
    deviation = np.maximum(spread, max(LEAST_SPREAD * float(np.median(spread)), 1e-6)).astype(np.float32)
    standard, turned = (plain - mean) / deviation, (posed - mean) / deviation
    side, posed_side = (np.asarray(one == _LATERAL, np.int64) for one in (positions, posed_positions))
    known, posed_known = positions > 0, posed_positions > 0
    told = len(np.unique(side[known])) == 2
    one_sided = ~(posed_known & (posed_side == 1))  # a mirrored lateral view is a valid lateral view
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
    """Return the scores of good images by flag, on which the limits are chosen; no "view" without known positions.

    Args:
        checker: checker; its limits are not used.
        vectors: (N, P) vectors of the images.
        positions: (N,) their positions, as indices into `VIEW_POSITIONS`.
        study: (N,) index of each image's study, counted from 0.
    """
    scores = checker.scores(vectors)
    good = {name: scores[name] for name in ("unfamiliar", "inverted", "rotated")}
    good["mirrored"] = scores["mirrored"][positions != _LATERAL]  # lateral views always score 0
    if "lateral" in scores:
        said = np.flatnonzero(positions > 0)
        if len(said):
            good["view"] = np.array([opposite(scores["lateral"][row], int(positions[row])) for row in said])
        good["no_frontal_view"] = np.full(int(study.max()) + 1, 1.0)
        np.minimum.at(good["no_frontal_view"], study, scores["lateral"])
    return good


def limit(flag: str, scores: NDArray[np.float64], false_alarms: float) -> float:
    """Return the smallest score that at most the share `false_alarms` exceeds; for probabilities, at least 0.5."""
    ordered = np.sort(scores)[::-1]
    found = float(ordered[int(false_alarms * len(ordered))])
    return found if flag == "unfamiliar" else max(found, 0.5)


@dataclass(frozen=True)
class _Tried:
    """Validation images with one mistake.

    Attributes:
        flag: flag that should be raised.
        scores: scores of the images, by flag.
        area: AUROC of the flag's score for these images against good ones.
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
        """Score vectors (N, P) of images in a pose; of mirrored ones, only those not lateral by `positions` (N,)."""
        flag = "inverted" if pose.inverted else "mirrored" if pose.mirrored else "rotated"
        if pose.mirrored:
            vectors = vectors[positions != _LATERAL]
        scores = checker.scores(vectors)
        told = np.concatenate([good[flag], scores[flag]])
        wrong = np.arange(len(told)) >= len(good[flag])
        return cls(flag, scores, auroc(torch.from_numpy(told), torch.from_numpy(wrong)) or 0.0)

    def described(self, limits: Mapping[str, float]) -> dict[str, float]:
        """Return the number of images, the AUROC, and the shares that the right flag and any flag mark."""
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
    """Computes vectors of a dataset's images and reports the progress."""

    model: ReportModel
    dataset: Dataset
    progress: Progress | None
    total: int = 0
    done: int = 0

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the image rows of the views of studies, as many per study as the model takes."""
        most = self.model.config.views
        return np.array([view for row in rows.tolist() for view in self.dataset.views(row)[:most]], np.int64)

    def studies(self, rows: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.int64]]:
        """Return the vectors of the studies' views, and the positions of the views."""
        parts = []
        for vectors, positions in pooled_of_studies(self.model, self.dataset, rows):
            parts.append((vectors, positions))
            self._count(len(vectors))
        return np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])

    def posed(self, images: NDArray[np.int64], poses: Sequence[Pose]) -> Vectors:
        """Return the vectors of images in poses."""
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
