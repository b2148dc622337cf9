"""REVTAF: retrieval without the own patient, prompts, guidance in training only, the model folder."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file
from tests.models.tiny import BOS, VOCABULARY, make_batch, make_inputs, tiny
from torch import Tensor

from crossray.data.batches.batch import Guide
from crossray.errors import UserError
from crossray.layers.diagnosis import POSITIVE
from crossray.layers.hyperbolic import poincare_distance
from crossray.layers.sinkhorn import SinkhornAttention
from crossray.models.base import Event, ReportModel
from crossray.models.retrieval.retrieving import DATABASE
from crossray.models.revtaf import REVTAF, REVTAFConfig
from crossray.retrieval.database import ReportDatabase
from crossray.training.recipe import list_recipes, load


def model_with(studies: list[str], groups: list[int], **overrides: object) -> REVTAF:
    """A small model whose database has these studies."""
    model = tiny("revtaf", **overrides)
    assert isinstance(model, REVTAF)
    model.database = ReportDatabase(
        **{name: getattr(model.database, name) for name, _ in model.database.named_buffers()} | {
            "groups": torch.tensor(groups)
        }, studies=studies, encoder=model.database.encoder,
    )  # fmt: skip
    return model


def references(model: REVTAF, guide: Guide | None, times: int = 20) -> Tensor:
    """Rows that a batch of four reads, (times, 4)."""
    inputs = make_inputs(4)
    with torch.no_grad():
        return torch.stack([model.encode(inputs, guide).aux["reference"] for _ in range(times)])


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("lre", [True, False])
def test_training_never_reads_a_report_of_the_own_patient(lre: bool, epochs: int) -> None:
    names = ["study0", "other", "study1", "study2", "study3", "a", "b"]
    model = model_with(names, [0, 0, 1, 1, 2, 3, 4], lre=lre).train()
    for _ in range(epochs):
        model.advance(Event("epoch"))
    found = references(model, make_batch().guide, times=60)
    own = torch.tensor([0, 1, 1, 2])
    assert (model.database.groups[found] != own).all()
    neighbours = model._search(torch.randn(4, 75), 7, metric="cosine", exclude=own)[1]
    groups = model.database.groups[neighbours.clamp_min(0)].where(neighbours >= 0, -1)
    assert (groups != own[:, None]).all()
    assert (neighbours[:, -1] == -1).all()  # no one else is left


def test_in_eval_mode_the_guide_keeps_the_own_report_away_and_no_label_reaches_the_result() -> None:
    names = ["study0", "other", "study1", "study2", "study3", "a", "b"]
    model, batch = model_with(names, [0, 0, 1, 1, 2, 3, 4]).eval(), make_batch()
    assert batch.guide.labels is not None
    others = dataclasses.replace(batch.guide, labels=batch.guide.labels.roll(1, dims=2))
    with torch.no_grad():
        encoded, again = (model.encode(batch.inputs, guide) for guide in (batch.guide, others))
    assert (model.database.groups[encoded.aux["reference"]] != torch.tensor([0, 1, 1, 2])).all()
    assert torch.equal(encoded.memory, again.memory)
    assert encoded.prompt is not None
    assert torch.equal(encoded.prompt, again.prompt)


def test_a_patient_who_is_alone_in_the_database_reads_nothing() -> None:
    names = ["study0", "study1", "study2", "study3", "a", "b", "c"]
    model = model_with(names, [0] * 7).train()
    batch = make_batch()
    assert (references(model, batch.guide) == -1).all()
    losses = model.losses(batch)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["consistency"] == 0


def test_labels_choose_the_report_in_the_first_epoch_and_images_half_of_them_later() -> None:
    model, batch = tiny("revtaf").train(), make_batch()
    assert isinstance(model, REVTAF)
    codes = batch.guide.labels.argmax(2)
    differing = (codes[:, None] != model.database.labels).sum(2)
    nearest = differing == differing.amin(1, keepdim=True)
    found = references(model, batch.guide, times=60)
    assert nearest[torch.arange(4), found].all()
    assert all(set(found[:, row].tolist()) == set(nearest[row].nonzero()[:, 0].tolist()) for row in range(4))
    model.advance(Event("epoch"))
    by_image = references(model.eval(), None, times=1)[0]
    model.train()
    rows = [row for row in range(4) if not nearest[row, by_image[row]]]
    share = (references(model, batch.guide, times=200) == by_image)[:, rows].float().mean()
    assert rows
    assert abs(share - 0.5) < 0.1


def test_generation_reads_the_nearest_report_in_hyperbolic_space() -> None:
    model = tiny("revtaf")
    assert isinstance(model, REVTAF)
    inputs = make_inputs(4)
    known = model.database.entities.double()
    seen, stored = ((x - known.mean(0)) / known.std(0) for x in (model.entities(inputs)[0].double(), known))
    with torch.no_grad():
        queries, points = model.lre.network(seen.float()), model.lre.network(stored.float())
        far = poincare_distance(queries, points, model.config.curvature)
    distances, rows = model.retrieve(inputs, 3)
    torch.testing.assert_close(distances.float(), far.sort(dim=1)[0][:, :3], atol=1e-3, rtol=1e-4)
    assert torch.equal(rows[:, 0], model.encode(inputs).aux["reference"])


def retrieved(entity_values: str, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Distances of the nearest reports when every entity's log-odds are measured in another unit."""
    torch.manual_seed(0)
    model = tiny("revtaf", entity_values=entity_values)
    assert isinstance(model, REVTAF)
    assert model.lre is not None
    queries = torch.randn(4, len(scale), generator=torch.Generator().manual_seed(3))
    model.database.entities.mul_(scale).add_(shift)
    model.lre.standardize(model.database.entities)
    places = torch.zeros(4, 1, len(scale))
    features = {"entities": (queries * scale + shift)[:, None], "places": places}
    inputs = dataclasses.replace(make_inputs(4), features=features, view_mask=torch.ones(4, 1, dtype=torch.bool))
    return model.retrieve(inputs, 3)[0]


