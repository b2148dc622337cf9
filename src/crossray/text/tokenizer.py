"""Word-level and WordPiece tokenizers, stored in the format of the `tokenizers` library."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

from crossray.errors import UserError, choose
from crossray.files.write import write_whole
from crossray.text.cleaning import CLEANERS, clean
from crossray.text.vocabulary import find_vocabulary, read_vocabulary

#: Kinds of vocabularies.
KINDS: tuple[str, ...] = ("word", "wordpiece")

PAD, BOS, EOS, UNK = SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")

#: Tokens for the statuses of an observation, in the order of `crossray.text.observations.STATUSES`.
STATUS_TOKENS = ("[BLA]", "[POS]", "[NEG]", "[UNC]")

#: Tokens added to a released BERT vocabulary: the begin token of a report, and the statuses.
ADDED_TOKENS = ("[DEC]", *STATUS_TOKENS)

#: Counterparts of `SPECIAL_TOKENS` in a released vocabulary, which has no begin token of its own.
_RELEASED = ("[PAD]", ADDED_TOKENS[0], "[SEP]", "[UNK]")

#: Prefix of a WordPiece that continues a word.
CONTINUATION = "##"

_SETTINGS = "crossray"
#: Tokens of a released vocabulary that are not text: [CLS], [MASK], [unused0] ...
_BRACKETS = re.compile(r"\[\w+\]")
_LARGEST_FILE = 64 * 2**20


class Tokenizer:
    """Cleans reports and converts them to token ids and back.

    The ids are pad 0, bos 1, eos 2, unk 3, then the vocabulary in sorted order, and finally the status tokens, if any.
    `legacy_ids` selects the ids of the R2Gen family: id 0 is pad, bos and eos at once, and the words start at 1, with
    `<unk>` sorted among them. A released vocabulary keeps its ids, followed by `ADDED_TOKENS`.

    Attributes:
        kind: "word" (one token per word) or "wordpiece" (pieces of words, with "##piece" for continuations).
        cleaner: name of the cleaner (`crossray.text.cleaning.CLEANERS`) applied to every report.
        legacy_ids: whether ids and truncation are those of the R2Gen family.
        tokens: the vocabulary by id.
        pad_id: id of padding.
        bos_id: id of the begin token.
        eos_id: id of the end token.
        unk_id: id of words outside the vocabulary.
        status_ids: ids of `STATUS_TOKENS`; empty if the vocabulary lacks them.
        unwritten: ids that a report never contains, such as those of status tokens and [MASK].
    """

    def __init__(self, tokens: Sequence[str], *, kind: str = "word", cleaner: str = "legacy", legacy_ids: bool = False):
        """Create a tokenizer from a vocabulary; `train` creates one from reports.

        Args:
            tokens: the whole vocabulary by id, including special tokens.
            kind: one of `KINDS`.
            cleaner: one of `CLEANERS`.
            legacy_ids: id 0 is pad, bos and eos at once; for kind "word" only.

        Raises:
            UserError: the kind or cleaner does not exist, or a token is repeated or misplaced.
        """
        if kind not in KINDS:
            raise UserError(f"kind: {kind!r} does not exist; {choose(kind, KINDS)}")
        if cleaner not in CLEANERS:
            raise UserError(f"cleaner: {cleaner!r} does not exist; {choose(cleaner, CLEANERS)}")
        if legacy_ids and kind != "word":
            raise UserError(f"legacy_ids: only word vocabularies have them; leave it out with kind {kind!r}")
        ids = {token: identifier for identifier, token in enumerate(tokens)}
        released = kind == "wordpiece" and all(token in ids for token in _RELEASED)
        leading = () if released else (PAD,) if legacy_ids else SPECIAL_TOKENS
        names = _RELEASED if released else (PAD, PAD, PAD, UNK) if legacy_ids else SPECIAL_TOKENS
        if len(ids) != len(tokens) or tuple(tokens[: len(leading)]) != leading or names[3] not in ids:
            raise UserError(f"vocabulary: it must begin with {' '.join(SPECIAL_TOKENS)} (with legacy_ids {PAD}, and "
                            f"{UNK} anywhere) and hold no token twice")  # fmt: skip
        self.kind = kind
        self.cleaner = cleaner
        self.legacy_ids = legacy_ids
        self.tokens = tuple(tokens)
        self.pad_id, self.bos_id, self.eos_id, self.unk_id = (ids[name] for name in names)
        last = len(tokens) - len(STATUS_TOKENS)
        self.status_ids = tuple(range(last, len(tokens))) if tuple(tokens[last:]) == STATUS_TOKENS else ()
        other = (place for place, token in enumerate(tokens) if _BRACKETS.fullmatch(token)) if released else ()
        self.unwritten = tuple(sorted({*self.status_ids, *other} - {ids[name] for name in names}))
        # A report that contains the word "<eos>" must not end there.
        self._special = {*SPECIAL_TOKENS, *names, *(tokens[place] for place in self.unwritten)}
        self._ids = {token: identifier for token, identifier in ids.items() if token not in self._special}
        self._library = _library_tokenizer(ids, kind, self._special, bos=self.bos_id, eos=self.eos_id, unk=self.unk_id)

    @classmethod
    def train(
        cls,
        reports: Iterable[str],
        *,
        kind: str = "word",
        cleaner: str = "legacy",
        min_count: int = 3,
        size: int = 30522,
        legacy_ids: bool = False,
        statuses: bool = False,
    ) -> "Tokenizer":
        """Train a vocabulary on reports; the result does not depend on their order.

        Args:
            reports: uncleaned training reports.
            kind: "word" or "wordpiece".
            cleaner: one of `CLEANERS`.
            min_count: minimum number of occurrences of a word (R2Gen: 3 for IU X-Ray, 10 for MIMIC-CXR) or, for
                WordPiece, of a pair of pieces to be joined.
            size: maximum size of the vocabulary, including special tokens: the most frequent words are kept, and, for
                WordPiece all characters.
            legacy_ids: use the ids of the R2Gen family (word vocabularies only).
            statuses: add `STATUS_TOKENS`.

        Raises:
            UserError: the kind or cleaner does not exist, or no token is left.
        """
        words = Counter(word for report in reports for word in clean(report, cleaner).split())
        added = STATUS_TOKENS if statuses else ()
        for token in (*SPECIAL_TOKENS, *added):
            words.pop(token, None)
        size -= len(added)
        learned = _frequent_words(words, min_count, size) if kind == "word" else _word_pieces(words, min_count, size)
        if not learned:
            raise UserError(
                f"recipe field 'data.min_count' is {min_count}: no word occurs so often in the training "
                "reports; lower it or add reports"
            )
        tokens = [PAD, *sorted([*learned, UNK])] if legacy_ids else [*SPECIAL_TOKENS, *sorted(learned)]
        return cls([*tokens, *added], kind=kind, cleaner=cleaner, legacy_ids=legacy_ids)

    @classmethod
    def released(cls, name: str, cleaner: str = "legacy") -> "Tokenizer":
        """Create a tokenizer from the vocabulary of a released BERT: its ids, followed by `ADDED_TOKENS`.

        Words are split only at spaces, so decoding restores them: punctuation within a word, such as a hyphen, becomes
        a continuing piece, whereas in BERT it is a separate word.

        Args:
            name: `vocab.txt` or `tokenizer.json`, a folder with one of them, or the name of a model on the hub.
            cleaner: one of `CLEANERS`.

        Raises:
            UserError: the vocabulary or cleaner does not exist, or the file is not a WordPiece vocabulary.
        """
        path = find_vocabulary(name)
        pieces = read_vocabulary(path)
        try:
            return cls([*_tokens(pieces), *ADDED_TOKENS], kind="wordpiece", cleaner=cleaner)
        except KeyError:
            raise UserError(f"{path}: its ids are not 0, 1, 2, ...; give the file as it was released") from None

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, including special tokens, which is the width of a model's output layer."""
        return len(self.tokens)

    def clean(self, report: str) -> str:
        """The cleaned report."""
        return clean(report, self.cleaner)

    def id_of(self, token: str) -> int | None:
        """Id of a token; None for special tokens and tokens outside the vocabulary."""
        return self._ids.get(token)

    def encode(self, report: str, max_length: int) -> list[int]:
        """Clean a report and convert it to ids: bos, the report's tokens, eos.

        Args:
            report: text as in the source.
            max_length: maximum number of ids, including bos and eos. A longer report loses its last tokens and keeps
                eos; with `legacy_ids`, it loses eos first, as in the R2Gen family.

        Raises:
            UserError: `max_length` is below 2.
        """
        if max_length < 2:
            raise UserError(f"max_length: {max_length} leaves no room for bos and eos; give 2 or more")
        words = self.clean(report).split()
        if self.kind == "word":
            ids = [self._ids.get(word, self.unk_id) for word in words[: max_length - 1]]
        else:
            pieces = self._library.encode(words, is_pretokenized=True, add_special_tokens=False).ids
            ids = [self.unk_id if self.tokens[piece] in self._special else piece for piece in pieces[: max_length - 1]]
        if self.legacy_ids:
            return [self.bos_id, *ids, self.eos_id][:max_length]
        return [self.bos_id, *ids[: max_length - 2], self.eos_id]

    def decode(self, ids: Iterable[int]) -> str:
        """Convert ids to text, up to the first eos; bos and pad are skipped.

        Raises:
            IndexError: an id is outside the vocabulary.
        """
        words: list[str] = []
        for position, identifier in enumerate(map(int, ids)):
            if position == 0 and identifier == self.bos_id:
                continue
            if identifier == self.eos_id:
                break
            if identifier in (self.pad_id, self.bos_id):
                continue
            if identifier < 0:
                raise IndexError(f"token id {identifier} is negative")
            token = self.tokens[identifier]
            if self.kind == "wordpiece" and words and token.startswith(CONTINUATION):
                words[-1] += token.removeprefix(CONTINUATION)
            else:
                words.append(token)
        return " ".join(words)

    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of everything that determines the ids of a report."""
        content = {**self._settings(), "tokens": self.tokens}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write `tokenizer.json`.

        The file has the format of the `tokenizers` library: the result of `tokenizers.Tokenizer.from_file` encodes
        *cleaned* text in the same way. Settings unknown to the library are stored in its "model" object under the key
        "crossray".
        """
        content = json.loads(self._library.to_str())
        content["model"][_SETTINGS] = self._settings()
        write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a `tokenizer.json` written by `save`; only the vocabulary and the settings are used.

        Raises:
            UserError: the file is missing or damaged, or was not written by `save`.
        """
        path = Path(path)
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise UserError(
                    f"{path}: larger than {_LARGEST_FILE // 2**20} MiB; give a tokenizer.json that crossray wrote"
                )
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); give a tokenizer.json") from None
        except (ValueError, RecursionError):
            raise UserError(f"{path}: not JSON; give a tokenizer.json that crossray wrote") from None
        try:
            return cls(_tokens(content["model"]["vocab"]), **_checked_settings(content["model"][_SETTINGS]))
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}: field 'model' has no vocabulary and settings of CrossRay; train the model again"
            ) from None
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _settings(self) -> dict[str, str | bool]:
        return {"kind": self.kind, "cleaner": self.cleaner, "legacy_ids": self.legacy_ids}


def _frequent_words(words: Counter[str], min_count: int, size: int) -> list[str]:
    kept = sorted((word for word, count in words.items() if count >= min_count), key=lambda word: (-words[word], word))
    return kept[: max(size - len(SPECIAL_TOKENS), 0)]


def _word_pieces(words: Counter[str], min_count: int, size: int) -> list[str]:
    library = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK, continuing_subword_prefix=CONTINUATION))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The trainer breaks ties by id, and assigns ids to "##a", "##b" ... in the random order of a hash table unless they
    # exist before it starts.
    continued = sorted({CONTINUATION + letter for word in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=min_count,
        special_tokens=[*SPECIAL_TOKENS, *continued],
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    library.train_from_iterator((" ".join([word] * count) for word, count in sorted(words.items())), trainer)
    return [token for token in library.get_vocab() if token not in SPECIAL_TOKENS]


def _library_tokenizer(
    ids: Mapping[str, int], kind: str, special: Collection[str], *, bos: int, eos: int, unk: int
) -> Any:
    """The library's tokenizer with this vocabulary."""
    names = {identifier: token for token, identifier in ids.items()}
    model: Any
    if kind == "word":
        model = models.WordLevel(dict(ids), unk_token=names[unk])
    else:
        model = models.WordPiece(dict(ids), unk_token=names[unk], continuing_subword_prefix=CONTINUATION)
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.post_processor = processors.TemplateProcessing(
        single=f"{names[bos]} $A {names[eos]}", special_tokens=[(names[bos], bos), (names[eos], eos)]
    )
    library.add_special_tokens([token for token in ids if token in special])
    return library


def _tokens(vocabulary: Mapping[str, int]) -> list[str]:
    """Tokens by id; KeyError if the ids are not 0, 1, 2, ..."""
    tokens = {identifier: token for token, identifier in vocabulary.items()}
    return [tokens[identifier] for identifier in range(len(vocabulary))]


def _checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with their types checked; TypeError or KeyError otherwise."""
    types = {"kind": str, "cleaner": str, "legacy_ids": bool}
    if settings.keys() != types.keys() or not all(isinstance(settings[name], kind) for name, kind in types.items()):
        raise TypeError
    return dict(settings)
