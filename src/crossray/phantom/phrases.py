"""Turns findings into sentences, using the phrases in `phrases.yaml`."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import yaml

from crossray.data.study import Split
from crossray.phantom.scene import DEGREES, Finding, Severity

#: Probability that a report outside the training split uses a reserved phrasing, if there is one.
RESERVED_SHARE = 0.25

#: Phrase number r (from 1) has weight r ** -SKEW, so a few phrasings account for most sentences.
SKEW: Mapping[Severity, float] = {"easy": 2.0, "realistic": 1.0}


@functools.cache
def wording() -> Mapping[str, Any]:
    """The content of `phrases.yaml`; comments in that file describe its structure."""
    return yaml.safe_load(resources.files(__package__).joinpath("phrases.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Speaker:
    """Chooses the wording of one report.

    Attributes:
        split: split of the report; reserved phrasings are used only in "val" and "test".
        severity: preset of the scene, which determines how varied the language is.
        rng: random generator of all choices.
    """

    split: Split
    severity: Severity
    rng: np.random.Generator

    def one_of(self, options: Sequence[Any]) -> Any:
        """Choose one of `options`; earlier ones are more probable."""
        weights = np.arange(1, len(options) + 1) ** -SKEW[self.severity]
        return options[int(np.searchsorted(np.cumsum(weights), self.rng.random() * weights.sum()))]

    def choose(self, entry: Mapping[str, Any]) -> str:
        """Choose a phrase of an entry with `phrases` and `reserved`."""
        if self.split != "train" and self.chance(RESERVED_SHARE):
            return str(self.one_of(entry["reserved"]))
        return str(self.one_of(entry["phrases"]))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return bool(self.rng.random() < probability)

    def sentence(self, finding: Finding) -> str:
        """A sentence that states the finding, or expresses doubt if its status is "uncertain"."""
        entry = wording()["findings"][finding.name]
        template = self.choose(wording()["uncertain"] if finding.status == "uncertain" else entry)
        return finish(template.format(noun=self.noun(finding), **self._slots(finding)))

    def noun(self, finding: Finding) -> str:
        """The finding as a noun phrase without an article, such as "small left pleural effusion"."""
        template: str = wording()["findings"][finding.name]["noun"]
        return tidy(template.format(**self._slots(finding)))

    def _slots(self, finding: Finding) -> dict[str, str]:
        entry = wording()["findings"][finding.name]
        number = entry.get("number", "plural" if finding.side == "bilateral" else "one")
        plural = number == "plural"
        before, after, before_both, after_both = wording()["places"][finding.place]
        site, where = (before_both, after_both) if finding.side == "bilateral" else (before, after)
        slots = {
            "side": finding.side,
            "site": site.format(side=finding.side),
            "where": where.format(side=finding.side),
            "s": "s" if plural else "",
            "y": "ies" if plural else "y",
            "is": "are" if plural else "is",
            "a": "a" if number == "one" else "",
            "degree": "",
            "degreely": "",
        }
        if finding.degree:
            scale = wording()["scales"][entry.get("scale", "intensity")]
            rank = DEGREES.index(finding.degree)
            slots["degree"] = self.one_of(scale["adjectives"][rank])
            slots["degreely"] = self.one_of(scale["adverbs"][rank])
        return slots


def tidy(text: str) -> str:
    """`text` with single spaces, no space before punctuation, and "an" before a vowel."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([.,])", r"\1", text)
    return re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text)


def finish(text: str) -> str:
    """`text` as a sentence: tidied and capitalized."""
    text = tidy(text)
    return text[:1].upper() + text[1:]
