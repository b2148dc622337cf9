"""The recorded sizes are those of the systems, and what is not recorded is measured."""

import json

import pytest

from crossray.models import sizes


def test_the_record_is_what_the_systems_are() -> None:
    assert json.loads(sizes.RECORD.read_text()) == sizes.record(), "run python -m tests.models.golden"


def test_without_a_record_the_systems_are_built(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    recorded = sizes.sizes()
    monkeypatch.setattr(sizes, "RECORD", tmp_path / "none.json")
    monkeypatch.setattr("crossray.models.registry.list_models", lambda: ["baseline"])
    assert sizes.sizes() == {"baseline": recorded["baseline"]}


def test_a_system_of_another_package_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "theirs"

    size = sizes.SystemSize(3, 1, "Theirs.")
    monkeypatch.setattr(sizes, "entry_points", lambda group: [Point] if group == "crossray.systems" else [])
    monkeypatch.setattr("crossray.models.registry.list_models", lambda: ["baseline", "theirs"])
    monkeypatch.setattr(sizes, "measure", lambda names: dict.fromkeys(names, size))
    found = sizes.sizes()
    assert found["theirs"] == size and found["baseline"].parameters > 1e6
    assert list(found) == sorted(found)
