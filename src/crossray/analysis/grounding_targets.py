"""The targets of `crossray.analysis.grounding` on a phantom dataset, and the maps of priors.

Shapes: G cells along a side of a map, R pixels along a side of a mask, V views.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.analysis.attention import ReportAttention, attend_reports
from crossray.analysis.grounding import Grounding, Map, Mask, Prior, Target, cell_means, score
from crossray.analysis.inputs import collator_of, transform_of
from crossray.data.batches.batch import guide_of
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError
from crossray.models.base import ReportModel
from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.draw import frame_of
from crossray.phantom.frontal import draw_frontal
from crossray.phantom.lateral import draw_lateral
from crossray.phantom.layout import lay_out
from crossray.phantom.masks import decode_runs
from crossray.phantom.sample import sample_scene
from crossray.text.observations import label_report

#: Side length of a mask in the model's square image, in pixels.
RESOLUTION = 224
#: Statuses of an observation that a report states.
STATED = ("positive", "uncertain")
#: Number of healthy patients whose lungs are averaged, and the size of their images.
LUNGS, LUNG_SIZE = 48, 64
#: Standard deviation of the center prior, relative to the side length.
CENTRE_SPREAD = 0.25

_VIEWS: tuple[Literal["frontal", "lateral"], ...] = ("frontal", "lateral")

Progress = Callable[[int, int], None]


class DrawnFindings:
    """The places of the drawn findings of a phantom dataset, in the model's image.

    Args:
        dataset: dataset with drawn findings.
        transform: image transform of the model; masks are cropped and scaled like images in evaluation.

    Raises:
        UserError: the dataset has no findings.
    """

    def __init__(self, dataset: Dataset, transform: ImageTransform) -> None:
        table = dataset.findings()
        if table is None:
            raise UserError(
                f"{dataset.path}: findings.parquet is missing, so the places of its findings are unknown; give a "
                "dataset of `crossray prepare phantom`."
            )
        self._dataset, self._transform, self._table = dataset, transform, table
        self._entries: defaultdict[tuple[int, int], list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
        columns = (table.column(name).to_pylist() for name in ("study", "view", "finding"))
        for entry, (study, view, finding) in enumerate(zip(*columns, strict=True)):
            self._entries[study, view].append((entry, CATALOGUE[finding].observations))

    def mask(self, row: int, view: int, observation: str) -> Mask | None:
        """Mask (R, R) of an observation's findings in a view; None if the view shows none.

        Args:
            row: row of the study in the dataset.
            view: index of the view within the study.
            observation: one of `OBSERVATIONS`.
        """
        masks = [
            self._decoded(entry) for entry, observations in self._entries[row, view] if observation in observations
        ]
        if not masks:
            return None
        seen: Mask = in_square(np.any(masks, axis=0), self._transform)
        return seen if seen.any() else None

    def usual_places(self, observations: Collection[str]) -> dict[tuple[str, str], Map]:
        """Mean mask (R, R) by observation and view over the training studies that show it."""
        sums: dict[tuple[str, str], Map] = {}
        for row in self._dataset.rows("train").tolist():
            for view, position in enumerate(self._dataset.record(row).positions):
                drawn = {name for _, names in self._entries[row, view] for name in names}
                for observation in drawn.intersection(observations):
                    mask = self.mask(row, view, observation)
                    if mask is not None:
                        key = observation, view_name(position)
                        sums[key] = sums.get(key, np.zeros(mask.shape)) + mask
        return {key: total / total.max() for key, total in sums.items()}

    def _decoded(self, entry: int) -> Mask:
        values = {name: self._table.column(name)[entry].as_py() for name in ("runs", "height", "width")}
        return decode_runs(values["runs"], values["height"], values["width"])


def ground(
    model: ReportModel,
    decoding: DecodingConfig,
    dataset: Dataset,
    split: str,
    *,
    batch_size: int = 16,
    resamples: int = 1000,
    progress: Progress | None = None,
) -> Grounding:
    """Score a model's attention on a split of a phantom dataset; see `find_targets` and `grounding.score`."""
    targets = find_targets(model, decoding, dataset, split, batch_size=batch_size, progress=progress)
    transform = transform_of(model)
    cells = len(targets[0].attention) if targets else 1
    usual = DrawnFindings(dataset, transform).usual_places({target.observation for target in targets})
    return score(targets, len(dataset.rows(split)), priors(cells, transform, usual), resamples=resamples)


