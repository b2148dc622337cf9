"""Figures of alignment as PNG, after UAR's Fig. 4 (score, similarities) and Fig. 5 (Gram matrices)."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossray.analysis.alignment import Alignment

#: Maximum number of studies in a heat map.
SHOWN = 100


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: name of its file.
        png: its content.
        caption: its caption.
    """

    name: str
    png: bytes
    caption: str


def available() -> bool:
    """Whether figures can be drawn: matplotlib is an optional dependency."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


def figures(found: Sequence[Alignment]) -> list[Picture]:
    """Draw all figures of the given models."""
    pictures = [_scores(found)]
    for one in found:
        pictures.append(_similarity(one))
        pictures += [_gram(one, title) for title in one.grams]
    return pictures


def _scores(found: Sequence[Alignment]) -> Picture:
    figure, axes = _empty(4.2, 0.9 + 0.45 * len(found))
    axis = axes[0]
    names = [one.name for one in found]
    bars = axis.barh(names, [100 * one.scores.aligned for one in found], color="#0b63b0", height=0.6)
    axis.bar_label(bars, fmt="%.0f%%", padding=3)
    axis.invert_yaxis()
    axis.set_xlim(0, 112)
    axis.set_xlabel("alignment score in %")
    axis.spines[["top", "right"]].set_visible(False)
    caption = "Alignment score: images whose normalized cosine with their own report is above 0.5 (UAR Fig. 4a)."
    return Picture("alignment-score.png", _png(figure), caption)


def _similarity(one: Alignment) -> Picture:
    order = sorted(range(min(SHOWN, len(one.ids))), key=lambda place: one.reports[place])
    shown = one.similarity[np.ix_(order, order)]
    figure, axes = _empty(4.4, 3.8)
    _heat(figure, axes[0], shown, "viridis", float(shown.min()), float(shown.max()))
    axes[0].set(xlabel="reports", ylabel="images", title=one.name)
    caption = (
        f"{one.name}: cosines of {len(order)} images with {len(order)} reports, sorted by report, so that each image "
        "meets its own report on the diagonal and equal reports are adjacent (UAR Fig. 4b-d)."
    )
    return Picture(f"similarity-{_slug(one.name)}.png", _png(figure), caption)


def _gram(one: Alignment, title: str) -> Picture:
    gram = one.grams[title]
    figure, axes = _empty(8.2, 3.8, 2)
    most = float(np.abs(gram.products).max()) or 1.0
    _heat(figure, axes[0], gram.products, "RdBu_r", -most, most)
    _heat(figure, axes[1], gram.cosines, "RdBu_r", -1, 1)
    axes[0].set_title(f"{one.name}, {title}: products")
    axes[1].set_title("cosines")
    caption = (
        f"{one.name}, {title}: Gram matrix of the first {len(gram.products)} of {gram.rows} rows (UAR Fig. 5), and the "
        "cosines of the same rows, which do not depend on their lengths."
    )
    return Picture(f"gram-{_slug(one.name)}-{_slug(title)}.png", _png(figure), caption)


def _empty(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [figure.add_subplot(1, columns, column + 1) for column in range(columns)]


def _heat(figure: Any, axis: Any, values: Any, colours: str, low: float, high: float) -> None:
    drawn = axis.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
    figure.colorbar(drawn, ax=axis, shrink=0.85)
    axis.set(xticks=[], yticks=[])


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)
