"""Table of `crossray analyze liveness`."""

from collections.abc import Iterable, Mapping, Sequence

from crossray.analysis.liveness import Liveness, Measured
from crossray.pages.tables import Grid

_HEADER = (
    "", "module", "depends on its input", "effect of its mean", "on", "times rounding", "perplexity", "of slots",
    "smallest gradient",
)  # fmt: skip


def grid(found: Mapping[str, Sequence[Measured]], title: str) -> Grid:
    """A table with one line per module, whose cells contain all measurements, and one for the weakest parameter.

    Args:
        found: measurements by recipe or model, in chronological order.
        title: title of the table.
    """
    lines = []
    for subject, times in found.items():
        lines += [_line(subject, name, [one.modules[name] for one in times]) for name in times[-1].modules]
        last = times[-1].gradients
        weakest = min(last, key=lambda name: last[name])
        least = [f"{min(one.gradients.values()):.4f}" for one in times]
        lines.append([subject, f"all parameters ({weakest})", *["-"] * 6, _joined(least)])
    return Grid(title, _HEADER, lines)


def _line(subject: str, name: str, times: Sequence[Liveness]) -> list[str]:
    return [
        subject,
        name,
        _joined("-" if one.dependent is None else f"{one.dependent:.0%}" for one in times),
        _joined(f"{one.effect:.1%}" for one in times),
        times[-1].observed,
        _joined(f"{one.over_rounding:.0e}" for one in times),
        _joined("-" if one.perplexity is None else f"{one.perplexity:.0f}" for one in times),
        str(times[-1].slots or "-"),
        _joined("-" if one.gradient is None else f"{one.gradient:.4f}" for one in times),
    ]


def _joined(cells: Iterable[str]) -> str:
    """All measurements in one cell, or a single dash if there are none."""
    found = list(cells)
    return found[-1] if set(found) == {"-"} else " / ".join(found)
