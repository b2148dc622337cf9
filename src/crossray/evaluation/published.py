"""The tables of the four papers and of users who reproduced them, for comparison with our own results.

`published.json` contains the numbers as printed; a number that cannot be right is flagged, not corrected. A published
number is not a `Result`: its protocol is only partly known, so it never enters a table of ours.
`crossray.pages.published_tables` shows our numbers below the published ones, with the differences between the
protocols.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from crossray.errors import UserError, choose

#: Metrics of published tables, in the order of their columns. "meteor" is whatever the source calls METEOR; "seconds"
#: is the time per report.
METRICS = (
    "seconds", "bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider",
    "ce_precision", "ce_recall", "ce_f1", "avg",
)  # fmt: skip

#: Datasets of published tables, with their names.
DATA = {"iu-xray": "IU X-Ray", "mimic-cxr": "MIMIC-CXR"}


@dataclass(frozen=True)
class PublishedProtocol:
    """The protocol of a table, as far as the source or its public code states it; None for unknown fields.

    Attributes:
        split: description of the evaluated studies.
        studies: number of evaluated studies, if the source prints it.
        views: views of each study that the model saw.
        section: section of the report.
        cleaner: cleaner of the references.
        truncated: whether references were cut.
        max_length: R2Gen's max_seq_length, if it cut the references.
        max_words: number of words to which references were cut, if words were counted.
        selection: how the checkpoint was selected.
        meteor: implementation of METEOR.
        labeler: labeler of the reports for precision, recall and F1.
        clinical: how these scores were averaged.
        trained_on: dataset of the training reports.
        notes: further remarks.
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
    """One row of a published table.

    Attributes:
        name: system, setting or variant.
        data: dataset that the row was measured on.
        values: value of each printed metric.
        year: year of the system, if the table prints it.
        own: whether this is the source's own system in its recommended setting.
        note: remark on the row; "" for none.
        flags: for each doubtful value, the reason.
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
        identifier: identifier, such as "rcan/iu-xray".
        title: title of the table.
        source: citation.
        section: table or section of the source.
        kind: "comparison" of systems, "sample" (a comparison on a few studies), "ablation", "figure" (facts without
            numbers) or "reproduction" by users.
        data: "iu-xray", "mimic-cxr" or "mixed".
        protocol: how it was measured.
        rows: rows in the order of the source.
        note: remark on the whole table; "" for none.
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
        """The row with this name.

        Raises:
            UserError: there is no such row.
        """
        for row in self.rows:
            if row.name == name:
                return row
        known = [row.name for row in self.rows]
        raise UserError(f"published table {self.identifier}: row {name!r} does not exist; {choose(name, known)}")

    def metrics(self) -> tuple[str, ...]:
        """Metrics that at least one row has, in the order of `METRICS`."""
        return tuple(name for name in METRICS if any(name in row.values for row in self.rows))


@cache
def load_tables() -> Mapping[str, PublishedTable]:
    """All published tables by identifier."""
    content = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return MappingProxyType({name: _table(name, values) for name, values in content["tables"].items()})


def table(identifier: str) -> PublishedTable:
    """One published table.

    Raises:
        UserError: there is no such table.
    """
    tables = load_tables()
    if identifier not in tables:
        raise UserError(f"published table {identifier!r} does not exist; {choose(identifier, tables)}")
    return tables[identifier]


def for_data(data: str, kinds: Sequence[str] = ("comparison", "sample", "reproduction")) -> tuple[PublishedTable, ...]:
    """The tables of some kinds on one dataset, each with the rows that were measured on it.

    Args:
        data: "iu-xray" or "mimic-cxr".
        kinds: kinds of table.

    Raises:
        UserError: the dataset does not exist.
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
