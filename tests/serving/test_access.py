"""Who may do what: every route, with every kind of caller."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.testclient import TestClient
from tests.serving.conftest import images, png

from crossray.errors import UserError
from crossray.files.lock import locked
from crossray.serving import keys as module
from crossray.serving.access import Rate
from crossray.serving.keys import make_key, read_keys, revoke
from crossray.serving.run import check_doors
from crossray.serving.settings import Settings

#: Route to the scope that it needs; None: anybody.
ROUTES = {
    ("GET", "/"): None,
    ("GET", "/page/{name}"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/v1/models"): "report",
    ("GET", "/v1/models/{name}/card"): "report",
    ("POST", "/v1/models/{name}/reload"): "admin",
    ("POST", "/v1/reports"): "report",
    ("GET", "/v1/reports/{study}"): "report",
    ("POST", "/v1/reports/{study}/export"): "report",
    ("DELETE", "/v1/reports/{study}"): "report",
    ("GET", "/v1/audit"): "admin",
    ("GET", "/metrics"): "metrics",
}

ISSUER, AUDIENCE = "https://login.example", "crossray"


def routes_of(app: Any) -> set[tuple[str, str]]:
    """Every route that the application answers, those of its routers too."""
    found = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    return found | {("GET", "/"), ("GET", "/page/{name}"), ("GET", "/openapi.json")}


class Issuer:
    """An identity provider with its keys in a file."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key())) | {"kid": "1", "use": "sig"}
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [public]}))

    def token(self, scope: str = "report metrics admin", key: Any = None, **claims: Any) -> str:
        whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "exp": time.time() + 60, "scope": scope} | claims
        algorithm = "HS256" if isinstance(key, str) else "ES256"
        return str(jwt.encode(whole, key or self.key, algorithm=algorithm, headers={"kid": "1"}))


@pytest.fixture
def guarded(serving: Callable[..., TestClient], tmp_path: Path) -> tuple[TestClient, Path, Issuer]:
    issuer = Issuer(tmp_path)
    keys = tmp_path / "keys.json"
    make_key(keys, "first", ("report",), 1)
    client = serving(keys=keys, issuer=ISSUER, audience=AUDIENCE, jwks=str(issuer.jwks))
    return client, keys, issuer


def ask(client: TestClient, method: str, route: str, headers: dict[str, str]) -> int:
    path = route.replace("{name}", "a" if "models" in route else "app.js").replace("{study}", "0" * 32)
    more: dict[str, Any] = {}
    if method == "POST":
        more = {"json": {"sentences": []}} if "export" in route else {"files": images(png())}
    return client.request(method, path, headers=headers, **more).status_code


