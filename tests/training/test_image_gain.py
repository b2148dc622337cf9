"""What the image is worth: partners, and the metric against the loss of every study alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.models.tiny import tiny_writer
from torch import distributed

from crossray.data.batches.module import StudyDataModule
from crossray.data.store import Dataset
from crossray.models.base import Event, ReportModel
from crossray.training.image_gain import NO_PARTNER, partners
from crossray.training.module import TrainingModule
from crossray.training.run import train
from crossray.training.stages import StageKeeper


@given(keys=st.lists(st.integers(0, 5), max_size=20), seed=st.integers(0, 100))
def test_partners_have_other_reports(keys: list[int], seed: int) -> None:
    found = partners(np.array(keys, np.int64), seed)
    taken = found[found != NO_PARTNER]
    assert len(set(taken.tolist())) == len(taken)
    for own, other in enumerate(found.tolist()):
        assert other == NO_PARTNER or keys[own] != keys[other]
    largest = max((keys.count(key) for key in keys), default=0)
    if 2 * largest <= len(keys):
        assert len(taken) == len(keys)
    else:
        assert len(taken) == 2 * (len(keys) - largest)
    assert np.array_equal(found, partners(np.array(keys, np.int64), seed))


def test_the_metric_is_that_of_single_studies(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    """Whatever the batch: the loss of each report behind its own and behind its partner's image, study by study."""
    gains = []
    for batch_size in (4, 7):
        out = tmp_path / str(batch_size)
        recipe = tiny(data__batch_size=batch_size, trainer__max_epochs=1, trainer__monitor="image_gain")
        train(recipe, blobs, out)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        gains.append(next(row for row in rows if row["split"] == "val")["image_gain"])
        model = ReportModel.from_pretrained(out / "best")
        data = StudyDataModule(Dataset.open(blobs), model.tokenizer, recipe.data.image, max_length=20)
        studies = data.rows("val")
        others = studies[partners(data.report_keys(studies), seed=0)]
        difference = tokens = 0.0
        for study, other in zip(studies, others, strict=True):
            targets = data._evaluation.targets(np.array([study]))
            with torch.inference_mode():
                behind = [
                    float(model.language_loss(model.encode(data.inputs(np.array([row]), "cpu")), targets))
                    for row in (other, study)
                ]
            count = int(targets.mask[:, 1:].sum())
            difference, tokens = difference + (behind[0] - behind[1]) * count, tokens + count
        assert gains[-1] == pytest.approx(difference / tokens, rel=1e-3, abs=1e-7)
        assert gains[-1] != 0


def test_a_process_may_have_no_study_with_a_partner(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny()
    model = tiny_writer("normal .")
    there, here = {"loss_language": [2.0, 4.0], "image_gain": [3.0, 1.0]}, {"loss_language": [1.0, 2.0]}

    def gather(parts: list[Any], own: Any) -> None:
        parts[:] = [own, ({"loss_language": [1.0, 2.0]} if "image_gain" in own[0] else there, {})]

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_gather_object", gather)
    monkeypatch.setattr(TrainingModule, "_event", lambda *_: Event(kind="validation"))
    found = []
    for own in (here, there):
        module = TrainingModule(model, recipe, StageKeeper(model))
        module._sums = own
        module.on_validation_epoch_end()
        found.append(module.validation_metrics)
    assert found[0] == found[1]
    assert found[0]["image_gain"] == 3 and found[0]["loss_language"] == 0.5


def test_a_model_that_never_looks_gains_nothing(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossray.models.parts.encoder_decoder import EncoderDecoder

    plain = EncoderDecoder.encode_visual
    monkeypatch.setattr(
        EncoderDecoder, "encode_visual",
        lambda self, visual, mask, pooled: plain(self, torch.zeros_like(visual), torch.ones_like(mask), pooled),
    )  # fmt: skip
    train(tiny(trainer__max_epochs=1), blobs, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert next(row for row in rows if row["split"] == "val")["image_gain"] == 0
