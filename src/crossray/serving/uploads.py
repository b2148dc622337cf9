"""Reading what a request brings, within limits, without trusting a word of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from functools import partial

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from crossray.errors import UserError
from crossray.serving.dicomweb import Archive, fetch_study
from crossray.serving.journal import File
from crossray.serving.problems import Problem
from crossray.serving.settings import Limits

#: Types of a body that is one image.
IMAGES = ("image/png", "image/jpeg", "application/dicom", "application/octet-stream")


#: Longest body that names a study.
_LONGEST_NAME = 4096


async def read_upload(request: Request, limits: Limits, archives: Sequence[Archive] = ()) -> list[File]:
    """The files of a request: the parts "images" of a multipart form, or a body that is one image.

    Or a JSON object {"study": URL} that names a study of a DICOMweb archive, whose radiographs are fetched.

    Names are replaced by numbers: they can be names of patients.

    Raises:
        Problem: 400, 411, 413, 415, or 422 for a study that cannot be fetched.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = request.headers.get("content-length")
    if length is not None and (not length.isdecimal() or int(length) > limits.upload):
        raise _too_large(limits)
    try:
        if kind == "multipart/form-data":
            contents = await _parts(request, limits)
        elif kind == "application/json":
            contents = await _fetched(request, limits, archives)
        elif kind in IMAGES:
            contents = [b"".join([part async for part in _limited(request, limits)])]
        else:
            raise Problem(415, f"send multipart/form-data with files named images, or one of {', '.join(IMAGES)}.")
    except ClientDisconnect:
        raise Problem(400, "the request ended before its end.") from None
    if not any(contents):
        raise Problem(400, "images: there is no file; send at least one as images.")
    if len(contents) > limits.files:
        raise Problem(413, f"images: more than {limits.files} files; send the radiographs of one study.")
    return [File(f"{number:04}", content) for number, content in enumerate(contents)]


async def _fetched(request: Request, limits: Limits, archives: Sequence[Archive]) -> list[bytes]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_NAME:
            raise Problem(413, "study: its address is too long.")
    try:
        url = json.loads(body)["study"]
    except (ValueError, TypeError, KeyError, RecursionError):
        url = None
    if not isinstance(url, str):
        raise Problem(400, 'study: send {"study": "https://archive/dicom-web/studies/..."}.')
    try:
        files = await asyncio.to_thread(partial(fetch_study, url, archives, most_bytes=limits.upload))
    except UserError as error:
        raise Problem(422, str(error)) from None
    return [file.content for file in files]


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
