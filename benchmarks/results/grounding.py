"""Table 3 on real radiographs: attention and the encoder's own map against boxes that radiologists have drawn.

A model names hardly any of these findings by itself, so each reads a fixed sentence that states it, and the attention
of the words that do is scored; `crossray analyze grounding` scores what a model writes, on a phantom dataset.

Shapes: N radiographs, one view each; S cells of G x G; R x R pixels of a mask.
"""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.analysis.attention import lay_out
from crossray.analysis.grounding import Mask, Prior, Target, cell_means, score
from crossray.analysis.grounding_targets import in_square, targets_of
from crossray.analysis.inputs import tokenizer_of
from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import transform_inputs
from crossray.decoding.reports import WrittenReport
from crossray.evaluation.statistics.significance import Interval
from crossray.generation.files import read_study, stack_studies
from crossray.generation.generator import Generator
from crossray.models.pretraining.vision import Vision
from eye import encoder
from formats import grid
from steps import Bench, trained

#: A box's finding: the observation that it is, and a sentence that states it.
_FINDINGS = {
    "Pneumonia": ("pneumonia", "there is pneumonia ."),
    "Infiltrate": ("lung_opacity", "there is an opacity in the lung ."),
    "Pneumothorax": ("pneumothorax", "there is a pneumothorax ."),
}

#: Side of the images that the boxes refer to, in pixels.
_SIDE = 512

_USUAL = "usual place"

_MEASURES = ("pointing", "mass")


def table(bench: Bench) -> str:
    """The first seed of every system, and the encoder, on the boxes in `bench.external`."""
    assert bench.external is not None
    boxes = _boxes(bench.external / "nih_boxes")
    studies = [(path, finding) for path, found in boxes.items() for finding in found]
    lines: dict[str, list[list[str]]] = {measure: [] for measure in _MEASURES}
    for number, system in enumerate(bench.systems):
        generator = Generator.from_pretrained(trained(bench, system, bench.seeds[0]), device="cpu")
        files = [read_study([path], generator.model.config.views, generator.stored) for path, _ in studies]
        inputs = stack_studies(files, generator.model.config.views)
        masks = [in_square(boxes[path][finding], generator.transform) for path, finding in studies]
        observations = [_FINDINGS[finding][0] for _, finding in studies]
        if number == 0:
            seen = _of_encoder(encoder(bench), generator, inputs, masks, observations)
            _add(lines, "encoder", seen, len(studies))
        sentences = [_FINDINGS[finding][1] for _, finding in studies]
        _add(lines, system, _of_attention(generator, inputs, masks, observations, sentences), len(studies))
    about = (
        f"{len(studies)} findings in {len(boxes)} frontal radiographs of ChestX-ray14, {_count(studies)}, none of "
        "which any model has seen. A system reads a fixed sentence that states the finding (for example *there is "
        "pneumonia.*), and the map is the cross-attention of the words that state it; the encoder's map is "
        "what each cell adds to its head's logit (CAM, Zhou et al. 2016), less the smallest. "
        "Pointing: the box is within half a cell of the largest cell's center. Mass: share of the map inside the box. "
        "*Others' maps*: those of the other radiographs with the same finding. *Usual place*: where the boxes of the "
        "other radiographs are. Intervals over radiographs, 1,000 resamples."
    )
    parts = [f"# Grounding on real boxes\n\n{about}\n"]
    for measure, rows in lines.items():
        parts.append(grid(["map of", measure, "minus others' maps", "minus usual place"], rows))
    return "\n".join(parts)


def _boxes(folder: Path) -> dict[Path, dict[str, Mask]]:
    """Of each image, the mask (512, 512) of the boxes of each finding."""
    found: defaultdict[Path, dict[str, Mask]] = defaultdict(dict)
    with (folder / "boxes.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            left, top, width, height = (float(row[name]) for name in "xywh")
            path = folder / "images" / f"{row['image']}.jpg"
            mask = found[path].setdefault(row["finding"], np.zeros((_SIDE, _SIDE), bool))
            mask[round(top) : round(top + height), round(left) : round(left + width)] = True
    return dict(found)


def _count(studies: Sequence[tuple[Path, str]]) -> str:
    names = [name for _, name in studies]
    return ", ".join(f"{names.count(name)} of {name.lower()}" for name in _FINDINGS)


def _of_attention(
    generator: Generator,
    inputs: Inputs,
    masks: Sequence[Mask],
    observations: Sequence[str],
    sentences: Sequence[str],
) -> list[Target]:
    """Attention of the words of a sentence that state the finding, read beside each radiograph."""
    model, tokenizer = generator.model, tokenizer_of(generator.model)
    written = [tuple(tokenizer.encode(sentence, model.config.max_length)[1:-1]) for sentence in sentences]
    longest = max(map(len, written))
    read = torch.tensor([[tokenizer.bos_id, *row, *[tokenizer.pad_id] * (longest - len(row))] for row in written])
    with torch.inference_mode():
        encoded = model.encode(transform_inputs(inputs, generator.transform, train=False))
        weights = model.step(read, encoded, need_attention=True).cross_attention
    if weights is None:
        return []
    reports = [
        WrittenReport(tokenizer.decode(row), row, (0.0,) * len(row), weights[place, :, :, : len(row)].float())
        for place, row in enumerate(written)
    ]
    targets: list[Target] = []
    for place, attention in enumerate(lay_out(model, reports, inputs)):

        def mask_of(view: int, name: str, place: int = place) -> Mask | None:
            return masks[place] if name == observations[place] else None

        targets += targets_of(attention, place, ["pa"], mask_of)
    return targets


def _of_encoder(
    eye: Vision, generator: Generator, inputs: Inputs, masks: Sequence[Mask], observations: Sequence[str]
) -> list[Target]:
    """What each cell of the frontal view adds to the logit of the encoder's head."""
    with torch.no_grad():
        tokens = eye.backbone.views(transform_inputs(inputs, generator.transform, train=False))[0][:, 0]
    columns = [eye.config.observations.index(name) for name in observations]
    weights = eye.head.weight.detach()[columns, : tokens.shape[2]]
    added = torch.einsum("nsc,nc->ns", tokens, weights)
    maps = (added - added.amin(dim=1, keepdim=True)).double().numpy()
    side = round(maps.shape[1] ** 0.5)
    return [
        Target(place, name, "frontal", masks[place], (maps[place] / maps[place].sum()).reshape(side, side))
        for place, name in enumerate(observations)
    ]


def _add(lines: dict[str, list[list[str]]], name: str, targets: Sequence[Target], studies: int) -> None:
    """A row of each measure: the maps' own value, and what it is above that of maps which do not see the radiograph."""
    if not targets:
        return  # the system returns no attention
    sources = {source.name: source for source in score(targets, studies, {_USUAL: _usual_place(targets)}).sources}
    for measure, rows in lines.items():
        differences = [sources[other].differences[measure] for other in ("shuffled attention", _USUAL)]
        own = _shown(sources["model"].scores[measure], ".2f")
        rows.append([name, own, *(_shown(value, "+.2f") for value in differences)])


def _shown(value: Interval, form: str) -> str:
    return f"{value.value:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _usual_place(targets: Sequence[Target]) -> Prior:
    """Where the boxes of all other radiographs are."""
    cells = len(targets[0].attention)
    every = np.stack([cell_means(target.mask, cells) for target in targets])

    def place(target: Target) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = every[[other.study != target.study for other in targets]].mean(axis=0)
        return mean

    return place
