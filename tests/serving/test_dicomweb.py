"""DICOMweb against a small server in this process: addresses, limits, answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from tests.interop.studies import STUDY, image

from crossray.errors import UserError
from crossray.serving.dicomweb import Archive, fetch_study, store_report


class Handler(BaseHTTPRequestHandler):
    status: ClassVar[int] = 200
    kind: ClassVar[str] = 'multipart/related; type="application/dicom"; boundary=b1'
    body: ClassVar[bytes] = b""
    asked: ClassVar[list[tuple[str, bytes]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, b""))
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Location", "/dicom-web/studies/9.9")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    for name in ("status", "kind", "body"):
        monkeypatch.setattr(Handler, name, getattr(Handler, name))
    monkeypatch.setattr(Handler, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield Archive(f"http://127.0.0.1:{server.server_port}/dicom-web")
    server.shutdown()
    server.server_close()


def multipart(*objects: bytes) -> bytes:
    parts = [b"--b1\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n" for content in objects]
    return b"preamble\r\n" + b"".join(parts) + b"--b1--\r\n"


def test_a_study_is_fetched(archive: Archive) -> None:
    Handler.body = multipart(image(1), image(2))
    files = fetch_study(f"{archive.root}/studies/{STUDY}", [Archive("http://other/web"), archive])
    assert [file.content for file in files] == [image(1), image(2)]
    assert len({file.name for file in files}) == 2


def test_other_objects_of_the_study_are_left_out(archive: Archive) -> None:
    Handler.body = multipart(image(1), image(2, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33"))
    assert len(fetch_study(f"{archive.root}/studies/{STUDY}", [archive])) == 1


@pytest.mark.parametrize(
    "path",
    ["", "/", "/studies", f"/studies/{STUDY}/series/1.2", "/studies/../admin", "/studies/1.2?x=y", "/studies/1.2#x",
     "/instances/1.2", "/studies/1.2/", "/studies/a", "/studies/1.2\r\nX: y", "x/studies/1.2", "/studies/%2e%2e",
     "@evil/studies/1.2", ".evil.example/studies/1.2"],
)  # fmt: skip
def test_another_address_is_never_asked(archive: Archive, path: str) -> None:
    with pytest.raises(UserError, match="not in an allowed archive"):
        fetch_study(f"{archive.root}{path}", [archive])
    with pytest.raises(UserError, match="not in an allowed archive"):
        fetch_study(f"{archive.root}/studies/1.2", [])
    assert Handler.asked == []


@pytest.mark.parametrize(
    "root",
    ["ftp://a/web", "http://", "http://a/web/", "http://u:p@a/web", "http://a/web?x", "a/web", "http://a:99999", "/a"],
)  # fmt: skip
def test_an_archive_has_a_plain_address(root: str) -> None:
    with pytest.raises(UserError, match="not a DICOMweb address"):
        Archive(root)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": 404}, "answered 404"),
        ({"status": 302}, "answered 302"),
        ({"kind": "text/html"}, "not multipart/related"),
        ({"body": multipart(b"no dicom")}, "returned no radiographs"),
        ({"body": b"--b1"}, "returned no radiographs"),
        ({"body": multipart(*[b"x"] * 102)}, "more than 100 objects"),
        ({"body": multipart(b"\0" * 128 + b"DICM" + b"\xff" * 50)}, "damaged|missing"),
    ],
)
def test_strange_answers(archive: Archive, fields: dict[str, object], words: str) -> None:
    for name, value in fields.items():
        setattr(Handler, name, value)
    with pytest.raises(UserError, match=words):
        fetch_study(f"{archive.root}/studies/{STUDY}", [archive])
    assert len(Handler.asked) == 1  # no redirect is followed


def test_the_order_of_an_answer_does_not_matter(archive: Archive) -> None:
    asked = []
    for order in ((1, 2), (2, 1)):
        Handler.body = multipart(*map(image, order))
        asked.append(fetch_study(f"{archive.root}/studies/{STUDY}", [archive]))
    assert asked[0] == asked[1]


def test_a_long_answer_is_not_read_to_its_end(archive: Archive) -> None:
    Handler.body = multipart(image(1), image(2))
    with pytest.raises(UserError, match="larger than"):
        fetch_study(f"{archive.root}/studies/{STUDY}", [archive], most_bytes=1000)


def test_no_archive_there() -> None:
    closed = Archive("http://127.0.0.1:9/web")
    with pytest.raises(UserError, match="cannot be reached"):
        fetch_study(f"{closed.root}/studies/1.2", [closed])
    with pytest.raises(UserError, match="cannot be reached"):
        store_report(closed, b"")


def test_a_report_is_stored(archive: Archive) -> None:
    store_report(archive, image(1))
    ((path, body),) = Handler.asked
    assert path == "/dicom-web/studies" and image(1) in body


@pytest.mark.parametrize("status", [202, 401, 409, 500])
def test_a_report_that_is_not_taken(archive: Archive, status: int) -> None:
    Handler.status = status
    with pytest.raises(UserError, match=f"answered {status}"):
        store_report(archive, image(1))
