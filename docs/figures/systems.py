"""Draws the architecture of each system, one SVG a page of docs/models: `python docs/figures/systems.py`."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COLUMN, ROW, WIDE, HIGH, EDGE = 182, 84, 152, 50, 14
INK = "#1f2933"
#: Kind of a box to fill, outline and corner.
KINDS = {
    "data": ("#f4f4f2", "#8a8f98", 20),
    "base": ("#ffffff", "#4a5563", 6),
    "paper": ("#fdf0d5", "#c77700", 6),
    "loss": ("#fdecea", "#b3261e", 20),
}
WORDS = {"data": "data", "base": "what it builds on", "paper": "what the paper adds", "loss": "loss"}


@dataclass(frozen=True)
class Box:
    """A box: column and row (may be halves), title, second line, kind."""

    column: float
    row: float
    title: str
    note: str = ""
    kind: str = "base"


#: Arrows are "from to" or "from to label"; "~" before the first name draws a dashed line: in training only.
FIGURES: dict[str, tuple[str, Mapping[str, Box], tuple[str, ...]]] = {
    "rcan": (
        "RCAN: recalibrated features, a gated memory, a weakly supervised contrast",
        {
            "image": Box(0, 0, "views", "frontal, lateral", "data"),
            "cnn": Box(1, 0, "backbone", "ResNet-101: 49 tokens"),
            "rve": Box(2, 0, "RVE", "eq. 3 to 7: recalibrates", "paper"),
            "sum": Box(3, 0, "+ memory response", "eq. 8 to 10"),
            "encoder": Box(4, 0, "encoder", "3 layers"),
            "memory": Box(3, 1, "memory", "2,048 rows, shared"),
            "pool": Box(1, 1, "pooled vectors", "one a view"),
            "wcl": Box(1, 2, "WCL", "eq. 16 to 19: weak labels", "loss"),
            "words": Box(0, 3, "words so far", "", "data"),
            "embed": Box(1, 3, "embedding", "and position"),
            "cgm": Box(3, 3, "CGM", "eq. 12 to 15: two gates", "paper"),
            "decoder": Box(4, 3, "decoder", "3 layers"),
            "next": Box(5, 3, "next word", "", "data"),
            "ce": Box(5, 2, "cross-entropy", "eq. 23: lambda 0.7", "loss"),
        },
        ("image cnn", "cnn rve", "rve sum", "sum encoder", "memory sum", "memory cgm", "~cnn pool", "~pool wcl",
         "words embed", "embed cgm", "cgm decoder", "encoder decoder", "decoder next", "~next ce"),
    ),
    "coacl": (
        "COACL: a knowledge memory asked by labels, orthogonal fusion, an adaptive contrast",
        {
            "image": Box(0, 0, "views", "joined along channels", "data"),
            "vit": Box(1, 0, "backbone", "ViT-B/16: 196 tokens"),
            "labels": Box(2, 0, "label branch", "14 observations (M2KT)"),
            "memory": Box(3, 0, "knowledge memory", "the labels look it up", "paper"),
            "encoder": Box(4, 0, "encoder", "tokens and priors"),
            "lloss": Box(2, 1, "label loss", "", "loss"),
            "vector": Box(1, 1, "image vector", ""),
            "mom": Box(1.5, 2, "MOM", "orthogonal basis", "paper"),
            "gfm": Box(2.5, 2, "GFM", "gated fusion", "paper"),
            "aclm": Box(3.5, 2, "ACLM", "hard negatives, adaptive", "loss"),
            "tvector": Box(1, 3, "text encoder", "report vector"),
            "words": Box(0, 3, "report", "words so far", "data"),
            "decoder": Box(4, 3, "decoder", ""),
            "next": Box(5, 3, "next word", "", "data"),
            "ce": Box(5, 2, "cross-entropy", "", "loss"),
        },
        ("image vit", "vit labels", "labels memory", "memory encoder", "~labels lloss", "~vit vector", "~vector mom",
         "~tvector mom", "~mom gfm", "~gfm aclm", "~words tvector", "words decoder", "encoder decoder", "decoder next",
         "~next ce"),
    ),
    "uar": (
        "UAR: image tokens, one orthonormal basis for image and words, a learned mask",
        {
            "image": Box(0, 0, "image", "112 x 112", "data"),
            "lsu": Box(1, 0, "LSU", "image tokenizer: 14 x 14 tokens", "paper"),
            "iemb": Box(2, 0, "token embedding", "from the codebook"),
            "cra": Box(3, 1.5, "CRA", "eq. 6 to 9: basis, dual gate", "paper"),
            "encoder": Box(4, 0, "encoder", "3 layers"),
            "triplet": Box(3, 2.75, "triplet loss", "eq. 10: image and report", "loss"),
            "words": Box(0, 3, "words so far", "", "data"),
            "temb": Box(2, 3, "word embedding", ""),
            "tir": Box(4, 1.5, "TIR", "eq. 11, 12: mask, stage 2", "paper"),
            "decoder": Box(4, 3, "decoder", "3 layers"),
            "next": Box(5, 3, "next word", "", "data"),
            "ce": Box(5, 2, "cross-entropy", "", "loss"),
        },
        ("image lsu", "lsu iemb", "iemb cra", "temb cra", "cra encoder", "cra decoder", "~cra triplet", "words temb",
         "encoder tir", "tir decoder", "decoder next", "~next ce"),
    ),
    "revtaf": (
        "REVTAF: a retrieved report, optimal-transport fusion, a diagnosis that the decoder reads",
        {
            "image": Box(0, 0.5, "image", "224 x 224", "data"),
            "cnn": Box(1, 0.5, "backbone", "ResNet-101"),
            "know": Box(1, 2, "knowledge encoder", "MedKLIP, frozen"),
            "lre": Box(2, 2, "LRE", "hyperbolic distance, eq. 3 to 5", "paper"),
            "bank": Box(2, 3.25, "training reports", "the nearest is taken", "data"),
            "prompts": Box(3, 2, "prompts", "global: sentences; local: entities", "paper"),
            "diag": Box(2, 0, "diagnosis branch", "18 statuses (PromptMRG)"),
            "mpsa": Box(3, 1, "FVTAF", "Sinkhorn attention, eq. 10, 11", "paper"),
            "fcc": Box(4, 2, "FCC", "eq. 12 to 14: consistency", "loss"),
            "rank": Box(1, 3.25, "ranking loss", "eq. 7; LRE alone, first", "loss"),
            "status": Box(4, 0, "status tokens", "begin of the report"),
            "decoder": Box(4, 1, "decoder", "BERT, 12 layers"),
            "next": Box(5, 1, "next word", "", "data"),
            "ce": Box(5, 2, "cross-entropy", "smoothed 0.1", "loss"),
        },
        ("image cnn", "image know", "know lre", "lre bank", "lre prompts", "bank prompts", "cnn diag", "cnn mpsa",
         "prompts mpsa", "mpsa decoder", "diag status", "status decoder", "decoder next", "~prompts fcc", "~lre rank",
         "~next ce"),
    ),
}  # fmt: skip


def centre(box: Box) -> tuple[float, float]:
    """Middle of a box in pixels."""
    return EDGE + WIDE / 2 + box.column * COLUMN, 52 + HIGH / 2 + box.row * ROW


def arrow(start: Box, end: Box, dashed: bool) -> str:
    """A line from the side that faces the other box."""
    (x, y), (u, v) = centre(start), centre(end)
    flat = abs(u - x) > WIDE / 2 and (abs(v - y) < HIGH or abs(u - x) >= COLUMN)
    if flat:
        sign = 1 if u > x else -1
        x, u = x + sign * WIDE / 2, u - sign * (WIDE / 2 + 2)
        path = f"M{x:.0f} {y:.0f} C{(x + u) / 2:.0f} {y:.0f} {(x + u) / 2:.0f} {v:.0f} {u:.0f} {v:.0f}"
    else:
        sign = 1 if v > y else -1
        y, v = y + sign * HIGH / 2, v - sign * (HIGH / 2 + 2)
        path = f"M{x:.0f} {y:.0f} C{x:.0f} {(y + v) / 2:.0f} {u:.0f} {(y + v) / 2:.0f} {u:.0f} {v:.0f}"
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{path}" fill="none" stroke="{INK}" stroke-width="1.3"{dash} marker-end="url(#a)"/>'


def draw(title: str, boxes: Mapping[str, Box], arrows: tuple[str, ...]) -> str:
    """The whole figure."""
    width = round(2 * EDGE + WIDE + COLUMN * max(box.column for box in boxes.values()))
    height = round(52 + HIGH + ROW * max(box.row for box in boxes.values()) + 44)
    parts = []
    for line in arrows:
        first, second = line.lstrip("~").split()
        parts.append(arrow(boxes[first], boxes[second], line.startswith("~")))
    for box in boxes.values():
        (x, y), (fill, edge, corner) = centre(box), KINDS[box.kind]
        words = textwrap.wrap(box.note, 25)
        top = y + 4 - 6.5 * len(words)
        parts.append(
            f'<rect x="{x - WIDE / 2:.0f}" y="{y - HIGH / 2:.0f}" width="{WIDE}" height="{HIGH}" rx="{corner}" '
            f'fill="{fill}" stroke="{edge}" stroke-width="1.4"/>'
            f'<text x="{x:.0f}" y="{top:.0f}" text-anchor="middle" font-weight="600">{box.title}</text>'
        )
        parts += [
            f'<text x="{x:.0f}" y="{top + 13 * (i + 1):.0f}" text-anchor="middle" font-size="10.5" fill="#52606d">'
            f"{word}</text>"
            for i, word in enumerate(words)
        ]
    for i, (kind, word) in enumerate(WORDS.items()):
        x, y = EDGE + i * 160, height - 22
        fill, edge, corner = KINDS[kind]
        parts.append(
            f'<rect x="{x}" y="{y}" width="22" height="13" rx="{min(corner, 6)}" fill="{fill}" stroke="{edge}"/>'
            f'<text x="{x + 28}" y="{y + 11}" font-size="11">{word}</text>'
        )
    parts.append(
        f'<path d="M{EDGE + 640} {height - 15}h26" stroke="{INK}" stroke-dasharray="4 3"/>'
        f'<text x="{EDGE + 672}" y="{height - 11}" font-size="11">in training only</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12.5" fill="{INK}" role="img" aria-label="{title}">'
        f'<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
        f'<text x="{EDGE}" y="26" font-size="15" font-weight="600">{title}</text>{"".join(parts)}</svg>\n'
    )


def main() -> None:
    """Write NAME.svg beside this file."""
    for name, figure in FIGURES.items():
        Path(__file__).with_name(f"{name}.svg").write_text(draw(*figure), encoding="utf-8")


if __name__ == "__main__":
    main()
