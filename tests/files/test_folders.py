"""A model is found in its own folder and in that of its run; names tell folders apart."""

from pathlib import Path

import pytest

from crossray.errors import UserError
from crossray.files.folders import find_model, model_folder, short_names


def test_a_run_means_its_best_model(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").touch()
    assert model_folder(tmp_path) == tmp_path / "best"
    assert model_folder(tmp_path / "best") == tmp_path / "best"
    assert find_model(str(tmp_path), "encoder", "give one") == tmp_path / "best"


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert model_folder(tmp_path) == tmp_path
    with pytest.raises(UserError, match=f"encoder '{tmp_path}': no config.json there; give one"):
        find_model(str(tmp_path), "encoder", "give one")


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["one/best", "two/best"]) == ["one/best", "two/best"]
    assert short_names(["one/v1.2"]) == ["v1.2"]
    assert short_names(["a", "a", "b"]) == ["a", "a", "b"]
