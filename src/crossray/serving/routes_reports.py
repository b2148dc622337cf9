"""Routes for reports: request, read, export in another format, delete."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError

from crossray.serving.access import Caller
from crossray.serving.answers import Answer, with_previews
from crossray.serving.callers import Reporting
from crossray.serving.desk import Desk, Reported
from crossray.serving.dicom import CHOOSE
from crossray.serving.entries import Entry
from crossray.serving.exports import Edited, Format, export, wanted
from crossray.serving.problems import Problem
from crossray.serving.schema import ANSWERS, EDITED, UPLOAD
from crossray.serving.uploads import content_type, read_body, read_upload

reports = APIRouter(tags=["reports"])

#: Maximum size of an edited report in bytes.
EDITS = 2**20

Wanted = Annotated[Format | None, Query(description="Format of the response; overrides the Accept header.")]


@reports.post("/v1/reports", summary="Generate the report of a study.", responses=ANSWERS, openapi_extra=UPLOAD)
async def write(
    request: Request,
    caller: Reporting,
    model: Annotated[str | None, Query(description="Name of a model; the first by default.", max_length=100)] = None,
    include: Annotated[
        str, Query(description="attention: where the model looked; views: images of the views; separate by commas.")
    ] = "",
    format: Wanted = None,
    strict: Annotated[bool, Query(description="Refuse images that the input check flags.")] = False,
    accept: Annotated[str, Header()] = "application/json",
    prefer: Annotated[str, Header()] = "",
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Send the views of one study as PNG, JPEG or DICOM files, or the URL of a study in an archive (--dicomweb).

    * The response is sent when the report is finished. With `Prefer: respond-async`, it is sent as soon as the study is
      in the journal, with the URL of the report in `Location`.
    * With `Accept: text/event-stream`, words are sent as they are generated: events `accepted`, `words` (the text so
      far, which beam search may still change), and `report` (the response) or `problem`.
    * A repeated `Idempotency-Key` returns the report of the first request, or 422 if files, model or options differ.
      After a failure of the service (500), it starts again.
    """
    desk = _desk(request)
    request.app.state.doors.count(caller)
    streaming = "text/event-stream" in accept
    kind = "json" if streaming else wanted(format, accept)
    parts = {part for part in include.split(",") if part}
    if parts - {"attention", "views"}:
        raise Problem(422, "include: give attention, views, or both separated by a comma.")
    name = model or request.app.state.shelf.default
    options: dict[str, object] = {"attention": "attention" in parts, "strict": strict}
    if content_type(request) == "application/json":
        options |= CHOOSE  # the caller cannot choose among the views of a study in an archive
    words: asyncio.Queue[str | None] = asyncio.Queue()
    with desk.place():
        files = await read_upload(request, desk.settings.limits, desk.settings.archives)
        entry, task = await desk.accept(
            files,
            name,
            caller.name,
            key=idempotency_key,
            options=options,
            watch=words.put_nowait if streaming else None,
            preview="views" in parts,
        )
    request.state.study = entry.id
    if "respond-async" in prefer:
        headers = {"Location": f"/v1/reports/{entry.id}", "Preference-Applied": "respond-async"}
        return JSONResponse({"id": entry.id, "state": entry.state}, 202, headers)
    if streaming:
        return StreamingResponse(_events(desk, entry.id, task, words, "views" in parts), media_type="text/event-stream")
    answer = await _answer(desk, entry.id, task, "views" in parts)
    response = await export(kind, answer, files, None)
    await _delivered(desk, entry.id)
    return response


@reports.get("/v1/reports/{study}", summary="Read a report again.", responses=ANSWERS)
async def read(
    request: Request, study: str, caller: Reporting, format: Wanted = None, accept: Annotated[str, Header()] = "*/*"
) -> Response:
    """The report of one of the caller's studies; 202 while it is being generated."""
    desk = _desk(request)
    answer = await _stored(request, desk, study, caller)
    if isinstance(answer, Response):
        return answer
    kind = wanted(format, accept)
    files = await asyncio.to_thread(desk.journal.files, study) if kind in ("fhir", "sr") else []
    response = await export(kind, answer, files, None)
    await _delivered(desk, study)
    return response


