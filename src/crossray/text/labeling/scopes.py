"""Resolves negation and uncertainty: the scope of each cue in a sentence.

The scope of a cue before a finding ("no", "possible") extends to a boundary, a new statement, or the end of its list;
the scope of a cue after a finding ("is not seen", "cannot be excluded") is the list that ends before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crossray.text.labeling.lexicon import Cue, Finding, Match
from crossray.text.labeling.mentions import Statement

POSITIVE, NEGATIVE, UNCERTAIN = "positive", "negative", "uncertain"

#: Maximum distance in words from a negation to a normal statement that it reverses ("not entirely normal").
FARTHEST_DENIAL = 2


# Bits for the cues between two mentions; `enum.IntFlag` would take a tenth of a report's time. CLAUSE is a comma, "and"
# or "or" after a verb, which ends the previous statement.
COMMA, AND, OR, VERB, BREAK, CUE, CLAUSE, COLON, WITH = (1 << bit for bit in range(9))


@dataclass(slots=True)
class Mention:
    """A statement with its status in the sentence; `gap` contains the bits of the cues since the previous mention."""

    statement: Statement
    status: str
    gap: int


_AFTER = {"negation_after": NEGATIVE, "doubt_after": UNCERTAIN}
_ITEM_ENDS = frozenset({"comma", "and", "or", "verb", "boundary", "break", "colon", "existence"})
_BREAKS = frozenset({"boundary", "break"})
_LISTING = {"comma": COMMA, "and": AND, "or": OR}


def resolve(statements: Sequence[Statement], matches: Sequence[Match]) -> list[Mention]:
    """Determine the status of each statement, in word order.

    Args:
        statements: statements of one sentence (`mentions.statements`).
        matches: phrases of the same sentence.
    """
    if not statements:
        return []
    reader = _Reader(matches)
    waiting = list(reversed(statements))
    for index, match in enumerate(matches):
        while waiting and waiting[-1].place < match.start:
            reader.mention(waiting.pop())
        # "The heart is negative": the word is a quality of the structure and negates nothing else.
        is_said = bool(waiting) and waiting[-1].place == match.start
        for role in match.roles:
            if isinstance(role, Cue) and not (is_said and role.kind.startswith("negation")):
                reader.cue(role.kind, index)
        while waiting and waiting[-1].place == match.start:
            reader.mention(waiting.pop())
    reader.settle_heading()
    if not any(mention.statement.is_sign for mention in reader.mentions):
        return reader.mentions
    named = {
        name for mention in reader.mentions if not mention.statement.is_sign for name in mention.statement.observations
    }
    return [
        mention
        for mention in reader.mentions
        if not (mention.statement.is_sign and named.issuperset(mention.statement.observations))
    ]


class _Reader:
    """Reads a sentence from left to right.

    Attributes:
        mentions: the mentions so far.
        scope: status of the current scope: "negative" or "uncertain"; "unsaid" if nothing is asserted; None outside.
    """

    def __init__(self, matches: Sequence[Match]) -> None:
        self.mentions: list[Mention] = []
        self.scope: str | None = None
        self._opened = 0  # first word of the scope's cue
        self._silent = False  # under a heading such as "indication:"
        self._used = False  # a mention lies within the scope
        self._verb = False  # a verb lies within the scope
        self._comma = False  # a comma lies within the scope
        self._gap = 0
        self._heading: Mention | None = None  # a finding before a colon: "PNEUMOTHORAX: ..."
        self._matches = matches

    def mention(self, statement: Statement) -> None:
        """Process the next statement."""
        if statement.is_clause and self.scope == NEGATIVE and self._opened < statement.start:
            self.scope = None
        status = statement.status
        if self.scope == NEGATIVE:
            is_denied_at_once = statement.is_clause and statement.place - self._opened <= FARTHEST_DENIAL
            status = POSITIVE if status == NEGATIVE and is_denied_at_once else NEGATIVE  # "lungs are not clear"
        elif self.scope == UNCERTAIN and status == POSITIVE:
            status = UNCERTAIN
        self._used = True
        if self._silent or self.scope == "unsaid":
            return
        mention = Mention(statement, status, self._gap)
        self._gap = 0
        if self.mentions and mention.gap & ~WITH == OR:
            self._alternatives(self.mentions[-1], mention)
        self.mentions.append(mention)

    def cue(self, kind: str, index: int) -> None:
        """Process the next cue, match `index` of the sentence."""
        if kind in _LISTING:
            if self._gap & VERB:
                self._gap = self._gap & ~VERB | CLAUSE
            self._gap |= _LISTING[kind]
            self._comma = self._comma or kind == "comma"
            self._item(kind, index)
        elif kind == "negation_before":
            self._open(NEGATIVE, index)
        elif kind == "doubt_before" or (kind == "doubt_link" and self.scope != NEGATIVE):
            self._open(UNCERTAIN, index)
        elif kind == "unsaid_before":
            self._open("unsaid", index)
        elif kind in _AFTER:
            self._look_back(_AFTER[kind])
            self._gap |= CUE
        elif kind == "doubt_either":
            if self._finding_follows(index):
                self._open(UNCERTAIN, index)
            else:
                self._look_back(UNCERTAIN)
        elif kind == "doubt_between":
            self._look_back(UNCERTAIN)
            self._open(UNCERTAIN, index)
        elif kind.startswith("heading"):
            self._silent = kind == "heading_unsaid"
            self._gap |= BREAK
            self.scope = None
        elif kind == "negation_either":
            if self.mentions and not self._gap & ~COLON:
                self._look_back(NEGATIVE)
                self._gap |= CUE
            elif self._finding_follows(index):
                self._open(NEGATIVE, index)
            elif self._gap == COMMA:  # "Left effusion, resolved."
                self._look_back(NEGATIVE)
                self._gap |= CUE
        elif kind == "colon":
            self.settle_heading()
            self._heading = self.mentions[-1] if len(self.mentions) == 1 and not self._gap else None
            self._gap |= COLON
            self.scope, self._used = None, False
        elif kind in _BREAKS:
            self.settle_heading()
            self._gap |= BREAK
            self.scope = None
        elif kind == "existence":
            self._gap |= VERB
            if self._used:
                self.scope = None
        elif kind == "verb":
            self._gap |= VERB
            self._verb = True
        elif kind == "with":
            self._gap |= WITH
            if self._used:
                self.scope = None
        elif (
            kind in ("relative", "asserted")
            or (kind == "cause" and self.scope == NEGATIVE)
            or (kind == "presence" and self._gap & COMMA and self._comma)
        ):
            self.scope = None

    def settle_heading(self) -> None:
        """Resolve a finding before a colon: a mention of it after the colon replaces it."""
        heading, self._heading = self._heading, None
        if heading is None:
            return
        named = set(heading.statement.observations)
        if any(named & set(mention.statement.observations) for mention in self.mentions if mention is not heading):
            self.mentions.remove(heading)
        elif self.scope == NEGATIVE and not self._used:
            heading.status = NEGATIVE  # "PNEUMOTHORAX: No."

    def _open(self, scope: str, index: int) -> None:
        self.scope, self._opened = scope, self._matches[index].start
        self._used = self._verb = self._comma = False
        self._gap |= CUE

    def _item(self, kind: str, index: int) -> None:
        """Process a comma, "and" or "or", which may end the scope."""
        if self.scope == NEGATIVE:
            if self._verb and self._used and kind != "or":
                self.scope = None
        elif self.scope is not None and kind == "comma" and not self._in_list(index):
            self.scope = None

    def _in_list(self, index: int) -> bool:
        """Whether the comma belongs to a list whose last item follows "or"."""
        for match in self._matches[index + 1 :]:
            kinds = match.cues()
            if kinds & {"or", "doubt_between"}:
                return True
            if kinds - {"comma"}:
                return False
        return False

    def _finding_follows(self, index: int) -> bool:
        """Whether a finding follows match `index` within the same list item."""
        for match in self._matches[index + 1 :]:
            if any(isinstance(role, Finding) for role in match.roles):
                return True
            if match.cues() & _ITEM_ENDS:
                return False
        return False

    def _look_back(self, status: str) -> None:
        """Apply a cue to the finding before it, and to those in a list with that finding."""
        if self._gap & BREAK:
            return
        listing = False
        for mention in reversed(self.mentions):
            if listing and mention.gap & VERB:
                return  # "there is edema and effusion is not seen"
            # "Absence of effusion cannot be confirmed": uncertainty after a finding overrides negation before it.
            if mention.status == POSITIVE or (status == UNCERTAIN and not listing and mention.statement.is_finding):
                mention.status = status
            listing = listing or bool(mention.gap & (AND | OR))
            if not listing or mention.gap & (VERB | CLAUSE | BREAK | CUE):
                return

    def _alternatives(self, first: Mention, second: Mention) -> None:
        """Make both of two different findings uncertain, as in "atelectasis or infiltrate"."""
        if (
            first.status == second.status == POSITIVE
            and first.statement.is_finding
            and second.statement.is_finding
            and first.statement.observations != second.statement.observations
        ):
            first.status = second.status = UNCERTAIN
