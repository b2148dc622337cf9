"""Reads request bodies within limits of size and time, without trusting their content."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossray.errors import UserError
from crossray.serving.dicomweb import Archive, fetch_study
from crossray.serving.entries import File
from crossray.serving.problems import Problem
from crossray.serving.settings import Limits

#: Media types of a body that consists of one image.
IMAGES = ("image/png", "image/jpeg", "application/dicom", "application/octet-stream")


async def read_upload(request: Request, limits: Limits, archives: Sequence[str] = ()) -> list[File]:
    """Read the files of a request: the parts of a form, a body that is one image, or a study in an archive.

    For a study in an archive, the body is JSON: {"study_url": "https://pacs/dicom-web/studies/UID"}.

    File names are replaced by numbers, because they can contain patient names.

    Raises:
        Problem: 400, 408, 413, 415 or 422; see `crossray.serving.schema`.
    """
    kind = content_type(request)
    if kind == "multipart/form-data":
        contents = await _parts(request, limits)
    elif kind in IMAGES:
        contents = [await read_body(request, limits)]
    elif kind == "application/json":
        return await _fetched(await read_body(request, limits), archives, limits)
    else:
        raise Problem(415, f"send multipart/form-data with files named images, or one of {', '.join(IMAGES)}.")
    if not any(contents):
        raise Problem(400, "images: there are no files; send at least one in the field images.")
    if len(contents) > limits.files:
        raise Problem(413, f"images: more than {limits.files} files; send the radiographs of one study.")
    return [File(f"{number:04}", content) for number, content in enumerate(contents)]


def content_type(request: Request) -> str:
    """Return the media type of the body in lower case, without parameters; "" if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limits: Limits, most: int | None = None) -> bytes:
    """Read a body of at most `most` bytes, by default those of an upload.

    Raises:
        Problem: 400, 408 or 413.
    """
    return b"".join([part async for part in _limited(request, limits, most)])


async def _fetched(body: bytes, archives: Sequence[str], limits: Limits) -> list[File]:
    try:
        address = json.loads(body)["study_url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Problem(400, 'send {"study_url": "https://pacs/dicom-web/studies/..."}.') from None
    roots = [Archive(root.rstrip("/")) for root in archives]
    try:
        found = await asyncio.to_thread(fetch_study, str(address), roots, most_bytes=limits.upload)
    except UserError as error:
        raise Problem(422, str(error)) from None
    if len(found) > limits.files:
        raise Problem(413, f"the study has more than {limits.files} objects; send its radiographs instead.")
    return [File(f"{number:04}", file.content) for number, file in enumerate(found)]


async def _parts(request: Request, limits: Limits) -> list[bytes]:
    parser = MultiPartParser(
        request.headers, _limited(request, limits), max_files=limits.files + 1, max_fields=4, max_part_size=1024
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeError) as error:
        if isinstance(error, MultiPartException) and "Too many" in error.message:
            raise Problem(413, f"images: more than {limits.files} files; send the radiographs of one study.") from None
        raise Problem(400, "the multipart form is malformed; send it again.") from None
    try:
        return [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]
    finally:
        await form.close()


async def _limited(request: Request, limits: Limits, most: int | None = None) -> AsyncGenerator[bytes, None]:
    most = limits.upload if most is None else most
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise _too_large(most)
    size, stream = 0, request.stream()
    end = asyncio.get_running_loop().time() + limits.upload_seconds
    while True:
        try:
            async with asyncio.timeout_at(end):
                part = await anext(stream, None)
        except TimeoutError:
            raise Problem(408, f"the request took longer than {limits.upload_seconds:g} s; send it faster.") from None
        except ClientDisconnect:
            raise Problem(400, "the request ended early; send it again.") from None
        if part is None:
            return
        size += len(part)
        if size > most:
            raise _too_large(most)
        yield part


def _too_large(most: int) -> Problem:
    return Problem(413, f"the request is larger than {most} bytes; send fewer or smaller files.")


class Linger:
    """ASGI middleware that closes the connection of a request that is answered before its body has been read.

    Uvicorn would discard the rest of the body for as long as the client sends it. Here, it is discarded for at most
    `SECONDS`, so that clients that read only after sending get the response; then the connection is closed (RFC 9112,
    9.6).
    """

    #: Maximum number of seconds between a response and the end of its connection.
    SECONDS = 5.0

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an ASGI application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        headers = dict(scope.get("headers", ()))
        length = headers.get(b"content-length", b"chunked" if b"transfer-encoding" in headers else b"0")
        if scope["type"] != "http" or length == b"0":
            await self.app(scope, receive, send)
            return
        ended = False

        async def noted() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def closing(message: Message) -> None:
            if not ended and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            elif not ended and not message.get("more_body", False):
                await send({**message, "more_body": True})
                message = {"type": "http.response.body"}
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.SECONDS):
                        while not ended:
                            await noted()
            await send(message)

        await self.app(scope, noted, closing)
