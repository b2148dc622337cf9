"""The table of an ablation: mean and standard deviation over seeds next to the published values, for each protocol."""

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossray.ablation.comparison import ComparedRow, Comparison, read_comparison, read_scores
from crossray.errors import UserError, counted
from crossray.evaluation import published
from crossray.evaluation.metrics.meteor import METRIC as METEOR
from crossray.evaluation.predictions.protocol import PROTOCOLS, Protocol, require_same
from crossray.evaluation.results import Result
from crossray.files.write import write_whole
from crossray.pages import page
from crossray.pages.published_tables import differences
from crossray.pages.tables import Grid

if TYPE_CHECKING:
    from rich.console import Console

#: By metric: heading of its column, and its name in the published tables.
COLUMNS = {
    "bleu1": ("BLEU-1", "bleu1"),
    "bleu2": ("BLEU-2", "bleu2"),
    "bleu3": ("BLEU-3", "bleu3"),
    "bleu4": ("BLEU-4", "bleu4"),
    METEOR: ("METEOR", "meteor"),
    "rouge_l": ("ROUGE-L", "rouge_l"),
    "cider": ("CIDEr", "cider"),
    "ce_f1": ("CE F1", "ce_f1"),
}

#: The protocol compared with published values.
PUBLISHED_PROTOCOL = "r2gen"


@dataclass(frozen=True)
class Score:
    """A metric over the seeds of a row.

    Attributes:
        mean: mean over the finished runs.
        deviation: sample standard deviation (n - 1); None for a single run.
    """

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {'-' if self.deviation is None else f'{self.deviation:.3f}'}"


@dataclass(frozen=True)
class Line:
    """A row of the table under one protocol.

    Attributes:
        name: name of the row.
        seeds: seeds of its finished runs.
        ignoring: number of runs that are no better than with shuffled images.
        ours: score by metric; empty before the first run is finished.
        published: published value by metric, with a question mark if it is doubtful.
    """

    name: str
    seeds: tuple[int, ...]
    ignoring: int
    ours: Mapping[str, Score]
    published: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} ({self.ignoring} of {len(self.seeds)} ignore the image)" if self.ignoring else self.name