def test_standardized_entities_have_no_unit_and_no_common_mean() -> None:
    entities = tiny("revtaf").database.entities.shape[1]
    generator = torch.Generator().manual_seed(5)
    scale, shift = torch.rand(entities, generator=generator) + 0.5, torch.randn(entities, generator=generator) - 4
    plain = torch.ones(entities), torch.zeros(entities)
    found, expected = retrieved("standardized", scale, shift), retrieved("standardized", *plain)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(retrieved("log_odds", scale, shift), retrieved("log_odds", *plain), rtol=0.05)


def test_prompts_have_mean_zero_and_deviation_one_over_the_database() -> None:
    model = tiny("revtaf")
    sentences = model.grp.standardization(model.database.sentences.float())
    phrases = model.lrp.standardization(model.database.phrases.float()).flatten(0, 2)
    for prompts in (sentences, phrases):
        torch.testing.assert_close(prompts.mean(0), torch.zeros(prompts.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(prompts.std(0, correction=0), torch.ones(prompts.shape[1]), atol=1e-4, rtol=0)
    raw = tiny("revtaf", prompt_values="raw")
    assert torch.equal(raw.grp.standardization(sentences), sentences)


def test_an_entity_that_never_changes_is_not_divided_by_zero() -> None:
    model = tiny("revtaf")
    model.database.entities[:, 0] = -7
    model.lre.standardize(model.database.entities)
    assert model.lre(model.database.entities).isfinite().all()
    model.lre.standardize(model.database.entities[:1])
    assert model.lre(model.database.entities).isfinite().all()


def test_the_index_follows_the_weights_and_training_those_of_the_last_epoch() -> None:
    model, inputs = tiny("revtaf"), make_inputs(4)
    before = model.retrieve(inputs, 2)[0]
    steady = model.train().retrieve(inputs, 2)[0]
    with torch.no_grad():
        model.lre.network.layers[0].weight.mul_(-0.3)
    assert torch.equal(model.retrieve(inputs, 2)[0], steady)
    moved = model.eval().retrieve(inputs, 2)[0]
    assert not torch.allclose(moved, before)
    model.advance(Event("epoch"))
    assert torch.equal(model.train().retrieve(inputs, 2)[0], moved)


@pytest.mark.parametrize("similarity", ["raw", "projected"])
def test_fcc_compares_raw_prompts_unless_told_otherwise(similarity: str) -> None:
    model, batch = tiny("revtaf", similarity=similarity), make_batch(3)
    before = model.encode(batch.inputs).aux["similarity"]
    assert before.shape == (3, 3, before.shape[2])
    assert ((before > 0.26) & (before < 0.74)).all()
    with torch.no_grad():
        model.fvtaf.phrases.weight.neg_()
        model.fvtaf.phrases.bias.neg_()
    after = model.encode(batch.inputs).aux["similarity"]
    expected = before if similarity == "raw" else 1 - before  # the sigmoid of the negated cosine
    torch.testing.assert_close(after, expected, atol=1e-6, rtol=0)


def test_without_the_auxiliary_observations_their_labels_do_not_count() -> None:
    model, batch = tiny("revtaf", auxiliary=False).train(), make_batch(4)
    torch.manual_seed(0)
    before = model.losses(batch)
    assert model.encode(batch.inputs).prompt.shape == (4, 2)
    batch.guide.labels[:, 2] = batch.guide.labels[:, 2].roll(1, dims=1)
    torch.manual_seed(0)
    for name, loss in model.losses(batch).items():
        torch.testing.assert_close(loss, before[name])


def test_labels_guide_training_only() -> None:
    model, batch = tiny("revtaf"), make_batch()
    assert torch.equal(model.encode(batch.inputs, batch.guide).prompt, model.encode(batch.inputs).prompt)
    model.train()
    first_status = VOCABULARY - 4
    assert torch.equal(model.encode(batch.inputs, batch.guide).prompt, first_status + batch.guide.labels.argmax(2))
    unknown = dataclasses.replace(batch.guide, labels=batch.guide.labels.clone())
    unknown.labels[2] = 0
    encoded = model.encode(batch.inputs, unknown)
    assert torch.equal(encoded.prompt[2], first_status + encoded.aux["statuses"][2].argmax(0))
    batch.guide.labels = None
    assert model.losses(batch).keys() == {"language", "consistency"}


def test_a_study_without_labels_teaches_the_diagnosis_nothing() -> None:
    model, batch = tiny("revtaf", dropout=0.0), make_batch()
    with torch.no_grad():
        others = [[row for row in range(4) if row != one] for one in range(4)]
        each = [float(model.losses(_without(batch, rows))["diagnosis"]) for rows in others]
        two = float(model.losses(_without(batch, [0, 3]))["diagnosis"])
    assert two == pytest.approx((each[1] + each[2]) / 2, abs=1e-5)


def _without(batch, rows):
    labels = batch.guide.labels.clone()
    labels[rows] = 0
    return dataclasses.replace(batch, guide=dataclasses.replace(batch.guide, labels=labels))


def test_attention_reads_prompts_by_place_and_the_released_code_does_not() -> None:
    """Every image position reads the same in the released form; a plan over all prompts tells them apart (V6)."""
    inputs = make_inputs(2)
    spread = {}
    for kind in ("sinkhorn", "softmax", "legacy_uniform"):
        model = tiny("revtaf", attention=kind)
        image = model.fvtaf.visual(model.backbone.views(inputs)[0][inputs.view_mask])
        prompts = torch.randn(len(image), 5, 16)
        attended, plan, _ = model.fvtaf.branches[0].attention(
            image, prompts, torch.ones(len(image), 5, dtype=torch.bool)
        )
        spread[kind] = float(attended.detach().std(dim=1).amax())
        assert plan.shape[2:] == (image.shape[1], 5)
    assert spread["legacy_uniform"] < 1e-6
    assert min(spread["sinkhorn"], spread["softmax"]) > 1e-4


@pytest.mark.parametrize("attention", ["sinkhorn", "legacy_uniform"])
def test_the_released_consistency_compares_cosines_of_positions_and_prompts(attention: str) -> None:
    """A transport problem with one prompt has a uniform plan; what the released code calls its map is the cosine."""
    model, inputs = tiny("revtaf", attention=attention, consistency="legacy", prompt_values="raw"), make_inputs(1)
    with torch.no_grad():
        aux = model.encode(inputs).aux
        fvtaf, mpsa = model.fvtaf, model.fvtaf.branches[0].attention
        image = mpsa.query(fvtaf.visual(model.backbone.views(inputs)[0][0]))
        sentences = mpsa.key(fvtaf.sentences(model.database.sentences_of(aux["reference"])[0]))
        cosine = torch.nn.functional.cosine_similarity(image[:, :, None], sentences[:, None], dim=3)
    expected = cosine * aux["sentences"][:, None]
    torch.testing.assert_close(aux["sentence_maps"][0], expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 1e-3


def test_without_local_prompts_nothing_of_them_is_read() -> None:
    """Table 3's row of LRE alone: places and presence of entities, which make the local prompts, change no logit."""
    batch = make_batch(3)
    for local in (True, False):
        model = tiny("revtaf", local_prompts=local, attention="softmax", consistency="none", lre=False)
        logits = model.step(batch.targets.tokens, model.encode(batch.inputs)).logits
        model.database.phrases.mul_(-1).add_(0.3)
        changed = model.step(batch.targets.tokens, model.encode(batch.inputs)).logits
        assert torch.equal(logits, changed) != local
        assert local == any("phrases" in name for name, _ in model.named_parameters())
    assert tiny("revtaf", local_prompts=False).losses(batch).keys() == {"language", "diagnosis", "ranking"}


def test_presence_in_local_prompts_is_cut_where_the_knowledge_encoder_says() -> None:
    model, inputs = tiny("revtaf", prompt_values="raw"), make_inputs(2)
    entities = model.entities(inputs)[0]
    found = []
    for threshold in (entities.amin() - 1, entities.amax() + 1):
        model.knowledge.thresholds.fill_(float(threshold))
        found.append(model.lrp(model.database, model.entities(inputs)[1], model.knowledge.present(entities)))
    places = model.entities(inputs)[1]
    entity = torch.arange(places.shape[1])
    for index, prompts in zip((1, 0), found, strict=True):
        assert torch.equal(prompts, model.database.phrases[entity, places, index].float())


@pytest.mark.parametrize(("fields", "loss"), [
    ({"unbalanced_tau": 0.01}, "consistency"), ({"fusion_output": "linear"}, "language"),
])  # fmt: skip
def test_options_of_the_fusion_change_what_they_name(fields: dict[str, object], loss: str) -> None:
    batch, values = make_batch(3), []
    for given in ({}, fields):
        torch.manual_seed(3)
        values.append(float(tiny("revtaf", **given).losses(batch)[loss]))
    assert abs(values[0] - values[1]) > 1e-4
    with pytest.raises(UserError, match="'unbalanced_tau'"):
        tiny("revtaf", unbalanced_tau=-1.0)


@pytest.mark.slow
def test_two_processes_rank_the_whole_batch(tmp_path: Path) -> None:
    """The nearest study may stand in the other process; averaged gradients are those of one process."""
    lre = tiny("revtaf").lre.train()
    generator = torch.Generator().manual_seed(4)
    entities, labels = torch.randn(7, 75, generator=generator), torch.randint(0, 4, (7, 3), generator=generator)
    known = torch.tensor([True] * 5 + [False, True])
    torch.save((lre, entities, labels, known), tmp_path / "given.pt")
    (tmp_path / "worker.py").write_text(
        "import sys\n"
        "import torch, torch.distributed as distributed\n"
        "folder, rank = sys.argv[1], int(sys.argv[2])\n"
        "distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)\n"
        "lre, *given = torch.load(f'{folder}/given.pt', weights_only=False)\n"
        "own = slice(0, 3) if rank == 0 else slice(3, None)\n"
        "loss = lre.loss(*(part[own] for part in given))\n"
        "loss.backward()\n"
        "gradient = lre.network.layers[0].weight.grad\n"
        "distributed.all_reduce(gradient)\n"
        "torch.save((loss.detach(), gradient / 2), f'{folder}/found{rank}.pt')\n"
        "distributed.destroy_process_group()\n"  # its threads could abort the process at exit
    )
    workers = [
        subprocess.Popen([sys.executable, str(tmp_path / "worker.py"), str(tmp_path), str(rank)]) for rank in (0, 1)
    ]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    expected = lre.loss(entities, labels, known)
    expected.backward()
    for rank in (0, 1):
        loss, gradient = torch.load(tmp_path / f"found{rank}.pt")
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient, lre.network.layers[0].weight.grad)


def test_places_come_from_the_view_that_is_surest() -> None:
    model, inputs = tiny("revtaf"), make_inputs(2)
    entities = torch.tensor([[[1.0, -3.0], [2.0, -5.0]], [[1.0, 1.0], [9.0, 9.0]]])
    places = torch.tensor([[[4, 5], [6, 7]], [[8, 9], [1, 1]]], dtype=torch.int16)
    seen, where = model.entities(dataclasses.replace(inputs, features={"entities": entities, "places": places}))
    assert seen.tolist() == [[1.5, -4.0], [1.0, 1.0]]  # the second study has one view
    assert where.tolist() == [[6, 5], [8, 9]]


def test_an_empty_database_is_a_model_that_reads_no_reports(tmp_path: Path) -> None:
    model = tiny("revtaf")
    model.database = ReportDatabase.empty(*model.database.phrases.shape[:2], 3, model.database.phrases.shape[3])
    batch = make_batch()
    losses = model.train().losses(batch)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    model.eval().save_pretrained(tmp_path)
    loaded = ReportModel.from_pretrained(tmp_path)
    assert (loaded.encode(batch.inputs).aux["reference"] == -1).all()


def test_class_priors_follow_the_validation() -> None:
    model, batch = tiny("revtaf"), make_batch()
    model.observe(batch)
    probabilities = model.encode(batch.inputs).aux["statuses"].softmax(1)[:, POSITIVE]
    positive = batch.guide.labels.argmax(2) == POSITIVE
    assert positive.any()
    positive[:, 2] = False  # the last observation is none of CheXpert's: its prior stays
    means = (probabilities * positive).sum(0) / positive.sum(0).clamp_min(1)
    before = model.ala.priors.clone()
    model.advance(Event("validation"))
    seen = positive.any(0)
    torch.testing.assert_close(model.ala.priors[seen], (means / means[seen].amax())[seen])
    assert torch.equal(model.ala.priors[~seen], before[~seen])


def test_a_dataset_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="'observations'"):
        tiny("revtaf", observations=())


# the model folder


def test_the_folder_holds_the_database_beside_the_weights(tmp_path: Path) -> None:
    model = tiny("revtaf")
    model.save_pretrained(tmp_path)
    assert not any(name.startswith("database") for name in load_file(tmp_path / "model.safetensors"))
    loaded = ReportModel.from_pretrained(tmp_path)
    assert isinstance(loaded, REVTAF)
    assert loaded.database.studies == model.database.studies
    assert loaded.database.sentences.dtype == torch.float16
    (tmp_path / DATABASE).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="copy the whole model folder"):
        ReportModel.from_pretrained(tmp_path)


