"""Radiographs of other hospitals, reported by a model that has seen one: what its text and its encoder find there."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.evaluation.labelers import RuleLabeler
from crossray.evaluation.predictions import PredictionFile
from crossray.generation.files import read_study, stack_studies
from crossray.generation.generator import Generator
from crossray.models.pretraining.vision import Vision, auroc
from crossray.text.observations import OBSERVATIONS, STATUSES
from crossray.training.prerequisites import fulfil
from crossray.training.recipe import load
from crossray.training.run import train_or_resume
from formats import grid
from steps import Bench, trained

#: Observation to the labels of ChestX-ray14 that state it.
_NIH = {
    "no_finding": {"No Finding"},
    "lung_opacity": {"Infiltration", "Pneumonia", "Consolidation", "Atelectasis", "Edema", "Mass", "Nodule"},
    "pneumonia": {"Pneumonia"},
    "atelectasis": {"Atelectasis"},
    "edema": {"Edema"},
    "pleural_effusion": {"Effusion"},
    "consolidation": {"Consolidation"},
    "lung_lesion": {"Mass", "Nodule"},
    "cardiomegaly": {"Cardiomegaly"},
    "pneumothorax": {"Pneumothorax"},
}
#: Folders without labels, and what they are.
_OTHERS = {"hannover": "Hannover, COVID-19", "covid_chestxray": "many hospitals, mostly COVID-19"}

#: Fewest positives of an observation to be shown.
_FEWEST = 4
_POSITIVE, _UNCERTAIN = STATUSES.index("positive"), STATUSES.index("uncertain")


def table(bench: Bench) -> str:
    """The first seed of the first system and the encoder, on what lies in the folder `bench.external`."""
    if bench.external is None:
        return "# Other hospitals\n\nNot made: give the folder of their images with `--external`.\n"
    run = trained(bench, bench.systems[0], bench.seeds[0])
    nih = bench.external / "nih_chestxray14"
    with (nih / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    stated = [set(row["finding_labels"].split("|")) for row in rows]
    files = [nih / "images" / row["file"] for row in rows]
    codes = _written(run, files, bench.runs / "shift-nih.jsonl")
    scores = _seen(bench, files)
    lines = []
    for name, labels in _NIH.items():
        column = OBSERVATIONS.index(name)
        truth = np.array([bool(labels & found) for found in stated])
        if truth.sum() < _FEWEST:
            continue
        said = np.isin(codes[:, column], (_POSITIVE, _UNCERTAIN))
        both = int((said & truth).sum())
        f1 = 2 * both / max(1, int(said.sum() + truth.sum()))
        area = auroc(torch.from_numpy(scores[:, column]), torch.from_numpy(truth))
        shown = "" if area is None else f"{area:.3f}"
        lines.append([name.replace("_", " "), str(int(truth.sum())), str(int(said.sum())), f"{f1:.3f}", shown])
    about = (
        f"{len(files)} frontal radiographs of ChestX-ray14; the text is that of `{bench.systems[0]}`, its observations "
        "are read by the rules, an uncertain one counts. Their labels were read out of reports by a program, too."
    )
    headings = ["observation", "labelled", "written", "F1 of the text", "AUROC of the encoder"]
    page = f"# Other hospitals\n\n{about}\n\n" + grid(headings, lines)
    others = []
    for folder, title in (
        ("hannover", "Hannover, COVID-19"),
        ("covid_chestxray", "many hospitals, mostly COVID-19"),
    ):
        files = sorted(path for path in (bench.external / folder / "images").iterdir() if path.is_file())
        codes = _written(run, files, bench.runs / f"shift-{folder}.jsonl")
        normal = np.isin(codes[:, OBSERVATIONS.index("no_finding")], (_POSITIVE,)).mean()
        opacity = np.isin(codes[:, OBSERVATIONS.index("lung_opacity")], (_POSITIVE, _UNCERTAIN)).mean()
        others.append([title, str(len(files)), f"{normal:.2f}", f"{opacity:.2f}"])
    headings = ["images", "number", "reported as without findings", "with lung opacity"]
    return page + "\n" + grid(headings, others)


def _written(run: Path, files: Sequence[Path], predictions: Path) -> NDArray[np.int8]:
    """(N, 18) status codes of the reports that the run's best model writes of single images."""
    if not predictions.exists():
        Generator.from_pretrained(run).generate_files([[path] for path in files], predictions)
    return RuleLabeler().label(PredictionFile.load(predictions).hypotheses())


def _seen(bench: Bench, files: Sequence[Path]) -> NDArray[np.float64]:
    """(N, K) logits of the encoder's own head."""
    recipe = load(f"{bench.systems[0]}/{bench.recipe}")
    filled, _ = fulfil(recipe, Dataset.open(bench.data), train_or_resume)
    model = Vision.from_pretrained(filled.model.backbone.name)
    found = []
    with torch.inference_mode():
        for first in range(0, len(files), 16):
            studies = [read_study([path], 2, recipe.data.image) for path in files[first : first + 16]]
            inputs = transform_inputs(stack_studies(studies, 2), recipe.data.image, train=False)
            found.append(model(inputs))
    return torch.cat(found).double().numpy()
