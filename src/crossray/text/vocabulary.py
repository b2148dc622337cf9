"""WordPiece vocabularies of released BERT models, from a folder or the Hugging Face hub."""

import json
from pathlib import Path

from crossray.errors import UserError

#: File names of such vocabularies.
FILES = ("vocab.txt", "tokenizer.json")

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_REMEDY = "give vocab.txt or tokenizer.json of bert-base-uncased"


def read_vocabulary(path: Path) -> dict[str, int]:
    """Ids by piece, from `vocab.txt` (one piece per line) or `tokenizer.json`.

    Raises:
        UserError: the file is not a WordPiece vocabulary with the special pieces of BERT.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            pieces = {str(piece): int(place) for piece, place in json.loads(text)["model"]["vocab"].items()}
        else:
            # Not splitlines: a piece may be a character that splitlines treats as a line end.
            pieces = {piece: place for place, piece in enumerate(text.removesuffix("\n").split("\n"))}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: it contains no WordPiece vocabulary; {_REMEDY}") from None
    missing = [piece for piece in _SPECIAL if piece not in pieces]
    if missing:
        raise UserError(f"{path}: piece {missing[0]} is missing; {_REMEDY}")
    return pieces


def vocabulary_file(path: Path) -> Path:
    """The path itself if it is a file, otherwise the vocabulary file in that folder.

    Raises:
        UserError: the folder contains none.
    """
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise UserError(f"{path}: it contains neither vocab.txt nor tokenizer.json; give a folder of bert-base-uncased")


def find_vocabulary(name: str) -> Path:
    """The vocabulary file of a released model.

    Args:
        name: a file, a folder with one, or the name of a model on the hub, from which the file is downloaded.

    Raises:
        UserError: there is no such vocabulary.
    """
    if Path(name).exists():
        return vocabulary_file(Path(name))
    from transformers.utils import cached_file

    try:
        return Path(cached_file(name, FILES[0]))
    except (OSError, ValueError) as error:
        raise UserError(
            f"vocabulary '{name}': it is not a file or folder and cannot be loaded from the hub "
            f"({str(error).splitlines()[0][:200]}); {_REMEDY}, or their folder."
        ) from error
