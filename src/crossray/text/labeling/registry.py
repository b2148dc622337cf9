"""The knowledge of the labeler, from the files next to this one.

* `observations/NAME.yaml` declares one observation: its place in the order of the columns (`order`; without it, behind
  all others), whether it cancels "no finding" (`cancels_no_finding`), the phrases that name it (`findings`) or say less
  than its name (`signs`), and the structures whose qualities tell of it (`told_by`). Phrases are a list in English, or
  a mapping from language to list. Adding such a file adds the observation everywhere.
* `languages/CODE.yaml` is one language: its cues, names of structures and qualities. Languages other than English hold
  the phrases of the observations too, so that a language is one file.
* `signs.yaml` holds the cues that every language writes alike, such as "(-)".
* `conventions/NAME.yaml` contains the differences of another labeler's observations; without one, observations are as
  declared.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from crossray.errors import UserError, choose, quoted

ENGLISH = "en"

#: The convention of the files in `observations`.
OWN = "crossray"

#: Findings that cancel "no finding" under some conventions but are not observations.
INCIDENTAL = "incidental"

#: Place in the order of an observation that does not say its own.
LAST = 1000

_PHRASES = ("findings", "signs")
#: Reads every value as text: "no" and "on" are words here.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True)
class Observation:
    """One declared observation.

    Attributes:
        name: its column; the name of its file.
        order: place among the columns.
        cancels_no_finding: whether a report that states it or leaves it uncertain has a finding.
        phrases: language to "findings" and "signs" to phrases.
        told_by: structure to the qualities of it that tell of the observation.
    """

    name: str
    order: int
    cancels_no_finding: bool
    phrases: Mapping[str, Mapping[str, tuple[str, ...]]]
    told_by: Mapping[str, tuple[str, ...]]


@functools.cache
def observations() -> tuple[Observation, ...]:
    """All declared observations, in the order of the columns."""
    declared = [_declared(name, _load(file)) for name, file in _files("observations")]
    return tuple(sorted(declared, key=lambda observation: (observation.order, observation.name)))


@functools.cache
def languages() -> tuple[str, ...]:
    """Codes of the languages that have a phrase file."""
    return tuple(name for name, _ in _files("languages"))


@functools.cache
def conventions() -> tuple[str, ...]:
    """Names of the conventions, this package's own first."""
    return OWN, *(name for name, _ in _files("conventions"))


@functools.cache
def cancels_no_finding(convention: str = OWN) -> frozenset[str]:
    """What a report with "no finding" neither states nor leaves uncertain under a convention."""
    declared = {observation.name for observation in observations() if observation.cancels_no_finding}
    more = _convention(convention).get("cancels_no_finding", ())
    return frozenset(declared.union(more, [INCIDENTAL]))


@functools.cache
def phrases(language: str = ENGLISH, convention: str = OWN) -> Mapping[str, Any]:
    """All phrases of a language: the keys of its file, with `findings` and `signs` by observation.

    A structure is `{"names": phrases, "tells": {quality: observations}}`.

    Args:
        language: one of `languages`.
        convention: one of `conventions`.

    Raises:
        KeyError: the language has no file.
        UserError: the convention has none.
        ValueError: the convention's file speaks of a phrase that is not there.
    """
    content = dict(_load(dict(_files("languages"))[language]))
    for kind in _PHRASES:
        content[kind] = {
            observation.name: [
                *content.get(kind, {}).get(observation.name, ()),
                *observation.phrases.get(language, {}).get(kind, ()),
            ]
            for observation in observations()
        }
    signs = _load(resources.files(__package__) / "signs.yaml")
    content["cues"] = {
        kind: [*content["cues"].get(kind, ()), *signs.get(kind, ())] for kind in {**content["cues"], **signs}
    }
    drawn = _convention(convention)
    content["structures"] = {
        structure: {"names": names, "tells": _tells(structure, drawn.get("untold", {}))}
        for structure, names in content["structures"].items()
    }
    content["qualities"] = {
        name: {**quality, "status": drawn.get("statuses", {}).get(name, quality["status"])}
        for name, quality in content["qualities"].items()
    }
    if language == ENGLISH:
        _draw(content, drawn)
    return content


@functools.cache
def other_languages() -> Mapping[str, str]:
    """Frequent words, parted by blanks, of each language that the rules do not read."""
    return _load(resources.files(__package__) / "other_languages.yaml")


def _tells(structure: str, untold: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """Quality of a structure to the observations that it tells of, without those that a convention leaves untold."""
    told: dict[str, list[str]] = {}
    for observation in observations():
        left_out = untold.get(observation.name, {}).get(structure, ())
        for quality in observation.told_by.get(structure, ()):
            if quality not in left_out:
                told.setdefault(quality, []).append(observation.name)
    return told


def check_convention(name: str) -> None:
    """Raise a `UserError` unless there is a convention of this name."""
    if name not in conventions():
        raise UserError(f"convention {quoted(name)} does not exist; {choose(name, conventions())}")


def _convention(name: str) -> Mapping[str, Any]:
    """What a convention draws otherwise; nothing for our own."""
    check_convention(name)
    return {} if name == OWN else _load(dict(_files("conventions"))[name])


def _draw(content: dict[str, Any], drawn: Mapping[str, Any]) -> None:
    """Change English phrases as a convention says."""
    for part, left_out in (
        ("findings", drawn.get("without", {})),
        ("structures", drawn.get("without_structures", {})),
        ("cues", drawn.get("without_cues", {})),
    ):
        for name, unwanted in left_out.items():
            entry = content[part][name]
            names = entry["names"] if part == "structures" else entry
            if missing := [phrase for phrase in unwanted if phrase not in names]:
                raise ValueError(f"{part} {name}: no phrase {missing[0]!r} to leave out")
            kept = [phrase for phrase in names if phrase not in unwanted]
            content[part][name] = {**entry, "names": kept} if part == "structures" else kept
    # What names an observation no more still keeps its place: a lead is no finding, and no part of a longer phrase.
    content["nothing"] = [*content["nothing"], *(p for part in drawn.get("without", {}).values() for p in part)]
    content["findings"] = {**content["findings"], INCIDENTAL: drawn.get("incidental", [])}


def _declared(name: str, content: Mapping[str, Any]) -> Observation:
    by_language: dict[str, dict[str, tuple[str, ...]]] = {}
    for kind in _PHRASES:
        given = content.get(kind, ())
        for language, entries in (given if isinstance(given, Mapping) else {ENGLISH: given}).items():
            by_language.setdefault(language, {})[kind] = tuple(entries)
    return Observation(
        name=name,
        order=int(content.get("order", LAST)),
        cancels_no_finding=content["cancels_no_finding"] == "true",
        phrases=by_language,
        told_by={structure: tuple(qualities) for structure, qualities in content.get("told_by", {}).items()},
    )


def _files(folder: str) -> Iterator[tuple[str, Traversable]]:
    """Name without suffix and file of each YAML file in a folder, sorted."""
    files = (resources.files(__package__) / folder).iterdir()
    for file in sorted(files, key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            yield file.name.removesuffix(".yaml"), file


def _load(file: Traversable) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    return loaded
