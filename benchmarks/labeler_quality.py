"""Precision, recall and F1 of the rule-based labeler against the MeSH indexing of IU X-Ray.

Reads `iu_xray/findings_gold.csv` and `iu_xray/indiana_reports.csv` under `$CROSSRAY_TEST_DATA`. Six findings of the
gold have an observation of the same meaning; a positive or an uncertain label counts as present. The rules were tuned
on two thirds of the studies (`--part tune`); the other third was never looked at report by report. A second table
counts, of the same studies, the headings that the gold leaves out and CheXpert's definitions take in (`ALSO`).
No report text is printed unless `--show` asks for the wrong ones of the tuning part.
"""

import argparse
import csv
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from crossray.text.observations import LABELER, LABELER_VERSION, OBSERVATIONS, STATUSES, label_report, label_reports

#: Column of the gold -> observation of the same meaning.
CLASSES: Mapping[str, str] = {
    "Cardiomegaly": "cardiomegaly",
    "Effusion": "pleural_effusion",
    "Atelectasis": "atelectasis",
    "Pneumothorax": "pneumothorax",
    "Edema": "edema",
    "Consolidation": "consolidation",
}
#: Headings of the indexing that mean the observation by CheXpert's definition too, by their beginning and, behind
#: "...", a part that must be in them. An effusion of the pericardium is none of the pleura.
ALSO: Mapping[str, Sequence[str]] = {
    "cardiomegaly": ("cardiac shadow...enlarged", "cardiac shadow...borderline"),
    "edema": ("pulmonary congestion", "heart failure"),
    "pneumothorax": ("hydropneumothorax",),
}
PERICARDIAL, PLEURAL = "pericardial effusion", "pleural effusion"
SECTIONS = {"both": ("findings", "impression"), "findings": ("findings",), "impression": ("impression",)}
PRESENT = (STATUSES.index("positive"), STATUSES.index("uncertain"))


def is_held_out(study: str) -> bool:
    """One study of three, by the hash of its identifier (such as "CXR12")."""
    return int(hashlib.sha256(study.encode()).hexdigest(), 16) % 3 == 0


def read_gold(data: Path) -> tuple[list[str], NDArray[np.bool_], list[dict[str, str]]]:
    """Studies with gold and text: identifiers, (N, 6) gold in the order of `CLASSES`, and the rows of their reports."""
    with (data / "indiana_reports.csv").open(encoding="utf-8-sig", newline="") as file:
        reports = {f"CXR{row['uid']}": row for row in csv.DictReader(file)}
    with (data / "findings_gold.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["filename"] in reports]
    studies = [row["filename"] for row in rows]
    gold = np.array([[row[name] == "1" for name in CLASSES] for row in rows])
    return studies, gold, [reports[study] for study in studies]


def scores(gold: NDArray[np.bool_], found: NDArray[np.bool_]) -> dict[str, Any]:
    """Counts over all entries of two equally shaped arrays, and what follows from them."""
    hits, extra, missed = int((gold & found).sum()), int((~gold & found).sum()), int((gold & ~found).sum())
    return {
        "gold": hits + missed,
        "found": hits + extra,
        "precision": hits / max(hits + extra, 1),
        "recall": hits / max(hits + missed, 1),
        "F1": 2 * hits / max(2 * hits + extra + missed, 1),
        "not in gold": extra,
        "missed": missed,
    }


def widened(gold: NDArray[np.bool_], rows: Sequence[Mapping[str, str]]) -> NDArray[np.bool_]:
    """The gold with the headings of `ALSO`, and without effusions of the pericardium alone."""
    result = gold.copy()
    for line, row in zip(result, rows, strict=True):
        headings = [heading.strip().lower() for heading in row["MeSH"].split(";")]
        for column, observation in enumerate(CLASSES.values()):
            line[column] |= any(
                heading.startswith(begin) and part in heading
                for begin, _, part in (entry.partition("...") for entry in ALSO.get(observation, ()))
                for heading in headings
            )
        kinds = {heading.split("/")[0] for heading in headings}
        if PERICARDIAL in kinds and PLEURAL not in kinds:
            line[list(CLASSES.values()).index("pleural_effusion")] = False
    return result


def error_kinds(
    gold: NDArray[np.bool_], wide: NDArray[np.bool_], codes: NDArray[np.int8]
) -> Sequence[tuple[str, NDArray[np.bool_]]]:
    """Where the labeler differs from the gold, by kind; first what the indexers took of the uncertain."""
    positive, uncertain = (codes == code for code in PRESENT)
    absent = ~(positive | uncertain)
    return (
        ("in gold, and uncertain in the report", gold & uncertain),
        ("not in gold: indexed under another heading (ALSO)", ~gold & wide & (positive | uncertain)),
        ("not in gold: the report leaves it uncertain", ~gold & ~wide & uncertain),
        ("not in gold: stated, and not indexed", ~gold & ~wide & positive),
        ("missed: the gold means the pericardium", gold & ~wide & absent),
        ("missed: labeled negative", gold & wide & (codes == STATUSES.index("negative"))),
        ("missed: labeled blank", gold & wide & (codes == STATUSES.index("blank"))),
    )


def score_table(title: str, gold: NDArray[np.bool_], found: NDArray[np.bool_]) -> Table:
    """Scores of each class and of all pooled."""
    lines = [
        {"class": name, **scores(gold[:, column], found[:, column])} for column, name in enumerate(CLASSES.values())
    ]
    lines.append({"class": "pooled", **scores(gold, found)})
    table = Table(title=title, title_justify="left")
    for name in lines[0]:
        table.add_column(name, justify="left" if name == "class" else "right")
    for line in lines:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in line.values()))
    return table


