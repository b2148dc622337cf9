"""Scenes from the MeSH tags of real reports, such as `Opacity/lung/upper lobe/left;Cardiomegaly/mild`.

A tag is a heading and qualifiers. The heading, sometimes with a qualifier, determines what to draw (`tag_rules.RULES`);
the other qualifiers determine side, place and degree. A tag counts as drawn only if every side and place that it names
is drawn; everything else is sampled from the seed. All tags count as abnormal except `NOT_ABNORMAL`: a normal study, a
study that was not indexed, or poor image quality.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crossray.phantom.catalogue import CATALOGUE, FindingKind
from crossray.phantom.sample import sample_degree, sample_exposure, sample_patient
from crossray.phantom.scene import DEGREES, Finding, Scene, Severity
from crossray.phantom.tag_rules import (
    HEADING_DEGREES,
    IMPLIED,
    LOCATIONS,
    QUALIFIER_DEGREES,
    RULES,
    SEVERAL_KINDS,
)

#: Tags, in lower case, that are not abnormal findings.
NOT_ABNORMAL = frozenset({"normal", "no indexing", "technical quality of image unsatisfactory"})

#: Number of nodules or granulomas drawn for "multiple" or "scattered" ones without a place.
SEVERAL = 3


@dataclass(frozen=True, slots=True)
class Coverage:
    """The number of abnormal tag occurrences that are drawn.

    Attributes:
        abnormal: number of occurrences of tags that are not in `NOT_ABNORMAL`.
        drawn: number of those that a scene shows, with side and place.
        undrawn: occurrences by tag of the others, the most frequent first.
    """

    abnormal: int
    drawn: int
    undrawn: Mapping[str, int]

    @property
    def share(self) -> float:
        """Share of the abnormal occurrences that are drawn; 1.0 if there are none."""
        return self.drawn / self.abnormal if self.abnormal else 1.0


def split_tags(tags: str) -> list[str]:
    """The abnormal tags in a row of the semicolon-separated MeSH column."""
    each = (tag.strip() for tag in tags.split(";"))
    return [tag for tag in each if tag and tag.lower() not in NOT_ABNORMAL]


def scene_from_tags(tags: str, seed: int, severity: Severity = "realistic") -> Scene:
    """Create a scene with the findings that the tags of a real report describe.

    Args:
        tags: MeSH tags, separated by semicolons, as in `indiana_reports.csv`.
        seed: seed of everything that the tags do not specify, including patient and exposure; 0 or more.
        severity: amount of variation of patient and exposure.

    Returns:
        The scene; `Scene.undrawn` lists the abnormal tags that are not drawn.
    """
    rng = np.random.default_rng((seed, zlib.crc32(tags.encode())))
    findings: dict[tuple[str, str, str], Finding] = {}
    undrawn = []
    for tag in split_tags(tags):
        drawn = _draw_tag(tag, rng)
        if not drawn:
            undrawn.append(tag)
        for finding in drawn:
            findings.setdefault((finding.name, finding.side, finding.place), finding)
    patient, exposure = sample_patient(rng, severity), sample_exposure(rng, severity)
    return Scene(int(rng.integers(2**31)), patient, exposure, tuple(findings.values()), severity, tuple(undrawn))


def coverage(tags: Iterable[str]) -> Coverage:
    """Count the abnormal tag occurrences of many studies, and those that are drawn.

    Args:
        tags: the MeSH column, one string per study.
    """
    occurrences = Counter(tag for study in tags for tag in split_tags(study))
    rng = np.random.default_rng(0)
    undrawn = {tag: count for tag, count in occurrences.most_common() if not _draw_tag(tag, rng)}
    total = occurrences.total()
    return Coverage(total, total - sum(undrawn.values()), undrawn)


def _draw_tag(tag: str, rng: np.random.Generator) -> list[Finding]:
    """The findings that represent a tag; empty if one of the sides or places that it names cannot be drawn."""
    heading, *qualifiers = [re.sub(r"\s+", " ", part).strip().lower() for part in tag.split("/")]
    named = set(qualifiers)
    for needs, kinds in RULES.get(heading, ()):
        if not needs or not needs.isdisjoint(named):
            findings = [_draw_kind(kind, heading, qualifiers, rng) for kind in kinds]
            return [finding for group in findings for finding in group] if all(findings) else []
    return []


def _draw_kind(name: str, heading: str, qualifiers: Sequence[str], rng: np.random.Generator) -> list[Finding]:
    kind = CATALOGUE[name]
    places: list[str] = []
    for location in qualifiers:
        candidates = [place for place in LOCATIONS.get(location, ()) if place in kind.places]
        if candidates:
            places.append(candidates[0])
        elif location in LOCATIONS and location not in IMPLIED.get(name, ()):
            return []
    if not places:
        several = name in SEVERAL_KINDS and not {"multiple", "scattered"}.isdisjoint(qualifiers)
        places = _open_places(kind, _side(qualifiers), SEVERAL if several else 1, rng)
    degree = _degree(kind, heading, qualifiers, rng)
    findings = []
    for place in dict.fromkeys(places):
        sides = _sides(kind, place, _side(qualifiers), rng)
        if not sides:
            return []
        findings += [Finding(name, side, place, degree) for side in sides]
    return findings


def _side(qualifiers: Sequence[str]) -> str:
    """The side named by the qualifiers: "left", "right", "bilateral" or ""."""
    named = {"left", "right", "bilateral"}.intersection(qualifiers)
    return "bilateral" if len(named) > 1 else "".join(named)


def _open_places(kind: FindingKind, side: str, count: int, rng: np.random.Generator) -> list[str]:
    """Choose `count` places of the kind that are possible on the side; [""] if it has none."""
    fitting = [place for place in kind.places if _fits(side, kind.sides_at(place))]
    if not fitting:
        return [""]
    return [str(place) for place in rng.choice(fitting, size=min(count, len(fitting)), replace=False)]


def _fits(side: str, possible: Sequence[str]) -> bool:
    return not side or side in possible or (side == "bilateral" and len(possible) > 1)


def _sides(kind: FindingKind, place: str, named: str, rng: np.random.Generator) -> list[str]:
    """Sides to draw at a place; empty if the named side cannot be drawn there."""
    possible = kind.sides_at(place)
    if not named:
        return [str(rng.choice(possible))]
    if named in possible:
        return [named]
    if named == "bilateral":
        return [side for side in possible if side != "bilateral"]
    return []


def _degree(kind: FindingKind, heading: str, qualifiers: Sequence[str], rng: np.random.Generator) -> str:
    named = [QUALIFIER_DEGREES[qualifier] for qualifier in qualifiers if qualifier in QUALIFIER_DEGREES]
    named += [HEADING_DEGREES[heading]] if heading in HEADING_DEGREES else []
    if not named or not kind.degrees:
        return sample_degree(rng, kind)
    rank = DEGREES.index(named[0])
    return min(kind.degrees, key=lambda degree: abs(DEGREES.index(degree) - rank))