def test_every_route_asks_for_its_scope(guarded: tuple[TestClient, Path, Issuer]) -> None:
    client, keys, issuer = guarded
    assert routes_of(client.app) == set(ROUTES)
    scopes = {scope: make_key(keys, f"only {scope}", (scope,), 1) for scope in ("report", "metrics", "admin")}
    expired = make_key(keys, "expired", ("report", "metrics", "admin"), 1e-9)
    gone = make_key(keys, "gone", ("report", "metrics", "admin"), 1)
    revoke(keys, gone.split("_")[1])
    number, secret = scopes["admin"].split("_")[1], scopes["report"].split("_", 2)[2]
    strangers = {
        "no key": {},
        "nonsense": {"Authorization": "Bearer nonsense"},
        "another kind": {"Authorization": f"Basic {scopes['admin']}"},
        "expired": {"Authorization": f"Bearer {expired}"},
        "revoked": {"Authorization": f"Bearer {gone}"},
        "mixed": {"Authorization": f"Bearer crk_{number}_{secret}"},
        "expired token": {"Authorization": f"Bearer {issuer.token(exp=time.time() - 60)}"},
        "another issuer": {"Authorization": f"Bearer {issuer.token(iss='https://evil.example')}"},
        "another audience": {"Authorization": f"Bearer {issuer.token(aud='mail')}"},
        "no end": {"Authorization": f"Bearer {issuer.token(exp=None)}"},
        "another key": {"Authorization": f"Bearer {issuer.token(key=ec.generate_private_key(ec.SECP256R1()))}"},
        "shared secret": {"Authorization": f"Bearer {issuer.token(key=issuer.jwks.read_text() + 'x' * 64)}"},
        "unsigned": {"Authorization": f"Bearer {jwt.encode({'sub': 'anna', 'scope': 'admin'}, '', 'none')}"},
    }
    for (method, route), scope in ROUTES.items():
        for who, headers in strangers.items():
            status = ask(client, method, route, headers)
            assert status == (200 if scope is None else 401), (method, route, who)
        for own, key in scopes.items():
            for headers in (
                {"Authorization": f"Bearer {key}"},
                {"X-API-Key": key},
                {"Authorization": f"Bearer {issuer.token(scope=own)}"},
                {"Authorization": f"Bearer {issuer.token(scope=f'openid crossray.{own}')}"},
            ):
                status = ask(client, method, route, headers)
                if scope in (None, own):
                    assert status in ((404,) if "{study}" in route else (200,)), (method, route, own)
                else:
                    assert status == 403, (method, route, own)


def test_a_study_is_its_owners_alone(guarded: tuple[TestClient, Path, Issuer]) -> None:
    client, keys, issuer = guarded
    mine = {"Authorization": f"Bearer {make_key(keys, 'mine', ('report',), 1)}"}
    rotated = {"Authorization": f"Bearer {make_key(keys, 'mine', ('report',), 1)}"}
    others = [
        {"Authorization": f"Bearer {make_key(keys, 'other', ('report', 'admin'), 1)}"},
        {"Authorization": f"Bearer {issuer.token()}"},
    ]
    answer = client.post("/v1/reports", files=images(png()), headers={**mine, "Idempotency-Key": "k"}).json()
    address = f"/v1/reports/{answer['id']}"
    for other in others:
        assert client.get(address, headers=other).status_code == 404
        assert client.post(f"{address}/export", json={"sentences": []}, headers=other).status_code == 404
        assert client.delete(address, headers=other).status_code == 404
        again = client.post("/v1/reports", files=images(png(5)), headers={**other, "Idempotency-Key": "k"})
        assert again.json()["id"] != answer["id"]
    assert client.get(address, headers=rotated).json() == answer


def test_long_subjects_are_told_apart(guarded: tuple[TestClient, Path, Issuer]) -> None:
    client, _, issuer = guarded
    one, other = ({"Authorization": f"Bearer {issuer.token(sub='x' * 200 + end)}"} for end in "ab")
    answer = client.post("/v1/reports", files=images(png()), headers=one).json()
    assert client.get(f"/v1/reports/{answer['id']}", headers=one).status_code == 200
    assert client.get(f"/v1/reports/{answer['id']}", headers=other).status_code == 404


def test_keys_are_not_in_their_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = make_key(path, "a", ("report",), 30)
    assert key.split("_", 2)[2] not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    (row,) = read_keys(path)
    assert (row.name, row.scopes) == ("a", ("report",))
    with pytest.raises(UserError, match="--revoke"):
        revoke(path, "none")
    with pytest.raises(UserError, match="--scopes"):
        make_key(path, "a", ("everything",), 30)
    with pytest.raises(UserError, match="--name"):
        make_key(path, "a" * 129, ("report",), 30)
    with locked(path.with_name("keys.json.lock"), "held"), pytest.raises(UserError, match="another command"):
        make_key(path, "b", ("report",), 30)
    assert [key.name for key in read_keys(path)] == ["a"]
    path.write_text("{}")
    with pytest.raises(UserError, match="not a file of"):
        make_key(path, "a", ("report",), 30)


