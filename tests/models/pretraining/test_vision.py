"""The backbone trained on observations: labels, AUROC, and its saved folder as a backbone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.errors import UserError
from crossray.models.parts.backbones import BackboneConfig, build_backbone
from crossray.models.pretraining.vision import Vision, VisionConfig, auroc

NAMES = ("cardiomegaly", "edema")
TINY = BackboneConfig(name="random:resnet_tiny")


def batch_of(codes: list[list[int]], views: int = 2) -> Batch:
    count = len(codes)
    mask = torch.ones(count, views, dtype=torch.bool)
    mask[0, 1:] = False
    inputs = Inputs(
        images=torch.randn(count, views, 3, 32, 32), image_size=torch.full((count, views, 2), 32), view_mask=mask,
        view_position=torch.zeros(count, views, dtype=torch.long),
    )  # fmt: skip
    labels = torch.zeros(count, len(NAMES), 4)
    for study, row in enumerate(codes):
        for index, code in enumerate(row):
            if code >= 0:
                labels[study, index, code] = 1
    names = tuple(str(number) for number in range(count))
    nothing = torch.zeros(count, 0)
    return Batch(
        inputs, Guide(labels, names, names), Targets(nothing.long(), nothing.bool(), torch.zeros(count).long())
    )


@pytest.mark.parametrize(
    ("uncertain", "blank", "expected"),
    [
        ("positive", "negative", [[0, 1], [0, 1], [-1, -1]]),
        ("negative", "negative", [[0, 1], [0, 0], [-1, -1]]),
        ("ignore", "ignore", [[-1, 1], [0, -1], [-1, -1]]),
    ],
)
def test_statuses_become_truth(uncertain: str, blank: str, expected: list[list[int]]) -> None:
    config = VisionConfig(backbone=TINY, observations=NAMES, uncertain=uncertain, blank=blank)  # type: ignore[arg-type]
    # blank, positive; negative, uncertain; a study without labels
    assert Vision(config).truth(batch_of([[0, 1], [2, 3], [-1, -1]])).tolist() == expected


def test_what_is_ignored_has_no_influence() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES, uncertain="ignore", dropout=0.0)).eval()
    batch = batch_of([[1, 3], [2, 1], [1, 1]])
    logits = model(batch.inputs)
    known = torch.tensor([[1, 0], [1, 1], [1, 1]]).bool()
    truth = torch.tensor([[1, 0], [0, 1], [1, 1]])
    probability = logits.sigmoid()
    likelihood = torch.where(truth == 1, probability, 1 - probability).log()
    assert model.losses(batch)["observations"].item() == pytest.approx(-likelihood[known].mean().item(), rel=1e-5)


def test_a_missing_view_has_no_influence() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES)).eval()
    batch = batch_of([[1, 1], [2, 2]])
    before = model(batch.inputs)
    batch.inputs.images[0, 1] = 100.0
    assert torch.equal(model(batch.inputs), before)


def test_lateral_views_have_a_linear_map_of_their_own() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES, lateral_apart=True)).eval()
    inputs = batch_of([[1, 1], [2, 2]]).inputs
    inputs.view_position = torch.tensor([[4, 0], [2, 4]])  # a lateral view alone; a frontal one, then a lateral one
    pooled = model.backbone.views(inputs)[1]
    frontal, lateral = model.head.weight.chunk(2, dim=1)
    expected = [lateral @ pooled[0, 0], frontal @ pooled[1, 0] + lateral @ pooled[1, 1]]
    torch.testing.assert_close(model(inputs), torch.stack(expected) + model.head.bias)


def test_words_are_learned_beside_the_observations() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES, words=("clear", "large"))).eval()
    batch = batch_of([[1, 1], [2, 2]])
    batch.targets.reports = ("Large heart.", "Lungs are CLEAR, nothing large.")
    said = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    pooled = model.backbone.views(batch.inputs)[1]
    image = (pooled * batch.inputs.view_mask.unsqueeze(2)).sum(1) / batch.inputs.view_mask.sum(1, keepdim=True)
    expected = F.binary_cross_entropy_with_logits(model.head(image)[:, 2:], said)
    assert model(batch.inputs).shape == (2, 2)
    losses = model.losses(batch)
    torch.testing.assert_close(losses["words"], expected)
    # what the observations lose does not depend on the words
    batch.targets.reports = ("", "")
    torch.testing.assert_close(model.losses(batch)["observations"], losses["observations"])
    model.observe(batch)
    assert model.summary().keys() >= {"auroc", *(f"auroc_{name}" for name in NAMES)}


def test_label_smoothing_equals_the_mixture_of_both_answers() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES, label_smoothing=0.2)).eval()
    batch = batch_of([[1, 2], [2, 1], [1, 1]])
    logits = model(batch.inputs)
    likelihood, opposite = logits.sigmoid().log(), (-logits).sigmoid().log()
    truth = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    right = torch.where(truth == 1, likelihood, opposite)
    wrong = torch.where(truth == 1, opposite, likelihood)
    assert model.losses(batch)["observations"].item() == pytest.approx(-(0.9 * right + 0.1 * wrong).mean().item())


def test_mixup_mixes_images_and_truth_by_the_same_shares() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES, mixup=1.0))
    batch = batch_of([[1, 2], [2, 1], [1, 1], [-1, -1], [1, 2], [2, 1]])
    batch.inputs.view_mask[:] = True
    batch.inputs.view_position[2] = 4  # alone of its kind: there is none to mix it with
    level = torch.arange(6.0)
    batch.inputs.images = level.view(6, 1, 1, 1, 1).expand(6, 2, 3, 8, 8)
    mixed = 0
    for seed in range(20):
        torch.manual_seed(seed)
        target = torch.stack([level, level**2], dim=1)
        known = torch.tensor([1.0, 1, 1, 0, 1, 1]).unsqueeze(1).expand(6, 2)
        inputs, found, counted = model._augmented(batch.inputs, target, known)
        shown = inputs.images[:, 0, 0, 0, 0]
        torch.testing.assert_close(found[:, 0], shown)  # a truth that equals the image stays equal
        assert shown[2] == 2
        changed = shown != level
        mixed += int(changed.sum())
        assert not counted[3].any() and ((counted[:, 0] == 1) | changed | (level == 3)).all()
        partners = [level[i] for i in range(6) if i != 2]
        assert ((shown >= min(partners)) & (shown <= max(partners))).all()
    assert mixed > 40


def test_contrast_changes_each_image_by_a_factor_and_a_shift_within_bounds() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES, contrast=0.3))
    batch = batch_of([[1, 2]] * 30)
    target = torch.zeros(30, 2)
    inputs, _, _ = model._augmented(batch.inputs, target, torch.ones(30, 2))
    before, after = batch.inputs.images.flatten(2), inputs.images.flatten(2)
    centred, changed = before - before.mean(2, keepdim=True), after - after.mean(2, keepdim=True)
    factor = (changed * centred).sum(2) / (centred**2).sum(2)
    torch.testing.assert_close(changed, centred * factor.unsqueeze(2), atol=1e-5, rtol=1e-4)
    shift = after.mean(2) - factor * before.mean(2)
    for found, middle in ((factor, 1.0), (shift, 0.0)):
        assert (found - middle).abs().max() <= 0.3001
        assert found.std() > 0.1
    model.eval()
    plain = Vision(VisionConfig(backbone=TINY, observations=NAMES)).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.losses(batch)["observations"], plain.losses(batch)["observations"])


@pytest.mark.parametrize("decimals", [1, 6])
def test_auroc_equals_scikit_learn(decimals: int) -> None:
    for _ in range(20):
        scores = torch.randn(50).round(decimals=decimals)
        positive = torch.rand(50) < 0.3
        positive[:2] = torch.tensor([True, False])
        assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive.numpy(), scores.numpy()))
    assert auroc(torch.randn(4), torch.ones(4).bool()) is None


def test_summary_leaves_out_what_occurs_one_way_only_and_forgets() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES)).eval()
    with torch.no_grad():
        first, second = batch_of([[1, 1], [2, 1]]), batch_of([[1, 1], [2, 1], [1, 1]])
        model.observe(first)
        model.observe(second)
        scores = torch.cat([model(first.inputs), model(second.inputs)])[:, 0]
    summary = model.summary()
    expected = roc_auc_score([1, 0, 1, 0, 1], scores.numpy())
    assert summary.keys() == {"auroc", "auroc_frequent", "auroc_cardiomegaly"}
    assert all(value == pytest.approx(expected) for value in summary.values())
    assert model.summary() == {}


def test_the_mean_over_frequent_observations_leaves_rare_ones_out() -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES)).eval()
    rows = [[1, 1]] + [[1, 2]] * 9 + [[2, 2]] * 8  # ten positives of the first, one of the second
    with torch.no_grad():
        for first in range(0, len(rows), 6):
            model.observe(batch_of(rows[first : first + 6]))
    summary = model.summary()
    assert summary["auroc_frequent"] == summary["auroc_cardiomegaly"]
    both = [summary["auroc_cardiomegaly"], summary["auroc_edema"]]
    assert summary["auroc"] == pytest.approx(sum(both) / 2)
    with torch.no_grad():
        model.observe(batch_of(rows[:6]))
    summary = model.summary()  # where none is frequent, the mean over all
    assert summary["auroc_frequent"] == summary["auroc"]


def test_a_dataset_without_labels_is_an_error() -> None:
    with pytest.raises(UserError, match="no labels"):
        Vision(VisionConfig(backbone=TINY))
    batch = batch_of([[1, 1]])
    batch.guide.labels = None
    with pytest.raises(UserError, match="no labels"):
        Vision(VisionConfig(backbone=TINY, observations=NAMES)).losses(batch)


def test_the_saved_folder_is_a_model_and_a_backbone(tmp_path: Path) -> None:
    model = Vision(VisionConfig(backbone=TINY, observations=NAMES)).eval()
    model.save_pretrained(tmp_path)
    inputs = batch_of([[1, 1], [2, 2]]).inputs
    assert torch.equal(Vision.from_pretrained(tmp_path)(inputs), model(inputs))
    taken = build_backbone(BackboneConfig(name=str(tmp_path), trainable=False)).eval()
    assert torch.equal(taken.views(inputs)[1], model.backbone.views(inputs)[1])
