"""Faults of a manifest, and the error message that lists them by column, with equal ones combined."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossray.errors import counted, quoted

#: Maximum number of kinds of faults in a message, of values of each kind, and of lines of each value.
MOST_FAULTS = 20
MOST_VALUES = 10
MOST_LINES = 3


@dataclass(frozen=True)
class Fault:
    """One fault of a row.

    Attributes:
        line: line of the row.
        column: column of the fault.
        remedy: what is wrong and what to do, without the value.
        value: rejected value, quoted for messages (`crossray.errors.quoted`); "" if there is none, or if it is report
            text or a patient's name.
    """

    line: int
    column: str
    remedy: str
    value: str = ""

    def __str__(self) -> str:
        return f"line {self.line}: {self.column}: {f'{self.value} ' * bool(self.value)}{self.remedy}"


class FaultError(Exception):
    """A fault of the row that is being read, with its column, remedy and rejected value."""

    def __init__(self, column: str, remedy: str, value: object = None) -> None:
        super().__init__(remedy)
        self.column, self.remedy = column, remedy
        self.value = "" if value is None else quoted(value)

    def at(self, line: int) -> Fault:
        """Return the fault with its line."""
        return Fault(line, self.column, self.remedy, self.value)


def message(path: Path, faults: Sequence[Fault]) -> str:
    """Format the error message of a manifest, with one line for all equal faults ("'Axial': 11 rows")."""
    kinds: dict[tuple[str, str], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((fault.column, fault.remedy), []).append(fault)
    lines = [_line(kind) for kind in kinds.values()]
    shown = "".join(f"\n  {path.name}: {line}" for line in lines[:MOST_FAULTS])
    more = f"\n  and {len(lines) - MOST_FAULTS} more" if len(lines) > MOST_FAULTS else ""
    them = "it" if len(faults) == 1 else "them"
    return (
        f"{path}: {counted(len(faults), 'bad row')}; correct {them}, or leave {them} out with --skip-bad{shown}{more}"
    )


def _line(kind: Sequence[Fault]) -> str:
    if len(kind) == 1:
        return str(kind[0])
    first = kind[0]
    values: dict[str, list[int]] = {}
    for fault in kind:
        values.setdefault(fault.value, []).append(fault.line)
    ordered = sorted(values.items(), key=lambda entry: -len(entry[1]))
    parts = [f"{f'{value}: ' * bool(value)}{_rows(lines)}" for value, lines in ordered[:MOST_VALUES]]
    rest = sum(len(lines) for _, lines in ordered[MOST_VALUES:])
    return f"{first.column}: {first.remedy}: {', '.join(parts)}{f' and {rest} more rows' * bool(rest)}"


def _rows(lines: Iterable[int]) -> str:
    numbers = list(lines)
    named = ", ".join(map(str, numbers[:MOST_LINES])) + ", ..." * (len(numbers) > MOST_LINES)
    return f"{len(numbers)} rows (lines {named})" if len(numbers) > 1 else f"1 row (line {named})"
