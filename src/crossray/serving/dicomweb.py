"""DICOMweb (PS3.18): fetches studies from an archive (WADO-RS) and stores reports in one (STOW-RS).

URLs are checked against an allowlist, redirects are not followed, and the size of responses is limited.
"""

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from crossray.data.images import MAX_BYTES
from crossray.errors import UserError, quoted
from crossray.interop.source import read_source
from crossray.serving.dicom import storage_classes
from crossray.serving.entries import File

if TYPE_CHECKING:
    import httpx

#: Time limit in seconds for a connection, and for each chunk of a response.
TIMEOUT = 30.0

#: Time limit in seconds for a whole response.
LONGEST = 120.0

#: Maximum number of objects in a study.
MOST_OBJECTS = 100

_STUDY = re.compile(r"/studies/(?P<uid>[0-9](?:[0-9.]{0,62}[0-9])?)")


@dataclass(frozen=True)
class Archive:
    """The root of a DICOMweb service, such as http://127.0.0.1:8042/dicom-web.

    Attributes:
        root: URL of the service, without a slash at the end.
    """

    root: str

    def __post_init__(self) -> None:
        """Validate the URL."""
        parts = _parts(self.root)
        if parts is None or self.root.endswith("/"):
            raise UserError(f"{quoted(self.root)}: not a DICOMweb address; give one such as https://pacs/dicom-web.")

    def holds(self, url: str) -> bool:
        """Whether a URL is that of a whole study in this archive, and nothing more."""
        return url.startswith(f"{self.root}/") and bool(_STUDY.fullmatch(url.removeprefix(self.root)))


def fetch_study(url: str, allowed: Sequence[Archive], *, most_bytes: int = 4 * MAX_BYTES) -> list[File]:
    """Fetch the radiographs of a study, without its other objects such as reports.

    Args:
        url: URL of the study: ROOT/studies/STUDY-INSTANCE-UID.
        allowed: allowed archives.
        most_bytes: maximum size of the response.

    Raises:
        UserError: the URL is not in an allowed archive, or the archive does not return radiographs.
    """
    import httpx

    if not any(archive.holds(url) for archive in allowed):
        raise UserError("study: its URL is not in an allowed archive (--dicomweb); ask the operator of the service.")
    accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    content = bytearray()
    try:
        with _client() as client, client.stream("GET", url, headers=accept) as answer:
            if answer.status_code != 200:
                raise UserError(f"study: the archive answered {answer.status_code}; check that it has the study.")
            boundary, end = _boundary(answer.headers.get("content-type", "")), time.monotonic() + LONGEST
            for piece in answer.iter_bytes():
                content += piece
                if time.monotonic() > end:
                    raise UserError("study: the archive takes too long; send the radiographs instead.")
                if len(content) > most_bytes:
                    raise UserError(f"study: it is larger than {most_bytes // 2**20} MiB; send only its radiographs.")
    except httpx.HTTPError as error:
        raise UserError(f"study: the archive cannot be reached ({type(error).__name__}); try again later.") from None
    # sorted, because the archive may answer a repeated request in another order
    found = sorted(_objects(bytes(content), boundary), key=lambda file: file.name)
    if not found:
        raise UserError("study: the archive returned no radiographs; check that the study has some.")
    return found


def store_report(archive: Archive, content: bytes) -> None:
    """Store a DICOM object in an archive (STOW-RS).

    Raises:
        UserError: the archive cannot be reached or does not store the object.
    """
    import httpx

    boundary = uuid.uuid4().hex
    body = (
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        + content
        + f"\r\n--{boundary}--\r\n".encode()
    )
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    try:
        with _client() as client:
            answer = client.post(f"{archive.root}/studies", content=body, headers=headers)
    except httpx.HTTPError as error:
        raise UserError(f"--send-to: the archive cannot be reached ({type(error).__name__}).") from None
    if answer.status_code != 200:  # 202 and 409 mean that the object was not stored
        raise UserError(f"--send-to: the archive answered {answer.status_code}; check its log.")


def _client() -> "httpx.Client":
    """Create a client with credentials from ~/.netrc, so that they do not appear on command lines."""
    import httpx

    known = Path.home() / ".netrc"
    return httpx.Client(timeout=TIMEOUT, follow_redirects=False, auth=httpx.NetRCAuth() if known.is_file() else None)


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    plain = parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0
    simple = not (parts.query or parts.fragment or parts.username or parts.password or ".." in parts.path)
    return parts if plain and simple and url.isascii() and url.isprintable() and " " not in url else None


def _boundary(content_type: str) -> bytes:
    found = re.search(r'boundary="?([^";,]{1,70})"?', content_type)
    if found is None or "multipart/related" not in content_type.lower():
        raise UserError("study: the archive's response is not multipart/related; check that it is a DICOMweb service.")
    return found[1].strip().encode("latin-1", "replace")


def _objects(content: bytes, boundary: bytes) -> Iterator[File]:
    """Yield the radiographs among the parts of a multipart response (RFC 2046)."""
    parts = (b"\r\n" + content).split(b"\r\n--" + boundary, MOST_OBJECTS + 2)
    if len(parts) > MOST_OBJECTS + 2:
        raise UserError(f"study: it has more than {MOST_OBJECTS} objects; send only its radiographs.")
    for part in parts[1:]:
        if part.startswith(b"--"):
            return
        _, _, body = part.partition(b"\r\n\r\n")
        if body[128:132] != b"DICM":
            continue
        source = read_source(body, "study")
        if source.text("SOPClassUID") in storage_classes():
            yield File(source.text("SOPInstanceUID"), body)
