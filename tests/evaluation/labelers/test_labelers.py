"""The choice of a labeler."""

from pathlib import Path

import numpy as np
import pytest

from crossray.errors import UserError
from crossray.evaluation.labelers import open_labeler
from crossray.text.observations import CHEXPERT, STATUSES


def test_rules_are_the_embedded_labeler() -> None:
    labeler = open_labeler("rules")
    assert labeler.name.startswith("crossray-rules ")
    found = labeler.label(["the heart is enlarged .", "", "no pneumothorax ."])
    assert found.dtype == np.int8
    assert found.shape == (3, len(labeler.observations))
    assert set(CHEXPERT) <= set(labeler.observations)
    column = labeler.observations.index("cardiomegaly")
    assert STATUSES[found[0, column]] == "positive"
    assert STATUSES[found[1, column]] == "blank"


def test_a_folder_of_this_name_does_not_hide_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_labeler("rules").name == open_labeler("crossray-rules").name
    with pytest.raises(UserError, match=r"\./rules|rules/config\.json"):
        open_labeler("./rules")


def test_rules_of_a_convention() -> None:
    for labeler in (open_labeler("crossray-rules", "chexpert"), open_labeler("rules:chexpert")):
        assert labeler.name.endswith(", chexpert convention")
        column = labeler.observations.index("support_devices")
        assert STATUSES[labeler.label(["surgical clips ."])[0, column]] == "blank"
    with pytest.raises(UserError, match="--convention chexpert: only the rules have conventions"):
        open_labeler("chexbert:folder", "chexpert")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        open_labeler(str(tmp_path / "absent"))
