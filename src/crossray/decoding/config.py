"""How a report is searched for. Imports nothing heavy: the command line reads its help from here."""

from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, get_args

from crossray.errors import UserError, choose

Method = Literal["beam", "greedy", "sample", "mbr"]
#: What reports are compared by (`crossray.evaluation.utilities`).
UtilityName = Literal["bleu", "cider", "clinical"]
LengthPenalty = Literal["none", "average", "wu"]

#: Fields that hold one of several names.
_NAMES = {"method": get_args(Method), "length_penalty": get_args(LengthPenalty), "utility": get_args(UtilityName)}

#: Type of a field's default to what its value must be an instance of, and how a message says that.
_TYPES: dict[type, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "a word"),
    tuple: (list | tuple, "a list of words"),
}


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """The search for the words of a report; the defaults are those of the R2Gen family.

    Attributes:
        method: "beam" keeps the best hypotheses of each length, "greedy" the best word, "sample" draws words, "mbr"
            (minimum Bayes risk) draws several reports and takes the one on which they agree most.
        beam: hypotheses kept by a beam search.
        max_length: most steps: words of a report, or words and its eos; bos is not counted.
        min_length: fewest words before eos is allowed.
        length_penalty: what a finished hypothesis is compared by: its log-probability ("none"), that divided by its
            length, eos included ("average"), or by ((5 + length) / 6) ** length_alpha ("wu").
        length_alpha: exponent of "wu", at least 0.
        no_repeat_ngram: no sequence of so many words occurs twice in a report; 0: they may.
        forbidden: words that are never written; each must be one token of the model's vocabulary.
        suppress_unk: never write the token of unknown words.
        samples: of "mbr": reports drawn for each study.
        utility: of "mbr": what two reports agree by: "bleu" (sentence BLEU-4), "cider" (every word weighs alike), or
            "clinical" (F1 of the observations, read by the embedded labeler).
        temperature: of "sample" and "mbr": below 1 prefers likely words, above 1 evens the odds out.
        top_k: of both: draw from so many most likely words only; 0: from all.
        top_p: of both: draw from the fewest words that reach this probability together.
        seed: of both; each study has random numbers of its own, whatever its batch.
        early_stop: leave a study as soon as no unfinished hypothesis can win; the result is the same.
        force_length: write exactly `max_length` words, eos forbidden (for timing).
    """

    method: Method = "beam"
    beam: int = 3
    max_length: int = 60
    min_length: int = 0
    length_penalty: LengthPenalty = "none"
    length_alpha: float = 0.6
    no_repeat_ngram: int = 0
    forbidden: tuple[str, ...] = ()
    suppress_unk: bool = False
    samples: int = 12
    utility: UtilityName = "bleu"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    early_stop: bool = True
    force_length: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: naming the first field that is of another type or out of range.
        """
        for field in fields(self):
            value, (kind, words) = getattr(self, field.name), _TYPES[type(field.default)]
            if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
                raise UserError(f"decoding: field '{field.name}' is {value!r}; it must be {words}.")

        for name, names in _NAMES.items():
            value = getattr(self, name)
            if value not in names:
                raise UserError(f"decoding: field '{name}' is {value!r}; {choose(value, names)}.")
        rules = {
            "beam": (self.beam >= 1, "at least 1"),
            "max_length": (self.max_length >= 1, "at least 1"),
            "min_length": (0 <= self.min_length <= self.max_length, f"from 0 to max_length ({self.max_length})"),
            # an exponent below 0 would favour short reports and void the bound that early stopping rests on
            "length_alpha": (self.length_alpha >= 0, "at least 0"),
            "no_repeat_ngram": (self.no_repeat_ngram >= 0, "at least 0"),
            "samples": (self.samples >= 1, "at least 1"),
            "temperature": (self.temperature > 0, "above 0; method greedy is its limit"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
        }
        for name, (valid, rule) in rules.items():
            if not valid:
                raise UserError(f"decoding: field '{name}' is {getattr(self, name)!r}; it must be {rule}.")

    @property
    def rows(self) -> int:
        """Hypotheses kept for each study."""
        return self.beam if self.method == "beam" else 1

    def normalizer(self, length: int) -> float:
        """What the log-probability of a hypothesis of `length` emitted tokens, eos included, is divided by.

        Never falls as `length` grows, so that a log-probability over `normalizer(max_length)` bounds what an
        unfinished hypothesis can reach.
        """
        if self.length_penalty == "average":
            return float(length)
        if self.length_penalty == "wu":
            return float(((5.0 + length) / 6.0) ** self.length_alpha)
        return 1.0
