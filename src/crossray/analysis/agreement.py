"""Compares a generated report with the true one, by observation and by marked words in both texts.

A text states an observation if it calls it positive or uncertain. If both texts state it, they agree; if only the
generated one does, it is a false alarm; if only the true one does, it is missed. `no_finding` is omitted, because it
follows from the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from crossray.text.observations import OBSERVATIONS, ReportLabels

#: Kinds of marks: "partly" is found by some systems and missed by others, "negative" is a denial.
Kind = Literal["agree", "partly", "false", "missed", "negative"]

#: The sign after marked words, which distinguishes them without colors. If marks overlap, the first kind wins.
SIGNS: dict[Kind, str] = {"false": "✗", "missed": "○", "partly": "◐", "agree": "✓", "negative": ""}

#: Labels of observations that only one text states, or both.
WORDS: dict[Kind, str] = {"agree": "agreed", "false": "false alarm", "missed": "missed"}

#: Statuses of an observation that a text states; the others are "negative" and "blank".
STATED = ("positive", "uncertain")


def stated(labels: ReportLabels) -> dict[str, str]:
    """Observations that a report states, in the order of `OBSERVATIONS`, with their status."""
    statuses = {name: labels.status(name) for name in OBSERVATIONS if name != "no_finding"}
    return {name: status for name, status in statuses.items() if status in STATED}


@dataclass(frozen=True)
class Agreement:
    """Observations that the true and a generated report state, with their statuses.

    Attributes:
        agreed: for each observation in both texts, its status in the true and in the generated one.
        false_alarms: observations in the generated text only.
        missed: observations in the true text only.
    """

    agreed: Mapping[str, tuple[str, str]]
    false_alarms: Mapping[str, str]
    missed: Mapping[str, str]

    @classmethod
    def between(cls, reference: ReportLabels, generated: ReportLabels) -> "Agreement":
        """Compare what two reports state."""
        true, ours = stated(reference), stated(generated)
        return cls(
            agreed={name: (status, ours[name]) for name, status in true.items() if name in ours},
            false_alarms={name: status for name, status in ours.items() if name not in true},
            missed={name: status for name, status in true.items() if name not in ours},
        )

    @property
    def balance(self) -> int:
        """Agreed observations minus those in one text only."""
        return len(self.agreed) - len(self.false_alarms) - len(self.missed)


@dataclass(frozen=True)
class Mark:
    """A mark on a part of a text.

    Attributes:
        start: index of its first character; `end`: index after its last one.
        kind: kind of the mark.
        note: explanation for the reader.
    """

    start: int
    end: int
    kind: Kind
    note: str


def marks_of_generated(generated: ReportLabels, agreement: Agreement) -> list[Mark]:
    """Marks in a generated report: agreed, false alarm, denied, and missed if it denies what the reference states."""
    marks = []
    for piece in generated.evidence:
        name, note = piece.observation, ""
        kind: Kind | None = None
        if piece.status in STATED and name in agreement.agreed:
            kind, note = "agree", f"{piece.status}, {agreement.agreed[name][0]} in the reference"
        elif piece.status in STATED and name in agreement.false_alarms:
            kind, note = "false", f"{piece.status}, not in the reference"
        elif piece.status == "negative" and name in agreement.missed:
            kind, note = "missed", f"denied, but {agreement.missed[name]} in the reference"
        elif piece.status == "negative":
            kind, note = "negative", "denied"
        if kind is not None:
            marks.append(Mark(piece.start, piece.end, kind, f"{spoken(name)}: {note}"))
    return marks


def marks_of_reference(reference: ReportLabels, agreements: Mapping[str, Agreement]) -> list[Mark]:
    """Marks in the true report, which show the systems (agreement by name) that found or missed each observation."""
    marks = []
    true = stated(reference)
    for piece in reference.evidence:
        name = piece.observation
        if piece.status in STATED and name in true:
            found = [system for system, agreement in agreements.items() if name in agreement.agreed]
            missed = [system for system in agreements if system not in found]
            kind: Kind = "agree" if not missed else "partly" if found else "missed"
            outcomes = [f"{word} by {', '.join(who)}" for word, who in (("found", found), ("missed", missed)) if who]
            note = f"{piece.status}; {'; '.join(outcomes)}"
        elif piece.status == "negative":
            kind, note = "negative", "denied"
        else:
            continue
        marks.append(Mark(piece.start, piece.end, kind, f"{spoken(name)}: {note}"))
    return marks


def spoken(observation: str) -> str:
    """The display name of an observation."""
    return observation.replace("_", " ").capitalize()
