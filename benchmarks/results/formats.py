"""Markdown tables, and what a mean over seeds says."""

import math
import re
from collections.abc import Collection, Sequence
from statistics import fmean, stdev

from scipy.stats import t as student

#: What the dataset's splits are called in the tables.
SPLITS = {"val": "validation", "test": "test"}


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[str] = ()) -> str:
    """A Markdown table; columns are aligned to the right, except the first and those of `words`."""
    rule = ["---" if place == 0 or name in words else "---:" for place, name in enumerate(headings)]
    lines = [list(headings), rule, *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def narrow(text: str, most: int) -> str:
    """Markdown whose tables have at most this many columns beside the first, which every part repeats."""
    lines: list[str] = []
    table: list[list[str]] = []
    for line in [*text.split("\n"), ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])])
            continue
        for start in range(1, max(2, len(table[0])) if table else 0, most):  # a table of names alone stays
            lines += [""] * (start > 1)
            lines += ["| " + " | ".join(row[:1] + row[start : start + most]) + " |" for row in table]
        table = []
        lines.append(line)
    return "\n".join(lines[:-1])


def over_seeds(values: Sequence[float], digits: int = 3) -> str:
    """Mean, deviation and the 95% interval of the mean by Student's t; the value alone for one seed."""
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else ""
    deviation = stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    mean = fmean(values)
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}<br>[{mean - half:.{digits}f}, {mean + half:.{digits}f}]"
