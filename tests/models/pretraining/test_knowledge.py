"""The knowledge encoder: its network, its training, what REVTAF takes of it, and MedKLIP's checkpoint."""

import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.models.parts.test_text_encoder import bert_folder
from tests.models.tiny import make_batch
from torch import Tensor, nn

from crossray.data.batches.batch import Batch
from crossray.errors import UserError
from crossray.models.base import Trainable
from crossray.models.parts.backbones import BackboneConfig, build_backbone
from crossray.models.parts.text_encoder import TextEncoderConfig
from crossray.models.pretraining.knowledge import Knowledge, KnowledgeConfig, KnowledgeNetwork, presence_thresholds
from crossray.models.pretraining.knowledge_encoder import RANDOM, KnowledgeEncoderConfig, build_knowledge_encoder
from crossray.text.entities import ENTITIES, PLACES, place_text

REPORTS = (
    "The heart is enlarged. Small left pleural effusion.",
    "The lungs are clear. No effusion or pneumothorax.",
    "Right apical pneumothorax. The heart is normal.",
    "Possible pneumonia.",
)
SMALL = KnowledgeConfig(
    backbone=BackboneConfig(name="random:resnet_tiny"), text=TextEncoderConfig(width=16, layers=1, heads=2, buckets=64),
    width=16, layers=1, heads=2, feedforward=32,
)  # fmt: skip


def reported(reports: tuple[str, ...] = REPORTS) -> Batch:
    batch = make_batch(len(reports))
    batch.targets.reports = reports
    return batch


def small(**changes: Any) -> Knowledge:
    torch.manual_seed(1)
    return Knowledge(dataclasses.replace(SMALL, **changes)).eval()


def encoder(name: str = "random:tiny", **fields: Any) -> Any:
    return build_knowledge_encoder(KnowledgeEncoderConfig(name=name, **fields))


# --- network


def test_the_network_of_medklip() -> None:
    with torch.device("meta"):
        network = KnowledgeNetwork(RANDOM["medklip"], 768)
        assert network.backbone.tokens(224) == 14 * 14 and network.backbone.width == 1024
        logits, scores = network(torch.zeros(1, 3, 224, 224), torch.zeros(75, 768), torch.zeros(51, 768))
    assert (logits.shape, scores.shape) == ((1, 75, 2), (1, 75, 51))
    # ResNet-50 up to its third stage 8,543,296; two linear maps 1,312,000; queries 196,864; four layers of 1,053,440
    # with self- and cross-attention, and the last norm 512; heads 514 and 197,376
    assert sum(parameter.numel() for parameter in network.parameters()) == 14_464_322


def test_a_backbone_keeps_only_the_stages_that_are_used() -> None:
    whole = small(stages=4).network.backbone
    cut = small(stages=2).network.backbone
    assert (len(whole.network.encoder.stages), len(cut.network.encoder.stages), cut.width) == (4, 2, 16)
    assert cut.tokens(64) == cut(torch.zeros(1, 3, 64, 64))[0].shape[1] == 64


# --- training


def test_truth_comes_from_the_reports() -> None:
    statuses, places = small().truth(reported())
    effusion, pneumothorax, pneumonia = (ENTITIES.index(name) for name in ("effusion", "pneumothorax", "pneumonia"))
    assert statuses[:, effusion].tolist() == [1, 2, 0, 0] and statuses[:, pneumothorax].tolist() == [0, 2, 1, 0]
    assert statuses[3, pneumonia] == 3
    assert places[0, effusion].nonzero().flatten().tolist() == [PLACES.index("left_pleural")]
    assert places[2, pneumothorax].nonzero().flatten().tolist() == [PLACES.index("right_apical_lung")]
    assert not places[1, effusion].any() and not places[3].any()


def test_reports_that_only_the_cleaner_makes_equal_are_read_apart() -> None:
    batch = reported(("No effusion edema is present.", "No effusion; edema is present."))
    batch.targets.report_key = torch.zeros(2, dtype=torch.int64)
    statuses, _ = small().truth(batch)
    assert statuses[:, ENTITIES.index("edema")].tolist() == [2, 1]


