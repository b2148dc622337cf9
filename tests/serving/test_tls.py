"""A client that speaks to the service by TLS, with a token of an issuer that is found by its discovery document."""

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from tests.serving.conftest import images, png
from tests.serving.live import running
from tests.serving.test_access import AUDIENCE, Issuer

from crossray.serving.settings import Settings
from crossray.serving.tokens import Tokens


class Provider(BaseHTTPRequestHandler):
    """The two documents of an identity provider."""

    documents: dict[str, Any]
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        found = self.documents.get(self.path)
        self.send_response(503 if found is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A certificate authority that this process believes for the length of the module."""
    made = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    made.cert_pem.write_to_path(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield made


@pytest.fixture
def provider(authority: Any, tmp_path: Path) -> Iterator[tuple[str, Issuer, type[Provider]]]:
    """Address of a provider, who signs there, and what it answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    issuer = Issuer(tmp_path)
    handler = type("Handler", (Provider,), {"documents": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    address = f"https://localhost:{server.server_port}"
    handler.documents |= {
        "/.well-known/openid-configuration": {"issuer": address, "jwks_uri": f"{address}/keys"},
        "/keys": json.loads(issuer.jwks.read_text()),
    }
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield address, issuer, handler
    server.shutdown()
    server.server_close()


def test_a_report_by_tls_for_a_token_of_a_discovered_issuer(
    authority: Any, provider: tuple[str, Issuer, type[Provider]], model_folder: Path, tmp_path: Path, fast: None
) -> None:
    address, issuer, handler = provider
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem", append=True)
    settings = Settings(
        models={"a": model_folder}, store=f"sqlite:///{tmp_path / 'j.db'}", decoders=1, issuer=address,
        audience=AUDIENCE, certificate=tmp_path / "cert.pem", private_key=tmp_path / "key.pem",
    )  # fmt: skip
    trusting = ssl.create_default_context()
    strange = ssl.create_default_context(cadata=trustme.CA().cert_pem.bytes().decode())
    with running(settings) as service:
        with httpx.Client(base_url=service, verify=trusting, timeout=60) as client:
            for token, status in ((issuer.token(iss=address), 200), (issuer.token(iss="https://evil.example"), 401)):
                headers = {"Authorization": f"Bearer {token}"}
                assert client.post("/v1/reports", files=images(png()), headers=headers).status_code == status
        with pytest.raises(httpx.ConnectError), httpx.Client(base_url=service, verify=strange) as client:
            client.get("/healthz")
        with pytest.raises(httpx.HTTPError):
            httpx.get(service.replace("https", "http") + "/healthz")
    assert handler.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": "ADDRESS/keys"},
        {"issuer": "ADDRESS", "jwks_uri": "http://localhost/keys"},
        {"issuer": "ADDRESS"},
        [],
    ],
)
def test_a_discovery_document_that_is_not_believed(provider: tuple[str, Issuer, type[Provider]], document: Any) -> None:
    address, issuer, handler = provider
    handler.documents["/.well-known/openid-configuration"] = json.loads(
        json.dumps(document).replace("ADDRESS", address)
    )
    assert Tokens(address, AUDIENCE).claims(issuer.token(iss=address)) is None
    assert "/keys" not in handler.asked


def test_an_issuer_that_is_away_is_not_asked_for_every_token(
    provider: tuple[str, Issuer, type[Provider]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("crossray.serving.tokens.time.monotonic", lambda: now[0])
    address, issuer, handler = provider
    tokens, keys = Tokens(address, AUDIENCE), handler.documents.pop("/keys")
    now[0] = 100.0
    for _ in range(5):
        assert tokens.claims(issuer.token(iss=address)) is None
    assert handler.asked.count("/keys") == 1
    handler.documents["/keys"] = keys
    now[0] = 200.0
    assert tokens.claims(issuer.token(iss=address)) is not None
