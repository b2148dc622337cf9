"""Runs from end to end: what the folder holds, what is selected, what is never read."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.labelers import RuleLabeler
from crossray.evaluation.metrics.clinical import ClinicalStatistics
from crossray.evaluation.metrics.nlg import score
from crossray.evaluation.statistics.significance import bootstrap
from crossray.models.base import ReportModel, Trainable
from crossray.models.baseline import Baseline, BaselineConfig
from crossray.models.pretraining.encoder_diagnosis import EncoderDiagnosis
from crossray.models.pretraining.vision import Vision
from crossray.models.union import Union
from crossray.text.observations import OBSERVATIONS
from crossray.text.tokenizer import ADDED_TOKENS, Tokenizer
from crossray.training.callbacks import Clock
from crossray.training.config import TrainerConfig
from crossray.training.folder import alone
from crossray.training.module import TrainingModule
from crossray.training.recipe import list_recipes, load
from crossray.training.run import build_model, resume, train


def rows_of(out: Path, split: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == split]


def test_the_folder_of_a_run(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    recipe, out = tiny(trainer__log_every=2), tmp_path / "run"
    assert train(recipe, blobs, out) == out / "best"
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "recipe.yaml",
        "provenance.json",
        "metrics.jsonl",
        "last.ckpt",
        "best",
    }
    assert load(str(out / "recipe.yaml")) == recipe

    training = rows_of(out, "train")
    assert [row["step"] for row in training] == [2, 4, 6, 8, 10]  # 18 studies in batches of 4, twice
    assert [row["epoch"] for row in training] == [0, 0, 1, 1, 1]
    assert all(row["images_per_second"] > 0 and math.isfinite(row["loss_language"]) for row in training)
    validation = rows_of(out, "val")
    assert [(row["step"], row["epoch"]) for row in validation] == [(5, 0), (10, 1)]
    assert {"loss", "loss_language", "bleu1", "bleu4", "rouge_l", "cider", "distinct"} <= validation[0].keys()

    provenance = json.loads((out / "best" / "provenance.json").read_text())
    best = max(validation, key=lambda row: row["cider"])
    assert "path" not in provenance["data"]
    assert provenance["data"]["sha256"] == Dataset.open(blobs).info.sha256
    assert (provenance["step"], provenance["validation"]["cider"]) == (best["step"], best["cider"])

    model = ReportModel.from_pretrained(out / "best")
    assert isinstance(model, Baseline)
    assert model.transform == recipe.data.image
    assert model.tokenizer is not None and model.config.vocabulary_size == model.tokenizer.vocabulary_size
    assert model.config.observations == Dataset.open(blobs).info.observations


def test_each_optimizer_step_is_logged_once(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    """Accumulated batches are no steps, neither before the first step of a run nor after that of its checkpoint."""
    out = tmp_path / "run"
    recipe = tiny(trainer__accumulate=2, trainer__checkpoint_steps=1)
    step = TrainingModule.optimizer_step

    def stopped(self: TrainingModule, *arguments: Any, **options: Any) -> None:
        if self.step == 1:
            raise SystemError("killed")
        step(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "optimizer_step", stopped)
        with pytest.raises(SystemError):
            train(recipe, blobs, out)
    resume(out)
    assert [row["step"] for row in rows_of(out, "train")] == [1, 2, 3, 4, 5, 6]


def test_validation_scores_are_those_of_the_written_reports(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hypotheses: list[str] = []

    def write_reports(model: Any, inputs: Any, config: Any, **_: Any) -> list[SimpleNamespace]:
        first = "the heart is normal ." if not hypotheses else "no opacity is seen ."
        reports = [first, *["the heart is normal . no opacity is seen ."] * inputs.size][: inputs.size]
        hypotheses.extend(reports)
        return [SimpleNamespace(text=report) for report in reports]

    monkeypatch.setattr("crossray.training.module.write_reports", write_reports)
    references: list[str] = []
    plain = TrainingModule.validation_step

    def validation_step(self: TrainingModule, batch: Any, batch_idx: int) -> None:
        references.extend(self.model.tokenizer.decode(row) for row in batch.targets.tokens.tolist())
        plain(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "validation_step", validation_step)
    train(tiny(trainer__max_epochs=1), blobs, tmp_path / "run")
    assert len(hypotheses) == len(references) == 7
    row = rows_of(tmp_path / "run", "val")[0]
    expected = score(hypotheses, references)
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row["distinct"] == pytest.approx(len(set(hypotheses)) / 7)
    labels = [RuleLabeler().label(reports) for reports in (hypotheses, references)]
    clinical = bootstrap(ClinicalStatistics.of(labels[0], labels[1], OBSERVATIONS), resamples=1)
    for name in ("ce_precision", "ce_recall", "ce_f1", "ce_micro_f1", "ce_macro_f1"):
        assert row[name] == pytest.approx(clinical[name].value)
    assert 0 < row["ce_f1"] < 1


def test_a_mean_of_metrics_selects(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    recipe = tiny(trainer__monitor="cider+ce_macro_f1", trainer__max_epochs=3)
    train(recipe, blobs, tmp_path / "run")
    provenance = json.loads((tmp_path / "run" / "best" / "provenance.json").read_text())
    best = max(rows_of(tmp_path / "run", "val"), key=lambda row: row["cider"] + row["ce_macro_f1"])
    assert provenance["step"] == best["step"] and provenance["monitor"] == "cider+ce_macro_f1"


def test_no_recipe_selects_by_what_rewards_normal_reports() -> None:
    for name in list_recipes():
        assert "ce_f1" not in load(name).trainer.monitor, name


def test_word_pieces_are_trained_or_taken(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    train(tiny(data__tokenizer="wordpiece", data__vocabulary_size=60, trainer__max_epochs=1), blobs, tmp_path / "run")
    model = ReportModel.from_pretrained(tmp_path / "run" / "best")
    assert model.tokenizer is not None and model.tokenizer.kind == "wordpiece"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "heart", "is", "normal", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    recipe = tiny(data__tokenizer="wordpiece", data__vocabulary=str(tmp_path))
    taken = build_model(recipe, Dataset.open(blobs))
    assert isinstance(taken, ReportModel) and taken.tokenizer is not None
    assert taken.tokenizer.tokens == (*pieces, *ADDED_TOKENS)
    assert taken.config.vocabulary_size == len(pieces) + len(ADDED_TOKENS)
    with pytest.raises(UserError, match=r"data\.vocabulary.*wordpiece"):
        tiny(data__vocabulary=str(tmp_path))


@dataclass(frozen=True, kw_only=True)
class PromptedConfig(BaselineConfig):
    status_ids: tuple[int, ...] = ()


def test_a_system_that_asks_for_status_tokens_gets_them(
    tiny: Any, blob_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny()
    fields = {field.name: getattr(recipe.model, field.name) for field in dataclasses.fields(recipe.model)}
    recipe = dataclasses.replace(recipe, model=PromptedConfig(**fields))
    monkeypatch.setattr("crossray.training.run.system_class", lambda _: Prompted)
    model = build_model(recipe, blob_dataset)
    assert isinstance(model, ReportModel) and model.tokenizer is not None
    size = model.config.vocabulary_size
    assert model.config.status_ids == model.tokenizer.status_ids == tuple(range(size - 4, size))


class Prompted(Baseline):
    config_class = PromptedConfig


def test_the_test_split_is_never_touched(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved = set(Dataset.open(blobs).rows("test").tolist())
    plain_reports, plain_views, plain_rows = Dataset.reports, Dataset.image, Dataset.rows
    images = {row for study in reserved for row in Dataset.open(blobs).views(study)}

    def reports(self: Dataset, rows: Any, section: str = "findings") -> list[str]:
        assert not reserved & set(np.asarray(rows).tolist())
        return plain_reports(self, rows, section)

    def image(self: Dataset, row: int) -> Any:
        assert row not in images
        return plain_views(self, row)

    def rows(self: Dataset, split: str) -> Any:
        assert split != "test"
        return plain_rows(self, split)

    monkeypatch.setattr(Dataset, "reports", reports)
    monkeypatch.setattr(Dataset, "image", image)
    monkeypatch.setattr(Dataset, "rows", rows)
    train(tiny(), blobs, tmp_path / "run")
    with pytest.raises(AssertionError):  # the guards work
        Dataset.open(blobs).rows("test")


def test_the_tokenizer_knows_words_of_the_training_split_only(tiny: Any, blob_dataset: Dataset) -> None:
    model = build_model(tiny(), blob_dataset)
    assert isinstance(model, ReportModel) and model.tokenizer is not None
    expected = Tokenizer.train(blob_dataset.reports(blob_dataset.rows("train")), min_count=1)
    assert model.tokenizer.fingerprint() == expected.fingerprint()


def planned(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Validation finds these values of `cider`, one after the other."""
    left = iter(values)
    plain = TrainingModule.on_validation_epoch_end

    def on_validation_epoch_end(self: TrainingModule) -> None:
        plain(self)
        value = next(left)
        self.validation_metrics |= {"cider": value, "loss_language": value}

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", on_validation_epoch_end)