def test_a_database_of_another_encoder_is_refused(tmp_path: Path) -> None:
    model = tiny("revtaf")
    model.database.encoder = "another"
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="crossray index build"):
        ReportModel.from_pretrained(tmp_path)


def test_prompt_positions_get_no_logits() -> None:
    model = tiny("revtaf")
    with torch.no_grad():
        encoded = model.encode(make_inputs(2))
        step = model.step(torch.full((2, 3), BOS), encoded, need_attention=True)
    assert encoded.prompt.shape == (2, 3)
    assert step.logits.shape == (2, 3, VOCABULARY)
    assert step.cross_attention.shape[3] == 3


@pytest.mark.parametrize("kind", ["sinkhorn", "softmax"])
@pytest.mark.parametrize("recipe", [name for name in list_recipes() if name.startswith("revtaf/")])
def test_positions_begin_to_read_less_than_half_of_the_prompts(
    recipe: str, kind: Literal["sinkhorn", "softmax"]
) -> None:
    """The wider the projections, the more alike the cosines: a plan as soft at 1,024 as at 128 channels is a mean."""
    config = load(recipe).model
    assert isinstance(config, REVTAFConfig)
    width = config.fusion_width
    attention = SinkhornAttention(width, width, width, config.fusion_heads, kind, config.epsilon).eval()
    with torch.no_grad():
        visual, prompts = torch.randn(2, 49, width), torch.randn(2, 41, width)
        plan = 49 * attention(visual, prompts, torch.ones(2, 41, dtype=torch.bool))[1]
    assert float(torch.special.entr(plan).sum(-1).exp().mean()) < 41 / 2
