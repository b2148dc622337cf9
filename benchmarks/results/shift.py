"""Radiographs of other hospitals, reported by a model that has seen one: what its text and its encoder find there."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.analysis.inputs import collator_of
from crossray.confidence.measuring import written_reports
from crossray.confidence.statements import presence
from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.decoding.reports import WrittenReport
from crossray.files.digest import sha256
from crossray.generation.files import read_study, stack_studies
from crossray.generation.generator import Generator
from crossray.models.pretraining.vision import Vision, auroc
from crossray.text.cleaning import clean
from crossray.text.observations import OBSERVATIONS
from eye import encoder
from formats import grid
from steps import Bench, crossray, trained

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

#: Folder of the images with clinical notes.
_NOTES = "covid_chestxray"

#: Folders of which the text alone is looked at, and what they are.
_REPORTED = {"hannover": "Hannover, COVID-19", _NOTES: "many hospitals, mostly COVID-19"}

#: Fewest positives of an observation to be shown.
_FEWEST = 4


@dataclass(frozen=True)
class Found:
    """What a model finds in N images or studies.

    Attributes:
        said: (N, K) bool, observations that its report states as there or uncertain.
        share: (N, K), share of the reports drawn for the same study that state them.
        seen: (N, K), logits of the encoder's own head.
        flagged: (N,) bool, by the input check; all False without one.
    """

    said: NDArray[np.bool_]
    share: NDArray[np.float64]
    seen: NDArray[np.float64]
    flagged: NDArray[np.bool_]


def table(bench: Bench) -> str:
    """The first seed of the first system and the encoder, on what lies in the folder `bench.external`."""
    assert bench.external is not None
    run = trained(bench, bench.systems[0], bench.seeds[0])
    if not (run / "best" / "input_check.json").exists():
        crossray("calibrate", "--model", run, "--data", bench.data)
    eye = encoder(bench)
    dataset = Dataset.open(bench.data)
    rows = _spread(dataset.rows(bench.split), bench.most)
    home = _kept(bench, bench.split, lambda: _at_home(run, eye, dataset, rows))
    nih_files, nih_truth = _nih(bench.external / "nih_chestxray14", bench.most)
    nih = _kept(bench, "nih", lambda: _elsewhere(run, eye, nih_files))
    generator = Generator.from_pretrained(run, device="cpu")
    true = presence([generator.tokenizer.clean(text) for text in dataset.reports(rows, generator.section)])
    lines = []
    for name in _NIH:
        column = OBSERVATIONS.index(name)
        if nih_truth[name].sum() < _FEWEST:
            continue
        cells = [name.replace("_", " ")]
        for found, truth in ((home, true[:, column]), (nih, nih_truth[name])):
            cells += [str(int(truth.sum())), *_scores(found, truth, column)]
        lines.append(cells)
    about = (
        f"The model is `{bench.systems[0]}`, seed {bench.seeds[0]}, trained on the radiographs of one hospital. *Home* "
        f"is {len(rows)} of its own studies of split {bench.split}, most with two views; *away* is {len(nih_files)} "
        "single frontal radiographs of ChestX-ray14, half of them without findings. *Written*: images whose report "
        "states the observation as present or uncertain, by the rules. *Samples*: AUROC of the share of sampled "
        "reports that do so. *Encoder*: AUROC of its own head. At home, the truth is what the rules read in the "
        "true report; away, it is what another program read in unpublished reports."
    )
    headings = ["observation", "images", "positives", "written", "F1", "samples", "encoder"]
    rows = [row for line in lines for row in ([line[0], "home", *line[1:6]], ["", "away", *line[6:]])]
    page = f"# Other hospitals\n\n{about}\n\n{grid(headings, rows, words=['images'])}\n"
    page += f"Mean over these observations: {_means(lines)}.\n\n"
    return page + _others(bench, run, eye, nih.flagged, home.flagged)


def _others(bench: Bench, run: Path, eye: Vision, nih: NDArray[np.bool_], home: NDArray[np.bool_]) -> str:
    """Folders of sick people: how many reports call them healthy, and what the notes say."""
    assert bench.external is not None
    normal, opacity = OBSERVATIONS.index("no_finding"), OBSERVATIONS.index("lung_opacity")
    lines, notes = [], ""
    for folder, title in _REPORTED.items():
        listed = sorted(path for path in (bench.external / folder / "images").iterdir() if path.is_file())
        files = _spread(listed, bench.most)
        found = _kept(bench, folder, lambda files=files: _elsewhere(run, eye, files))
        shares = [f"{found.said[:, column].mean():.2f}" for column in (normal, opacity)]
        lines.append([title, str(len(files)), *shares, f"{found.flagged.mean():.2f}"])
        if folder == _NOTES:
            notes = _noted(bench.external / folder, files, found)
    lines.append(["ChestX-ray14", str(len(nih)), "", "", f"{nih.mean():.2f}"])
    lines.append(["own studies", str(len(home)), "", "", f"{home.mean():.2f}"])
    headings = ["images", "number", "reported as without findings", "with lung opacity", "flagged by the input check"]
    return f"{grid(headings, lines)}\nThe limits of the input check are from the validation studies.\n{notes}"


def _noted(folder: Path, files: Sequence[Path], found: Found) -> str:
    """What the notes beside images say is there, against the text and the encoder."""
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        texts = {Path(row["file"]).name: row["clinical_notes"] for row in csv.DictReader(file)}
    stated = presence([clean(texts.get(path.name, ""), "fixed") for path in files])
    noted = np.array([bool(texts.get(path.name, "").strip()) for path in files])
    lines = []
    for column, name in enumerate(OBSERVATIONS):
        truth = stated[noted, column]
        if name == "no_finding" or truth.sum() < _FEWEST:
            continue
        chosen = Found(found.said[noted], found.share[noted], found.seen[noted], found.flagged[noted])
        lines.append([name.replace("_", " "), str(int(truth.sum())), *_scores(chosen, truth, column)])
    if not lines:
        return ""
    about = (
        f"\n{int(noted.sum())} of these images have clinical notes. An observation that the rules read in a note "
        "counts as present. Notes also describe the patient's history and other images, so this truth is the least "
        "accurate.\n\n"
    )
    return about + grid(["observation", "positives", "written", "F1", "samples", "encoder"], lines)


def _scores(found: Found, truth: NDArray[np.bool_], column: int) -> list[str]:
    """Number written, F1 of the text, AUROC of drawn reports and of the encoder."""
    said = found.said[:, column]
    f1 = 2 * int((said & truth).sum()) / max(1, int(said.sum() + truth.sum()))
    areas = [
        auroc(torch.from_numpy(values[:, column]), torch.from_numpy(truth)) for values in (found.share, found.seen)
    ]
    return [str(int(said.sum())), f"{f1:.3f}", *("" if area is None else f"{area:.3f}" for area in areas)]


def _means(lines: Sequence[Sequence[str]]) -> str:
    """Mean F1 and AUROCs, at home and away, of the lines of the first table."""
    parts = []
    for name, column in (("F1", 3), ("AUROC of samples", 4), ("AUROC of the encoder", 5)):
        home, away = (np.mean([float(line[place]) for line in lines if line[place]]) for place in (column, column + 5))
        parts.append(f"{name} {home:.3f} at home and {away:.3f} away")
    return "; ".join(parts)


def _spread(every: Any, most: int) -> Any:
    """At most so many of a sequence, evenly spread; all of them for 0."""
    if not most or len(every) <= most:
        return every
    places = np.linspace(0, len(every) - 1, most).astype(int)
    return every[places] if isinstance(every, np.ndarray) else [every[place] for place in places]


def _nih(folder: Path, most: int) -> tuple[list[Path], dict[str, NDArray[np.bool_]]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = _spread(list(csv.DictReader(file)), most)
    stated = [set(row["finding_labels"].split("|")) for row in rows]
    truth = {name: np.array([bool(labels & found) for found in stated]) for name, labels in _NIH.items()}
    return [folder / "images" / row["file"] for row in rows], truth


def _kept(bench: Bench, name: str, make: Callable[[], Found]) -> Found:
    """What is in the file of this name, or what is made now and written there."""
    weights = sha256(bench.model(bench.systems[0], bench.seeds[0]) / "model.safetensors")[:12]
    path = bench.runs / f"shift-{name}{f'-{bench.most}' if bench.most else ''}-{weights}.npz"
    if not path.exists():
        print("reporting", name, flush=True)
        found = make()
        np.savez(path, said=found.said, share=found.share, seen=found.seen, flagged=found.flagged)
    return Found(**np.load(path))


def _elsewhere(run: Path, eye: Vision, files: Sequence[Path]) -> Found:
    """Single images in files."""
    generator = Generator.from_pretrained(run, device="cpu")
    samples = generator.decoding.samples
    written, flagged, seen = [], [], []
    for one in generator.report_files([[path] for path in files], samples=samples):
        written.append(one.report)
        flagged.append(one.check is not None and not one.check.ok)
    for first in range(0, len(files), 16):
        studies = [read_study([path], 2, generator.stored) for path in files[first : first + 16]]
        seen.append(_logits(eye, generator, stack_studies(studies, 2)))
    return _found(written, np.concatenate(seen), np.array(flagged))


def _at_home(run: Path, eye: Vision, dataset: Dataset, rows: NDArray[np.int64]) -> Found:
    """Studies of the model's own dataset."""
    generator = Generator.from_pretrained(run, device="cpu")
    model, decoding = generator.model, generator.decoding
    written = list(written_reports(model, decoding, dataset, rows, decoding.samples))
    plain = collator_of(model, dataset)
    plain.features = None
    seen, flagged = [], []
    for first in range(0, len(rows), 16):
        inputs = plain.inputs(rows[first : first + 16])
        seen.append(_logits(eye, generator, inputs))
        flagged += _flagged(generator, inputs)
    return _found(written, np.concatenate(seen), np.array(flagged))


def _flagged(generator: Generator, inputs: Inputs) -> list[bool]:
    from crossray.generation.checks import checks_of

    with torch.inference_mode():
        pooled = generator.model.encode(transform_inputs(inputs, generator.transform, train=False)).pooled
    return [check is not None and not check.ok for check in checks_of(generator.checker, pooled, inputs)]


def _found(written: Sequence[WrittenReport], seen: NDArray[np.float64], flagged: NDArray[np.bool_]) -> Found:
    share = np.stack([presence(report.samples).mean(axis=0) for report in written])
    return Found(presence([report.text for report in written]), share, seen, flagged)


def _logits(eye: Vision, generator: Generator, inputs: Inputs) -> NDArray[np.float64]:
    """(B, K) of the encoder's head, in the order of `OBSERVATIONS`."""
    with torch.inference_mode():
        logits = eye(transform_inputs(inputs, generator.transform, train=False)).double()
    values: NDArray[np.float64] = logits.numpy()
    return values[:, [eye.config.observations.index(name) for name in OBSERVATIONS]]
