"""What is uploaded to the hub, and what comes back: against a small server that answers as the hub's HTTP API does."""

import base64
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from tests.models.tiny import tiny_writer

import crossray
from crossray.errors import UserError

NAME = "someone/small"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: JSON as git keeps it, tensors by the large-file protocol."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.commits = 0
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.server.tokens.add(self.headers["authorization"])
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.address}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            self._commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), body)
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.server.large[self.path.rpartition("/")[2]] = content
        self._answer({})

    def _create(self, wish: dict[str, Any]) -> None:
        name = f"{wish['organization']}/{wish['name']}"
        if name == "someone/refused":
            self.send_error(403, "no right to write there")
            return
        self.server.repositories.setdefault(name, {})
        self.server.private[name] = wish.get("private", wish.get("visibility") == "private")
        self._answer({"url": f"{self.server.address}/{name}", "name": name, "id": name})

    def _commit(self, name: str, body: bytes) -> None:
        files = self.server.repositories[name]
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        self.server.commits += 1
        address = f"{self.server.address}/{name}/commit/{'0' * 40}"
        self._answer({"success": True, "commitUrl": address, "commitOid": "0" * 40})

    def _answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    model = tiny_writer("the heart is normal .", "lungs are clear .")
    model.save_pretrained(place, {"data": {"source": {"kind": "phantom"}}, "validation": {"cider": 0.25}})
    for other in ("notes.txt", "last.ckpt", ".hidden"):
        (place / other).write_text("not a part of the model")
    return place


def test_the_model_and_its_card_are_uploaded_and_nothing_else(hub: Hub, folder: Path) -> None:
    model = crossray.load(folder, device="cpu")
    address = model.push_to_hub(NAME, token="hf_secret")
    assert address == f"{hub.address}/{NAME}/commit/{'0' * 40}"
    uploaded = hub.repositories[NAME]
    saved = {"config.json", "model.safetensors", "tokenizer.json", "preprocess.json", "provenance.json"}
    assert uploaded.keys() == saved | {"README.md"}
    assert all(uploaded[name] == (folder / name).read_bytes() for name in saved)
    assert uploaded["README.md"].decode() == model.card()
    assert "not a medical device" in model.card() and "| cider | 0.250 |" in model.card()
    assert hub.commits == 1 and hub.private[NAME] and hub.tokens == {"Bearer hf_secret"}


def test_what_the_hub_refuses_is_said(hub: Hub, folder: Path) -> None:
    with pytest.raises(UserError, match=r"^someone/refused: cannot be uploaded \(.*403"):
        crossray.load(folder, device="cpu").push_to_hub("someone/refused", token="hf_secret")
    assert hub.commits == 0


def test_a_model_of_the_hub_is_loaded_from_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as the hub's client lays it out: blobs by their digest, a snapshot of links, a reference to it."""
    cache, revision = tmp_path / "models--someone--small", "1" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(revision)
    snapshot = cache / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for file in folder.glob("*.*"):
        if file.suffix in {".json", ".safetensors"}:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            (cache / "blobs" / digest).write_bytes(file.read_bytes())
            (snapshot / file.name).symlink_to(Path("../../blobs") / digest)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = crossray.load(NAME, device="cpu")
    assert (model.name, model.system) == (NAME, "baseline")
    weights = crossray.load(folder, device="cpu").model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.model.state_dict().items())
    with pytest.raises(UserError, match=r"model 'someone/absent': there is no such folder, and the hub"):
        crossray.load("someone/absent", device="cpu")
