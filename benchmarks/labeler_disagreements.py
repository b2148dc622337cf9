"""Who is right where the rules and the published CheXpert labeler differ: draws cases to read, and counts verdicts.

Reads `iu_xray/chexpert_labels.csv` (CheXpert's output on the findings) and `iu_xray/indiana_reports.csv` under
`$CROSSRAY_TEST_DATA`; the third of the studies that `labeler_quality` holds back is left out. `--draw` prints the cases
of a seed with their text, for reading. Without it, the verdicts in `labeler_verdicts.csv` are counted by class. That
file holds no text and no identifier of a study: a case is known by a hash, so that who has the data finds it again.
"""

import argparse
import csv
import hashlib
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from crossray.text.labeling.registry import OWN, conventions
from crossray.text.observations import CHEXPERT, label_report
from labeler_quality import is_held_out

VERDICTS = Path(__file__).with_name("labeler_verdicts.csv")
CODES = {"1": "positive", "0": "negative", "-1": "uncertain", "-": "blank"}
#: What a verdict may be. "definition": the text is not in dispute, the observation is drawn differently.
KINDS = ("ours", "definition", "chexpert", "neither")


@dataclass(frozen=True)
class Case:
    """One observation of one report that the two labelers read differently."""

    study: str
    observation: str
    ours: str
    theirs: str
    text: str

    @property
    def key(self) -> str:
        """What the case is called in the file of verdicts."""
        return hashlib.sha256(f"{self.study}/{self.observation}".encode()).hexdigest()[:12]


def disagreements(data: Path, convention: str = OWN) -> Iterator[Case]:
    """All cases of the studies that are not held back, in the order of the files."""
    with (data / "indiana_reports.csv").open(encoding="utf-8-sig", newline="") as file:
        texts = {row["uid"]: row["findings"] for row in csv.DictReader(file)}
    with (data / "chexpert_labels.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            study = f"CXR{row['uid']}"
            text = texts[row.pop("uid")]
            if is_held_out(study) or not text.strip():
                continue
            labels = label_report(text, convention)
            for name, code in row.items():
                observation = name.lower().replace(" ", "_")
                if (ours := labels.status(observation)) != CODES[code]:
                    yield Case(study, observation, ours, CODES[code], text)


def drawn(cases: list[Case], seed: int, per_class: int) -> list[Case]:
    """At most `per_class` cases of each observation, in CheXpert's order."""
    chosen = []
    for observation in CHEXPERT:
        of_class = [case for case in cases if case.observation == observation]
        random.Random(f"{seed}/{observation}").shuffle(of_class)
        chosen += of_class[:per_class]
    return chosen


def show_counts(data: Path) -> None:
    """Number of cases by class under each convention."""
    counts = {name: Counter(case.observation for case in disagreements(data, name)) for name in conventions()}
    table = Table("class", *counts)
    for observation in CHEXPERT:
        table.add_row(observation, *(str(count[observation]) for count in counts.values()))
    table.add_row("all", *(str(count.total()) for count in counts.values()))
    Console(width=100).print(table)


def verdicts() -> list[dict[str, str]]:
    """Rows of the file of verdicts."""
    with VERDICTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def show_cases(cases: list[Case]) -> None:
    """The cases with their text, to be read on the terminal and nowhere else."""
    for case in cases:
        spans = [
            case.text[e.start : e.end] for e in label_report(case.text).evidence if e.observation == case.observation
        ]
        print(f"{case.key} {case.observation}: ours {case.ours} {spans}, CheXpert {case.theirs}")
        print(f"    {' '.join(case.text.split())}")


def show_verdicts(sample: str | None) -> None:
    """How often each side is right, by class, and the reasons."""
    rows = [row for row in verdicts() if sample in (None, row["sample"])]
    table = Table("class", "read", "ours right", "of these definition", "CheXpert right", "neither", "reasons")
    for observation in (*CHEXPERT, "all"):
        mine = [row for row in rows if observation in (row["class"], "all")]
        counts = Counter(row["verdict"] for row in mine)
        reasons = Counter(row["reason"] for row in mine if row["class"] == observation)
        right = counts["ours"] + counts["definition"]
        share = f" ({right / max(len(mine), 1):.1%})" if observation == "all" else ""
        table.add_row(
            observation,
            str(len(mine)),
            f"{right}{share}",
            str(counts["definition"]),
            str(counts["chexpert"]),
            str(counts["neither"]),
            ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()),
        )
    Console(width=160).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="print cases with their text instead of verdicts")
    parser.add_argument("--count", action="store_true", help="print how many cases there are under each convention")
    parser.add_argument("--seed", type=int, default=29, help="of the draw")
    parser.add_argument("--per-class", type=int, default=12, help="most cases of an observation")
    parser.add_argument("--sample", help="count this sample's verdicts only; with --draw: its cases too")
    chosen = parser.parse_args()
    data = Path(os.environ.get("CROSSRAY_TEST_DATA", "../shared/data")) / "iu_xray"
    if chosen.count:
        show_counts(data)
        return
    if not chosen.draw:
        show_verdicts(chosen.sample)
        return
    read = {row["key"] for row in verdicts()} - {row["key"] for row in verdicts() if row["sample"] == chosen.sample}
    cases = [case for case in disagreements(data) if case.key not in read]
    show_cases(drawn(cases, chosen.seed, chosen.per_class))


if __name__ == "__main__":
    main()
