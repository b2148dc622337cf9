"""What the labeler knows, from the files beside this one.

* `observations/NAME.yaml` declares one observation: its place in the order of the columns (`order`; without it, behind
  all others), whether it cancels "no finding" (`cancels_no_finding`), the phrases that name it (`findings`) or say less
  than its name (`signs`), and the structures whose qualities tell of it (`told_by`). Phrases are a list in English, or
  a mapping from language to list. Adding such a file adds the observation everywhere.
* `languages/CODE.yaml` is one language: its cues, names of structures and qualities. Languages other than English hold
  the phrases of the observations too, so that a language is one file.
* `signs.yaml` holds the cues that every language writes alike, such as "(-)".
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import yaml

ENGLISH = "en"

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
def phrases(language: str = ENGLISH) -> Mapping[str, Any]:
    """All phrases of a language: the keys of its file, with `findings` and `signs` by observation.

    A structure is `{"names": phrases, "tells": {quality: observations}}`.

    Raises:
        KeyError: the language has no file.
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
    content["structures"] = {
        structure: {"names": names, "tells": _tells(structure)} for structure, names in content["structures"].items()
    }
    return content


@functools.cache
def other_languages() -> Mapping[str, str]:
    """Frequent words, parted by blanks, of each language that the rules do not read."""
    return _load(resources.files(__package__) / "other_languages.yaml")


def _tells(structure: str) -> dict[str, list[str]]:
    """Quality of a structure to the observations that it tells of."""
    told: dict[str, list[str]] = {}
    for observation in observations():
        for quality in observation.told_by.get(structure, ()):
            told.setdefault(quality, []).append(observation.name)
    return told


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
