"""What every registered system must hold to (docs/architecture.md)."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from tests.models.tiny import (
    BOS,
    EOS,
    PAD,
    VOCABULARY,
    make_batch,
    make_inputs,
    repeated,
    take,
    tiny,
    variants,
    with_prompt,
    without_dropout,
)  # fmt: skip

from crossray.analysis.liveness import relative_gradients
from crossray.data.batches.batch import Batch
from crossray.decoding.search import DecodingConfig, SpecialIds, generate
from crossray.models.base import Encoded, ReportModel
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.registry import list_models

SYSTEMS = list_models()
IDS = SpecialIds(pad=PAD, bos=BOS, eos=EOS)
#: Least gradient of a parameter relative to its size, in multiples of the median (docs/liveness.md).
RELATIVE_GRADIENT = 1e-3
#: Parameters below it in small models with an option of these values; all of them are readings, not defaults.
BARELY_TRAINED = {
    ("rcan", "residual", "wide"): ["rve.channel_attention.2.weight", "rve.spatial_attention.weight"],
    ("rcan", "channel_relu", False): ["rve.scale"],
    ("rcan", "memory_start", "code"): ["cgm.memory.query.weight"],  # the memory that docs/models/cmn.md calls inactive
    ("rcan", "cgm_visual", True): ["cgm.memory.output.bias"],  # the same for all words, so a softmax cancels it
}
every_system = pytest.mark.parametrize("system", SYSTEMS)
every_variant = pytest.mark.parametrize(
    ("system", "variant"),
    [
        pytest.param(
            system,
            variant,
            id="-".join([system, *(f"{field}={value}" for field, value in variant.items())]),
            marks=pytest.mark.slow if variant else (),  # `make test` tries every system, `make test-slow` its options
        )
        for system in SYSTEMS
        for variant in variants(system)
    ],
)


def in_double(batch: Batch) -> Batch:
    """In float64 what one study tells another stands out from rounding, which some systems amplify."""
    return batch.apply(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def logits(model: ReportModel, encoded: Encoded, tokens: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(5)  # dropout draws the same in every call
    return model.step(tokens, encoded).logits


@every_system
def test_shapes_and_masks(system: str) -> None:
    model, batch = tiny(system), make_batch()
    with torch.no_grad():
        encoded = model.encode(batch.inputs, batch.guide)
        step = model.step(batch.targets.tokens, encoded, need_attention=True)
    studies, length = batch.targets.tokens.shape
    positions = encoded.memory.shape[1]
    assert encoded.memory.shape[0] == studies
    assert encoded.memory_mask.shape == (studies, positions)
    assert encoded.memory_mask.dtype == torch.bool
    assert encoded.memory_mask.any(1).all()
    assert encoded.pooled.shape[:2] == batch.inputs.view_mask.shape
    assert step.logits.shape == (studies, length, VOCABULARY)
    assert step.cache is None
    assert step.cross_attention is not None
    assert step.cross_attention.shape[0] == studies
    assert step.cross_attention.shape[3:] == (length, positions)
    torch.testing.assert_close(step.cross_attention.sum(-1), torch.ones(step.cross_attention.shape[:-1]))
    hidden = ~encoded.memory_mask[:, None, None, None].expand_as(step.cross_attention)
    with torch.no_grad():
        single = model.encode(batch.inputs.apply(lambda tensor: tensor[:, :1]))
    # where a second view adds positions, those of the study without it are hidden
    assert hidden.any() == (single.memory.shape[1] < positions)
    assert (step.cross_attention[hidden] == 0).all()


@every_system
def test_encode_needs_no_guide(system: str) -> None:
    model, batch = tiny(system), make_batch()
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
    assert encoded.memory.isfinite().all()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@every_variant
def test_no_position_sees_a_later_token(system: str, variant: dict, training: bool) -> None:
    model, batch = tiny(system, **variant).train(training), make_batch()
    tokens = batch.targets.tokens
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        before = logits(model, encoded, tokens)
        for place in range(1, tokens.shape[1]):
            changed = tokens.clone()
            changed[:, place] = (changed[:, place] + 5) % VOCABULARY
            after = logits(model, encoded, changed)
            torch.testing.assert_close(after[:, :place], before[:, :place], atol=1e-6, rtol=0)
            assert not torch.allclose(after[:, place], before[:, place], atol=1e-6)


@pytest.mark.parametrize("prompted", [False, True], ids=["plain", "prompt"])
@every_variant
def test_word_by_word_equals_all_at_once(system: str, variant: dict, prompted: bool) -> None:
    model, batch = tiny(system, **variant), make_batch()
    tokens = batch.targets.tokens
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        if prompted:
            encoded = with_prompt(model, encoded)
        whole = model.step(tokens, encoded, need_attention=True)
        for pieces in ([1] * tokens.shape[1], [tokens.shape[1]], [3, 1, tokens.shape[1] - 4]):
            cache = model.start(encoded)
            steps = [model.step(piece, encoded, cache, need_attention=True) for piece in tokens.split(pieces, dim=1)]
            torch.testing.assert_close(torch.cat([s.logits for s in steps], 1), whole.logits, atol=1e-4, rtol=0)
            maps = torch.cat([s.cross_attention for s in steps], dim=3)
            torch.testing.assert_close(maps, whole.cross_attention, atol=1e-4, rtol=0)
            before = [encoded.prompt, encoded.aux.get("prefix")]
            assert cache.length == tokens.shape[1] + sum(x.shape[1] for x in before if x is not None)


@pytest.mark.parametrize("prompted", [False, True], ids=["plain", "prompt"])
@every_system
def test_reordered_beams_equal_a_fresh_pass_over_their_text(system: str, prompted: bool) -> None:
    model, beams = tiny(system), 3
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        encoded = model.encode(make_inputs(4))
        if prompted:
            encoded = with_prompt(model, encoded)
        cache = model.start(encoded, beams)
        written = torch.zeros(4 * beams, 0, dtype=torch.long)
        for turn, count in enumerate([2, 1, 1, 3, 1, 1]):
            studies = encoded.memory.shape[0]
            new = torch.randint(4, VOCABULARY, (studies * beams, count), generator=generator)
            written = torch.cat([written, new], dim=1)
            step = model.step(new, encoded, cache, need_attention=True)
            whole = model.step(written, repeated(encoded, beams), need_attention=True)
            torch.testing.assert_close(step.logits, whole.logits[:, -count:], atol=1e-4, rtol=0)
            torch.testing.assert_close(step.cross_attention, whole.cross_attention[..., -count:, :], atol=1e-4, rtol=0)
            parent = torch.randint(0, beams, (studies, beams), generator=generator)
            order = (torch.arange(studies)[:, None] * beams + parent).flatten()
            cache.reorder(order)
            written = written[order]
            if turn == 2:
                kept = torch.tensor([0, 2, 3])
                cache.select(kept)
                encoded = encoded.select(kept)
                written = written.unflatten(0, (studies, beams))[kept].flatten(0, 1)


@every_system
def test_beam_of_one_is_greedy_and_beams_find_no_worse(system: str) -> None:
    model = tiny(system)
    with torch.no_grad():
        encoded = model.encode(make_inputs(6))
    greedy = generate(model, encoded, IDS, DecodingConfig(method="greedy", max_length=8))
    single = generate(model, encoded, IDS, DecodingConfig(beam=1, max_length=8))
    wide = generate(model, encoded, IDS, DecodingConfig(beam=VOCABULARY, max_length=8))
    exhaustive = generate(model, encoded, IDS, DecodingConfig(beam=VOCABULARY, max_length=8, early_stop=False))
    for one, other, best, late in zip(single, greedy, wide, exhaustive, strict=True):
        assert list(one.tokens) == list(other.tokens)
        assert best.score >= other.score - 1e-4
        assert list(best.tokens) == list(late.tokens)


@every_variant
def test_every_parameter_learns_and_none_is_born(system: str, variant: dict) -> None:
    model, batch = tiny(system, **variant).train(), make_batch(9)  # enough for negatives besides positives
    names = [name for name, _ in model.named_parameters()]
    modules = [name for name, _ in model.named_modules()]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(2):  # what starts closed, as RCAN's recalibration does, opens with the first step
        optimizer.step()
        optimizer.zero_grad()
        sum(model.losses(batch).values()).backward()
    assert [name for name, _ in model.named_parameters()] == names
    assert [name for name, _ in model.named_modules()] == modules
    frozen = set(model.frozen())
    assert frozen <= set(names)
    # rounding reaches every parameter, so "more than 0" would say nothing
    relative = relative_gradients(model, [batch], {})
    weak = {n for n, p in model.named_parameters() if p.grad is None or relative.get(n, 0) < RELATIVE_GRADIENT}
    assert weak == frozen | {name for option in variant.items() for name in BARELY_TRAINED.get((system, *option), ())}


def assert_encoded_close(found: Encoded, expected: Encoded) -> None:
    """All of two results of `encode`: memory, masks, pooled vectors, prompt and everything in `aux`."""
    tensors, others = ({**vars(encoded), **encoded.aux} for encoded in (found, expected))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            message = f"{name} depends on other studies"
            torch.testing.assert_close(
                tensor, others[name], atol=1e-6, rtol=0, msg=lambda text, m=message: f"{m}: {text}"
            )


@every_variant
def test_what_a_study_becomes_depends_on_it_alone(system: str, variant: dict) -> None:
    model, batch = tiny(system, **variant).double(), in_double(make_batch(5))
    tokens = batch.targets.tokens
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        together = logits(model, encoded, tokens)
        assert torch.equal(together, logits(model, model.encode(batch.inputs), tokens))
        for rows in ([3, 1, 4, 0, 2], *([row] for row in range(5))):
            some = model.encode(take(batch, rows).inputs)
            assert_encoded_close(some, encoded.select(torch.tensor(rows)))
            torch.testing.assert_close(logits(model, some, tokens[rows]), together[rows], atol=1e-6, rtol=0)


@every_system
def test_padding_of_views_and_text_changes_nothing(system: str) -> None:
    model, batch = tiny(system).double(), in_double(make_batch())
    inputs, tokens = batch.inputs, batch.targets.tokens
    noise = inputs.images.clone()
    noise[~inputs.view_mask] = 9.0
    with torch.no_grad():
        encoded = model.encode(inputs)
        before = logits(model, encoded, tokens)
        filled = model.encode(dataclasses.replace(inputs, images=noise))
        torch.testing.assert_close(logits(model, filled, tokens), before, atol=1e-6, rtol=0)
        # study 1 has one view: alone, it needs no second place
        single = take(inputs, [1]).apply(lambda tensor: tensor[:, :1])
        torch.testing.assert_close(logits(model, model.encode(single), tokens[1:2])[0], before[1], atol=1e-6, rtol=0)
        longer = torch.cat([tokens, torch.full((len(tokens), 3), PAD)], dim=1)
        torch.testing.assert_close(logits(model, encoded, longer)[:, : tokens.shape[1]], before, atol=1e-6, rtol=0)


@every_system
def test_padded_targets_do_not_count_in_the_language_loss(system: str) -> None:
    model, batch = tiny(system), make_batch()
    other = copy.deepcopy(batch)
    other.targets.tokens[~other.targets.mask] = 7
    with torch.no_grad():
        assert torch.equal(model.losses(batch)["language"], model.losses(other)["language"])


@every_system
def test_text_of_the_batch_never_reaches_the_decoder(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny(system).train(), make_batch()
    other = copy.deepcopy(batch)
    other.targets.tokens[:, 1:] = (other.targets.tokens[:, 1:] + 3) % VOCABULARY
    seen: list[Encoded] = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *given: seen.append(encode(*given)) or seen[-1])
    for one in (batch, other):
        torch.manual_seed(0)
        model.losses(one)
    first, second = seen[0], seen[1]
    for name in ("memory", "memory_mask", "pooled"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_system
def test_half_precision_losses_are_finite(system: str, dtype: torch.dtype) -> None:
    model, batch = tiny(system).train(), make_batch()
    with torch.autocast("cpu", dtype=dtype):
        losses = model.losses(batch)
        assert losses.keys() <= model.loss_weights.keys()
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    exact = tiny(system).train().losses(batch)
    for name, loss in losses.items():
        assert abs(float(loss.detach() - exact[name].detach())) < 0.5, name


@every_system
def test_generation_under_bfloat16(system: str) -> None:
    model = tiny(system)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        reports = generate(model, model.encode(make_inputs(2)), IDS, DecodingConfig(beam=2, max_length=5))
    assert len(reports) == 2


@every_system
def test_a_single_study_trains(system: str) -> None:
    model, batch = tiny(system).train(), make_batch(1)
    losses = model.losses(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())


@every_system
def test_a_saved_folder_does_not_tell_where_other_weights_were(system: str, tmp_path: Path) -> None:
    model = tiny(system)
    backbone = dataclasses.replace(model.config.backbone, name="/home/anna/runs/encoder/best")  # type: ignore[attr-defined]
    model.config = dataclasses.replace(model.config, backbone=backbone)
    model.save_pretrained(tmp_path)
    assert "anna" not in (tmp_path / "config.json").read_text()
    assert ReportModel.from_pretrained(tmp_path).config.backbone.name == "encoder/best"  # type: ignore[attr-defined]


@every_system
def test_saved_folder_gives_equal_logits(system: str, tmp_path: Path) -> None:
    model, batch = tiny(system).train(), make_batch()
    model.losses(batch)  # moves the running statistics, which must be saved too
    model.eval().save_pretrained(tmp_path / "model")
    loaded = ReportModel.from_pretrained(tmp_path / "model")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert not loaded.training
    with torch.no_grad():
        expected = logits(model, model.encode(batch.inputs), batch.targets.tokens)
        assert torch.equal(logits(loaded, loaded.encode(batch.inputs), batch.targets.tokens), expected)


@every_system
def test_cached_features_equal_the_images(system: str) -> None:
    model = tiny(system, backbone=BackboneConfig(name="random:resnet_tiny", trainable=False))
    inputs, tokens = make_inputs(), make_batch().targets.tokens
    assert model.features_fingerprint() is not None
    with torch.no_grad():
        expected = logits(model, model.encode(inputs), tokens)
        features = model.prepare_features(inputs.images.flatten(0, 1))
        cached = dataclasses.replace(
            inputs,
            images=inputs.images[..., :0, :0],
            features={name: value.unflatten(0, inputs.view_mask.shape) for name, value in features.items()},
        )
        torch.testing.assert_close(logits(model, model.encode(cached), tokens), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "system", [pytest.param(name, marks=[pytest.mark.slow] if name == "revtaf" else []) for name in SYSTEMS]
)
def test_overfits_eight_studies_and_reproduces_their_reports(system: str) -> None:
    backbone = BackboneConfig(name="random:resnet_tiny", trainable=False)
    model = tiny(system, backbone=backbone, **without_dropout(system)).train()
    batch = make_batch(8)
    with torch.no_grad():
        features = model.prepare_features(batch.inputs.images.flatten(0, 1))
    shape = batch.inputs.view_mask.shape
    batch.inputs.features = {name: value.unflatten(0, shape) for name, value in features.items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(400):
        losses = model.losses(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if losses["language"] < 0.02:
            break
    model.eval()
    with torch.no_grad():
        assert model.losses(batch)["language"] < 0.1
        encoded = model.encode(batch.inputs)
    reports = generate(model, encoded, IDS, DecodingConfig(method="greedy", max_length=batch.targets.tokens.shape[1]))
    for report, tokens, mask in zip(reports, batch.targets.tokens, batch.targets.mask, strict=True):
        assert list(report.tokens) == tokens[mask][1:-1].tolist()
