"""Extracts the entities and places that the knowledge encoder learns from a report.

MedKLIP (arXiv:2301.02228) is trained on triplets (entity, place, status). Names, descriptions and phrases come from
`entities.yaml`; negation and uncertainty are handled as in the labeler (`labeling`).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from crossray.text.labeling.lexicon import Finding, Lexicon, Match, build
from crossray.text.labeling.mentions import Statement, statements
from crossray.text.labeling.registry import phrases
from crossray.text.labeling.scopes import NEGATIVE, POSITIVE, UNCERTAIN, resolve
from crossray.text.labeling.tokens import sentence_spans, tokens
from crossray.text.observations import STATUSES


@functools.cache
def content() -> Mapping[str, Any]:
    """The content of `entities.yaml`; comments in that file describe its structure."""
    text = resources.files("crossray.text").joinpath("entities.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


#: The 75 entities of MedKLIP, in its order.
ENTITIES: tuple[str, ...] = tuple(content()["entities"])

#: The 51 places of MedKLIP, in its order.
PLACES: tuple[str, ...] = tuple(content()["places"])

#: One sentence for each of `ENTITIES`.
DESCRIPTIONS: tuple[str, ...] = tuple(entry["text"] for entry in content()["entities"].values())

#: Maximum distance in words from a region to the entity that follows it ("left basilar streaky atelectasis").
FARTHEST_BEFORE = 3

_UNSPECIFIED = "unspecified"
_BREAKS = frozenset({",", "and", "or", ";"})
#: Regions of a lung: a finding in one of them may be mentioned again without its region.
_LUNG = frozenset({"lower lobe", "upper lobe", "middle lobe", "lower lung", "mid lung", "upper lung", "apex", "base",
                   "bases", "apices", "retrocardiac"})  # fmt: skip
#: Unspecific regions, used only if no other is named.
_WIDE = frozenset({"lung", "pulmonary", "cardiopulmonary"})
_ENTITY = {name: index for index, name in enumerate(ENTITIES)}
_PLACE = {name: index for index, name in enumerate(PLACES)}
#: Strength by status; an entity has the status of its strongest mention.
_STRENGTH = {NEGATIVE: 1, UNCERTAIN: 2, POSITIVE: 3}


def place_text(place: str) -> str:
    """The sentence that represents one of `PLACES` in MedKLIP's training."""
    return f"It is located at {place}"


def triplet_text(entity: str, place: str, present: bool) -> str:
    """A triplet as text, for the text encoder."""
    return f"{entity}; located at {place}; {'present' if present else 'absent'}"


@dataclass(frozen=True, slots=True)
class Triplet:
    """A statement about an entity.

    Attributes:
        entity: one of `ENTITIES`.
        places: one of `PLACES`, or two for both sides.
        status: "positive", "negative" or "uncertain".
    """

    entity: str
    places: tuple[str, ...]
    status: str


def read_sentences(report: str) -> list[tuple[str, tuple[Triplet, ...]]]:
    """Extract the triplets of each sentence.

    Args:
        report: text of any section, raw or cleaned.

    Returns:
        The sentences, as words joined by spaces, and the triplets of each.
    """
    words = tokens(report)
    return [(" ".join(words[a:b]), tuple(_triplets(words[a:b]))) for a, b in sentence_spans(words)]


class Knowledge(NamedTuple):
    """The statements of a report about all entities.

    Attributes:
        statuses: (75,) int8, indices of `STATUSES`: the status of each entity's strongest mention (positive, then
            uncertain, then negative).
        places: (75, 51) bool, the places of each entity's positive mentions; without one, the row is all False.
    """

    statuses: NDArray[np.int8]
    places: NDArray[np.bool_]


def summarize(triplets: Sequence[Triplet]) -> Knowledge:
    """Combine the triplets of a report."""
    statuses = np.zeros(len(ENTITIES), np.int8)
    places = np.zeros((len(ENTITIES), len(PLACES)), np.bool_)
    strongest: dict[str, str] = {}
    for triplet in triplets:
        before = strongest.get(triplet.entity)
        if before is None or _STRENGTH[triplet.status] > _STRENGTH[before]:
            strongest[triplet.entity] = triplet.status
        if triplet.status == POSITIVE:
            places[_ENTITY[triplet.entity], [_PLACE[place] for place in triplet.places]] = True
    for entity, status in strongest.items():
        statuses[_ENTITY[entity]] = STATUSES.index(status)
    return Knowledge(statuses, places)


