"""The image tokenizer: its networks, its training, and the reader of DALL-E's pickled weights."""

import math
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.models.tiny import make_batch
from torch import nn

from crossray.data.batches.batch import Batch
from crossray.errors import UserError
from crossray.files import pytorch_files
from crossray.models.base import Event
from crossray.models.pretraining.dvae import DALLE, DVAE, DVAEConfig, Encoder, NetworkConfig, k_means, psnr
from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig, build_image_tokenizer, read_encoder

SMALL: dict[str, Any] = {"width": 8, "blocks": 1, "codes": 24, "patch": 4}


def images_batch(studies: int = 4) -> Batch:
    batch = make_batch(studies)
    batch.inputs.images = batch.inputs.images.sigmoid()
    return batch


# --- networks


def test_the_encoder_of_dalle() -> None:
    with torch.device("meta"):
        encoder = Encoder(DALLE)
        found = encoder(torch.zeros(1, 3, 112, 112))
    assert found.shape == (1, 8192, 14, 14)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 53_786_240


def test_the_decoder_of_dalle() -> None:
    """43.8 million parameters, whose decoder looks a code up as 128 channels (its `n_init`)."""
    with torch.device("meta"):
        decoder = DVAE(DVAEConfig(**vars(DALLE), reconstruction="logit_laplace", decoder_begin=128)).decoder
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 43_829_766


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_every_patch_gives_the_same_grid_and_the_image_back(patch: int) -> None:
    model = DVAE(DVAEConfig(width=8, blocks=1, codes=24, patch=patch)).eval()
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        codes = model.codes(images)
        assert codes.shape == (2, 4, 6)
        assert model.reconstruct(images).shape == (2, 1, 32, 48)
        weights = F.one_hot(codes, 24).permute(0, 3, 1, 2).float()
        torch.testing.assert_close(model.decoder.look_up(codes), model.decoder(weights), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fields", [{"patch": 3}, {"channels": 2}, {"width": 6}, {"codes": 1}, {"temperature_end": 2.0}]
)
def test_an_impossible_size_is_a_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(fields))):
        DVAEConfig(**fields)


# --- training


def test_losses_are_those_of_their_definitions() -> None:
    model, batch = DVAE(DVAEConfig(**SMALL)).eval(), images_batch()
    images = batch.inputs.images[batch.inputs.view_mask]
    with torch.no_grad():
        losses = model.losses(batch)
        share = model.encoder(images).softmax(1)
        expected = (model.decoder.look_up(model.codes(images)) - images[:, :1]).square().mean()
    torch.testing.assert_close(losses["reconstruction"], expected)
    assert float(losses["kl"]) == pytest.approx(float((share * (share * 24).log()).sum(1).mean()), rel=1e-4)
    usage = share.mean((0, 2, 3))
    assert float(losses["usage"]) == pytest.approx(float((usage * (usage * 24).log()).sum()), rel=1e-3)