def best_step(out: Path) -> int:
    return int(json.loads((out / "best" / "provenance.json").read_text())["step"])


@pytest.mark.parametrize(
    ("options", "values", "step"),
    [
        ({}, [1.0, 3.0, 2.0], 10),
        ({"trainer__monitor": "loss_language", "trainer__mode": "min"}, [2.0, 3.0, 1.5], 15),
        ({"trainer__min_epochs": 3}, [9.0, 8.0, 1.0], 15),
        ({"trainer__min_epochs": 9}, [9.0, 8.0, 1.0], 15),
    ],
)
def test_the_best_validation_is_kept(
    options: dict[str, Any], values: list[float], step: int, tiny: Any, blobs: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    planned(monkeypatch, values)
    train(tiny(trainer__max_epochs=3, **options), blobs, tmp_path / "run")
    assert best_step(tmp_path / "run") == step


def test_patience_ends_a_stage(tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(monkeypatch, [1.0, 2.0, 1.0, 1.0, 9.0])
    train(tiny(trainer__max_epochs=9, trainer__patience=2), blobs, tmp_path / "run")
    assert [row["step"] for row in rows_of(tmp_path / "run", "val")] == [5, 10, 15, 20]
    assert best_step(tmp_path / "run") == 10


def test_a_time_limit_ends_with_a_validation(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    recipe = tiny(trainer__max_epochs=9, trainer__max_minutes=1e-6, trainer__validate_every=5)
    train(recipe, blobs, tmp_path / "run")
    assert [row["step"] for row in rows_of(tmp_path / "run", "val")] == [1]
    assert best_step(tmp_path / "run") == 1


def test_the_processes_agree_that_the_time_is_up() -> None:
    """One that began later has time left, and would wait for the others in the next stage."""
    asked = []

    def another_is_late(own: bool, all: bool) -> bool:
        asked.append((own, all))
        return True

    clock = Clock(math.inf)
    clock.on_train_end(SimpleNamespace(strategy=SimpleNamespace(reduce_boolean_decision=another_is_late)))
    assert asked == [(False, False)]
    assert clock.over


def test_the_last_epoch_is_validated_whatever_the_interval(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    train(tiny(trainer__max_epochs=3, trainer__validate_every=2), blobs, tmp_path / "run")
    assert [row["step"] for row in rows_of(tmp_path / "run", "val")] == [10, 15]


def test_an_unknown_metric_is_an_error(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer\.monitor.*'meteor'.*cider"):
        tiny(trainer__monitor="meteor")
    unchecked = dataclasses.replace(tiny(), trainer=TrainerConfig(monitor="cider+meteor"))
    with pytest.raises(UserError, match=r"trainer\.monitor.*'meteor'.*image_gain"):
        train(unchecked, blobs, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert tiny(trainer__monitor="cider+loss_language").trainer.monitor == "cider+loss_language"


def test_a_loss_that_is_not_finite_stops_cleanly(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    plain = Baseline.losses

    def losses(self: Baseline, batch: Any) -> dict[str, torch.Tensor]:
        scale = math.nan if next(calls) == 7 else 1.0
        return {name: loss * scale for name, loss in plain(self, batch).items()}

    monkeypatch.setattr(Baseline, "losses", losses)
    with pytest.raises(UserError, match=r"'language' is not finite.*learning_rate"):
        train(tiny(), blobs, tmp_path / "run")
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"] == 5


def test_clipping_limits_the_gradients(tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []
    plain = TrainingModule.configure_gradient_clipping

    def configure(self: TrainingModule, optimizer: Any, *arguments: Any, **options: Any) -> None:
        plain(self, optimizer, *arguments, **options)
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        flat = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
        seen.append((float(flat.norm()), float(flat.abs().max())))

    monkeypatch.setattr(TrainingModule, "configure_gradient_clipping", configure)
    train(tiny(trainer__clip_norm=0.01, trainer__max_epochs=1), blobs, tmp_path / "norm")
    assert [norm for norm, _ in seen] == pytest.approx([0.01] * 5, rel=1e-3)
    seen.clear()
    train(tiny(trainer__clip_norm=0, trainer__clip_value=1e-4, trainer__max_epochs=1), blobs, tmp_path / "value")
    assert [value for _, value in seen] == pytest.approx([1e-4] * 5)
    assert all(norm > 1e-4 for norm, _ in seen)


@pytest.mark.parametrize(("together", "steps"), [(2, [(0, 1), (2, 3), (4,)]), (10, [(0, 1, 2, 3, 4)])])
def test_gradients_are_means_over_their_batches(
    together: int, steps: list[tuple[int, ...]], tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an epoch, here of five batches, ends before `accumulate` is reached."""
    found: dict[str, list[Any]] = {"single": [], "together": []}

    def configure(self: TrainingModule, optimizer: Any, *_: Any, **__: Any) -> None:
        gradient = self.model.vocabulary.weight.grad
        assert gradient is not None
        found["single" if self.recipe.trainer.accumulate == 1 else "together"].append(gradient.clone())

    monkeypatch.setattr(TrainingModule, "configure_gradient_clipping", configure)
    for number in (1, together):
        options = {"trainer__accumulate": number, "trainer__max_epochs": 1, "optimizer__learning_rate": 0.0}
        train(tiny(**options, optimizer__weight_decay=0.0), blobs, tmp_path / str(number))
    expected = [torch.stack([found["single"][place] for place in step]).mean(dim=0) for step in steps]
    for gradient, mean in zip(found["together"], expected, strict=True):
        torch.testing.assert_close(gradient, mean)


def test_a_frozen_backbone_is_cached_and_trained_from(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    options = {"model__backbone__trainable": False, "data__feature_dtype": "float32", "data__image__resize": 32}
    # without random crops (the image is squashed), cached and computed features are the same
    options |= {"data__image__squash_train": True}
    train(tiny(**options), blobs, tmp_path / "cached")
    assert any((blobs / "features").iterdir())
    train(tiny(**options, data__cache_features=False), blobs, tmp_path / "computed")
    cached, computed = rows_of(tmp_path / "cached", "train"), rows_of(tmp_path / "computed", "train")
    assert [row["loss"] for row in cached] == pytest.approx([row["loss"] for row in computed], rel=1e-4)
    assert len(cached) == 10


#: What makes the fields small that only one system has. How what it needs is built: `test_prerequisites.py`.
SMALL: dict[str, dict[str, Any]] = {
    "cmn": {"model__memory_slots": 16, "model__memory_heads": 2, "model__memory_top": 4},
    "knowledge": {"model__text__name": "words", "model__text__width": 16, "model__text__heads": 2},
    "revtaf": {
        "model__knowledge__name": "random:tiny",
        "model__decoder": "",
        "data__vocabulary": "",
        "model__positions": 64,
        "model__retrieval_width": 16,
        "model__fusion_width": 16,
        "model__diagnosis_width": 16,
    },
    "tokenizer": {"model__width": 8, "model__blocks": 1, "model__codes": 16},
    "uar": {"model__image_tokenizer__name": "random:tiny", "model__basis_size": 16, "data__feature_variants": 2},
    "union": {"model__encoder_diagnosis": False},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name.endswith("/phantom") else pytest.mark.slow) for name in list_recipes()]
)
def test_every_recipe_trains(name: str, tiny: Any, blobs: Path, tmp_path: Path) -> None:
    train(tiny(name, trainer__max_epochs=1, **SMALL.get(name.split("/")[0], {})), blobs, tmp_path / "run")
    assert len(rows_of(tmp_path / "run", "val")) == 1
    Trainable.from_pretrained(tmp_path / "run" / "best")


def test_union_takes_its_diagnosis_from_the_encoder(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    encoder = train(tiny("vision/phantom", trainer__max_epochs=1), blobs, tmp_path / "vision")
    options = {"model__backbone__name": str(encoder), "model__backbone__trainable": False}
    train(tiny("union/iu_xray-laptop", trainer__max_epochs=1, **options), blobs, tmp_path / "run")
    model, vision = Union.from_pretrained(tmp_path / "run" / "best"), Vision.from_pretrained(encoder)
    assert isinstance(model.diagnosis, EncoderDiagnosis)
    assert torch.equal(model.diagnosis.bias, vision.head.bias)
    assert (model.diagnosis.thresholds != 0).any()


def test_a_pretrained_backbone_is_where_a_system_starts(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    best = train(tiny("vision/phantom", trainer__max_epochs=6), blobs, tmp_path / "vision")
    assert rows_of(tmp_path / "vision", "val")[-1]["auroc"] > 0.5
    model = build_model(tiny(model__backbone__name=str(best)), Dataset.open(blobs))
    vision = Vision.from_pretrained(best)
    assert isinstance(model, Baseline)
    for name, tensor in vision.backbone.state_dict().items():
        assert torch.equal(tensor, model.backbone.state_dict()[name])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_validation_loss_is_that_of_the_whole_split(reduction: str, tiny: Any, blobs: Path, tmp_path: Path) -> None:
    """A mean over words or over studies, whatever the batches are."""
    losses = []
    for size in (2, 7):
        options = {"optimizer.learning_rate": 0.0, "model.loss_reduction": reduction}
        options |= {"model.wcl": False, "model.rve": False, "model.backbone.trainable": False}  # no batch statistics
        recipe = tiny(
            "rcan/phantom", trainer__max_epochs=1, data__batch_size=size, trainer__precision="32",
            stages=[{"epochs": 1, "loss_weights": {"language": 1.0}}], **options,
        )  # fmt: skip
        train(recipe, blobs, tmp_path / str(size))
        losses.append(rows_of(tmp_path / str(size), "val")[0]["loss_language"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_run_that_ends_before_it_starts_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with pytest.raises(OSError, match="no place"), alone(tmp_path / name):
            raise OSError("no place for the features")
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_a_decoding_that_needs_a_diagnosis_is_refused_before_training(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    given = {"decoding__method": "mbr", "decoding__diagnosis_weight": 0.5}
    with pytest.raises(UserError, match=r"'diagnosis_weight' is 0\.5, and this baseline makes"):
        train(tiny("baseline/phantom", **given), blobs, tmp_path / "run")
    assert not (tmp_path / "run").exists()
