"""Reads the labeler's data files, which are in the same folder.

* `observations/NAME.yaml` declares one observation: its position among the columns (`order`; last by default), whether
  it cancels "no finding" (`cancels_no_finding`), the phrases that name it (`findings`) or only a sign of it (`signs`),
  and the structures and qualities that imply it (`told_by`). Phrases are a list in English, or a mapping from language
  to list. Adding such a file adds the observation everywhere.
* `languages/CODE.yaml` describes a language: its cues, structures and qualities. For languages other than English, it
  also contains the phrases of the observations, so that each language is one file.
* `signs.yaml` contains the cues common to all languages, such as "(-)".
* `conventions/NAME.yaml` contains the differences between another labeler's definition of the observations and the
  declared one.
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

#: The convention of the declared observations.
OWN = "crossray"

#: Findings that cancel "no finding" under some conventions but are not observations.
INCIDENTAL = "incidental"

#: Default of `order`.
LAST = 1000

_PHRASES = ("findings", "signs")
#: Loads every value as text: "no" and "on" are words here.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(frozen=True)
class Observation:
    """One declared observation.

    Attributes:
        name: name of its column and file.
        order: position among the columns.
        cancels_no_finding: whether it excludes "no finding" when positive or uncertain.
        phrases: phrases by language, then by "findings" or "signs".
        told_by: by structure, the qualities that imply the observation.
    """

    name: str
    order: int
    cancels_no_finding: bool
    phrases: Mapping[str, Mapping[str, tuple[str, ...]]]
    told_by: Mapping[str, tuple[str, ...]]


@functools.cache
def observations() -> tuple[Observation, ...]:
    """All declared observations, in column order."""
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
    """The findings that exclude "no finding" under a convention when they are positive or uncertain."""
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
        UserError: the convention has no file.
        ValueError: the convention removes a phrase that is not declared.
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
    """Frequent words, separated by spaces, of each language without a phrase file."""
    return _load(resources.files(__package__) / "other_languages.yaml")


def _tells(structure: str, untold: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, list[str]]:
    """By quality of a structure, the observations that it implies, without those that a convention removes."""
    told: dict[str, list[str]] = {}
    for observation in observations():
        left_out = untold.get(observation.name, {}).get(structure, ())
        for quality in observation.told_by.get(structure, ()):
            if quality not in left_out:
                told.setdefault(quality, []).append(observation.name)
    return told


def check_convention(name: str) -> None:
    """Raise a `UserError` unless this convention exists."""
    if name not in conventions():
        raise UserError(f"convention {quoted(name)} does not exist; {choose(name, conventions())}")


def _convention(name: str) -> Mapping[str, Any]:
    """The differences of a convention; empty for our own."""
    check_convention(name)
    return {} if name == OWN else _load(dict(_files("conventions"))[name])


def _draw(content: dict[str, Any], drawn: Mapping[str, Any]) -> None:
    """Apply the differences of a convention to the English phrases, in place."""
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
    # A removed phrase must still match, as nothing: a lead is not a finding, nor may its words join another phrase.
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
