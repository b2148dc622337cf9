"""Reads the body of a request within limits, without trusting its content."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from crossray.errors import UserError
from crossray.serving.dicomweb import Archive, fetch_study
from crossray.serving.entries import File
from crossray.serving.problems import Problem
from crossray.serving.settings import Limits

#: Types of a body that is one image.
IMAGES = ("image/png", "image/jpeg", "application/dicom", "application/octet-stream")


async def read_upload(request: Request, limits: Limits, archives: Sequence[str] = ()) -> list[File]:
    """The files of a request: the parts of a form, a body that is one image, or a study of an archive.

    A study of an archive is a body of JSON, {"study_url": "https://pacs/dicom-web/studies/UID"}.

    File names are replaced by numbers, because they can contain patient names.

    Raises:
        Problem: 400, 413, 415 or 422.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = request.headers.get("content-length")
    if length is not None and (not length.isdecimal() or int(length) > limits.upload):
        raise _too_large(limits)
    try:
        if kind == "multipart/form-data":
            contents = await _parts(request, limits)
        elif kind in IMAGES:
            contents = [b"".join([part async for part in _limited(request, limits)])]
        elif kind == "application/json":
            return await _fetched(b"".join([part async for part in _limited(request, limits)]), archives, limits)
        else:
            raise Problem(415, f"send multipart/form-data with files named images, or one of {', '.join(IMAGES)}.")
    except ClientDisconnect:
        raise Problem(400, "the request ended early; send it again.") from None
    if not any(contents):
        raise Problem(400, "images: there is no file; send at least one as images.")
    if len(contents) > limits.files:
        raise Problem(413, f"images: more than {limits.files} files; send the radiographs of one study.")
    return [File(f"{number:04}", content) for number, content in enumerate(contents)]


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
        raise Problem(400, "the multipart form is damaged; send it again.") from None
    try:
        return [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]
    finally:
        await form.close()


async def _limited(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limits.upload:
            raise _too_large(limits)
        yield part


def _too_large(limits: Limits) -> Problem:
    return Problem(413, f"the request is larger than {limits.upload} bytes; send fewer or smaller files.")
