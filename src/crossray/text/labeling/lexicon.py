"""A trie over words that finds all phrases of a language in one pass."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, NamedTuple

from crossray.text.labeling import registry
from crossray.text.labeling.tokens import folded, tokens


class Finding(NamedTuple):
    """A phrase that names observations, or (`is_sign`) only a sign of them."""

    observations: tuple[str, ...]
    is_sign: bool = False


class Structure(NamedTuple):
    """A part of the chest; `tells` lists, by quality, the observations that the structure with this quality implies."""

    name: str
    tells: Mapping[str, tuple[str, ...]]


class Quality(NamedTuple):
    """A quality of a structure: the status of the observations it implies, and whether it is a noun ("enlargement")."""

    name: str
    status: str
    is_noun: bool


class Cue(NamedTuple):
    """A phrase that changes what is asserted around it; `kind` is a key of `cues` in the phrase file."""

    kind: str


#: Maximum number of fillers between two words of a phrase.
MOST_FILLERS = 3

Role = Finding | Structure | Quality | Cue


class Match(NamedTuple):
    """A phrase found in a sentence: its possible roles, and the half-open range of its words."""

    roles: tuple[Role, ...]
    start: int
    end: int

    def cues(self) -> set[str]:
        """Kinds of its cue roles."""
        return {role.kind for role in self.roles if isinstance(role, Cue)}


class _Node:
    __slots__ = ("following", "roles")

    def __init__(self) -> None:
        self.following: dict[str, _Node] = {}
        self.roles: tuple[Role, ...] = ()


@dataclass(frozen=True)
class Lexicon:
    """All phrases, as a trie over words.

    Attributes:
        roots: node by first word.
        fillers: words that may occur between the words of a phrase.
        spellings: correct word by misspelled word.
        words: all words of the phrases, including fillers.
    """

    roots: Mapping[str, _Node]
    fillers: frozenset[str]
    spellings: Mapping[str, str]
    words: frozenset[str]

    def matches(self, words: Sequence[str]) -> list[Match]:
        """The phrases in a sentence from left to right: the longest at each position, without overlaps.

        Args:
            words: lower-case words and punctuation of one sentence.
        """
        found: list[Match] = []
        words = [self.spellings.get(word, word) for word in words]
        fillers, count, place = self.fillers, len(words), 0
        for start, node in enumerate(map(self.roots.get, words)):
            if node is None or start < place:
                continue
            roles, end, ahead, last = node.roles, start + 1, start + 1, start + 1 + MOST_FILLERS
            while ahead < count:
                following = node.following.get(words[ahead])
                ahead += 1
                if following is not None:
                    node = following
                    last = ahead + MOST_FILLERS
                    if node.roles:
                        roles, end = node.roles, ahead
                elif ahead > last or words[ahead - 1] not in fillers:
                    break
            if roles:
                found.append(Match(roles, start, end))
                place = end
        return found


@functools.cache
def lexicon(language: str = registry.ENGLISH, convention: str = registry.OWN) -> Lexicon:
    """The lexicon of a language's phrases under a convention (`registry.phrases`)."""
    return build(registry.phrases(language, convention), folds=language != registry.ENGLISH)


def build(content: Mapping[str, Any], *, folds: bool = False) -> Lexicon:
    """Build a lexicon from phrases in the form of `registry.phrases`.

    Args:
        content: the phrases.
        folds: ignore accents (`tokens.folded`); the words given to `Lexicon.matches` must be folded too.
    """
    fold = folded if folds else str
    sets: Mapping[str, Sequence[str]] = content["sets"]
    root = _Node()
    known: set[str] = set()
    for phrase, role in _roles(content):
        for words in expand(phrase, sets):
            node = root
            for word in map(fold, words):
                known.add(word)
                node = node.following.setdefault(word, _Node())
            node.roles = _joined(node.roles, role)
    spellings = {wrong: word for word in map(fold, content["often_misspelled"]) for wrong in _misspelled(word)}
    return Lexicon(
        root.following,
        frozenset(map(fold, content["fillers"])),
        {wrong: word for wrong, word in spellings.items() if wrong not in known},
        frozenset(known).union(map(fold, content["fillers"])),
    )


def expand(phrase: str, sets: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Expand a pattern of the phrase file into phrases, each a list of words.

    Args:
        phrase: words; "a|b" means a or b, a trailing "?" makes a word optional, "$name" is any phrase of that set.
        sets: phrases by name of the set.
    """
    choices: list[list[str]] = []
    for word in phrase.split():
        optional = word.endswith("?") and word != "?"  # a lone question mark is a token
        options = [
            option for part in word.removesuffix("?" * optional).split("|") for option in _set_or_word(part, sets)
        ]
        choices.append([*options, ""] if optional else options)
    for chosen in itertools.product(*choices):
        yield tokens(" ".join(chosen))


def _misspelled(word: str) -> Iterator[str]:
    """The word with one letter missing, wrong or added, or with two adjacent letters swapped."""
    for place in range(len(word) + 1):
        before, after = word[:place], word[place:]
        yield before + after[1:]
        yield before + after[1:2] + after[:1] + after[2:]
        for letter in ascii_lowercase:
            yield before + letter + after[1:]
            yield before + letter + after


def _set_or_word(part: str, sets: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if not part.startswith("$"):
        return [part]
    return [" ".join(words) for phrase in sets[part[1:]] for words in expand(phrase, sets)]


def _roles(content: Mapping[str, Any]) -> Iterator[tuple[str, Role]]:
    for observation, phrases in content["findings"].items():
        for phrase in phrases:
            yield phrase, Finding((observation,))
    for observation, phrases in content["signs"].items():
        for phrase in phrases:
            yield phrase, Finding((observation,), is_sign=True)
    for phrase in content["nothing"]:
        yield phrase, Finding(())
    for name, entry in content["structures"].items():
        tells = {quality: tuple(observations) for quality, observations in entry["tells"].items()}
        for phrase in entry["names"]:
            yield phrase, Structure(name, tells)
    for name, entry in content["qualities"].items():
        for key in ("adjectives", "nouns"):
            for phrase in entry.get(key, ()):
                yield phrase, Quality(name, entry["status"], key == "nouns")
    for kind, phrases in content["cues"].items():
        for phrase in phrases:
            yield phrase, Cue(kind)


def _joined(roles: tuple[Role, ...], role: Role) -> tuple[Role, ...]:
    """`roles` with one more; findings of the same phrase are merged."""
    for place, other in enumerate(roles):
        if isinstance(other, Finding) and isinstance(role, Finding):
            both = Finding(tuple(dict.fromkeys(other.observations + role.observations)), other.is_sign and role.is_sign)
            return (*roles[:place], both, *roles[place + 1 :])
    return roles if role in roles else (*roles, role)
