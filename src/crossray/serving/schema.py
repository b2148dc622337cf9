"""Additions to the OpenAPI description: request bodies, responses and examples."""

from typing import Any

from crossray.serving.exports import Edited
from crossray.serving.settings import NOTICE

_EXAMPLE: dict[str, Any] = {
    "format": 1,
    "id": "0f8fad5bd9cb469fa16570867728950e",
    "notice": NOTICE,
    "created": "2030-01-01T12:00:00+00:00",
    "model": {"name": "rcan", "system": "rcan", "weights_sha256": "9f86d081884c7d65", "section": "findings"},
    "crossray": "0.2.0",
    "text": "The heart is normal in size. No pleural effusion.",
    "confidence": 0.71,
    "sentences": [
        {"text": "The heart is normal in size.", "confidence": 0.83, "calibrated": True, "doubtful": False},
        {"text": "No pleural effusion.", "confidence": 0.44, "calibrated": True, "doubtful": True},
    ],
    "observations": [
        {"name": "cardiomegaly", "status": "negative", "words": [{"text": "heart is normal in size", "sentence": 0}]},
        {"name": "pleural_effusion", "status": "negative", "words": [{"text": "no pleural effusion", "sentence": 1}]},
    ],
    "views": [{"number": 0, "position": "pa", "file": 0}],
    "input": {"checked": True, "flags": [], "remarks": []},
    "similar": [],
}


def _object(members: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": required or list(members)}


_TEXT, _NUMBER, _INTEGER, _TRUTH = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))

_WORDS = {"type": "array", "items": _object({"text": _TEXT, "sentence": _INTEGER})}

#: Schema of a response with a report: the members that clients may rely on.
ANSWER: dict[str, Any] = _object(
    {
        "format": _INTEGER,
        "id": _TEXT,
        "notice": _TEXT,
        "created": {"type": "string", "format": "date-time"},
        "model": _object({"name": _TEXT, "system": _TEXT, "weights_sha256": _TEXT, "section": _TEXT}),
        "crossray": _TEXT,
        "text": _TEXT,
        "confidence": _NUMBER,
        "sentences": {
            "type": "array",
            "items": _object(
                {
                    "text": _TEXT,
                    "confidence": _NUMBER,
                    "calibrated": _TRUTH,
                    "doubtful": _TRUTH,
                    "attention": {"type": "array", "items": {"type": "array", "items": _NUMBER}},
                },
                ["text", "confidence", "calibrated", "doubtful"],
            ),
        },
        "observations": {
            "type": "array",
            "items": _object(
                {
                    "name": _TEXT,
                    "status": {"enum": ["positive", "negative", "uncertain"]},
                    "words": _WORDS,
                    "confidence": _NUMBER,
                },
                ["name", "status", "words"],
            ),
        },
        "views": {"type": "array", "items": _object({"number": _INTEGER, "position": _TEXT, "file": _INTEGER})},
        "input": _object(
            {
                "checked": _TRUTH,
                "flags": {"type": "array", "items": _object({"name": _TEXT, "reason": _TEXT}, ["name", "reason"])},
                "remarks": {"type": "array", "items": _TEXT},
            }
        ),
        "similar": {"type": "array", "items": _object({"study": _TEXT, "distance": _NUMBER, "report": _TEXT})},
    }
)

_PROBLEM = {
    "content": {
        "application/problem+json": {
            "schema": _object({"type": _TEXT, "status": _INTEGER, "detail": _TEXT}),
            "example": {"type": "about:blank", "status": 422, "detail": "images: there are none; send ..."},
        }
    }
}

_MEANINGS = {
    400: "The request is malformed.",
    401: "The key or token is missing, unknown or expired.",
    403: "The key or token lacks the required scope.",
    404: "The caller has no such study, or the model does not exist.",
    406: "The requested format is not available.",
    408: "The request was sent too slowly.",
    413: "The request is too large or has too many files.",
    415: "The body is neither a form nor an image.",
    422: "The study is rejected: not a radiograph, too many views, or flagged by the input check.",
    429: "Too many studies or requests; see Retry-After.",
    500: "The service failed; send the study again, also under the same Idempotency-Key.",
    503: "The service is starting or stopping.",
}

#: Responses of the routes for reports.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report.",
        "content": {
            "application/json": {"schema": ANSWER, "example": _EXAMPLE},
            "text/plain": {"schema": _TEXT},
            "application/fhir+json": {"schema": {"type": "object"}},
            "application/dicom": {"schema": {"type": "string", "format": "binary"}},
            "text/event-stream": {"schema": _TEXT},
        },
    },
    202: {"description": "The study is accepted; its report will be at Location."},
    **{status: {"description": text, **_PROBLEM} for status, text in _MEANINGS.items()},
}

_FILE = {"type": "string", "format": "binary"}

#: Request body of an export.
EDITED: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": Edited.model_json_schema()}}}
}

#: Request body for a report.
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _object({"images": {"type": "array", "items": _FILE}})},
            "application/json": {"schema": _object({"study_url": _TEXT})},
            **{kind: {"schema": _FILE} for kind in ("image/png", "image/jpeg", "application/dicom")},
        },
    }
}