def find_targets(
    model: ReportModel,
    decoding: DecodingConfig,
    dataset: Dataset,
    split: str,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> list[Target]:
    """Generate the reports of a split, and find the drawn findings that they state.

    Args:
        model: model with tokenizer and image transform, on its device.
        decoding: the decoding settings.
        dataset: a phantom dataset.
        split: "train", "val" or "test".
        batch_size: number of studies per batch.
        progress: called with the number of finished and of all studies.

    Raises:
        UserError: the dataset has no findings or no such split, or the system has no attention over the image.
    """
    drawn = DrawnFindings(dataset, transform_of(model))
    rows = dataset.rows(split)
    collator = collator_of(model, dataset)
    device = next(model.parameters()).device
    targets: list[Target] = []
    for first in range(0, len(rows), batch_size):
        chosen = rows[first : first + batch_size]
        names = dataset.ids(chosen)
        guide = guide_of(names) if split == "train" else None
        found = attend_reports(model, collator.inputs(chosen).to(device), decoding, names, guide)
        for number, attention in enumerate(found):
            row = int(chosen[number])
            mask_of = partial(drawn.mask, row)
            targets += targets_of(attention, first + number, dataset.record(row).positions, mask_of)
        if progress is not None:
            progress(min(first + batch_size, len(rows)), len(rows))
    return targets


def targets_of(
    attention: ReportAttention,
    study: int,
    positions: Sequence[str],
    mask_of: Callable[[int, str], Mask | None],
) -> list[Target]:
    """The targets of one study.

    Args:
        attention: report and attention of the study.
        study: index of the study.
        positions: positions of its views.
        mask_of: returns the mask of an observation, given the index of a view; None if the view does not show it.
    """
    words: defaultdict[str, set[int]] = defaultdict(set)
    for piece in label_report(attention.text).evidence:
        if piece.status in STATED:
            words[piece.observation].update(attention.words_within(piece.start, piece.end))
    targets = []
    for observation, numbers in words.items():
        # mean over words and layers: (V, G, G)
        maps = attention.weights[sorted(numbers)].mean(axis=(0, 1))
        for view in np.flatnonzero(attention.view_mask).tolist():
            mask = mask_of(view, observation)
            if mask is not None:
                total = maps[view].sum()
                share = maps[view] / total if total > 0 else np.full_like(maps[view], 1 / maps[view].size)
                targets.append(Target(study, observation, view_name(positions[view]), mask, share))
    return targets


def view_name(position: str) -> str:
    """Either "frontal" or "lateral", for one of `VIEW_POSITIONS`."""
    return "lateral" if position == "lateral" else "frontal"


def in_square(pixels: NDArray[Any], transform: ImageTransform, side: int = RESOLUTION) -> NDArray[Any]:
    """Resample values (H, W) of a stored view to the square that a model sees in evaluation: (side, side)."""
    size = torch.tensor([pixels.shape])
    top, left, bottom, right = transform.window(size)[0].tolist()
    steps = (np.arange(side) + 0.5) / side
    rows = ((top + steps * (bottom - top)) * pixels.shape[0]).astype(int)
    columns = ((left + steps * (right - left)) * pixels.shape[1]).astype(int)
    shown: NDArray[Any] = pixels[rows[:, None], columns]
    return shown


def priors(cells: int, transform: ImageTransform, usual: Mapping[tuple[str, str], Map]) -> dict[str, Prior]:
    """Maps (cells, cells) that do not use the image, by name.

    Args:
        cells: number of cells along a side of the model's grid.
        transform: image transform of the model.
        usual: result of `DrawnFindings.usual_places`.
    """
    lungs = {view: cell_means(mean_lungs(view, transform), cells) for view in _VIEWS}
    places = {key: cell_means(value, cells) for key, value in usual.items()}
    across = (np.arange(cells) + 0.5) / cells - 0.5
    bell = np.exp(-0.5 * (across / CENTRE_SPREAD) ** 2)
    centre = np.outer(bell, bell)
    even = np.ones((cells, cells))
    return {
        "everywhere alike": lambda target: even,
        "centre": lambda target: centre,
        "lungs": lambda target: lungs[target.view],
        "usual place": lambda target: places.get((target.observation, target.view), even),
    }


def mean_lungs(view: Literal["frontal", "lateral"], transform: ImageTransform) -> Map:
    """Mean coverage (R, R) of the lungs of healthy drawn patients, in the model's square."""
    total = np.zeros((RESOLUTION, RESOLUTION))
    for number in range(LUNGS):
        scene = replace(sample_scene(0, number, "realistic"), findings=())
        canvas = (draw_frontal if view == "frontal" else draw_lateral)(
            frame_of(scene, view, LUNG_SIZE), lay_out(scene), 1.0
        )
        total += in_square(np.maximum(*canvas.lungs.values()), transform)
    return total / LUNGS