def test_logit_laplace_is_a_density() -> None:
    """Its integral over the pixels that there can be is what the distribution has between the margins."""
    model = DVAE(DVAEConfig(**SMALL, reconstruction="logit_laplace"))
    mean, log_scale = 0.3, -0.5
    drawn = torch.tensor([mean, log_scale]).view(1, 2, 1, 1)
    pixels = torch.linspace(0, 1, 20_001)
    density = torch.stack([torch.exp(-model._error(drawn, pixel.view(1, 1, 1, 1))) for pixel in pixels[::20]])
    inside = torch.distributions.Laplace(mean, math.exp(log_scale))
    expected = inside.cdf(torch.tensor(0.9).logit()) - inside.cdf(torch.tensor(0.1).logit())
    torch.testing.assert_close(torch.trapezoid(density, pixels[::20]) * 0.8, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("reconstruction", ["mse", "logit_laplace"])
def test_it_learns_to_keep_images(reconstruction: Any) -> None:
    torch.manual_seed(0)
    model = DVAE(DVAEConfig(width=16, blocks=1, codes=32, reconstruction=reconstruction, revive_every=20)).train()
    batch = images_batch(8)
    coarse = torch.rand(8, 2, 1, 4, 4).repeat_interleave(16, 3).repeat_interleave(16, 4)
    batch.inputs.images = coarse.expand(-1, -1, 3, -1, -1)
    images = batch.inputs.images[batch.inputs.view_mask]
    optimizer = torch.optim.Adam(
        [{"params": model.encoder.parameters(), "lr": 1e-4}, {"params": model.decoder.parameters(), "lr": 1e-2}]
    )
    for step in range(1, 81):
        loss = model.losses(batch)["reconstruction"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.advance(Event("step", step=step, steps=80))
    model.eval()
    with torch.no_grad():
        flat = images[:, :1].mean(dim=(2, 3), keepdim=True).expand(-1, 1, 64, 64)
        assert psnr(model.reconstruct(images), images[:, :1]).mean() > psnr(flat, images[:, :1]).mean() + 4
        model.observe(batch)
    found = model.summary()
    assert 1 < found["perplexity"] <= 32
    assert 0 < found["used"] <= 1
    assert model.summary() == {}


def test_every_parameter_learns_from_reconstruction_and_prior() -> None:
    model = DVAE(DVAEConfig(**SMALL)).train()
    sum(model.losses(images_batch()).values()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_temperature_falls_and_is_saved(tmp_path: Path) -> None:
    model = DVAE(DVAEConfig(**SMALL, temperature=1.0, temperature_end=0.25, anneal=0.5))
    found = []
    for step in (0, 25, 50, 100):
        model.advance(Event("step", step=step, steps=100))
        found.append(float(model.temperature))
    assert found == pytest.approx([1.0, 0.5, 0.25, 0.25])
    model.save_pretrained(tmp_path)
    assert float(DVAE.from_pretrained(tmp_path).temperature) == pytest.approx(0.25)


def test_a_dead_code_becomes_a_copy_of_one_that_lives() -> None:
    model = DVAE(DVAEConfig(**SMALL, revive_every=10)).train()
    batch = images_batch()
    model.losses(batch)
    dead = [3, 7]
    model.usage[dead] = 0
    model.usage[:] = torch.where(torch.arange(24) == 5, model.usage + 1, torch.ones(24))
    model.usage[dead] = 0
    output, codebook = model.encoder.blocks.output.conv, model.decoder.blocks.input
    before = output.w.detach().clone()
    model.advance(Event("step", step=10, steps=100))
    for code in range(24):
        distance = (output.w[code] - before).flatten(1).norm(dim=1)
        parent = int(distance.argmin())
        assert (parent == code) == (code not in dead)
        if code in dead:
            alike = F.cosine_similarity(codebook.w[:, code].flatten(), codebook.w[:, parent].flatten(), dim=0)
            assert alike > 0.95
    assert not model.usage.any()
    unchanged = output.w.detach().clone()
    model.usage[1] = 5
    model.advance(Event("step", step=90, steps=100))  # past the annealing: codes stay as they are
    assert torch.equal(output.w, unchanged)


def test_codes_begin_where_the_images_are() -> None:
    torch.manual_seed(0)
    model, batch = DVAE(DVAEConfig(**SMALL)).train(), images_batch(8)
    images = batch.inputs.images[batch.inputs.view_mask]
    assert not model.started
    model.start(images)
    assert model.started
    with torch.no_grad():
        counts = torch.bincount(model.codes(images).flatten(), minlength=24).float()
        features = model.encoder.features(images).transpose(0, 1).flatten(1).T
        centres, spread = k_means(features, 24)
        nearest = torch.cdist(features, centres).argmin(1).view(len(images), 8, 8)
    assert (counts > 0).float().mean() > 0.9
    assert (model.codes(images) == nearest).float().mean() > 0.99
    assert spread < features.var(dim=0).sum()


# --- where a tokenizer comes from


class Conv2d(nn.Module):
    """The layout of DALL-E's classes, written from its description: they are not ours, and not importable later."""

    def __init__(self, n_in: int, n_out: int, kw: int) -> None:
        super().__init__()
        self.n_in, self.n_out, self.kw, self.device = n_in, n_out, kw, torch.device("cpu")
        self.w = nn.Parameter(torch.randn(n_out, n_in, kw, kw) / (n_in * kw**2) ** 0.5, requires_grad=False)
        self.b = nn.Parameter(torch.randn(n_out), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.w, self.b, padding=(self.kw - 1) // 2)


class EncoderBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        hid, self.post_gain = n_out // 4, 1 / 8**2
        self.id_path = Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        self.res_path = nn.Sequential(OrderedDict([
            ("relu_1", nn.ReLU()), ("conv_1", Conv2d(n_in, hid, 3)), ("relu_2", nn.ReLU()),
            ("conv_2", Conv2d(hid, hid, 3)), ("relu_3", nn.ReLU()), ("conv_3", Conv2d(hid, hid, 3)),
            ("relu_4", nn.ReLU()), ("conv_4", Conv2d(hid, n_out, 1)),
        ]))  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.id_path(x) + self.post_gain * self.res_path(x)


class ReleasedEncoder(nn.Module):
    def __init__(self, n_hid: int, vocab: int) -> None:
        super().__init__()
        parts: list[tuple[str, nn.Module]] = [("input", Conv2d(3, n_hid, 7))]
        before = n_hid
        for group in range(4):
            out = n_hid * 2**group
            blocks: list[tuple[str, nn.Module]] = [
                ("block_1", EncoderBlock(before, out)),
                ("block_2", EncoderBlock(out, out)),
            ]
            blocks += [("pool", nn.MaxPool2d(kernel_size=2))] if group < 3 else []
            parts.append((f"group_{group + 1}", nn.Sequential(OrderedDict(blocks))))
            before = out
        output = OrderedDict([("relu", nn.ReLU()), ("conv", Conv2d(before, vocab, 1))])
        self.blocks = nn.Sequential(OrderedDict([*parts, ("output", nn.Sequential(output))]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


@pytest.fixture(params=["zip", "legacy"])
def released(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, nn.Module]:
    """A pickled module of the classes above as if they lay in the package dall_e, which is gone when it is read."""
    torch.manual_seed(0)
    path, model = tmp_path / "encoder.pkl", ReleasedEncoder(8, 30)
    with monkeypatch.context() as patch:
        for name in ("dall_e", "dall_e.encoder", "dall_e.utils"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        for cls, place in ((Conv2d, "utils"), (EncoderBlock, "encoder"), (ReleasedEncoder, "encoder")):
            patch.setattr(cls, "__module__", f"dall_e.{place}")
            setattr(sys.modules[f"dall_e.{place}"], cls.__name__, cls)
        torch.save(model, path, _use_new_zipfile_serialization=request.param == "zip")
    return path, model


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # when it is written
def test_released_weights_are_read_without_their_classes(released: tuple[Path, nn.Module]) -> None:
    path, model = released
    tokenizer = build_image_tokenizer(ImageTokenizerConfig(name=str(path)))
    assert tokenizer.encoder.config == NetworkConfig(channels=3, width=8, blocks=2, codes=30, patch=1)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(0.8 * images + 0.1)
        torch.testing.assert_close(tokenizer.encoder(images), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(tokenizer(images).long(), expected.argmax(1).flatten(1))


def test_a_state_dict_of_the_same_names_is_read(tmp_path: Path) -> None:
    model = ReleasedEncoder(8, 30)
    torch.save(model.state_dict(), tmp_path / "encoder.pt")
    found = read_encoder(tmp_path / "encoder.pt")
    assert found.keys() == model.state_dict().keys()


class Command:
    """Runs a command when it is unpickled by anyone who lets it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(kind: str, tmp_path: Path) -> None:
    path, marker = tmp_path / "encoder.pkl", tmp_path / "ran"
    content = {"blocks.input.w": torch.zeros(1), "more": Command(marker)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Command(marker)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UserError, match=r"refused.*system.*nothing was run"):
        read_encoder(path)
    assert not marker.exists()


def legacy(pickled: bytes) -> bytes:
    """A file in the format before PyTorch 1.6 around a pickle."""
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*head, pickled, pickle.dumps([], 2)])


MODULE = b"cdall_e.x\nA\n)\x81"  # an instance of a class of the package
CHILD = b"}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00a"


@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(MODULE + b"q\x00" + CHILD + b"h\x00sub.", id="a module inside itself"),
        pytest.param((MODULE + CHILD) * 5000 + b"N" + b"sub" * 5000 + b".", id="too deep"),
        pytest.param(b"\x8e" + (1 << 40).to_bytes(8, "little") + b".", id="a terabyte of bytes"),
        pytest.param(b"Nr\xf0\xff\xff\xff.", id="a huge memo"),
        pytest.param(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
                     b"\x8a\x06\x00\x00\x00\x00\x00\x01tQ.", id="a terabyte of numbers"),
        pytest.param(b"(" * 100_000 + b".", id="marks only"),
        pytest.param(b"cdall_e.x\nA\nN}X\x06\x00\x00\x00brokenNs\x86b.", id="an attribute of a class"),
        pytest.param(b"ctorch._utils\n_rebuild_tensor_v2\n}X\x06\x00\x00\x00brokenNsb.", id="one of a function"),
    ],
)  # fmt: skip
def test_a_hostile_pickle_is_a_sentence_and_changes_nothing(pickled: bytes, tmp_path: Path) -> None:
    path = tmp_path / "encoder.pkl"
    path.write_bytes(legacy(b"\x80\x04" + pickled))
    with pytest.raises(UserError, match=r"encoder\.pkl: not? "):
        read_encoder(path)
    for shared in (pytorch_files.Inert, pytorch_files._VIEW.function, torch._utils._rebuild_tensor_v2):
        assert not hasattr(shared, "broken")


def test_a_file_that_grows_is_refused(tmp_path: Path) -> None:
    """Compressed entries, a tensor that repeats its numbers, a storage longer than its entry, a network of any size."""
    path, grown = tmp_path / "encoder.pkl", tmp_path / "grown.pkl"
    torch.save({"blocks.input.w": torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(grown, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "short.pkl", "w") as short:
        for name in plain.namelist():
            short.writestr(name, plain.read(name)[:64] if name.endswith("data/0") else plain.read(name))
    torch.save({"blocks.input.w": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "repeated.pkl")
    for name in ("grown.pkl", "short.pkl", "repeated.pkl"):
        with pytest.raises(UserError, match="not PyTorch weights"):
            read_encoder(tmp_path / name)
    claimed = {"blocks.input.w": torch.zeros(1 << 20, 1, 1, 1), "blocks.output.conv.w": torch.zeros(1 << 20, 1, 1, 1)}
    torch.save({**claimed, "blocks.group_1.block_1.res_path.conv_1.b": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="weights do not fit"):
        build_image_tokenizer(ImageTokenizerConfig(name=str(path)))


@pytest.mark.parametrize("name", ["random:huge", "build:tokenizer/phantom", "./nowhere"])
def test_a_name_that_is_none_is_a_sentence(name: str) -> None:
    with pytest.raises(UserError, match="image tokenizer"):
        build_image_tokenizer(ImageTokenizerConfig(name=name))


def test_other_files_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "text.pkl").write_text("hello")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pkl")
    for name in ("text.pkl", "other.pkl"):
        with pytest.raises(UserError, match=r"encoder\.pkl"):
            build_image_tokenizer(ImageTokenizerConfig(name=str(tmp_path / name)))


def test_a_saved_run_is_a_tokenizer_and_needs_no_folder_later(tmp_path: Path) -> None:
    model = DVAE(DVAEConfig(**SMALL)).eval()
    model.save_pretrained(tmp_path / "run" / "best")
    tokenizer = build_image_tokenizer(ImageTokenizerConfig(name=str(tmp_path / "run")))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(tokenizer(images).long(), model.codes(images).flatten(1))
    again = build_image_tokenizer(ImageTokenizerConfig(name="gone", architecture=tokenizer.config.architecture))
    again.load_state_dict(tokenizer.state_dict())
    assert again.fingerprint() == tokenizer.fingerprint()
