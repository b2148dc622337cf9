"""From phrases to statements: joins a structure of the chest with what is said about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossray.text.labeling.lexicon import Finding, Match, Quality, Structure

#: Largest number of unmatched words between a structure and what is said of it ("heart size is again mildly enlarged").
FARTHEST = 12
#: The same where the adjective stands before the structure ("enlarged left hilar shadow").
FARTHEST_ATTRIBUTE = 3
#: The same between a verb and its adjective ("is at most mildly enlarged").
FARTHEST_VERB = 3
#: The same where no verb stands between them ("heart size now mildly enlarged").
FARTHEST_WITHOUT_VERB = 6
#: Largest number of words, listing words counted, between two structures of one list.
FARTHEST_IN_LIST = 4

#: Cues that only list: what is said of the last structure of a list holds for all of it.
LISTING = frozenset({"and", "or", "comma"})


@dataclass(slots=True)
class Statement:
    """Observations that a sentence speaks of, before negation and doubt.

    Attributes:
        observations: names; may be empty for what only looks like a finding.
        status: "positive", "negative" for a normal statement, "uncertain" for a borderline one.
        start: first word; `end`: the one after the last.
        place: word from which cues before it count: a denial before the subject of a sentence of its own does not.
        is_clause: subject and predicate, a sentence of its own.
        is_finding: named by a phrase of its own.
        is_sign: by a phrase that says less than the observations' names.
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
    joined: bool  # to the subject before, by nothing but "and", "or" and commas
    is_open: bool  # nothing was said of it yet
    has_verb: bool = False  # a verb stands behind it
    is_apart: bool = False  # behind it begins what is said of something else: "heart normal with tortuous aorta"


def statements(matches: Sequence[Match]) -> list[Statement]:
    """Statements of a sentence in the order of their places.

    Args:
        matches: phrases of the sentence, from `Lexicon.matches`.
    """
    found: list[Statement] = []
    subjects: list[_Subject] = []
    described: set[int] = set()  # ends of structures whose quality stands before them
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
                    break  # a second meaning of the phrase does not count
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
    """What a quality says, of the structures before or behind it."""
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
    """Statements about the last structure named before, and about those that are listed with it."""
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
    """Statements about what is listed behind the first structure: "normal heart size and mediastinal contours".

    Only for normal qualities: what is abnormal behind the list is said with a quality of its own, and that counts more.
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