def _triplets(words: Sequence[str]) -> list[Triplet]:
    """Triplets of one sentence in word order."""
    matches = entity_lexicon().matches(words)
    said = statements(matches)
    if not said:
        return []
    parts = _Parts(words, place_lexicon().matches(words), said)
    entries = content()["entities"]
    found = [
        Triplet(entity, parts.places(mention.statement, entries[entity].get("region")), mention.status)
        for mention in resolve(said, matches)
        for entity in mention.statement.observations
    ]
    # "The heart is enlarged" also means cardiomegaly.
    found += [
        Triplet("cardiomegaly", ("heart_size",), each.status)
        for each in found
        if each.entity == "enlarge" and set(each.places) & {"heart_size", "heart_border"}
    ]
    return found


class _Parts:
    """Assigns the regions and sides that a sentence names to its statements."""

    def __init__(self, words: Sequence[str], matches: Sequence[Match], said: Sequence[Statement]) -> None:
        self._regions = [(match, name) for match in matches if (name := _named(match, content()["regions"]))]
        self._sides = [(match, name) for match in matches if (name := _named(match, content()["sides"]))]
        starts, ends = {statement.start for statement in said}, {statement.end for statement in said}
        # Adjacent statements share their region and side ("left apical calcified granuloma"); a comma or "and" ends
        # the range of a statement.
        breaks = {place for place, word in enumerate(words) if word in _BREAKS}
        self._starts, self._ends = (starts - ends) | breaks, ends - starts

    def places(self, statement: Statement, usual: str | None) -> tuple[str, ...]:
        """Places of a statement; `usual` is the region of its entity if the sentence names none."""
        first = max((end for end in self._ends if end <= statement.start), default=0)
        last = min((start for start in self._starts if start >= statement.end), default=1 << 30)
        spans = [(statement.start, statement.end), (first, statement.start), (statement.end, last)]
        inside, before, after = (self._within(self._regions, *span) for span in spans)
        if inside:
            region: str | None = _most_telling(inside)
        elif before and (not after or (_is_near(before[-1][0], statement) and _most_telling(before) not in _WIDE)):
            region = _most_telling(before)
        elif after:
            region = after[0][1]
        else:
            named = [name for match, name in self._regions if match.end <= statement.start and name in _LUNG]
            # "consolidation of the right lower lobe consistent with pneumonia"
            region = named[-1] if named and usual == "lung" else usual
            spans += [(0, statement.start)] if region != usual else []
        sides: list[tuple[Match, str]] = next(filter(None, (self._within(self._sides, *span) for span in spans)), [])
        names = {name for _, name in sides}
        side = "none" if not names else names.pop() if len(names) == 1 else "both"
        return place_names(region, side)

    @staticmethod
    def _within(named: Sequence[tuple[Match, str]], first: int, last: int) -> list[tuple[Match, str]]:
        return [entry for entry in named if first <= entry[0].start and entry[0].end <= last]


def _is_near(match: Match, statement: Statement) -> bool:
    return statement.start - match.end <= FARTHEST_BEFORE


def _most_telling(named: Sequence[tuple[Match, str]]) -> str:
    """The last region not in `_WIDE`, or the last region if all are."""
    names = [name for _, name in named]
    return ([name for name in names if name not in _WIDE] or names)[-1]


def _named(match: Match, names: Mapping[str, Any]) -> str | None:
    for role in match.roles:
        if isinstance(role, Finding):
            for name in role.observations:
                if name in names:
                    return name
    return None


def place_names(region: str | None, side: str) -> tuple[str, ...]:
    """The places of a region of `entities.yaml` on a side: "left", "right", "both" or "none"."""
    if region is None:
        return (_UNSPECIFIED,)
    entry = content()["regions"][region]
    named = entry.get("place", entry.get(side))
    return (named,) if isinstance(named, str) else tuple(named)


@functools.cache
def entity_lexicon() -> Lexicon:
    """The lexicon of the entities' phrases, with the labeler's cues."""
    labeler = phrases()
    entries, regions = content()["entities"], content()["regions"]
    parts = [name for structure in labeler["structures"].values() for name in structure["names"]]
    parts += [name for region in regions.values() for name in region["names"]]
    adjectives = {name: entry["adjectives"] for name, entry in entries.items() if "adjectives" in entry}
    return build(
        {
            **labeler,
            "findings": {name: entry["nouns"] for name, entry in entries.items() if "nouns" in entry},
            "signs": {},
            "structures": {"part": {"names": parts, "tells": {name: [name] for name in adjectives}}},
            "qualities": {name: {"status": POSITIVE, "adjectives": said} for name, said in adjectives.items()},
        }
    )


@functools.cache
def place_lexicon() -> Lexicon:
    """The lexicon of the names of regions and sides."""
    named = {name: region["names"] for name, region in content()["regions"].items()} | content()["sides"]
    none: Mapping[str, Any] = {"signs": {}, "structures": {}, "qualities": {}, "cues": {}, "sets": {}}
    return build({"findings": named, "nothing": [], "fillers": [], "often_misspelled": [], **none})
