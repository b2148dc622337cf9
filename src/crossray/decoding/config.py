"""How reports are decoded. Imports nothing heavy, because the command line reads its help from here."""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, get_args

from crossray.errors import UserError, choose

Method = Literal["beam", "greedy", "sample", "mbr"]
#: How two reports can be compared (`crossray.evaluation.utilities`).
UtilityName = Literal["bleu", "cider", "clinical"]
LengthPenalty = Literal["none", "average", "wu"]

#: Fields whose value is one of several names.
_NAMES = {"method": get_args(Method), "length_penalty": get_args(LengthPenalty), "utility": get_args(UtilityName)}

#: For the type of a field's default: the types that a value may have, and their name in messages.
_TYPES: dict[type, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "a word"),
    tuple: (list | tuple, "a list of words"),
}


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """How a report is decoded; the defaults are those of the R2Gen family.

    Attributes:
        method: "beam" is beam search, "greedy" takes the most probable word at each step, "sample" draws words at
            random, and "mbr" (minimum Bayes risk) draws several reports and takes the one that agrees most with the
            others.
        beam: number of hypotheses in beam search.
        max_length: maximum number of steps, which are the words of a report and its eos; bos is not counted.
        min_length: minimum number of words before eos is allowed.
        length_penalty: score of a finished hypothesis: its log-probability ("none"), divided by its length including
            eos ("average"), or divided by ((5 + length) / 6) ** length_alpha ("wu").
        length_alpha: exponent of the length penalty "wu", at least 0.
        no_repeat_ngram: length of word sequences that may not occur twice in a report; 0 for no such limit.
        forbidden: words that are never written; each must be a single token of the model's vocabulary.
        suppress_unk: never write the token of unknown words.
        samples: number of reports that method "mbr" draws for each study.
        utility: how method "mbr" measures the agreement of two reports: "bleu" (sentence BLEU-4), "cider" (with equal
            weights for all words), or "clinical" (F1 of the observations, by the built-in rules).
        diagnosis_weight: method "mbr" adds to a report's mean utility (CIDEr-D divided by 10) this times the F1 between
            the observations that it states, by the built-in rules, and those that the model's own diagnosis finds in
            the images; for systems that make a diagnosis: union and revtaf.
        temperature: sampling temperature of "sample" and "mbr": below 1 favors probable words, above 1 flattens the
            distribution.
        top_k: "sample" and "mbr" draw from this number of most probable words only; 0 for all words.
        top_p: "sample" and "mbr" draw from the smallest set of most probable words with at least this total
            probability.
        seed: random seed of "sample" and "mbr"; each study has its own random numbers, independent of its batch.
        bf16: search in bfloat16, which is faster; similar words may then change places, so reports may differ. The
            encoder stays in float32, and so does everything on machines without bf16 arithmetic.
        early_stop: stop a study as soon as no unfinished hypothesis can win; the result is the same.
        force_length: write exactly `max_length` words without eos (for timing).
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
    diagnosis_weight: float = 0.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    bf16: bool = False
    early_stop: bool = True
    force_length: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: a field has the wrong type or is out of range.
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
            # an exponent below 0 would favor short reports and break the bound behind early stopping
            "length_alpha": (self.length_alpha >= 0, "at least 0"),
            "no_repeat_ngram": (self.no_repeat_ngram >= 0, "at least 0"),
            "samples": (self.samples >= 1, "at least 1"),
            "diagnosis_weight": (0 <= self.diagnosis_weight < math.inf, "a finite number of at least 0"),
            "temperature": (self.temperature > 0, "above 0; method greedy is its limit"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
        }
        for name, (valid, rule) in rules.items():
            if not valid:
                raise UserError(f"decoding: field '{name}' is {getattr(self, name)!r}; it must be {rule}.")

    @property
    def rows(self) -> int:
        """Number of hypotheses that are kept for each study."""
        return self.beam if self.method == "beam" else 1

    def normalizer(self, length: int) -> float:
        """The divisor of the log-probability of a hypothesis with `length` emitted tokens, including eos.

        It never falls as `length` grows, so a log-probability over `normalizer(max_length)` is an upper bound for an
        unfinished hypothesis.
        """
        if self.length_penalty == "average":
            return float(length)
        if self.length_penalty == "wu":
            return float(((5.0 + length) / 6.0) ** self.length_alpha)
        return 1.0