def show_errors(
    studies: Sequence[str], texts: Sequence[str], rows: Sequence[Mapping[str, str]], gold: NDArray[np.bool_], only: str
) -> None:
    """The wrong reports of one class, with the evidence of their labels."""
    column = list(CLASSES).index(only)
    for study, text, row, truth in zip(studies, texts, rows, gold[:, column], strict=True):
        labels = label_report(text)
        status = labels.status(CLASSES[only])
        if (status in ("positive", "uncertain")) != truth:
            spans = [text[e.start : e.end] for e in labels.evidence if e.observation == CLASSES[only]]
            print(f"{study} gold {int(truth)}, {status} {spans}\n  MeSH: {row['MeSH']}\n  {' '.join(text.split())}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("tune", "held-out"), default="held-out", help="which studies")
    parser.add_argument("--sections", choices=tuple(SECTIONS), default="both", help="text that is labeled")
    parser.add_argument("--show", choices=tuple(CLASSES), help="print the wrong reports of a class (tuning part only)")
    chosen = parser.parse_args()
    if chosen.show and chosen.part != "tune":
        parser.error("--show: the held-out part is not looked at; add --part tune")

    data = Path(os.environ.get("CROSSRAY_TEST_DATA", "../shared/data")) / "iu_xray"
    studies, gold, rows = read_gold(data)
    kept = [index for index, study in enumerate(studies) if is_held_out(study) == (chosen.part == "held-out")]
    studies, rows, gold = [studies[index] for index in kept], [rows[index] for index in kept], gold[kept]
    texts = ["\n\n".join(row[section] for section in SECTIONS[chosen.sections]) for row in rows]
    if chosen.show:
        show_errors(studies, texts, rows, gold, chosen.show)
        return
    codes = label_reports(texts)[:, [OBSERVATIONS.index(observation) for observation in CLASSES.values()]]
    found, wide = np.isin(codes, PRESENT), widened(gold, rows)
    console = Console(width=120)
    title = f"{LABELER} {LABELER_VERSION}, {chosen.part} part: {len(studies)} studies, sections: {chosen.sections}"
    console.print(score_table(f"{title}; gold as it is", gold, found))
    console.print(score_table(f"{title}; gold by CheXpert's definitions", wide, found))
    kinds = Table("labels beside the gold as it is", *CLASSES.values(), "all", title_justify="left")
    for kind, where in error_kinds(gold, wide, codes):
        kinds.add_row(kind, *(str(int(count)) for count in where.sum(axis=0)), str(int(where.sum())))
    console.print(kinds)


if __name__ == "__main__":
    main()