async def _edits(request: Request, caller: Reporting) -> Edited:
    """Read the body of an export after identifying the caller; FastAPI itself would read it first."""
    if content_type(request) != "application/json":
        raise Problem(415, "send application/json.")
    try:
        return Edited.model_validate_json(await read_body(request, _desk(request).settings.limits, most=EDITS))
    except ValidationError as error:
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in error.errors()]) from None


@reports.post("/v1/reports/{study}/export", summary="Export an edited report.", responses=ANSWERS, openapi_extra=EDITED)
async def take(
    request: Request, study: str, caller: Reporting, body: Annotated[Edited, Depends(_edits)], format: Wanted = None
) -> Response:
    """The report with the sentences that a person has not discarded, as text, FHIR or DICOM SR; it is still a draft."""
    desk = _desk(request)
    answer = await _stored(request, desk, study, caller)
    if isinstance(answer, Response):
        return answer
    files = await asyncio.to_thread(desk.journal.files, study)
    return await export(format or "text", answer, files, body)


@reports.delete("/v1/reports/{study}", summary="Delete a study and its report.", status_code=204)
async def delete(request: Request, study: str, caller: Reporting) -> Response:
    """Delete the files and the report; the rows of the audit trail remain."""
    desk = _desk(request)
    await _entry(request, desk, study, caller)
    await asyncio.to_thread(desk.journal.delete, study)
    return Response(status_code=204)


def _desk(request: Request) -> Desk:
    desk: Desk | None = request.app.state.desk
    if desk is None:
        raise Problem(503, "the service is starting or stopping.", retry=1)
    return desk


async def _entry(request: Request, desk: Desk, study: str, caller: Caller) -> Any:
    entry = None
    if len(study) == 32 and study.isalnum() and study.isascii():
        request.state.study = study
        entry = await asyncio.to_thread(desk.journal.entry, study, owner=caller.name)
    if entry is None or entry.origin != "http":  # studies of other origins are not readable over HTTP
        raise Problem(404, "you have no such study; it may have been deleted.")
    return entry


async def _stored(request: Request, desk: Desk, study: str, caller: Caller) -> Answer | Response:
    """Return the response stored in the journal, or 202 if the report is not finished."""
    entry = await _entry(request, desk, study, caller)
    if entry.state == "failed":
        raise _failure(entry)
    stored = await asyncio.to_thread(desk.journal.report, study)
    if stored is None:
        return JSONResponse({"id": study, "state": entry.state}, 202, {"Retry-After": "1"})
    answer: Answer = json.loads(stored)
    return answer


def _failure(entry: Entry | None) -> Problem:
    """The response about a study without a report."""
    if entry is None:
        return Problem(422, "the study was deleted.")
    return Problem(500 if entry.service_failed else 422, entry.error or "the study was not reported.")


async def _answer(desk: Desk, study: str, task: "asyncio.Task[Reported] | None", views: bool) -> Answer:
    if task is not None:
        # the study continues even if the client disconnects
        reported = await asyncio.shield(task)
        return with_previews(reported.answer, reported.decoded) if views else reported.answer
    entry = await desk.finish(study)
    stored = None if entry is None else await asyncio.to_thread(desk.journal.report, study)
    if stored is None:
        raise _failure(entry)
    answer: Answer = json.loads(stored)
    return answer


async def _delivered(desk: Desk, study: str) -> None:
    """With `keep 0`, mark a study for deletion once its report has been returned."""
    if desk.settings.keep == 0:
        await asyncio.to_thread(desk.journal.delivered, study)


async def _events(
    desk: Desk, study: str, task: "asyncio.Task[Reported] | None", words: "asyncio.Queue[str | None]", views: bool
) -> AsyncIterator[str]:
    def end(answer: "asyncio.Future[Answer]") -> None:
        if not answer.cancelled():
            # also if the client has left: asyncio logs exceptions that nobody retrieves, and one can quote a header
            answer.exception()
        words.put_nowait(None)

    yield _event("accepted", {"id": study})
    answer = asyncio.ensure_future(_answer(desk, study, task, views))
    answer.add_done_callback(end)
    last = ""
    while (text := await words.get()) is not None:
        if text != last:
            last = text
            yield _event("words", {"text": last})
    try:
        yield _event("report", await answer)
        await _delivered(desk, study)
    except Problem as problem:
        yield _event("problem", {"status": problem.status, "detail": problem.detail, **problem.more})


def _event(name: Literal["accepted", "words", "report", "problem"], content: Answer) -> str:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"
