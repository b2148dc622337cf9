"""COACL: labels, memory, MOM, ACLM and what reaches the decoder."""

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.models.tiny import make_batch, set_weights, take, tiny, without_dropout
from torch import Tensor

from crossray.ablation.rows import ablations
from crossray.data.batches.batch import Batch
from crossray.models.base import Event, ReportModel
from crossray.models.coacl import COACL, Denoising
from crossray.models.parts.adaptive_contrast import ACLM, DNSA, MOM
from crossray.models.parts.backbones import BackboneConfig
from crossray.text.observations import CHEXPERT, OBSERVATIONS, STATUSES
from crossray.training.recipe import load
from crossray.training.stages import loss_weights

VIT = BackboneConfig(name="random:vit_tiny", cls_token=True)


def coacl(**overrides: Any) -> COACL:
    model = tiny("coacl", **{"backbone": VIT, **without_dropout("coacl"), **overrides})
    assert isinstance(model, COACL)
    return model


def with_labels(batch: Batch, labels: Tensor | None) -> Batch:
    return dataclasses.replace(batch, guide=dataclasses.replace(batch.guide, labels=labels))


def one_hot(codes: Tensor) -> Tensor:
    return F.one_hot(codes, len(STATUSES)).float()


def similarities(model: COACL, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors of images and reports, without MOM and GFM, and their products, in float64."""
    with torch.no_grad():
        image = F.normalize(model.encode(batch.inputs).aux["image"].double(), dim=1)
        words = model.report_encoder(batch.targets.tokens, batch.targets.mask)
        report = F.normalize(words[:, 0].double(), dim=1)
    return image, report, image @ report.T


# labels


def test_labels_are_found_by_their_names() -> None:
    names = OBSERVATIONS[::-1]
    batch = make_batch(3)
    codes = torch.randint(0, 4, (3, len(names)), generator=torch.Generator().manual_seed(2))
    truth, known = coacl(observations=names).truth(with_labels(batch, one_hot(codes)))
    assert known.all()
    for place, name in enumerate(CHEXPERT):
        assert torch.equal(truth[:, place], codes[:, names.index(name)] == STATUSES.index("positive"))


def test_label_loss_equals_a_loop_over_what_is_known() -> None:
    model, batch = coacl(observations=("edema", "aorta_abnormal", "fracture")), make_batch(3)
    labels = one_hot(torch.tensor([[1, 1, 2], [0, 0, 0], [3, 1, 1]]))
    labels[1] = 0  # a study without labels
    with torch.no_grad():
        found = model.losses(with_labels(batch, labels))["label"]
        logits = model.encode(batch.inputs).aux["labels"]
    expected = 0.0
    for study, name, positive in ((0, "edema", 1), (0, "fracture", 0), (2, "edema", 0), (2, "fracture", 1)):
        chance = 1 / (1 + math.exp(-float(logits[study, CHEXPERT.index(name)])))
        expected -= math.log(chance if positive else 1 - chance) / 4
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("observations", [(), ("aorta_abnormal",)])
def test_a_dataset_without_labels_trains(observations: tuple[str, ...]) -> None:
    model, batch = coacl(observations=observations, text_labels=True).train(), make_batch()
    losses = model.losses(with_labels(batch, one_hot(torch.ones(4, 1, dtype=torch.long)) if observations else None))
    assert set(losses) == {"language", "contrastive"}
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


def test_a_batch_without_labels_has_no_label_loss() -> None:
    with torch.no_grad():
        losses = coacl(text_labels=True).losses(with_labels(make_batch(), None))
    assert float(losses["label"]) == float(losses["text_label"]) == 0


# views


def test_each_view_has_its_own_channels() -> None:
    model, batch = coacl(), make_batch(1)
    first, second = (batch.inputs.view_mask & torch.tensor([[place, not place]]) for place in (True, False))
    memories = []
    for mask in (first, second, batch.inputs.view_mask):
        inputs = dataclasses.replace(batch.inputs, view_mask=mask)
        with torch.no_grad():
            memories.append(model.encode(inputs).memory)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(memories[i], memories[j], atol=1e-3)
    # 16 patches and the class token, then twice the labels
    assert memories[0].shape[1] == 17 + 2 * len(CHEXPERT)


def test_one_view_needs_no_map() -> None:
    model = coacl(views=1)
    assert not any(name.startswith("join") for name, _ in model.named_parameters())
    assert model.encode(make_batch(2, views=1).inputs).memory.isfinite().all()


# memory


def step(model: COACL, batch: Batch) -> None:
    model.losses(batch)
    model.advance(Event("step"))


def test_reports_write_only_in_training_and_only_after_a_step() -> None:
    model, batch = coacl(), make_batch()
    step(model, batch)
    assert (model.memory.written == 0).all()
    model.train().losses(batch)
    assert (model.memory.written == 0).all()
    model.advance(Event("validation"))
    assert (model.memory.written == 0).all()
    model.advance(Event("step"))
    assert (model.memory.written != 0).any()


def test_what_was_written_reaches_generation_and_is_saved(tmp_path: Path) -> None:
    model, batch = coacl(), make_batch()
    with torch.no_grad():
        before = model.encode(batch.inputs).memory
        step(model.train(), batch)
        after = model.eval().encode(batch.inputs).memory
        model.save_pretrained(tmp_path)
        again = ReportModel.from_pretrained(tmp_path).encode(batch.inputs).memory
    assert not torch.allclose(after, before)
    assert torch.equal(again, after)


def test_padding_of_reports_changes_neither_losses_nor_memory() -> None:
    batch, other = make_batch(), make_batch()
    other.targets.tokens[~other.targets.mask] = 7
    models = [coacl(text_labels=True).train() for _ in range(2)]
    losses = [model.losses(one) for model, one in zip(models, (batch, other), strict=True)]
    for name, loss in losses[0].items():
        torch.testing.assert_close(losses[1][name], loss, msg=name)
    for model in models:
        model.advance(Event("step"))
    torch.testing.assert_close(models[1].memory.written, models[0].memory.written)


# MOM


@pytest.mark.parametrize("normalize", [True, False])
def test_large_priors_drown_the_image_tokens_unless_they_are_normalized(normalize: bool) -> None:
    """Training makes priors and maps grow; the additions were 400 times as large as the tokens on real radiographs."""
    torch.manual_seed(0)
    denoising, tokens = Denoising(64, 0.0, normalize=normalize).eval(), torch.randn(2, 5, 64)
    prior = 1000 * torch.randn(1, 3, 64).expand(2, -1, -1)
    for weight in (denoising.attention.output.weight, denoising.attention.project.weight):
        weight.data *= 10
    with torch.no_grad():
        image = denoising(tokens, prior)[:, :5]
    added = (image - tokens).std() / tokens.std()
    assert (added < 1.5) if normalize else (added > 100)


def mom(basis: str) -> MOM:
    return MOM(32, 4, basis)


def test_rows_put_the_reports_at_right_angles_to_all_images() -> None:
    image, report = torch.randn(2, 5, 32)
    basis = mom("rows").basis(image, report)
    torch.testing.assert_close(basis.square().mean(1), torch.ones(10))
    basis = F.normalize(basis, dim=1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(10), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis[5:] @ image.T, torch.zeros(5, 5), atol=1e-5, rtol=0)
    # equal reports and an image that is its own report leave fewer directions
    report[3], report[4] = report[0], image[1]
    assert mom("rows").basis(image, report).shape == (8, 32)


def test_columns_keep_the_first_independent_ones() -> None:
    image, report = torch.randn(2, 5, 32)
    image[:, 2] = 2 * image[:, 0]
    report[:, 2] = 2 * report[:, 0]
    basis = mom("cols").basis(image, report) / math.sqrt(10)
    used = [0, 1, *range(3, 11)]
    assert basis.shape == (10, 32)
    torch.testing.assert_close(basis[:, used].T @ basis[:, used], torch.eye(10), atol=1e-5, rtol=0)
    assert (basis[:, [2, *range(11, 32)]] == 0).all()
    torch.testing.assert_close(basis[:, 0], F.normalize(torch.cat([image, report])[:, 0], dim=0))


def test_no_basis_is_the_vectors_themselves() -> None:
    image, report = torch.randn(2, 5, 32)
    assert torch.equal(mom("none").basis(image, report), torch.cat([image, report]))


@pytest.mark.parametrize("basis", ["rows", "cols", "none"])
def test_equal_studies_have_a_finite_gradient(basis: str) -> None:
    model = coacl(basis=basis).train()
    batch = take(make_batch(3), [0, 2, 0, 0, 2])
    loss = model.losses(batch)["contrastive"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# ACLM


def test_the_drawn_curve_of_negatives() -> None:
    allocate = DNSA()
    points = torch.tensor([-2.0, 0.0, 2.0])
    assert allocate(points, 15).tolist() == [15, 12, 4]  # 4 + 11 cos(pi / 4) = 11.8
    assert allocate(points, 100).tolist() == [100, 78, 25]
    assert allocate(points, 1).tolist() == [1, 1, 1]
    for most in (1, 2, 7, 63):
        counts = allocate(torch.linspace(-2, 2, 200), most)
        assert (counts.diff() <= 0).all()
        assert counts[0] == most
        assert counts[-1] == max(1, math.ceil(most / 4))


def test_uniformity_and_expected_similarity_set_the_number() -> None:
    image, report = F.normalize(torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(4)), dim=2)
    negative = ~torch.eye(9, dtype=torch.bool)
    negative[0, 1] = negative[1, 0] = False

    def spread(rows: Tensor) -> float:
        pairs = [math.exp(-2 * float(((rows[i] - rows[j]) ** 2).sum()))
                 for i in range(9) for j in range(9) if i != j]  # fmt: skip
        return math.log(sum(pairs) / len(pairs))

    similarity = image @ report.T
    evenness = max(-1.0, min(1.0, 1 + (spread(image) + spread(report)) / 4))
    expected = sum(float(similarity[i][negative[i]].mean()) for i in range(9)) / 9
    count = 2 + 6 * math.cos(math.pi * (evenness - expected + 2) / 8)
    found = ACLM("adaptive", "triplet", 1.0, "raw").count(3 * image, report, negative)
    assert int(found) == round(count)


def test_collapsed_vectors_are_compared_with_more_negatives_than_even_ones() -> None:
    negative = ~torch.eye(16, dtype=torch.bool)
    even = torch.eye(16, 32)
    same = F.normalize(torch.ones(16, 32), dim=1)
    aclm = ACLM("adaptive", "triplet", 1.0, "raw")
    counts = [int(aclm.count(x, x, negative)) for x in (same, even)]
    # collapsed: uniformity 1, similarity 1; even: uniformity -1, similarity 0
    assert counts == [int(aclm.dnsa(torch.tensor(x), 15)) for x in (0.0, -1.0)]


@pytest.mark.parametrize("estimated", ["raw", "fused"])
def test_ue_and_hne_look_at_raw_or_at_fused_vectors(estimated: Any) -> None:
    even, same = torch.eye(16, 32), torch.ones(16, 32)
    aclm, seen = ACLM("adaptive", "triplet", 1.0, estimated), []
    aclm.ue.register_forward_hook(lambda module, given, found: seen.append(float(found)))
    keys, known = torch.arange(16), torch.ones(16, dtype=torch.bool)
    aclm((even, even), (same, same), keys, torch.rand(16, 14) > 0.5, known)
    assert seen == [pytest.approx(-1.0 if estimated == "raw" else 1.0)]


@pytest.mark.parametrize("contrast", ["adaptive", "neighbour"])
def test_contrastive_loss_equals_loops(contrast: str) -> None:
    model, batch = coacl(orthogonal=False, fusion="no_gate", contrast=contrast), make_batch(6)
    batch.targets.report_key[:] = torch.tensor([0, 1, 2, 0, 4, 5])
    image, report, similarity = similarities(model, batch)
    aclm = ACLM("adaptive", "triplet", 1.0, "raw")
    truth, _ = model.truth(batch)
    negative = batch.targets.report_key[:, None] != batch.targets.report_key
    total = 0.0
    for scores in (similarity, similarity.T):
        rows = []
        for i in range(6):
            others = [j for j in range(6) if negative[i, j]]
            if contrast == "neighbour":
                others = [j for j in others if j == (i + 1) % 6]
            else:
                count = int(aclm.count(image, report, negative))
                others = sorted(others, key=lambda j, row=scores[i]: -float(row[j]))[:count]
            losses = []
            for j in others:
                differ, either = int((truth[i] ^ truth[j]).sum()), int((truth[i] | truth[j]).sum())
                margin = max(0.5, differ / either) if differ else 0.0
                losses.append(max(0.0, float(scores[i, j] - scores[i, i]) + margin))
            rows += [sum(losses) / len(losses)] if losses else []
        total += sum(rows) / len(rows)
    with torch.no_grad():
        assert float(model.losses(batch)["contrastive"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("loss", ["triplet", "infonce"])
@pytest.mark.parametrize("contrast", ["adaptive", "neighbour"])
def test_studies_with_equal_reports_are_no_negatives(contrast: str, loss: str) -> None:
    model, batch = coacl(contrast=contrast, contrast_loss=loss), make_batch()
    batch.targets.report_key.zero_()
    with torch.no_grad():
        assert float(model.losses(batch)["contrastive"]) == 0


def test_a_single_study_has_a_contrastive_loss_of_zero() -> None:
    model = coacl().train()
    losses = model.losses(make_batch(1))
    assert losses["contrastive"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_alignment_brings_images_and_their_reports_together() -> None:
    model, batch = coacl().train(), make_batch(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    first = None
    for _ in range(60):
        loss = model.losses(batch)["contrastive"]
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first


# what reaches the decoder


def test_in_training_too_a_study_is_encoded_on_its_own() -> None:
    model, batch = coacl().train(), make_batch()
    together = model.encode(batch.inputs, batch.guide)
    for row in range(4):
        alone = take(batch, [row])
        torch.testing.assert_close(
            model.encode(alone.inputs, alone.guide).memory[0], together.memory[row], atol=1e-4, rtol=0
        )


def test_the_language_loss_trains_neither_the_text_branch_nor_the_alignment() -> None:
    model = coacl(decoder_prefix=True).train()
    model.losses(make_batch())["language"].backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert {"backbone", "image_labels", "memory", "prior_selection", "denoising", "prefix", "decoder"} <= trained
    assert not trained & {"report_encoder", "alignment"}


# ablations


def everything(model: COACL) -> dict[str, Any]:
    """Parameters, losses, logits and UE with weights that depend on names alone, after reports have written."""
    set_weights(model)
    estimates: dict[str, Tensor] = {}
    if model.alignment is not None:
        model.alignment.aclm.ue.register_forward_hook(lambda module, given, out: estimates.update(uniformity=out))
    batch = make_batch(6)
    step(model.train(), batch)
    model.eval()
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        found = {"logits": model.step(batch.targets.tokens, encoded).logits, **model.losses(batch)}
    return {"parameters": sorted(name for name, _ in model.named_parameters()), **found, **estimates}


def differs(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one.keys() != other.keys() or one["parameters"] != other["parameters"]:
        return True
    return any(not torch.allclose(value, other[name]) for name, value in one.items() if name != "parameters")


def test_every_ablation_changes_something() -> None:
    rows = {}
    for table in ablations("coacl/phantom").values():
        for row in table.rows:
            overrides = {k.removeprefix("model."): v for k, v in row.overrides.items() if k.startswith("model.")}
            weights = loss_weights(COACL, table.recipe_of(row).stages[0])
            rows[row.name] = everything(coacl(**{"denoising_norm": True, **overrides})) | {
                "weight": torch.tensor(weights["contrastive"])
            }
    assert len(rows) == 25
    names = list(rows)
    for place, name in enumerate(names):
        for other in names[:place]:
            assert differs(rows[name], rows[other]), f"{name} and {other}"
    assert not differs(rows["COACL"], everything(coacl(denoising_norm=True)) | {"weight": torch.tensor(0.1)})


def test_code_recipe_differs_from_the_recommended_one() -> None:
    ours, code = load("coacl/iu_xray"), load("coacl/iu_xray-code")
    assert (ours.model.layers, code.model.layers) == (3, 6)
    assert code.model.basis == "none"
    assert code.model.contrast == "neighbour"
    weights = {name: weight for name, weight in loss_weights(COACL, ours.stages[0]).items() if weight}
    assert weights == {"language": 1, "label": 0.1, "contrastive": 0.1, "text_label": 0.1}
    assert (ours.data.image.flip, code.data.image.flip) == (0.0, 0.5)


# two processes

TWO = """
import sys, torch, torch.distributed as distributed
sys.path.insert(0, sys.argv[3])
from tests.models.test_coacl import coacl, gradients
from tests.models.tiny import make_batch, take
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}/meet", rank=rank, world_size=2)
batch = take(make_batch(5), [[0, 1, 2], [3, 4]][rank])
torch.save(gradients(coacl().train(), batch), f"{sys.argv[2]}/{rank}.pt")
distributed.destroy_process_group()  # its threads could abort the process at exit
"""


def gradients(model: COACL, batch: Batch) -> dict[str, Tensor]:
    """The contrastive loss, its gradients and the memory after a step."""
    loss = model.losses(batch)["contrastive"]
    loss.backward()
    model.advance(Event("step"))
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), "written": model.memory.written, **found}


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path), root], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in running] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    expected = gradients(coacl().train(), make_batch(5))
    assert first.keys() == second.keys() == expected.keys()
    assert torch.equal(first["written"], second["written"])
    for name, value in expected.items():
        torch.testing.assert_close((first[name] + second[name]) / 2, value, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize(("label_tokens", "told_apart"), [("identified", True), ("logit", False)])
def test_the_decoder_knows_which_label_is_positive(label_tokens: str, told_apart: bool) -> None:
    """Two labels exchange their classifiers: with logits alone, as in the code, nothing changes for the decoder."""
    model, batch = tiny("coacl", label_tokens=label_tokens), make_batch()
    with torch.no_grad():
        before = model.step(batch.targets.tokens, model.encode(batch.inputs)).logits
        for parameter in (model.image_labels.weight, model.image_labels.bias):
            parameter[[0, 1]] = parameter[[1, 0]]
        after = model.step(batch.targets.tokens, model.encode(batch.inputs)).logits
    assert torch.allclose(before, after, atol=1e-4) is not told_apart


@pytest.mark.parametrize(("normalised", "constant"), [(False, True), (True, False)])
def test_labels_read_the_mean_of_a_memory_whose_rows_are_short(normalised: bool, constant: bool) -> None:
    """As the code looks its 90 rows up, every label of every study gets their mean."""
    torch.manual_seed(0)
    model = coacl(width=128, heads=8, memory_heads=8, memory_slots=90, memory_norm=normalised).eval()
    assert model.memory is not None
    assert model.prior_selection is not None
    attention = model.prior_selection.attention
    assert attention is not None
    weights: list[Tensor] = []
    attention.register_forward_pre_hook(
        lambda _module, given, options: (given, {**options, "need_weights": True}), with_kwargs=True
    )
    attention.register_forward_hook(lambda _module, _given, found: weights.append(found[1]))
    with torch.no_grad():
        model.prior_selection(torch.randn(8, 14, 128), model.memory())
    perplexity = float(torch.special.entr(weights[0]).sum(-1).exp().mean())
    assert (perplexity > 89) == constant
    assert (perplexity < 90 / 2) != constant
