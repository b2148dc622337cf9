"""The clinical observations, and the rule-based labeler that extracts them from reports.

docs/data/labeler.md describes the rules; observations and phrases are declared in `labeling/observations` and
`labeling/languages`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossray.text.labeling.language import OTHER, as_in_phrases, language_of
from crossray.text.labeling.lexicon import lexicon
from crossray.text.labeling.mentions import statements
from crossray.text.labeling.registry import ENGLISH, OWN, cancels_no_finding, check_convention, languages, observations
from crossray.text.labeling.scopes import Mention, resolve
from crossray.text.labeling.tokens import sentence_spans, token_spans, tokens
from crossray.text.missing import is_missing

#: Names of all declared observations (`labeling/observations`): CheXpert's 14, PromptMRG's four, then any others.
OBSERVATIONS: tuple[str, ...] = tuple(observation.name for observation in observations())

#: The first 14: the observations of CheXpert and CheXbert.
CHEXPERT: tuple[str, ...] = OBSERVATIONS[:14]

#: The first 18: those with a code in PromptMRG's files.
PROMPTMRG: tuple[str, ...] = OBSERVATIONS[:18]

#: Statuses of an observation, indexed by PromptMRG's codes; "blank" means not mentioned.
STATUSES: tuple[str, ...] = ("blank", "positive", "negative", "uncertain")

#: Codes of the statuses of an observation that may be present.
CALLED: tuple[int, ...] = (STATUSES.index("positive"), STATUSES.index("uncertain"))

#: Name of the rules; stored with labels and scores, together with their version.
LABELER = "crossray-rules"
LABELER_VERSION = "4"

#: Names of the languages that have a phrase file.
LANGUAGES = {"en": "English", "es": "Spanish", "de": "German", "fr": "French"}

_CODES = {status: code for code, status in enumerate(STATUSES)}
#: Strength by status; an observation has the status of its strongest mention.
_STRENGTH = {status: strength for strength, status in enumerate(("blank", "negative", "uncertain", "positive"))}
_NO_FINDING = "no_finding"
_KNOWN = frozenset(OBSERVATIONS)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The mention that determined a label.

    Attributes:
        observation: one of `OBSERVATIONS`.
        status: "positive", "negative" or "uncertain".
        start: index of the first character of the mention in the report; `end`: index after its last one.
    """

    observation: str
    status: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ReportLabels:
    """The labels of a report.

    Attributes:
        codes: indices of `STATUSES`, in the order of `OBSERVATIONS`.
        evidence: for every label that is not blank, the mentions that determined it, in text order. A positive
            "no_finding" has none, because it depends on what the report does not say.
    """

    codes: tuple[int, ...]
    evidence: tuple[Evidence, ...]

    @property
    def statuses(self) -> tuple[str, ...]:
        """The codes as statuses."""
        return tuple(STATUSES[code] for code in self.codes)

    def status(self, observation: str) -> str:
        """The status of one of `OBSERVATIONS`."""
        return STATUSES[self.codes[OBSERVATIONS.index(observation)]]


def labeler_name(convention: str = OWN) -> str:
    """Name and version of the rules, and the convention unless it is CrossRay's own.

    Raises:
        UserError: there is no such convention.
    """
    check_convention(convention)
    return f"{LABELER} {LABELER_VERSION}" + (f", {convention} convention" if convention != OWN else "")


