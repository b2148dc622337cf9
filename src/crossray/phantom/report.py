"""Writes the report of a drawn study, whose sentences are all true of the scene (docs/phantom.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossray.data.study import Split
from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.phrases import Speaker, finish, wording
from crossray.phantom.scene import Finding, Scene

#: Range of a report's target length in words: normal statements are added until it is reached ...
LENGTH = (20, 42)
#: ... unless they would make the report longer than this.
LONGEST = 56
#: Maximum number of findings in the impression.
IMPRESSION_FINDINGS = 3


@dataclass(frozen=True, slots=True)
class Report:
    """The sections of a report, each as plain text in whole sentences."""

    findings: str
    impression: str
    indication: str


def write_report(scene: Scene, split: Split, rng: np.random.Generator) -> Report:
    """Write the report of a scene.

    Every finding is mentioned, as doubtful if its status is "uncertain"; no absent finding is asserted, and no present
    one is denied. Training reports never contain reserved phrasings.

    Args:
        scene: the scene to describe.
        split: split of the study.
        rng: random generator for the wording; the report depends only on the arguments.
    """
    speaker = Speaker(split, scene.severity, rng)
    return Report(_findings(scene, speaker), _impression(scene, speaker), speaker.choose(wording()["indication"]))


def _findings(scene: Scene, speaker: Speaker) -> str:
    order: list[str] = speaker.one_of(wording()["orders"])
    sentences: dict[str, list[str]] = {region: [] for region in order}
    for finding in scene.findings:
        sentences[wording()["findings"][finding.name]["region"]].append(speaker.sentence(finding))
    length = sum(len(sentence.split()) for region in sentences.values() for sentence in region)
    wanted = int(speaker.rng.integers(*LENGTH))
    present = {finding.name for finding in scene.findings}
    for region, sentence in _normal_statements(present, sentences, speaker):
        words = len(sentence.split())
        if length + words <= LONGEST:
            sentences[region].append(sentence)
            length += words
        if length >= wanted:
            break
    return " ".join(sentence for region in order for sentence in sentences[region])


def _normal_statements(
    present: set[str], findings: Mapping[str, Sequence[str]], speaker: Speaker
) -> list[tuple[str, str]]:
    """True normal statements as (region, sentence), the most important first."""
    normal = wording()["normal"]
    statements: list[tuple[str, str]] = []
    covered = set()
    regions = ["heart", "lungs", *speaker.rng.permutation(["bones", "vessels", "mediastinum"])]
    for name in regions:
        possible = [entry for entry in normal[name] if _holds(entry, name, present, findings)]
        if possible and name not in covered:
            entry = possible[int(speaker.rng.integers(len(possible)))]
            covered.add(entry.get("covers"))
            statements.append((entry.get("region", name), finish(speaker.choose(entry))))
    denial = _denial(present, speaker)
    if denial:
        statements.insert(1, ("pleura", denial))
    return statements


def _holds(entry: Mapping[str, Any], region: str, present: set[str], findings: Mapping[str, Sequence[str]]) -> bool:
    if entry.get("after"):
        return bool(findings[region])
    return present.isdisjoint(entry["unless"])


def _denial(present: set[str], speaker: Speaker) -> str:
    nouns = [
        str(speaker.one_of(names))
        for share, names, unless in wording()["denials"]["nouns"]
        if speaker.chance(share) and present.isdisjoint(unless)
    ]
    if not nouns:
        return ""
    if speaker.chance(0.5):
        nouns.reverse()
    *front, last = nouns
    listed = f"{', '.join(front)}{',' if len(front) > 1 else ''} or {last}" if front else last
    return finish(speaker.choose(wording()["denials"]).format(nouns=listed))


def _impression(scene: Scene, speaker: Speaker) -> str:
    findings = [finding for finding in scene.findings if not CATALOGUE[finding.name].is_device]
    if not findings:
        return speaker.choose(wording()["impression"]["normal"])
    return " ".join(_conclusion(finding, speaker) for finding in findings[:IMPRESSION_FINDINGS])


def _conclusion(finding: Finding, speaker: Speaker) -> str:
    return finish(f"{'possible ' if finding.status == 'uncertain' else ''}{speaker.noun(finding)}.")