def test_a_change_of_the_keys_leaves_owner_and_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service may run as another user than the one who makes keys."""
    path = tmp_path / "keys.json"
    key = make_key(path, "a", ("report",), 30)
    path.chmod(0o640)
    given: list[tuple[int, int]] = []
    stat = Path.stat

    def of_the_service(self: Path, **options: Any) -> Any:
        found = list(stat(self, **options))
        return os.stat_result([*found[:4], 10001, 10002, *found[6:]]) if self == path else os.stat_result(found)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", of_the_service)
        patched.setattr(os, "chown", lambda _, *owner: given.append(owner))
        make_key(path, "b", ("report",), 30)
        revoke(path, key.split("_")[1])

        def refuse(*_: Any) -> None:
            raise PermissionError

        patched.setattr(os, "chown", refuse)
        with pytest.raises(UserError, match="another user"):
            make_key(path, "c", ("report",), 30)
    assert given == [(10001, 10002)] * 2
    assert path.stat().st_mode & 0o777 == 0o640
    assert [key.name for key in read_keys(path)] == ["b"]


def test_an_unreadable_key_file_locks_nobody_out(
    serving: Callable[..., TestClient],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "keys.json"
    old = {"X-API-Key": make_key(path, "a", ("report",), 1)}
    client = serving(keys=path)
    whole = path.read_text()
    parse = Mock(wraps=module._parsed)
    monkeypatch.setattr(module, "_parsed", parse)

    def directory() -> None:
        path.unlink()
        path.mkdir()

    for damage in (directory, lambda: path.write_text("{")):
        damage()
        for _ in range(2):
            assert client.get("/v1/models", headers=old).status_code == 200
            assert client.get("/v1/models", headers={"X-API-Key": "crk_0_0"}).status_code == 401
            assert client.get("/readyz").status_code == 503
        assert caplog.text.count("The keys read before remain in use.") == 1
        assert parse.mock_calls.count(call(b"{", path)) == path.is_file()
        caplog.clear()
        if path.is_dir():
            path.rmdir()
        path.write_text(whole)
        assert client.get("/readyz").status_code == 200
    new = {"X-API-Key": make_key(path, "b", ("report",), 1)}
    revoke(path, old["X-API-Key"].split("_")[1])
    assert client.get("/v1/models", headers=old).status_code == 401
    assert client.get("/v1/models", headers=new).status_code == 200


def test_without_a_key_file_nobody_is_let_in(
    serving: Callable[..., TestClient], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    key = {"X-API-Key": make_key(path, "a", ("report",), 1)}
    client = serving(keys=path)
    whole = path.read_text()
    path.unlink()
    for _ in range(2):
        assert client.get("/v1/models", headers=key).status_code == 401
        assert client.get("/readyz").status_code == 503
    assert caplog.text.count("No key is accepted.") == 1
    path.write_text("{")
    assert client.get("/v1/models", headers=key).status_code == 401
    path.write_text(whole)
    assert client.get("/v1/models", headers=key).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_a_bucket_fills_evenly() -> None:
    now = [0.0]
    rate = Rate(2, clock=lambda: now[0])
    assert [rate.wait("a") for _ in range(3)] == [0, 0, 30]
    assert rate.wait("b") == 0
    now[0] = 29
    assert rate.wait("a") == pytest.approx(1)
    now[0] = 30
    assert rate.wait("a") == 0


def test_an_open_service_stays_on_the_loopback(tmp_path: Path) -> None:
    check_doors(Settings(models={"a": "x"}))
    with pytest.raises(UserError, match="--keys"):
        check_doors(Settings(models={"a": "x"}, host="0.0.0.0"))
    pem = tmp_path / "a.pem"
    with pytest.raises(UserError, match="--tls-key"):
        Settings(models={"a": "x"}, certificate=pem)
    pem.write_text("x")
    with pytest.raises(UserError, match="PEM"):
        check_doors(Settings(models={"a": "x"}, certificate=pem, private_key=pem))
