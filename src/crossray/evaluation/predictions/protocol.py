"""The protocol behind a score, which is stored with every number (docs/evaluation.md).

Two protocols are always reported.

* `r2gen` is the protocol of the published tables: the reference is the true report as represented by the model's
  tokenizer, decode(encode(report)). It is cleaned and cut, and words outside the vocabulary are `<unk>`. In the R2Gen
  family, a sequence is [0] + ids + [0] truncated to `max_length`, including both zeros, so at most `max_length` - 1
  tokens remain: 59 words on IU X-Ray, 99 on MIMIC-CXR. It inflates scores and makes them depend on `max_length`.
* `full` is the cleaned report: not cut, no `<unk>`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from typing import Protocol as Interface

from crossray.errors import UserError, choose
from crossray.evaluation.metrics import clinical, nlg

#: Both protocols, in the order of every table.
PROTOCOLS = ("r2gen", "full")

#: Name of the implementation that computes the scores, and the versions of its computation.
IMPLEMENTATION = "crossray.evaluation"
VERSION = f"nlg {nlg.VERSION}, clinical {clinical.VERSION}"


class ReportTokenizer(Interface):
    """The part of `crossray.text.tokenizer.Tokenizer` needed for references."""

    legacy_ids: bool

    def clean(self, report: str) -> str:
        """The report after the tokenizer's cleaner."""

    def encode(self, report: str, max_length: int) -> list[int]:
        """Ids of the cleaned report; `max_length` includes bos and eos."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""


def references(report: str, tokenizer: ReportTokenizer, max_length: int) -> dict[str, str]:
    """The references of one study under both protocols.

    Args:
        report: true text of the evaluated section, uncleaned.
        tokenizer: tokenizer of the model.
        max_length: the R2Gen family's max_seq_length (60 for IU X-Ray, 100 for MIMIC-CXR).

    Returns:
        The reference for each protocol name. Under `r2gen` it has at most `max_length` - 1 tokens, whichever ids the
        tokenizer uses: without `legacy_ids` it always keeps an eos, which takes the place of a word in R2Gen's
        truncation.
    """
    places = max_length if tokenizer.legacy_ids else max_length + 1
    return {
        "r2gen": tokenizer.decode(tokenizer.encode(report, places)),
        "full": tokenizer.clean(report),
    }


@dataclass(frozen=True)
class Protocol:
    """Everything that must be equal for two scores to appear in one table.

    Attributes:
        name: "r2gen" or "full".
        section: section of the report that is generated, such as "findings".
        cleaner: cleaner of the references (`crossray.text.cleaning.CLEANERS`).
        max_length: R2Gen's max_seq_length; references have at most one token less. None if they are not cut.
        min_count: number of occurrences in the training reports below which a word is `<unk>` in the references. None
            means unknown under `r2gen`, and that no word is replaced under `full`.
        tokenizer: fingerprint of the tokenizer that made the references; None for `full`.
        views: views of each study that the model sees, such as "2" or "frontal"; "" if unknown.
        data: content hash of the prepared dataset; "" if unknown.
        split: evaluated split, or "".
        studies: number of studies in the evaluated file, over which CIDEr counts document frequencies.
        subset: digest of the studies if they were selected from a larger file; "" for the whole file.
        labeler: name and version of the labeler of the clinical scores; "" without such scores. How an uncertain
            observation counts is part of the name of a clinical score.
        group: "all" studies, or only the "normal" or "abnormal" ones by the labels of the dataset; "normal by text" and
            "abnormal by text" if the dataset has no labels and the labeler read the references.
        implementation: name of the implementation that computed the scores.
        version: versions of its computation.
    """

    name: str
    section: str = "findings"
    cleaner: str = "legacy"
    max_length: int | None = None
    min_count: int | None = None
    tokenizer: str | None = None
    views: str = ""
    data: str = ""
    split: str = ""
    studies: int = 0
    subset: str = ""
    labeler: str = ""
    group: str = "all"
    implementation: str = IMPLEMENTATION
    version: str = VERSION

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise UserError(f"protocol: {self.name!r} does not exist; {choose(self.name, PROTOCOLS)}")
        if self.name == "full" and (self.max_length, self.min_count, self.tokenizer) != (None, None, None):
            raise UserError(
                "protocol full: its references are neither cut nor mapped; leave out max_length, min_count and "
                "tokenizer"
            )

    def named(self, name: str) -> "Protocol":
        """The protocol of this name on the same studies."""
        if name == "full":
            return replace(self, name=name, max_length=None, min_count=None, tokenizer=None)
        return replace(self, name=name)

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Protocol":
        """The inverse of `as_dict`.

        Raises:
            UserError: an unknown field, or an unknown protocol name.
        """
        try:
            return cls(**values)
        except TypeError:
            known = ", ".join(cls.__dataclass_fields__)
            raise UserError(f"protocol: its fields are {known}; remove all others and give a name") from None

    def differences(self, other: "Protocol") -> tuple[str, ...]:
        """Names of the fields in which two protocols differ."""
        ours, theirs = self.as_dict(), other.as_dict()
        return tuple(name for name in ours if ours[name] != theirs[name])


def require_same(protocols: Iterable[Protocol]) -> Protocol:
    """The protocol that all scores of a table share.

    Raises:
        UserError: the protocols differ, or there is none.
    """
    first: Protocol | None = None
    for protocol in protocols:
        if first is None:
            first = protocol
        elif differing := first.differences(protocol):
            raise UserError(
                f"protocols {first.name!r} and {protocol.name!r} differ in {', '.join(differing)}: "
                "scores of different protocols cannot be compared; make one table for each"
            )
    if first is None:
        raise UserError("a table needs at least one result; evaluate a predictions file first")
    return first