def test_reports_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered and what is read again is the same truth."""
    monkeypatch.setattr("crossray.models.pretraining.knowledge._REMEMBERED", 2)
    model, batch = small(), reported()
    first, again = model.truth(batch), model.truth(batch)
    assert len(model._read) == 2
    for before, after in zip(first, again, strict=True):
        assert torch.equal(before, after)
        assert before.dtype == after.dtype


def test_presence_is_called_as_often_as_it_is_asserted() -> None:
    odds = torch.tensor([[-5.0, 1.0, 3.0, 0.0], [-4.0, 2.0, 1.0, 0.0], [-6.0, 3.0, 2.0, 0.0], [-7.0, 4.0, 0.0, 0.0]])
    asserted = torch.zeros(4, 4, dtype=torch.bool)
    asserted[:2, 0] = True  # two of four, all of them far below 0
    asserted[0, 2] = True
    asserted[:, 3] = True
    found = presence_thresholds(odds, asserted)
    assert found.tolist() == [-5.5, 0.0, 2.5, 0.0]
    assert ((odds > found).sum(0)[[0, 2]] == asserted.sum(0)[[0, 2]]).all()


def test_validation_sets_the_thresholds_and_the_encoder_takes_them(tmp_path: Path) -> None:
    model, batch = small(), reported()
    assert not model.thresholds.any()
    with torch.no_grad():
        model.observe(batch)
        odds, statuses = model.scores(batch.inputs)[0], model.truth(batch)[0]
    model.summary()
    heart = ENTITIES.index("enlarge")
    assert int((odds[:, heart] > model.thresholds[heart]).sum()) == int((statuses[:, heart] == 1).sum()) == 1
    assert model.thresholds[heart] != 0
    model.save_pretrained(tmp_path)
    assert torch.equal(encoder(str(tmp_path)).thresholds, model.thresholds)


def test_what_is_not_mentioned_or_in_doubt_does_not_count() -> None:
    model = small()
    batch = reported(("Possible pneumonia.",))
    losses = model.losses(batch)
    assert losses["existence"] == 0 and losses["position"] == 0
    # "negative": 74 entities that are left out, and not the one in doubt
    logits, _ = model(batch.inputs.images[batch.inputs.view_mask])
    others = [place for place in range(75) if ENTITIES[place] != "pneumonia"]
    expected = -logits.log_softmax(-1)[:, others, 0].mean()
    torch.testing.assert_close(small(blank="negative").losses(batch)["existence"], expected)


def test_validation_weighs_all_places() -> None:
    model = small()
    batch = reported(("Small left pleural effusion.",))
    batch.inputs.view_mask[:, 1:] = False
    _, scores = model(batch.inputs.images[:, 0])
    expected = -scores[0, ENTITIES.index("effusion")].log_softmax(0)[PLACES.index("left_pleural")]
    torch.testing.assert_close(model.losses(batch)["position"], expected)


def test_every_parameter_learns() -> None:
    model = small(dropout=0.0).train()
    sum(model.losses(reported()).values(), torch.zeros(())).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not without


def test_it_learns_what_is_where() -> None:
    """Bright halves and their reports: the entity and its side are told apart after some steps."""
    torch.manual_seed(0)
    model = Knowledge(dataclasses.replace(SMALL, dropout=0.0)).train()
    reports = ("Left pleural effusion.", "Right pleural effusion.", "No effusion.", "No effusion.")
    batch = reported(reports)
    batch.targets.report_key = torch.tensor([0, 1, 2, 2])
    batch.inputs.view_mask[:, 1:] = False
    images = torch.zeros(4, 2, 3, 64, 64)
    images[0, 0, :, :, 32:], images[1, 0, :, :, :32] = 2.0, 2.0
    batch.inputs.images = images
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(120):
        loss = sum(model.losses(batch).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        model.observe(batch)
    summary = model.summary()
    assert summary["auroc_effusion"] == 1 and summary["place_accuracy"] == 1
    assert model.summary() == {}


def test_sentences_find_their_triplets() -> None:
    model = small().train()
    optimizer = torch.optim.Adam(model.text.parameters(), 3e-3)
    reports = (*REPORTS[:3], "No nodule. Left lower lobe opacity.")
    first = float(model.losses(reported(reports))["sentences"].detach())
    for _ in range(120):
        optimizer.zero_grad()
        model._sentences(reports).backward()
        optimizer.step()
    assert float(model._sentences(reports).detach()) < 0.5 * first


def test_sentences_are_compared_in_full_precision() -> None:
    model = small()
    model.text.forward = lambda texts: torch.eye(len(texts), 16) + 0.3  # type: ignore[method-assign]
    exact = model._sentences(REPORTS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model._sentences(REPORTS), exact)


def test_a_text_encoder_of_transformers_stays_as_it_is(tmp_path: Path) -> None:
    model = small(text=TextEncoderConfig(name=str(bert_folder(tmp_path)))).train()
    losses = model.losses(reported())
    assert losses.keys() == {"existence", "position"}
    assert set(model.frozen()) == {f"text.{name}" for name, _ in model.text.named_parameters()}
    model.save_pretrained(tmp_path / "saved")
    again = Trainable.from_pretrained(tmp_path / "saved")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for expected, found in zip(model.eval()(images), again(images), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("fields", [{"stages": 0}, {"heads": 3}, {"candidates": 51}, {"sentences": 1}])
def test_sizes_that_cannot_be_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        dataclasses.replace(SMALL, **fields)


# --- the frozen encoder


def test_what_revtaf_takes_of_it() -> None:
    frozen = encoder()
    images = torch.rand(5, 3, 64, 64)
    found = frozen(images)
    assert found["entities"].shape == found["places"].shape == (5, 75)
    assert (found["entities"].dtype, found["places"].dtype) == (torch.float32, torch.int16)
    assert frozen.places[found["places"][0, 0]] in PLACES and frozen.entities == ENTITIES
    logits, _ = frozen.network(images, frozen.entity_vectors, frozen.place_vectors)
    torch.testing.assert_close(found["entities"], logits[..., 1] - logits[..., 0])
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not frozen.train().training and not frozen.network.training
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen(images)["entities"], found["entities"])


def test_texts_are_encoded_in_any_number() -> None:
    frozen = encoder()
    texts = [f"word{number} effusion" for number in range(130)]
    vectors = frozen.encode_texts(texts)
    assert vectors.shape == (130, frozen.text_width) and frozen.encode_texts([]).shape == (0, frozen.text_width)
    torch.testing.assert_close(vectors[100:101], frozen.encode_texts(texts[100:101]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(frozen.place_vectors[7:8], frozen.encode_texts([place_text(PLACES[7])]))


def test_the_configuration_and_the_weights_are_enough() -> None:
    frozen = encoder()
    values = json.loads(json.dumps(dataclasses.asdict(frozen.config)))
    again = build_knowledge_encoder(KnowledgeEncoderConfig(**{**values, "name": "gone"}))
    assert again.fingerprint() != frozen.fingerprint()
    again.load_state_dict(frozen.state_dict())
    assert again.fingerprint() == frozen.fingerprint() == encoder().fingerprint()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(images)["entities"], frozen(images)["entities"])


@pytest.mark.parametrize("folder", ["best", "."])
def test_a_run_becomes_an_encoder(folder: str, tmp_path: Path) -> None:
    model = small()
    model.save_pretrained(tmp_path / folder)
    frozen = encoder(str(tmp_path))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits, scores = model(images)
    found = frozen(images)
    torch.testing.assert_close(found["entities"], logits[..., 1] - logits[..., 0])
    assert torch.equal(found["places"].long(), scores.argmax(-1))


def test_its_backbone_can_be_taken_over(tmp_path: Path) -> None:
    model = small(stages=2)
    model.save_pretrained(tmp_path)
    taken = build_backbone(BackboneConfig(name=str(tmp_path)))
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(taken.eval()(images), model.network.backbone(images))


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"format": 1, "system": "vision", "config": {}}))
    for name, message in [
        ("random:huge", "choose one of random:medklip"),
        ("build:knowledge/phantom", "built by `crossray train`"),
        (str(tmp_path / "nothing"), "no config.json there"),
        (str(other), "'vision' is not a knowledge encoder"),
    ]:
        with pytest.raises(UserError, match=message):
            encoder(name)


# --- MedKLIP's checkpoint: a file and a forward pass of that layout, made without our classes

WIDTH, TEXT, DEPTHS, CHANNELS = 16, 16, (2, 1, 1), (16, 32, 64)


def released(text: int = TEXT) -> dict[str, Tensor]:
    """Random tensors with the names and shapes of MedKLIP's state dict, as DataParallel saves it, in a small size."""
    shapes: dict[str, tuple[int, ...]] = {"res_features.0.weight": (16, 3, 7, 7)}
    norms = {"res_features.1": 16}
    inputs = 16
    for stage, (depth, outputs) in enumerate(zip(DEPTHS, CHANNELS, strict=True), start=4):
        hidden = outputs // 4
        for block in range(depth):
            name = f"res_features.{stage}.{block}"
            before = inputs if block == 0 else outputs
            shapes |= {f"{name}.conv1.weight": (hidden, before, 1, 1), f"{name}.conv2.weight": (hidden, hidden, 3, 3)}
            shapes |= {f"{name}.conv3.weight": (outputs, hidden, 1, 1)}
            norms |= {f"{name}.bn1": hidden, f"{name}.bn2": hidden, f"{name}.bn3": outputs}
            if block == 0 and (stage > 4 or before != outputs):
                shapes |= {f"{name}.downsample.0.weight": (outputs, before, 1, 1)}
                norms |= {f"{name}.downsample.1": outputs}
        inputs = outputs
    linear = {"res_l1": (inputs, inputs), "res_l2": (WIDTH, inputs), "disease_embedding_layer": (WIDTH, text)}
    linear |= {"cl_fc": (text, WIDTH), "classifier": (2, WIDTH)}
    for layer in range(2):
        name = f"decoder.layers.{layer}"
        linear |= {f"{name}.linear1": (24, WIDTH), f"{name}.linear2": (WIDTH, 24)}
        for part in ("self_attn", "multihead_attn"):
            shapes |= {f"{name}.{part}.in_proj_weight": (3 * WIDTH, WIDTH), f"{name}.{part}.in_proj_bias": (3 * WIDTH,)}
            linear |= {f"{name}.{part}.out_proj": (WIDTH, WIDTH)}
        for norm in (1, 2, 3):
            shapes |= {f"{name}.norm{norm}.weight": (WIDTH,), f"{name}.norm{norm}.bias": (WIDTH,)}
    shapes |= {"decoder.norm.weight": (WIDTH,), "decoder.norm.bias": (WIDTH,)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(5)
    state = {
        name: torch.randn(shape, generator=generator) * (2 / max(1, math.prod(shape[1:]))) ** 0.5
        for name, shape in shapes.items()
    }
    for name, size in norms.items():
        state |= {f"{name}.weight": torch.rand(size, generator=generator) + 0.5, f"{name}.bias": torch.zeros(size)}
        state |= {f"{name}.running_mean": torch.zeros(size), f"{name}.running_var": torch.ones(size) * 2}
        state |= {f"{name}.num_batches_tracked": torch.tensor(9)}
    return {f"module.{name}": tensor for name, tensor in state.items()}


def forward(state: dict[str, Tensor], images: Tensor, book: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """MedKLIP's forward pass with nothing but functions of PyTorch: logits (N, E, 2), scores (N, E, A)."""
    w = {name.removeprefix("module."): tensor for name, tensor in state.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(
            x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"]
        )

    def layer_norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def attend(query: Tensor, memory: Tensor, name: str) -> Tensor:
        attention = nn.MultiheadAttention(WIDTH, 4)
        attention.load_state_dict({key: w[f"{name}.{key}"] for key in attention.state_dict()})
        return attention(query, memory, memory)[0]

    x = norm(F.conv2d(images, w["res_features.0.weight"], stride=2, padding=3), "res_features.1").relu()
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, depth in enumerate(DEPTHS, start=4):
        for block in range(depth):
            name, stride = f"res_features.{stage}.{block}", 2 if stage > 4 and block == 0 else 1
            y = norm(F.conv2d(x, w[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = norm(F.conv2d(y, w[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2").relu()
            y = norm(F.conv2d(y, w[f"{name}.conv3.weight"]), f"{name}.bn3")
            if f"{name}.downsample.0.weight" in w:
                x = norm(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
    memory = linear(linear(x.flatten(2).transpose(1, 2), "res_l1").relu(), "res_l2").transpose(0, 1)
    query = linear(book, "disease_embedding_layer").unsqueeze(1).repeat(1, len(images), 1)
    for layer in range(2):
        name = f"decoder.layers.{layer}"
        normed = layer_norm(query, f"{name}.norm1")
        query = query + attend(normed, normed, f"{name}.self_attn")
        query = query + attend(layer_norm(query, f"{name}.norm2"), memory, f"{name}.multihead_attn")
        hidden = linear(layer_norm(query, f"{name}.norm3"), f"{name}.linear1").relu()
        query = query + linear(hidden, f"{name}.linear2")
    out = layer_norm(query, "decoder.norm").transpose(0, 1)
    return linear(out, "classifier"), linear(out, "cl_fc") @ places.T


def test_medklips_checkpoint_gives_medklips_numbers(tmp_path: Path) -> None:
    state = released()
    torch.save({"model": state, "epoch": 3, "config": {"N": 2}, "optimizer": {"state": {}}}, tmp_path / "released.pth")
    frozen = encoder(str(tmp_path / "released.pth"), text=str(bert_folder(tmp_path / "bert")))
    images = torch.randn(3, 3, 64, 64)
    logits, scores = forward(state, images, frozen.entity_vectors, frozen.place_vectors)
    found = frozen(images)
    torch.testing.assert_close(found["entities"], logits[..., 1] - logits[..., 0], atol=1e-4, rtol=1e-4)
    assert torch.equal(found["places"].long(), scores.argmax(-1))
    assert (logits[..., 1] - logits[..., 0]).std(0).mean() > 0.05  # images make a difference that could be missed
    again = build_knowledge_encoder(dataclasses.replace(frozen.config, name="gone", text="gone"))
    again.load_state_dict(frozen.state_dict())
    assert torch.equal(again(images)["entities"], found["entities"])


def test_medklips_descriptions_replace_ours(tmp_path: Path) -> None:
    torch.save({"model": released()}, tmp_path / "released.pth")
    text = str(bert_folder(tmp_path / "bert"))
    own = encoder(str(tmp_path / "released.pth"), text=text)
    sentences = {f"entity {number}": "no effusion" if number else "the heart" for number in range(75)}
    (tmp_path / "texts.json").write_text(json.dumps(sentences))
    theirs = encoder(str(tmp_path / "released.pth"), text=text, descriptions=str(tmp_path / "texts.json"))
    torch.testing.assert_close(theirs.entity_vectors[:2], own.encode_texts(["the heart", "no effusion"]))
    assert torch.equal(theirs.place_vectors, own.place_vectors)
    (tmp_path / "texts.json").write_text(json.dumps({"one": "sentence"}))
    with pytest.raises(UserError, match="does not have 75 descriptions"):
        encoder(str(tmp_path / "released.pth"), text=text, descriptions=str(tmp_path / "texts.json"))


def test_a_checkpoint_runs_no_code_and_must_be_whole(tmp_path: Path) -> None:
    path = tmp_path / "released.pth"
    text = str(bert_folder(tmp_path / "bert"))
    for content, message in [
        ({"model": {"weight": torch.zeros(1)}}, "no tensor named res_features"),
        ([1, 2], "no tensor named res_features"),
        (
            {"model": {n: t for n, t in released().items() if "classifier" not in n}},
            "'network.existence.bias' is missing",
        ),
        ({"model": {n: t for n, t in released().items() if "res_l2" not in n}}, "res_l2.weight' is missing"),
    ]:
        torch.save(content, path)
        with pytest.raises(UserError, match=message):
            encoder(str(path), text=text)
    path.write_bytes(pickle.dumps(Bomb(str(tmp_path / "went off")), protocol=2))
    with pytest.raises(UserError, match="more than weights"):
        encoder(str(path), text=text)
    assert not (tmp_path / "went off").exists()


def test_a_checkpoint_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "released.pth"
    huge = {"module.res_l2.weight": torch.zeros(1 << 20, 1)}  # a decoder with terabytes of weights
    deep = dict.fromkeys((f"module.decoder.layers.{number}.x" for number in range(10_000)), torch.zeros(1))
    repeated = {"module.res_l1.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}
    for change, message in [(huge, "another shape"), (deep, "missing"), (repeated, "more than weights")]:
        torch.save({"model": released() | change}, path)
        with pytest.raises(UserError, match=rf"released\.pth: .*{message}"):
            encoder(str(path), text="words")


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")
