"""Generated reports on disk: JSON lines with a header that records where they come from.

The first line is `{"crossray": {...}}`, the `Provenance`; every other line is one study. To score other systems, more
formats can be read: lines without the header, with the fields `id`, `prediction` and optionally `reference`; and files
named `.json` that contain a list of such rows or a submission to ReXrank.
"""

import json
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from crossray.errors import UserError, quoted
from crossray.evaluation.predictions import rexrank
from crossray.evaluation.predictions.protocol import PROTOCOLS, Protocol
from crossray.files.names import is_text
from crossray.files.write import appearing

#: Version of the file format, in the header's field `format`.
FORMAT = 1

#: Note on the scores of predictions with `Provenance.shuffled_images`.
SHUFFLED = "the images were shuffled between studies: these are the scores of a system that sees another's images"

_HEADER = "crossray"


@dataclass(frozen=True)
class Provenance:
    """The provenance of predictions: the header of their file.

    Attributes:
        model: folder or name of the model.
        system: registered name of the system, such as "baseline"; "" if unknown.
        data: folder of the prepared dataset; None for single image files.
        data_sha256: content hash of that dataset.
        split: split of that dataset.
        subset: digest of the selected studies (`exchange.choose`); "" without a selection.
        section: section of the report that was generated.
        cleaner: cleaner of the references.
        max_length: the max_seq_length of the `r2gen` references.
        min_count: frequency threshold of the tokenizer; None if unknown.
        tokenizer: fingerprint of the tokenizer.
        views: views of each study that the model saw.
        shuffled_images: whether every study had the images of another study (`crossray generate --shuffle-images`).
        decoding: settings of the decoding.
        versions: versions of the software that produced the text.
    """

    model: str = ""
    system: str = ""
    data: str | None = None
    data_sha256: str = ""
    split: str = ""
    subset: str = ""
    section: str = "findings"
    cleaner: str = "none"
    max_length: int | None = None
    min_count: int | None = None
    tokenizer: str | None = None
    views: str = ""
    shuffled_images: bool = False
    decoding: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def protocol(self, name: str, studies: int) -> Protocol:
        """The protocol of this name ("r2gen" or "full") for this number of studies."""
        return Protocol(
            name="r2gen",
            section=self.section,
            cleaner=self.cleaner,
            max_length=self.max_length,
            min_count=self.min_count,
            tokenizer=self.tokenizer,
            views=self.views,
            data=self.data_sha256,
            split=self.split,
            studies=studies,
            subset=self.subset,
        ).named(name)