@dataclass(frozen=True)
class Part:
    """The table under one protocol.

    Attributes:
        name: name of the protocol.
        protocol: protocol of all scores; None before the first run is finished.
        lines: one per row of the ablation.
        sentences: differences between its protocol and the published one.
    """

    name: str
    protocol: Protocol | None
    lines: tuple[Line, ...]
    sentences: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title, which explains the numbers."""
        if self.protocol is None:
            return f"Protocol {self.name}: no run is finished"
        beside = " | published value" if self._beside else ""
        studies = counted(self.protocol.studies, "study")
        return f"Protocol {self.name}, {studies}: mean ± standard deviation over seeds{beside}"

    def grid(self) -> Grid:
        """Our and the published value in one cell. Metrics that no run has are omitted; missing values are dashes."""
        lines = []
        for line in self.lines:
            cells = [str(line.ours.get(metric, "-")) for metric in self._metrics]
            if self._beside:
                values = [line.published.get(metric, "-") for metric in self._metrics]
                cells = [f"{cell} | {value}" for cell, value in zip(cells, values, strict=True)]
            lines.append([str(line), str(len(line.seeds)), *cells])
        return Grid(self.title, self._header, lines)

    def stacked(self) -> Grid:
        """The published values in separate lines, for the terminal and LaTeX."""
        lines = []
        for line in self.lines:
            lines.append([str(line), str(len(line.seeds)), *(str(line.ours.get(name, "-")) for name in self._metrics)])
            if line.published:
                lines.append(["  published", "", *(line.published.get(name, "-") for name in self._metrics)])
        return Grid(self.title.replace(" |", ", below it the"), self._header, lines)

    @property
    def _metrics(self) -> list[str]:
        return [metric for metric in COLUMNS if any(metric in line.ours for line in self.lines)]

    @property
    def _header(self) -> list[str]:
        return ["row", "seeds", *(COLUMNS[metric][0] for metric in self._metrics)]

    @property
    def _beside(self) -> bool:
        return any(line.published for line in self.lines)


@dataclass(frozen=True)
class AblationTable:
    """A whole table.

    Attributes:
        title: heading of the table.
        note: a sentence on how the runs were made.
        parts: protocol `r2gen` next to the published values, and `full`.
    """

    title: str
    note: str
    parts: tuple[Part, ...]


def read_table(folder: Path) -> AblationTable:
    """Read the table of the finished runs in the folder of an ablation.

    Raises:
        UserError: there is no ablation, its runs have different protocols, or the published table lacks a row.
    """
    comparison = read_comparison(folder)
    scores = {row: read_scores(folder, row) for row in comparison.rows}
    parts = []
    for name in PROTOCOLS:
        runs = {
            row: {seed: results[name] for seed, results in seeds.items() if name in results}
            for row, seeds in scores.items()
        }
        try:
            parts.append(_part(name, runs, comparison))
        except UserError as error:
            raise UserError(f"{folder}: {error}") from None
    return AblationTable(comparison.title, _note(comparison), tuple(parts))


def write_table(folder: Path) -> AblationTable:
    """Write table.md, table.tex and table.html to the folder of an ablation.

    Raises:
        UserError: see `read_table`.
    """
    table = read_table(folder)
    for name, render in (("table.md", markdown), ("table.tex", latex), ("table.html", html)):
        write_whole(folder / name, render(table).encode())
    return table


def markdown(table: AblationTable) -> str:
    """The table in Markdown."""
    pieces = [f"# {table.title}\n", f"{table.note}\n"]
    for part in table.parts:
        pieces.append(part.grid().markdown())
        if part.sentences:
            pieces.append("".join(f"- {sentence}\n" for sentence in part.sentences))
    return "\n".join(pieces)


def latex(table: AblationTable) -> str:
    """The table in LaTeX, with a `table*` for each protocol; it requires the package booktabs."""
    pieces = [r"% \usepackage{booktabs}"]
    for part in table.parts:
        grid = part.stacked()
        head, *body = (" & ".join(map(_latex_text, line)) + r" \\" for line in (grid.header, *grid.lines))
        caption = _latex_text(f"{table.title}. {grid.title}. {table.note}")
        pieces += [
            r"\begin{table*}", r"\centering\small", rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}", r"\toprule", head, r"\midrule", *body,
            r"\bottomrule", r"\end{tabular}", r"\end{table*}", *(f"% {sentence}" for sentence in part.sentences),
        ]  # fmt: skip
    return "\n".join(pieces) + "\n"


def html(table: AblationTable) -> str:
    """The table as an HTML page."""
    parts = []
    for part in table.parts:
        grid = part.grid()
        parts.append((page.table(grid.header, grid.lines, caption=grid.title), part.sentences))
    return page.document("ablation.html", table.title, note=table.note, parts=parts)


def print_table(table: AblationTable, console: "Console") -> None:
    """Print the table."""
    for line in (table.title, table.note):
        console.print(line, highlight=False)
    for part in table.parts:
        console.print()
        console.print(part.stacked().render(), crop=False)
        for sentence in part.sentences:
            console.print(f"- {sentence}", highlight=False)


def _part(name: str, runs: Mapping[ComparedRow, Mapping[int, Result]], comparison: Comparison) -> Part:
    found = [result for seeds in runs.values() for result in seeds.values()]
    protocol = require_same(result.protocol for result in found) if found else None
    theirs = None
    sentences: list[str] = []
    if comparison.published is not None and name == PUBLISHED_PROTOCOL:
        theirs = published.table(comparison.published)
        if found:
            drawn = bool(comparison.data_source.get("synthetic_images", False))
            sentences = differences(found[0], theirs, drawn=drawn)
    lines = tuple(_line(row, seeds, theirs) for row, seeds in runs.items())
    return Part(name, protocol, lines, tuple(sentences))


def _line(row: ComparedRow, runs: Mapping[int, Result], theirs: published.PublishedTable | None) -> Line:
    results = list(runs.values())
    ours = {}
    for metric in COLUMNS:
        if results and all(metric in result.scores for result in results):
            values = [result.scores[metric].value for result in results]
            ours[metric] = Score(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
    beside = {}
    if theirs is not None and row.published is not None:
        line = theirs.row(row.published)
        beside = {
            metric: f"{line.values[name]:.3f}{'?' if name in line.flags else ''}"
            for metric, (_, name) in COLUMNS.items()
            if name in line.values
        }
    ignoring = sum(bool(result.ignores_image) for result in results)
    return Line(row.name, tuple(runs), ignoring, ours, beside)


def _note(comparison: Comparison) -> str:
    """Note on how the runs were made."""
    options = ", ".join(f"{field} = {value}" for field, value in comparison.options.items())
    made = (
        f"recipe {comparison.recipe}{' with ' if options else ''}{options}; epochs: at most "
        f"{comparison.epochs}; scored once on the {comparison.split} split, with the model selected on validation."
    )
    if comparison.data_source.get("synthetic_images"):
        return f"Not comparable with published numbers, because the images are drawn, not radiographs: {made}"
    return f"Settings of our runs, which may differ from the published ones: {made}"


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"$\mid$", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def _latex_text(text: str) -> str:
    return re.sub("|".join(map(re.escape, _LATEX)), lambda found: _LATEX[found[0]], text)
