"""The service's response with a report, as JSON values. Format 1; members may be added but not changed."""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

import crossray
from crossray.api import InputCheck, Report
from crossray.errors import UserError
from crossray.serving.decoder import Decoded
from crossray.serving.settings import NOTICE
from crossray.text.display import SENTENCE_ENDS, readable, shown_words
from crossray.text.observations import OBSERVATIONS, label_report

Answer = dict[str, Any]

#: Characters that neither UTF-8 JSON nor XML can contain.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def answer_of(
    study: str,
    report: Report,
    decoded: Decoded,
    model: Mapping[str, Any],
    *,
    doubt: float = 0.5,
    attention: bool = False,
    similar: int = 0,
) -> Answer:
    """Build the response to a request.

    Args:
        study: id of the study in the journal.
        report: report that the model generated.
        decoded: decoded views of the study.
        model: description of the model for callers.
        doubt: confidence below which a sentence is marked.
        attention: whether to include where the model looked.
        similar: number of similar training studies to list.
    """
    check = report.check
    answer: Answer = {
        "format": 1,
        "id": study,
        "notice": NOTICE,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {key: model[key] for key in ("name", "system", "weights_sha256", "section")},
        "crossray": crossray.__version__,
        "text": report.text,
        "confidence": round(report.confidence, 4),
        "sentences": _sentences(report, doubt),
        "observations": _observations(report),
        "views": [
            {"number": number, "position": position, "file": place}
            for number, (position, place) in enumerate(zip(decoded.positions, decoded.places, strict=True))
        ],
        "input": {
            "checked": check is not None,
            "flags": [] if check is None else flags_of(check),
            "remarks": list(decoded.remarks),
        },
        "similar": [
            {"study": found.study, "distance": round(found.distance, 5), "report": readable(found.report)}
            for found in (report.similar(similar) if similar else [])
        ],
    }
    if attention:
        _add_attention(answer, report)
    return answer


def flags_of(check: InputCheck) -> list[Answer]:
    """Convert the result of an input check to JSON values."""
    return [{"name": flag.name, "reason": flag.reason, "view": flag.view} for flag in check.flags]


def with_previews(answer: Answer, decoded: Decoded) -> Answer:
    """Add images of the views as data URLs, which are not stored in the journal."""
    pictures = [
        {"image": "data:image/png;base64," + base64.b64encode(picture).decode("ascii")} for picture in decoded.previews
    ]
    views = [view | picture for view, picture in zip(answer["views"], pictures, strict=True)]
    return {**answer, "views": views}


def _sentences(report: Report, doubt: float) -> list[Answer]:
    return [
        {
            "text": sentence.text,
            "confidence": round(sentence.confidence, 4),
            "calibrated": sentence.calibrated,
            "doubtful": sentence.confidence < doubt,
        }
        for sentence in report.sentences
    ]


def _observations(report: Report) -> list[Answer]:
    """List each observation with the words that state it and their sentence."""
    ends = [word.end for word in shown_words(report.raw) if word.shown in SENTENCE_ENDS]
    confidences = report.observation_confidence
    found = []
    for name, status in report.observations.items():
        words = [
            {
                "text": report.raw[evidence.start : evidence.end],
                "sentence": sum(end <= evidence.start for end in ends),
            }
            for evidence in report.evidence
            if evidence.observation == name
        ]
        row: Answer = {"name": name, "status": status, "words": words}
        if name in confidences:
            row["confidence"] = round(confidences[name], 4)
        found.append(row)
    return found


def _add_attention(answer: Answer, report: Report) -> None:
    """Add where the model looked for each sentence: per view, a grid with shares of the sentence's attention."""
    try:
        maps = report.maps
    except UserError:  # the system has no attention
        answer["attention"] = None
        return
    sentence_of, sentence = [], 0
    for word in shown_words(maps.text):
        sentence_of.append(sentence)
        sentence += word.shown in SENTENCE_ENDS
    weights = maps.weights.mean(axis=1)  # over layers: (words, V, G, G)
    present = np.flatnonzero(maps.view_mask).tolist()
    answer["attention"] = {
        "side": int(weights.shape[-1]),
        "windows": [[round(edge, 4) for edge in maps.windows[view].tolist()] for view in present],
    }
    for number, row in enumerate(answer["sentences"]):
        words = [place for place, of in enumerate(sentence_of) if of == number]
        mean = weights[words].mean(axis=0) if words else np.zeros_like(weights[0])
        row["attention"] = [[round(share, 5) for share in mean[view].flatten().tolist()] for view in present]


def edited(sentences: list[str]) -> str:
    """Join the sentences of a report that a person has reviewed.

    Raises:
        UserError: a sentence contains characters that JSON or XML cannot represent.
    """
    for number, sentence in enumerate(sentences, 1):
        if _UNWRITABLE.search(sentence):
            raise UserError(f"sentences: number {number} contains control characters or lone surrogates; remove them.")
    return " ".join(sentence.strip() for sentence in sentences if sentence.strip())


def edited_answer(answer: Answer, sentences: list[str]) -> Answer:
    """Replace the sentences and observations by a person's; these have no confidence."""
    text, kept = edited(sentences), [sentence.strip() for sentence in sentences if sentence.strip()]
    found: dict[str, Answer] = {}
    for number, sentence in enumerate(kept):
        labels = label_report(sentence)
        for place in labels.evidence:
            row = found.setdefault(place.observation, {"name": place.observation, "words": []})
            row["words"].append({"text": sentence[place.start : place.end], "sentence": number})
    whole = label_report(text)
    observations = [
        {**found.get(name, {"name": name, "words": []}), "status": status}
        for name, status in zip(OBSERVATIONS, whole.statuses, strict=True)
        if status != "blank"
    ]
    return {
        **answer,
        "text": text,
        "sentences": [{"text": sentence} for sentence in kept],
        "observations": observations,
    }