@dataclass(frozen=True)
class Prediction:
    """The generated report of one study, with the letters of its texts composed (NFC).

    Attributes:
        id: unique within the file.
        prediction: the generated report.
        references: true report for each protocol name; empty if none is known.
        images: names of the views.
        log_probability: sum over the generated tokens; None if unknown.
        seconds: time to generate the report; in a batch, the time of the batch divided by its studies. None if unknown.
    """

    id: str
    prediction: str
    references: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    log_probability: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Compose letters, because an accented letter may be one character or two."""
        references = {name: unicodedata.normalize("NFC", text) for name, text in self.references.items()}
        object.__setattr__(self, "prediction", unicodedata.normalize("NFC", self.prediction))
        object.__setattr__(self, "references", references)


@dataclass(frozen=True)
class PredictionFile:
    """Predictions with their provenance.

    Attributes:
        provenance: the header; default values if the file has none.
        rows: one per study.
        path: file they were read from.
    """

    provenance: Provenance
    rows: tuple[Prediction, ...]
    path: Path | None = None

    def hypotheses(self) -> list[str]:
        """The generated reports."""
        return [row.prediction for row in self.rows]

    def protocols(self) -> tuple[str, ...]:
        """The protocols for which every study has a reference."""
        return tuple(name for name in PROTOCOLS if self.rows and all(name in row.references for row in self.rows))

    def references(self, protocol: str) -> list[str]:
        """The true reports under one protocol.

        Raises:
            UserError: a study has none.
        """
        for row in self.rows:
            if protocol not in row.references:
                raise UserError(
                    f"{self.path or 'predictions'}: study {row.id!r}: field 'references' has no {protocol!r}; "
                    "generate with --data, or add the field"
                )
        return [row.references[protocol] for row in self.rows]

    def seconds(self) -> float | None:
        """Mean seconds per report; None if a study lacks them."""
        known = [row.seconds for row in self.rows if row.seconds is not None]
        return math.fsum(known) / len(known) if known and len(known) == len(self.rows) else None

    def save(self, path: Path | str) -> None:
        """Write the file; a failed write leaves no partial file."""
        write_predictions(path, self.provenance, self.rows)

    @classmethod
    def load(cls, path: Path | str, *, section: str = "findings", cleaner: str = "legacy") -> "PredictionFile":
        """Read and check a file.

        Args:
            path: JSON lines; or, named `.json`, a list of rows or a submission to ReXrank.
            section: section to compare in a submission: "findings", "impression" or "report"; other files name it
                themselves.
            cleaner: cleaner for a submission, whose texts are not cleaned; other files name it themselves.

        Raises:
            UserError: the file is missing or not JSON, or has an unknown header or a row with an invalid field.
        """
        path = Path(path)
        provenance = Provenance()
        rows: dict[str, Prediction] = {}
        content = _whole(path) if path.suffix.lower() == ".json" else None
        if isinstance(content, dict):
            provenance = Provenance(section=section, cleaner=cleaner)
        for place, values in _rows(path, content, section, cleaner):
            if _HEADER in values:
                if rows or provenance != Provenance():
                    raise UserError(f"{place}: a second header; put the predictions of one model in one file")
                provenance = _provenance(values[_HEADER], place)
                continue
            row = _prediction(values, place)
            if row.id in rows:
                raise UserError(f"{place}: id {row.id!r} is in an earlier line too; keep one line per study")
            rows[row.id] = row
        if not rows:
            raise UserError(
                f"{path}: it contains no prediction; write one JSON line per study with id, prediction and reference"
            )
        return cls(provenance, tuple(rows.values()), path)


def write_predictions(path: Path | str, provenance: Provenance, rows: Iterable[Prediction]) -> int:
    """Write predictions as they are generated; the file is created once the last one is written.

    Args:
        path: file to write; an older one is replaced.
        provenance: the header.
        rows: predictions, consumed one by one.

    Returns:
        Number of rows written.
    """
    written = 0
    with appearing(path, newline="\n") as file:
        file.write(_json({_HEADER: {"format": FORMAT, **asdict(provenance)}}))
        for row in rows:
            file.write(_json(asdict(row)))
            written += 1
    return written


def scores_path(predictions: Path, subset: str = "") -> Path:
    """The default file for the scores of a predictions file, next to it.

    Only ".jsonl" is removed from the name, since other endings tell files apart.

    Args:
        predictions: path of the predictions.
        subset: digest of the selected studies; "" without a selection.

    Example:
        >>> [scores_path(Path(name)).name for name in ("a.jsonl", "a.json", "a.seed0")]
        ['a.scores.json', 'a.json.scores.json', 'a.seed0.scores.json']
    """
    chosen = f".{subset}" if subset else ""
    return predictions.with_name(f"{predictions.name.removesuffix('.jsonl')}{chosen}.scores.json")


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _rows(path: Path, content: Any, section: str, cleaner: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The location of each row, for messages, and its fields."""
    if isinstance(content, dict):
        if {"format", "protocols"} <= content.keys():
            raise UserError(f"{path}: contains scores; give the predictions that they were computed from")
        yield from rexrank.rows(content, str(path), section, cleaner)
        return
    for place, values in _lines(path) if content is None else _items(path, content):
        if not isinstance(values, dict):
            raise UserError(f"{place}: not a JSON object; write one with id and prediction")
        yield place, values


