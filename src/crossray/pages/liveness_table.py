"""Table of `crossray analyze liveness`."""

from collections.abc import Mapping

from crossray.analysis.liveness import Liveness, Measured
from crossray.pages.tables import Grid

_TITLE = "Modules at first / after {steps} steps"

_HEADER = (
    "recipe", "module", "depends on its input", "effect of its mean", "on", "times rounding", "perplexity", "of slots",
    "smallest gradient",
)  # fmt: skip


def grid(found: Mapping[str, tuple[Measured, Measured]], steps: int) -> Grid:
    """One line a module, with both times in each cell, and for each recipe its weakest parameter of all.

    Args:
        found: by recipe, what was measured at first and after training.
        steps: of the training.
    """
    lines = []
    for recipe, (fresh, trained) in found.items():
        lines += [_line(recipe, name, fresh.modules[name], trained.modules[name]) for name in fresh.modules]
        weakest = min(trained.gradients, key=lambda name: trained.gradients[name])
        least = (min(one.gradients.values()) for one in (fresh, trained))
        lines.append([recipe, f"all parameters ({weakest})", *["-"] * 6, _pair(*(f"{one:.4f}" for one in least))])
    return Grid(_TITLE.format(steps=steps), _HEADER, lines)


def _line(recipe: str, name: str, fresh: Liveness, trained: Liveness) -> list[str]:
    both = (fresh, trained)
    return [
        recipe,
        name,
        _pair(*("-" if one.dependent is None else f"{one.dependent:.0%}" for one in both)),
        _pair(*(f"{one.effect:.1%}" for one in both)),
        trained.observed,
        _pair(*(f"{one.over_rounding:.0e}" for one in both)),
        _pair(*("-" if one.perplexity is None else f"{one.perplexity:.0f}" for one in both)),
        str(trained.slots or "-"),
        _pair(*("-" if one.gradient is None else f"{one.gradient:.4f}" for one in both)),
    ]


def _pair(fresh: str, trained: str) -> str:
    return fresh if fresh == trained == "-" else f"{fresh} / {trained}"
