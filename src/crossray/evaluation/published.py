"""The tables of the four papers and of users who reproduced them, to stand beside our own results.

`published.json` holds the numbers as they were printed; one that cannot be right is flagged, not corrected. A published
number is no `Result`: its protocol is known in part only, so it never enters a table of ours.
`crossray.pages.published_tables` puts ours under theirs, with what keeps the two from comparing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crossray.errors import UserError, choose

#: Metrics of published tables, in the order of their columns. "meteor" is whatever the source called METEOR; "seconds"
#: are those that one report takes.
METRICS = (
    "seconds", "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider",
    "ce_precision", "ce_recall", "ce_f1", "avg",
)  # fmt: skip

#: Data sets of published tables, with their names.
DATA = {"iu-xray": "IU X-Ray", "mimic-cxr": "MIMIC-CXR"}


@dataclass(frozen=True)
class PublishedProtocol:
    """How a table was measured, as far as its source or its public code tells; None where they do not.

    Attributes:
        split: evaluated studies, in words.
        studies: their number, where the source prints one.
        views: views of a study that the model saw.
        section: section of the report.
        cleaner: cleaner of the references.
        truncated: whether references were cut.
        max_length: R2Gen's max_seq_length, where that cut them.
        max_words: words that were left of a reference, where words were counted.
        selection: what chose the checkpoint.
        meteor: implementation of METEOR.
        labeler: what labeled the reports for precision, recall and F1.
        clinical: how these were averaged.
        trained_on: data set of the training reports.
        notes: what else has to be known.
    """

    split: str | None = None
    studies: int | None = None
    views: str | None = None
    section: str | None = None
    cleaner: str | None = None
    truncated: bool | None = None
    max_length: int | None = None
    max_words: int | None = None
    selection: str | None = None
    meteor: str | None = None
    labeler: str | None = None
    clinical: str | None = None
    trained_on: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedRow:
    """One line of a published table.

    Attributes:
        name: system, setting or variant.
        data: data set that the line was measured on.
        values: metric to value as printed; metrics that were not printed are missing.
        year: of the system, where the table prints it.
        own: whether this is the source's own system, in the setting that it recommends.
        note: what has to be known of the line; "" for nothing.
        flags: metric to the reason why its printed value is doubtful.
    """

    name: str
    data: str
    values: Mapping[str, float]
    year: int | None = None
    own: bool = False
    note: str = ""
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedTable:
    """A published table.

    Attributes:
        identifier: such as "rcan/iu-xray".
        title: what it shows.
        source: citation.
        section: its place in the source.
        kind: "comparison" of systems, "sample" (the same on a few studies), "ablation", "figure" (facts without
            numbers) or "reproduction" by users.
        data: "iu-xray", "mimic-cxr" or "mixed".
        protocol: how it was measured.
        rows: its lines, in the order of the source.
        note: what has to be known of the whole table; "" for nothing.
    """

    identifier: str
    title: str
    source: str
    section: str
    kind: str
    data: str
    protocol: PublishedProtocol
    rows: tuple[PublishedRow, ...]
    note: str = ""

    def row(self, name: str) -> PublishedRow:
        """The line of this name.

        Raises:
            UserError: there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        known = [row.name for row in self.rows]
        raise UserError(f"published table {self.identifier}: row {name!r} does not exist; {choose(name, known)}")

    def metrics(self) -> tuple[str, ...]:
        """Metrics that at least one line has, in the order of `METRICS`."""
        return tuple(name for name in METRICS if any(name in row.values for row in self.rows))


@cache
def load_tables() -> Mapping[str, PublishedTable]:
    """All published tables by identifier."""
    content = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return MappingProxyType({name: _table(name, values) for name, values in content["tables"].items()})


def table(identifier: str) -> PublishedTable:
    """One published table.

    Raises:
        UserError: there is none of this identifier.
    """
    tables = load_tables()
    if identifier not in tables:
        raise UserError(f"published table {identifier!r} does not exist; {choose(identifier, tables)}")
    return tables[identifier]


def for_data(data: str, kinds: Sequence[str] = ("comparison", "sample", "reproduction")) -> tuple[PublishedTable, ...]:
    """The tables of some kinds on one data set, each with the lines that were measured there.

    Args:
        data: "iu-xray" or "mimic-cxr".
        kinds: kinds of table.

    Raises:
        UserError: the data set is unknown.
    """
    if data not in DATA:
        raise UserError(f"published: data set {data!r} does not exist; {choose(data, DATA)}")
    chosen = (
        replace(found, rows=tuple(row for row in found.rows if row.data == data))
        for found in load_tables().values()
        if found.kind in kinds
    )
    return tuple(found for found in chosen if found.rows)


def _table(identifier: str, values: Mapping[str, Any]) -> PublishedTable:
    protocol = values["protocol"]
    return PublishedTable(
        identifier=identifier,
        title=values["title"],
        source=values["source"],
        section=values["section"],
        kind=values["kind"],
        data=values["data"],
        protocol=PublishedProtocol(**{**protocol, "notes": tuple(protocol.get("notes", ()))}),
        rows=tuple(PublishedRow(**{"data": values["data"], **row}) for row in values["rows"]),
        note=values.get("note", ""),
    )