def _items(path: Path, content: list[Any]) -> Iterator[tuple[str, Any]]:
    for number, values in enumerate(content, start=1):
        yield f"{path}: entry {number}", values


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The location and content of each line that is not blank."""
    with _readable(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path}: line {number}"
                try:
                    yield place, json.loads(line)
                except (ValueError, RecursionError):
                    raise UserError(f"{place}: not JSON; write one JSON object per line") from None


def _whole(path: Path) -> Any:
    """The content of a file that is one JSON value, an object or a list."""
    with _readable(path):
        text = path.read_text(encoding="utf-8-sig")

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # of a repeated study, `json` would silently keep only the last
        if len(dict(pairs)) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise UserError(f"{path}: the key {quoted(twice)} appears twice in an object; keep one of the two")
        return dict(pairs)

    try:
        content = json.loads(text, object_pairs_hook=checked)
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON; give a file of JSON lines the suffix .jsonl") from None
    if not isinstance(content, dict | list):
        raise UserError(f"{path}: neither a list of rows nor a submission to ReXrank; give one of them")
    return content


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Context that converts errors while reading a file to a `UserError`."""
    try:
        yield
    except UnicodeDecodeError:
        raise UserError(f"{path}: the text is not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a predictions file (JSON lines)") from None


def _provenance(values: Any, place: str) -> Provenance:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{place}: crossray.format: this version reads format {FORMAT}; generate the file again")
    known = {item.name for item in fields(Provenance)}
    given = {name: value for name, value in values.items() if name in known}
    for name, kinds in (
        (("model", "system", "data_sha256", "split", "subset", "section", "cleaner", "views"), (str,)),
        (("data", "tokenizer"), (str, type(None))),
        (("max_length", "min_count"), (int, type(None))),
        (("decoding", "versions"), (dict,)),
        (("shuffled_images",), (bool,)),
    ):
        for item in name:
            if item in given and (
                not isinstance(given[item], kinds) or isinstance(given[item], bool) is not (bool in kinds)
            ):
                raise UserError(f"{place}: crossray.{item}: a value of the wrong type; generate the file again")
    if not all(isinstance(version, str) for version in given.get("versions", {}).values()):
        raise UserError(f"{place}: crossray.versions: a value of the wrong type; generate the file again")
    if not is_text(json.dumps(given, ensure_ascii=False)):
        raise UserError(f"{place}: crossray: contains an incomplete character; generate the file again")
    return Provenance(**given)


def _prediction(values: dict[str, Any], place: str) -> Prediction:
    references = values.get("references", {})
    if "reference" in values:
        references = {"full": values["reference"]}
    images = values.get("images", [])
    log_probability, seconds = values.get("log_probability"), values.get("seconds")
    for name, sound, remedy in (
        ("id", is_text(values.get("id")) and values["id"] != "", "give the study's name as text"),
        ("prediction", is_text(values.get("prediction")), "give the generated report as text"),
        ("reference", is_text(values.get("reference", "")), "give the true report as text"),
        ("references", _is_references(references), f"give text for {' and '.join(PROTOCOLS)}"),
        ("images", isinstance(images, list) and all(map(is_text, images)), "give a list of names"),
        ("log_probability", _is_number(log_probability), "give a finite number or null"),
        ("seconds", _is_number(seconds) and (seconds or 0) >= 0, "give a number that is not negative, or null"),
    ):
        if not sound:
            raise UserError(f"{place}: {name}: missing or not valid; {remedy}")
    return Prediction(
        id=values["id"],
        prediction=values["prediction"],
        references=references,
        images=tuple(images),
        log_probability=None if log_probability is None else float(log_probability),
        seconds=None if seconds is None else float(seconds),
    )


def _is_references(value: Any) -> bool:
    return isinstance(value, dict) and all(name in PROTOCOLS and is_text(text) for name, text in value.items())


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
