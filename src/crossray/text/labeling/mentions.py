"""Builds statements from phrases: joins structures of the chest and their qualities."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossray.text.labeling.lexicon import Finding, Match, Quality, Structure

#: Maximum number of unmatched words between a structure and its quality ("heart size is again mildly enlarged").
FARTHEST = 12
#: The same if the adjective precedes the structure ("enlarged left hilar shadow").
FARTHEST_ATTRIBUTE = 3
#: The same between a verb and its adjective ("is at most mildly enlarged").
FARTHEST_VERB = 3
#: The same without a verb between them ("heart size now mildly enlarged").
FARTHEST_WITHOUT_VERB = 6
#: Maximum number of words between two structures of a list, including "and", "or" and commas.
FARTHEST_IN_LIST = 4

#: Cues that form a list: a quality of its last structure applies to all of them.
LISTING = frozenset({"and", "or", "comma"})


@dataclass(slots=True)
class Statement:
    """Observations that a sentence mentions, before negation and uncertainty are resolved.

    Attributes:
        observations: names; empty for a phrase that only looks like a finding.
        status: "positive", "negative" for a normal statement, "uncertain" for a borderline one.
        start: index of the first word.
        end: index after the last word.
        place: index of the word that earlier cues must precede to apply. In a clause, this is the quality, so that a
            denial before the subject does not apply.
        is_clause: whether it has a subject and a predicate.
        is_finding: whether a phrase names the observations, rather than a structure with a quality.
        is_sign: whether that phrase names only a sign of them.
    """

    observations: tuple[str, ...]
    status: str
    start: int
    end: int
    place: int
    is_clause: bool = False
    is_finding: bool = False
    is_sign: bool = False


@dataclass(slots=True)
class _Subject:
    structure: Structure
    match: Match
    joined: bool  # to the previous subject, by "and", "or" and commas only
    is_open: bool  # it has no quality yet
    has_verb: bool = False  # a verb follows it
    is_apart: bool = False  # what follows describes another subject: "heart normal with tortuous aorta"


def statements(matches: Sequence[Match]) -> list[Statement]:
    """Statements of a sentence, in word order.

    Args:
        matches: phrases of the sentence (`Lexicon.matches`).
    """
    found: list[Statement] = []
    subjects: list[_Subject] = []
    described: set[int] = set()  # ends of structures that follow their quality
    listing = False
    for index, match in enumerate(matches):
        for role in match.roles:
            if isinstance(role, Finding):
                found.append(_finding(role, match))
                listing = False
            elif isinstance(role, Structure):
                joined = bool(subjects) and (
                    subjects[-1].match is match
                    or (listing and match.start - subjects[-1].match.end <= FARTHEST_IN_LIST)
                )
                subjects.append(_Subject(role, match, joined, is_open=match.end not in described))
                listing = True
            elif isinstance(role, Quality):
                said = _said(role, match, index, matches, subjects)
                found += said
                if said and said[0].start == match.start:
                    described.add(said[0].end)
                listing = False
                if said:
                    break  # ignore other roles of the phrase
            elif role.kind not in LISTING:
                listing = False
                if subjects and role.kind in ("verb", "existence"):
                    subjects[-1].has_verb = True
                elif subjects and role.kind in ("with", "cause"):
                    subjects[-1].is_apart = True
                elif role.kind in ("break", "colon") and not (subjects and subjects[-1].match is matches[index - 1]):
                    subjects.clear()  # but not in "Lungs: clear"
    found.sort(key=lambda statement: statement.place)
    return found


def _finding(finding: Finding, match: Match) -> Statement:
    return Statement(
        finding.observations, "positive", match.start, match.end, match.start, is_finding=True, is_sign=finding.is_sign
    )


def _said(
    quality: Quality, match: Match, index: int, matches: Sequence[Match], subjects: list[_Subject]
) -> list[Statement]:
    """Statements about the structures before or after a quality."""
    before = matches[index - 1] if index else None
    if before is not None and subjects and subjects[-1].is_open:
        distance = match.start - before.end
        follows_verb = "verb" in before.cues() and distance <= FARTHEST_VERB
        follows_subject = before is subjects[-1].match and distance <= FARTHEST_ATTRIBUTE
    else:
        follows_verb = follows_subject = False
    if follows_verb or follows_subject:
        return _of_subjects(quality, match, subjects) or _of_next(quality, match, index, matches)
    said = _of_next(quality, match, index, matches)
    if said or not subjects:
        return said
    subject = subjects[-1]
    said_before = matches[index - 1 - bool(matches[index - 1].cues() & LISTING)]
    follows_quality = (  # "tortuous and calcified", "normal to enlarged"
        any(isinstance(role, Quality) for role in said_before.roles)
        and match.start - said_before.end <= FARTHEST_ATTRIBUTE
    )
    belongs = quality.is_noun or (
        not subject.is_apart and (subject.has_verb or match.start - subject.match.end <= FARTHEST_WITHOUT_VERB)
    )
    return _of_subjects(quality, match, subjects) if follows_quality or (subject.is_open and belongs) else []


def _of_subjects(quality: Quality, match: Match, subjects: list[_Subject]) -> list[Statement]:
    """Statements about the last structure before the quality, and those in a list with it."""
    result: list[Statement] = []
    for subject in reversed(subjects):
        if (result and not subject.is_open) or (not result and match.start - subject.match.end > FARTHEST):
            break
        if observations := subject.structure.tells.get(quality.name):
            subject.is_open = False
            is_compound = quality.is_noun and match.start - subject.match.end <= FARTHEST_ATTRIBUTE
            place = subject.match.start if is_compound else match.start
            result.append(
                Statement(
                    observations, quality.status, subject.match.start, match.end, place, is_clause=not quality.is_noun
                )
            )
        if result and not subject.joined:
            break
    return result


def _of_next(quality: Quality, match: Match, index: int, matches: Sequence[Match]) -> list[Statement]:
    """Statements about the structure that follows, as in "enlarged heart" or "elevation of the left hemidiaphragm"."""
    limit = FARTHEST_ATTRIBUTE + quality.is_noun
    end = match.end
    for following in matches[index + 1 : index + 4]:
        if following.start - end > limit:
            break
        structures = [role for role in following.roles if isinstance(role, Structure)]
        told = [observations for role in structures if (observations := role.tells.get(quality.name))]
        if told:
            said = [
                Statement(observations, quality.status, match.start, following.end, match.start)
                for observations in told
            ]
            return said + (_of_listed(quality, match, following, matches) if quality.status == "negative" else [])
        between = following.cues() & {"and", "or"} or any(isinstance(role, Quality) for role in following.roles)
        if structures or not between:
            break
        end = following.end
    return []


def _of_listed(quality: Quality, match: Match, first: Match, matches: Sequence[Match]) -> list[Statement]:
    """Statements about the structures listed after the first: "normal heart size and mediastinal contours".

    Only for normal qualities: an abnormal structure in the list has its own quality, which takes precedence.
    """
    result: list[Statement] = []
    before, listed = first, False
    for following in matches[matches.index(first) + 1 :]:
        if following.cues() & LISTING:
            listed = True
            continue
        structures = [role for role in following.roles if isinstance(role, Structure)]
        if not listed or not structures or following.start - before.end > FARTHEST_IN_LIST:
            break
        result += [
            Statement(observations, quality.status, match.start, following.end, match.start)
            for role in structures
            if (observations := role.tells.get(quality.name))
        ]
        before, listed = following, False
    return result
