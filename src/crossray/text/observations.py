"""The clinical observations that reports are labelled with, and the rules that read them out of a report.

What is read and how is said in docs/data/labeler.md; the phrases are those of `labeling/phrases.yaml`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossray.text.labeling.lexicon import lexicon
from crossray.text.labeling.mentions import statements
from crossray.text.labeling.scopes import Mention, resolve
from crossray.text.labeling.tokens import sentence_spans, token_spans, tokens

#: The 14 CheXpert observations, then PromptMRG's four auxiliary ones, in the fixed order of SPEC 4.2.
OBSERVATIONS: tuple[str, ...] = (
    "enlarged_cardiomediastinum",
    "cardiomegaly",
    "lung_opacity",
    "lung_lesion",
    "edema",
    "consolidation",
    "pneumonia",
    "atelectasis",
    "pneumothorax",
    "pleural_effusion",
    "pleural_other",
    "fracture",
    "support_devices",
    "no_finding",
    "aorta_abnormal",
    "bone_spine_abnormal",
    "hemidiaphragm_abnormal",
    "lung_volume_abnormal",
)

#: The first 14, which CheXpert and CheXbert label.
CHEXPERT: tuple[str, ...] = OBSERVATIONS[:14]

#: Status of an observation by its code (SPEC 4.2): blank = not mentioned.
STATUSES: tuple[str, ...] = ("blank", "positive", "negative", "uncertain")

#: Name and version of the rules, for what is stored beside labels and scores.
LABELER = "crossray-rules"
LABELER_VERSION = "1"

_CODES = {status: code for code, status in enumerate(STATUSES)}
#: What a report says of an observation is the strongest of its mentions.
_STRENGTH = {status: strength for strength, status in enumerate(("blank", "negative", "uncertain", "positive"))}
_NO_FINDING = "no_finding"
#: Observations that a report without findings may have: devices, and what CheXpert does not know.
_NO_FINDINGS = frozenset({_NO_FINDING, "support_devices", *OBSERVATIONS[len(CHEXPERT) :]})


@dataclass(frozen=True, slots=True)
class Evidence:
    """The mention that decided on a label.

    Attributes:
        observation: one of `OBSERVATIONS`.
        status: "positive", "negative" or "uncertain".
        start: where the mention begins in the report; `end`: the place behind its last character.
    """

    observation: str
    status: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ReportLabels:
    """What a report says of each observation.

    Attributes:
        codes: indices of `STATUSES`, in the order of `OBSERVATIONS`.
        evidence: for every label that is not blank the mentions that decided on it, in the order of the text. A
            positive "no_finding" has none: it rests on what the report does not say.
    """

    codes: tuple[int, ...]
    evidence: tuple[Evidence, ...]

    @property
    def statuses(self) -> tuple[str, ...]:
        """The codes as statuses."""
        return tuple(STATUSES[code] for code in self.codes)

    def status(self, observation: str) -> str:
        """One of `STATUSES` for one of `OBSERVATIONS`."""
        return STATUSES[self.codes[OBSERVATIONS.index(observation)]]


def label_report(report: str) -> ReportLabels:
    """Labels of one report.

    An observation gets the strongest status that some mention has: positive, then uncertain, then negative; without a
    mention it is blank. "no_finding" is positive when no other of the 14 CheXpert observations but "support_devices" is
    positive or uncertain, and otherwise blank (CheXpert's rule); a text without words leaves it blank too.

    Args:
        report: text of any section, raw or cleaned by `crossray.text.cleaning.clean`.

    Returns:
        The labels, with the places in `report` that they rest on. The time is linear in the length of the text.
    """
    words = tokens(report)
    mentions = list(_mentions(words))
    strongest = _strongest(words, mentions)
    evidence: list[Evidence] = []
    if mentions:
        spans = token_spans(report)
        for offset, mention in mentions:
            start, end = spans[offset + mention.statement.start][0], spans[offset + mention.statement.end - 1][1]
            evidence += (
                Evidence(observation, mention.status, start, end)
                for observation in mention.statement.observations
                if mention.status == strongest[observation]
            )
    return ReportLabels(_codes(strongest), tuple(sorted(evidence, key=lambda entry: (entry.start, entry.end))))


def label_reports(reports: Sequence[str]) -> NDArray[np.int8]:
    """Labels of many reports: (N, 18) codes, columns in the order of `OBSERVATIONS`; see `label_report`."""
    codes = np.empty((len(reports), len(OBSERVATIONS)), np.int8)
    for row, report in enumerate(reports):
        words = tokens(report)
        codes[row] = _codes(_strongest(words, _mentions(words)))
    return codes


def _mentions(words: Sequence[str]) -> Iterator[tuple[int, Mention]]:
    """Each mention with the place of its sentence in `words`."""
    phrases = lexicon()
    for start, end in sentence_spans(words):
        if matches := phrases.matches(words[start:end]):
            for mention in resolve(statements(matches), matches):
                yield start, mention


def _strongest(words: Sequence[str], mentions: Iterable[tuple[int, Mention]]) -> dict[str, str]:
    """Observation to status; blank ones are left out."""
    result: dict[str, str] = {}
    for _, mention in mentions:
        for observation in mention.statement.observations:
            if _STRENGTH[mention.status] > _STRENGTH[result.get(observation, "blank")]:
                result[observation] = mention.status
    if all(status == "negative" or name in _NO_FINDINGS for name, status in result.items()) and any(
        map(str.isalpha, words)
    ):
        result[_NO_FINDING] = "positive"
    return result


def _codes(statuses: Mapping[str, str]) -> tuple[int, ...]:
    return tuple(_CODES[statuses.get(observation, "blank")] for observation in OBSERVATIONS)
