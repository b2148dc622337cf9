"""A dataset whose splits a model does not know."""

import json
from pathlib import Path

import pytest

from crossray.data.store import Dataset
from crossray.generation.lineage import warn_of_other_splits


@pytest.mark.parametrize(
    ("changed", "split", "warns"),
    [
        ({}, "test", False),
        ({"sha256": "0" * 64}, "test", False),  # the same source, with images of another size
        ({"sha256": "0" * 64, "source": {"seed": 5}}, "test", True),
        ({"sha256": "0" * 64, "source": {"seed": 5}}, "val", True),
        ({"sha256": "0" * 64, "source": {"seed": 5}}, "all", False),
    ],
)
def test_another_dataset_causes_a_warning(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, object], split: str, warns: bool
) -> None:
    dataset = Dataset.open(data / "prepared")
    trained = {"sha256": dataset.info.sha256, "source": dataset.info.source, **changed}
    (tmp_path / "provenance.json").write_text(json.dumps({"data": trained}))
    warn_of_other_splits(tmp_path, dataset, split)
    assert ["may contain studies of the training" in message for message in caplog.messages] == [True] * warns


@pytest.mark.parametrize("content", ["", "[]", '{"data": 5}', "{}"])
def test_a_model_that_does_not_say(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    (tmp_path / "provenance.json").write_text(content)
    warn_of_other_splits(tmp_path, Dataset.open(data / "prepared"), "test")
    assert not caplog.messages
