"""The encoder's own classifier as a diagnosis: it says what the encoder says, and learns from true statuses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.tiny import make_batch, tiny

from crossray.data.batches.batch import Guide
from crossray.data.batches.transform import ImageTransform
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError
from crossray.layers.diagnosis import called
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.pretraining.encoder_diagnosis import EncoderDiagnosis, read_encoder, shares_called
from crossray.models.pretraining.vision import Vision
from crossray.models.registry import create_model
from crossray.training.supervision import Supervision

NAMES = ("a", "b", "c")


def encoder(lateral_apart: bool) -> Vision:
    torch.manual_seed(1)
    found = create_model(
        "vision", backbone=BackboneConfig(name="random:resnet_tiny"), observations=NAMES, lateral_apart=lateral_apart,
        words=("word",), word_count=1,
    )  # fmt: skip
    assert isinstance(found, Vision)
    return found.eval()


@pytest.mark.parametrize("lateral_apart", [False, True])
def test_it_says_what_the_encoder_says(lateral_apart: bool) -> None:
    vision, inputs = encoder(lateral_apart), make_batch().inputs
    inputs.view_position[:, 1] = VIEW_POSITIONS.index("lateral")
    diagnosis = EncoderDiagnosis(vision.backbone.width, 8, len(NAMES))
    diagnosis.learn(vision)
    with torch.no_grad():
        pooled = vision.backbone.views(inputs)[1]
        torch.testing.assert_close(diagnosis(pooled, inputs.view_mask, inputs.view_position), vision(inputs))


def test_thresholds_call_the_expected_share() -> None:
    diagnosis = EncoderDiagnosis(6, 8, 3)
    logits = torch.randn(200, 3)
    diagnosis.set_thresholds(logits, torch.tensor([0.5, 0.1, 0.0]))
    shares = (logits - diagnosis.thresholds > 0).float().mean(dim=0)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.1, 0.0]), atol=0.006, rtol=0)


def test_the_decoder_reads_true_statuses_in_training_alone() -> None:
    model, batch = tiny("union", encoder_diagnosis=True), make_batch()
    model.eval()
    told, alone = model.encode(batch.inputs, batch.guide), model.encode(batch.inputs)
    assert torch.equal(told.memory, alone.memory)
    model.train()
    assert batch.guide.labels is not None
    memory = model.encode(batch.inputs, batch.guide).memory
    known = batch.guide.labels.sum(dim=(1, 2)) > 0
    expected = model.diagnosis.prompts(called(batch.guide.labels.argmax(dim=2)))
    assert known.any()
    torch.testing.assert_close(memory[known][:, -expected.shape[1] :], expected[known])
    assert set(model.losses(batch)) == {"language"}


def test_supervision_does_not_read_the_true_statuses() -> None:
    model, batch = tiny("union", encoder_diagnosis=True).train(), make_batch()
    assert batch.guide.labels is not None
    other = Guide(batch.guide.labels.roll(1, dims=2), batch.guide.study, batch.guide.patient)
    supervision = Supervision(model.config.width, len(model.config.observations))
    found = []
    for guide in (batch.guide, other):
        torch.manual_seed(0)
        encoded = model.encode(batch.inputs, guide)
        found.append((encoded.memory, supervision(encoded, batch.guide)))
    assert not torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_studies_without_labels_do_not_count() -> None:
    class Labels:
        path = Path("data")
        labels = np.array([[1, 0], [3, 2], [-1, -1], [-1, -1]], dtype=np.int8)

        def rows(self, split: str) -> Any:
            return np.arange(4)

    dataset: Any = Labels()
    assert shares_called(dataset).tolist() == [1.0, 0.0]
    dataset.labels = dataset.labels[[2, 3, 2, 3]]
    with pytest.raises(UserError, match="no training study has labels"):
        shares_called(dataset)


def test_an_encoder_that_is_trained_along_is_refused() -> None:
    model = tiny("union", encoder_diagnosis=True)
    model.transform = ImageTransform(size=32, resize=32)
    dataset: Any = None
    with pytest.raises(UserError, match=r"backbone\.trainable"):
        model.learn_from(dataset)


def test_a_folder_without_that_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.encoder_diagnosis.*pretrain vision"):
        read_encoder("random:resnet_tiny", NAMES)
    vision = encoder(True)
    vision.save_pretrained(tmp_path / "vision" / "best", {})
    for name in ("vision", "vision/best"):  # a run, and its best model
        assert torch.equal(read_encoder(str(tmp_path / name), NAMES).head.weight, vision.head.weight)
    with pytest.raises(UserError, match="observations of this dataset"):
        read_encoder(str(tmp_path / "vision"), ("a", "b"))
