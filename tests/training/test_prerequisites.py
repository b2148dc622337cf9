"""What a system needs trained first is built by `train`, once for a dataset."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.models.base import ReportModel
from crossray.models.pretraining.dvae import DVAE
from crossray.training import prerequisites, run
from crossray.training.config import Recipe
from crossray.training.recipe import load, to_yaml
from crossray.training.run import resume, train

STAGES = [
    {"epochs": 1, "switches": {"refine": False}},
    {"epochs": 1, "start_from": "best", "switches": {"refine": True}},
]


@pytest.fixture
def small_tokenizer(tmp_path: Path) -> Path:
    """A recipe of an image tokenizer that trains in a second."""
    recipe = load("tokenizer/phantom", {
        "model.width": 8, "model.blocks": 1, "model.codes": 16, "stages": [{"epochs": 1}], "data.image.size": 32,
        "data.image.resize": 36, "trainer.accelerator": "cpu",
    })  # fmt: skip
    path = tmp_path / "small.yaml"
    path.write_text(to_yaml(recipe))
    return path


@pytest.fixture
def dataset(blobs: Path, tmp_path: Path) -> Path:
    """The dataset in a folder of this test alone: what is built lies in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    for file in blobs.iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    return folder


def uar(tiny: Any, tokenizer: Path, **overrides: Any) -> Recipe:
    return tiny(
        "uar/phantom", model__image_tokenizer__name=f"build:{tokenizer}", model__basis_size=16, stages=STAGES,
        data__feature_variants=3, **overrides,
    )  # fmt: skip


def test_a_missing_tokenizer_is_built_said_and_shared(
    tiny: Any, small_tokenizer: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = uar(tiny, small_tokenizer)
    train(recipe, dataset, tmp_path / "one")
    said = " ".join(capsys.readouterr().err.split())
    assert f"uar needs {small_tokenizer}" in said and "training it" in said
    (built,) = [path for path in (dataset / "pretrained").iterdir() if path.is_dir()]
    assert isinstance(DVAE.from_pretrained(built / "best"), DVAE)
    # the recipe stays as it was given, and the run says which tokenizer it took
    assert load(str(tmp_path / "one" / "recipe.yaml")) == recipe
    provenance = json.loads((tmp_path / "one" / "provenance.json").read_text())
    assert provenance["built"] == {str(small_tokenizer): built.name}
    before = (built / "best" / "model.safetensors").stat().st_mtime_ns
    train(uar(tiny, small_tokenizer, trainer__seed=1), dataset, tmp_path / "two")
    assert "training it" not in capsys.readouterr().err
    assert (built / "best" / "model.safetensors").stat().st_mtime_ns == before
    # the model's folder needs neither dataset nor tokenizer
    (dataset / "pretrained").rename(tmp_path / "elsewhere")
    saved = json.loads((tmp_path / "one" / "best" / "provenance.json").read_text())
    assert ReportModel.from_pretrained(tmp_path / "one" / "best").config.refine == (saved["stage"] == 1)
    (tmp_path / "one" / "last.ckpt").unlink()  # a finished run would need neither
    with pytest.raises(UserError, match="this run needs the model that"):
        resume(tmp_path / "one")


def test_it_is_cached_by_recipe_and_content(small_tokenizer: Path, dataset: Path) -> None:
    opened = Dataset.open(dataset)
    name = prerequisites._folder_name(str(small_tokenizer), opened)
    values = yaml.safe_load(small_tokenizer.read_text())
    values["model"]["codes"] = 17
    small_tokenizer.write_text(yaml.safe_dump(values))
    assert prerequisites._folder_name(str(small_tokenizer), opened) != name


def test_what_an_earlier_version_built_is_taken(tiny: Any, small_tokenizer: Path, dataset: Path) -> None:
    opened = Dataset.open(dataset)
    today = prerequisites._folder_name(str(small_tokenizer), opened)
    run = dataset / "pretrained" / f"small-{'0' * 16}"
    train(load(str(small_tokenizer)), dataset, run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    del recipe["trainer"]["greedy_validation"]  # a field that the earlier version did not have
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert prerequisites._folder_name(str(small_tokenizer), opened) == today  # not finished
    (run / "finished").touch()
    assert prerequisites._folder_name(str(small_tokenizer), opened) == run.name
    recipe["model"]["codes"] = 17
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert prerequisites._folder_name(str(small_tokenizer), opened) == today  # says something else


def test_an_interrupted_build_goes_on(
    tiny: Any, small_tokenizer: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, plain = uar(tiny, small_tokenizer), run._Run.go

    def interrupted(self: Any, checkpoint: Any) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="repeat the command to continue"):
        patch.setattr(run._Run, "go", interrupted)
        train(recipe, dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run._Run.go is plain
    train(recipe, dataset, tmp_path / "run")
    assert (tmp_path / "run" / "best" / "model.safetensors").exists()


def test_many_processes_do_not_build(
    tiny: Any, small_tokenizer: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"crossray pretrain .*small\.yaml"):
        train(uar(tiny, small_tokenizer), dataset, tmp_path / "run")


def test_a_recipe_without_such_fields_is_left_alone(tiny: Any, blob_dataset: Dataset) -> None:
    recipe = tiny("baseline/phantom")
    assert prerequisites.fulfil(recipe, blob_dataset, run.train) == (recipe, {})