def label_report(report: str, convention: str = OWN) -> ReportLabels:
    """Label one report.

    The status of an observation is the strongest among its mentions (positive, then uncertain, then negative); without
    a mention it is blank. "no_finding" follows CheXpert: it is positive if no other CheXpert observation except
    "support_devices" is positive or uncertain, and blank otherwise. It is also blank for a text without words.

    Args:
        report: text of any section, raw or cleaned by `crossray.text.cleaning.clean`. In a language without a phrase
            file, all labels are blank, including "no_finding"; the same holds for a word such as "nan" or "N/A"
            (`crossray.text.missing`).
        convention: one of `crossray.text.labeling.registry.conventions`, which defines the observations.

    Returns:
        The labels and the mentions in `report` that determined them. The time is linear in the length of the text.

    Raises:
        UserError: there is no such convention.
    """
    words, language = _read(report)
    mentions = list(_mentions(words, language, convention))
    strongest = _strongest(words, mentions, cancels_no_finding(convention))
    evidence: list[Evidence] = []
    if mentions:
        spans = token_spans(report)
        for offset, mention in mentions:
            start, end = spans[offset + mention.statement.start][0], spans[offset + mention.statement.end - 1][1]
            evidence += (
                Evidence(observation, mention.status, start, end)
                for observation in mention.statement.observations
                if mention.status == strongest[observation] and observation in _KNOWN
            )
    return ReportLabels(_codes(strongest), tuple(sorted(evidence, key=lambda entry: (entry.start, entry.end))))


def label_reports(reports: Sequence[str], convention: str = OWN) -> NDArray[np.int8]:
    """Label N reports (`label_report`): (N, K) int8 codes, with columns in the order of `OBSERVATIONS`."""
    codes = np.empty((len(reports), len(OBSERVATIONS)), np.int8)
    cancels = cancels_no_finding(convention)
    for row, report in enumerate(reports):
        words, language = _read(report)
        codes[row] = _codes(_strongest(words, _mentions(words, language, convention), cancels))
    return codes


def report_language(report: str) -> str:
    """Language of a report: the code of a file in `labeling/languages`, "other", or "" for a text without words."""
    return "" if is_missing(report) else language_of(tokens(report))


def readable_by_rules(report: str) -> bool:
    """Whether the report's language has a phrase file; True for a text without words."""
    return report_language(report) != OTHER


def language_notes(counts: Mapping[str, int]) -> list[str]:
    """Describe the reports that are labeled with phrases other than English, or not at all.

    Args:
        counts: number of reports by language (`report_language`).

    Returns:
        One sentence each; empty if all reports are English or without words.
    """
    total = sum(counts.values())
    notes = []
    for code, count in sorted(counts.items()):
        if code in languages() and code != ENGLISH:
            notes.append(
                f"{count} of {total} reports look {LANGUAGES.get(code, code)} and are read by the rules for it"
            )
    if unread := counts.get(OTHER, 0):
        notes.append(
            f"{unread} of {total} reports are in no language that the rules read "
            f"({', '.join(LANGUAGES.get(code, code) for code in languages())}): their labels are blank"
        )
    return notes


def _read(report: str) -> tuple[list[str], str]:
    """The words and language of a report; no words if the language has no phrase file."""
    if is_missing(report):
        return [], ENGLISH
    words = tokens(report)
    language = language_of(words)
    if language not in languages():
        return [], ENGLISH
    return as_in_phrases(words, language), language


def _mentions(words: Sequence[str], language: str, convention: str) -> Iterator[tuple[int, Mention]]:
    """Each mention with the index in `words` of the first word of its sentence."""
    phrases = lexicon(language, convention)
    for start, end in sentence_spans(words):
        if matches := phrases.matches(words[start:end]):
            for mention in resolve(statements(matches), matches):
                yield start, mention


def _strongest(
    words: Sequence[str], mentions: Iterable[tuple[int, Mention]], cancels: frozenset[str]
) -> dict[str, str]:
    """Status by observation, without blank ones."""
    result: dict[str, str] = {}
    for _, mention in mentions:
        for observation in mention.statement.observations:
            if _STRENGTH[mention.status] > _STRENGTH[result.get(observation, "blank")]:
                result[observation] = mention.status
    if all(status == "negative" or name not in cancels for name, status in result.items()) and any(
        map(str.isalpha, words)
    ):
        result[_NO_FINDING] = "positive"
    return result


def _codes(statuses: Mapping[str, str]) -> tuple[int, ...]:
    return tuple(_CODES[statuses.get(observation, "blank")] for observation in OBSERVATIONS)
