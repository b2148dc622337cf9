"""Exports responses in the requested format."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from crossray.errors import UserError
from crossray.serving.answers import Answer, edited, edited_answer
from crossray.serving.entries import File
from crossray.serving.hospital import fhir_json, sr_file
from crossray.serving.problems import Problem
from crossray.serving.settings import NOTICE

Format = Literal["json", "text", "fhir", "sr"]

#: Format of each media type in the Accept header.
TYPES: dict[str, Format] = {
    "application/json": "json", "text/plain": "text", "application/fhir+json": "fhir", "application/dicom": "sr",
    "*/*": "json", "application/*": "json", "text/*": "text",
}  # fmt: skip


class Edited(BaseModel):
    """A report after review by a person.

    Attributes:
        sentences: sentences that the person has not discarded, with their current text.
    """

    sentences: list[str] = Field(max_length=200, examples=[["The heart is normal.", "No effusion."]])


def wanted(given: Format | None, accept: str) -> Format:
    """Return the requested format.

    Args:
        given: value of the parameter `format`, which takes precedence.
        accept: value of the Accept header.

    Raises:
        Problem: 406, if no accepted type is available.
    """
    if given is not None:
        return given
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        if kind in TYPES:
            return TYPES[kind]
    raise Problem(406, "this media type is not available; request json, text, fhir or sr.")


async def export(kind: Format, answer: Answer, files: Sequence[File], changes: Edited | None) -> Response:
    """Convert a response to the requested format.

    Args:
        kind: format.
        answer: response with the report.
        files: files of the study, for formats that name patient and study.
        changes: sentences that a person has reviewed; None for the unedited report.

    Raises:
        Problem: 422, if the study cannot be exported in this format.
    """
    try:
        text = answer["text"] if changes is None else edited(changes.sentences)
    except UserError as error:
        raise Problem(422, str(error)) from None
    if kind == "json":
        return JSONResponse(answer if changes is None else edited_answer(answer, changes.sentences))
    if kind == "text":
        return Response(f"{text}\n\n{NOTICE}\n", media_type="text/plain; charset=utf-8")
    if not text:
        raise Problem(422, "sentences: none are left; keep at least one.")
    made = datetime.fromisoformat(answer["created"])
    contents = [(f"image {number + 1}", file.content) for number, file in enumerate(files)]
    try:
        if kind == "fhir":
            bundle = await asyncio.to_thread(fhir_json, answer, text, made, contents)
            return JSONResponse(bundle, media_type="application/fhir+json")
        return Response(await asyncio.to_thread(sr_file, answer, text, made, contents), media_type="application/dicom")
    except UserError as error:
        raise Problem(422, str(error)) from None
