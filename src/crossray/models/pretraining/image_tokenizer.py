"""The frozen image tokenizer of UAR: an encoder of `dvae.py`.

DALL-E's weights are published as a pickled module. Unpickling can run code, so `pytorch_files.py` is used instead.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from crossray.errors import UserError, choose
from crossray.files.folders import find_model
from crossray.files.pytorch_files import (
    ForbiddenNameError,
    Inert,
    PyTorchFileError,
    float_copies,
    named_tensors,
    read_pytorch,
)
from crossray.models.base import BUILD
from crossray.models.parts.networks import fingerprint
from crossray.models.pretraining.dvae import DALLE, DOWNSAMPLING, Conv, Encoder, NetworkConfig

#: Network sizes of `random:NAME`.
RANDOM = {"dalle": DALLE, "tiny": NetworkConfig(width=8, blocks=1, codes=24, patch=4)}

_PREFIX = "encoder."

#: Packages of the classes that DALL-E's file refers to.
_CLASSES = ("dall_e.", "torch.nn.modules.")

#: Maximum number of blocks per group in weights that are read; DALL-E has two.
_BLOCKS = 64

#: The possible names, for error messages.
_REMEDY = "give the folder of a `crossray pretrain tokenizer` run, DALL-E's encoder.pkl, or a name on the hub"


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig:
    """Configuration of the image tokenizer.

    Attributes:
        name: the folder of a run of `crossray pretrain tokenizer` or its model folder; DALL-E's encoder.pkl; a model on
            the Hugging Face hub; build:RECIPE (such as build:tokenizer/phantom), which `crossray train` trains first
            unless the dataset already has it; or random:dalle or random:tiny for tests.
        architecture: set when the tokenizer is built, so that a saved folder is self-contained; leave it out.
    """

    name: str = "random:dalle"
    architecture: dict[str, int] | None = None


class ImageTokenizer(nn.Module):
    """The frozen encoder, which produces one token per 8 x 8 pixels.

    Args:
        encoder: the network.
        config: the configuration, whose `architecture` describes the network.
    """

    def __init__(self, encoder: Encoder, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.requires_grad_(False)

    @property
    def codes(self) -> int:
        """Number of entries in the codebook."""
        return self.encoder.config.codes

    def codebook(self) -> Tensor:
        """A vector per code, (codes, C): its weights in the last layer, which are similar for similar codes."""
        output: Conv = self.encoder.blocks.output.conv  # type: ignore[union-attr, assignment]
        return output.w[:, :, 0, 0]

    def forward(self, images: Tensor) -> Tensor:
        """Tokens (N, L), in row-major order, of images (N, 3, H, W) in [0, 1]; int16 if that is large enough."""
        return self.most_probable(images, 1)[0].squeeze(2)

    @torch.no_grad()
    def most_probable(self, images: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The most probable codes of each cell, and their probabilities.

        Autocast is disabled, so that tokens computed during training equal cached ones.

        Args:
            images: (N, 3, H, W) in [0, 1].
            count: number C of codes per cell.

        Returns:
            Codes (N, L, C), cells in row-major order and the most probable code first; int16 if that is large enough.
            Their probabilities (N, L, C), normalized to sum to 1.
        """
        weights = next(self.encoder.parameters())
        with torch.autocast(images.device.type, enabled=False):
            logits = self.encoder(images.to(weights.dtype)).flatten(2).transpose(1, 2)
        scores, codes = logits.max(dim=2, keepdim=True) if count == 1 else logits.topk(count, dim=2)
        kind = torch.int16 if self.codes <= torch.iinfo(torch.int16).max else torch.int32
        return codes.to(kind), scores.softmax(dim=2)

    def fingerprint(self) -> str:
        """Hash of architecture and weights."""
        return fingerprint(self.encoder, json.dumps(self.config.architecture, sort_keys=True))


def grid(size: int) -> int:
    """Number of tokens of an image of size x size pixels.

    Raises:
        UserError: the size is not a multiple of 8.
    """
    if size % DOWNSAMPLING:
        raise UserError(f"recipe field 'data.image.size' is {size}; image tokens need a multiple of {DOWNSAMPLING}.")
    return (size // DOWNSAMPLING) ** 2


def _random_names() -> list[str]:
    return [f"random:{size}" for size in sorted(RANDOM)]


def build_image_tokenizer(config: ImageTokenizerConfig) -> ImageTokenizer:
    """Build the tokenizer that `config` names: with its weights, or with random ones if `architecture` is set.

    Raises:
        UserError: there is no such tokenizer, or its weights do not match.
    """
    name, weights = config.name, None
    if config.architecture is not None:
        network = NetworkConfig(**config.architecture)
    elif name.startswith("random:"):
        if name.removeprefix("random:") not in RANDOM:
            raise UserError(f"image tokenizer '{name}' does not exist; {choose(name, _random_names())}.")
        network = RANDOM[name.removeprefix("random:")]
    elif name.startswith(BUILD):
        raise UserError(f"image tokenizer '{name}' is built by `crossray train`; here name the folder of a tokenizer.")
    elif Path(name).is_file():
        weights = read_encoder(Path(name))
        network = infer_network(weights, name)
    else:
        network, weights = _from_folder(find_model(name, "image tokenizer", _REMEDY))
    if weights is None:
        encoder = Encoder(network)
    else:
        try:
            with torch.device("meta"):  # a file may claim any size, so allocate memory only once the weights fit
                encoder = Encoder(network)
            encoder.load_state_dict(weights, assign=True)
        except (RuntimeError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{name}: weights do not fit ({reason}); give a whole image tokenizer.") from None
    described = {field.name: getattr(network, field.name) for field in fields(NetworkConfig)}
    return ImageTokenizer(encoder, replace(config, architecture=described))


def _from_folder(folder: Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Size and encoder weights of a saved `DVAE`."""
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if saved["system"] != "dvae":
            raise UserError(
                f"{folder / 'config.json'}: system '{saved['system']}' is not an image tokenizer; name the folder of "
                f"a dvae."
            )
        network = NetworkConfig(**{field.name: saved["config"][field.name] for field in fields(NetworkConfig)})
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(_PREFIX)]  # noqa: SIM118
            return network, {name.removeprefix(_PREFIX): file.get_tensor(name).float() for name in names}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{folder}: not a readable image tokenizer ({type(error).__name__}); copy it again.") from error


def read_encoder(path: Path) -> dict[str, Tensor]:
    """Read the tensors of DALL-E's encoder.pkl, or of a state dict with the same names, without running code from it.

    The memory needed is at most a few times the size of the file.

    Returns:
        Tensors `blocks.*.w` and `blocks.*.b` in float32.

    Raises:
        UserError: the file cannot be read, refers to anything but weights, or contains no such tensors.
    """
    remedy = "give DALL-E's encoder.pkl"
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            found = read_pytorch(path, _CLASSES)
        if not isinstance(found, dict | Inert):
            raise UserError(f"{path}: not a table of tensors; {remedy}.")
        chosen = float_copies({
            name: tensor for name, tensor in named_tensors(found).items()
            if name.startswith("blocks.") and name.endswith((".w", ".b"))
        })  # fmt: skip
    except ForbiddenNameError as error:
        raise UserError(
            f"{path}: refused, because {error} does not belong to weights, and nothing was run; {remedy}."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from None
    except (PyTorchFileError, SafetensorError):
        raise UserError(f"{path}: not PyTorch weights; {remedy}.") from None
    if not chosen:
        raise UserError(f"{path}: it contains no tensor named blocks.*.w; {remedy}.")
    return chosen


def infer_network(weights: Mapping[str, Tensor], source: str) -> NetworkConfig:
    """Infer the size of an encoder from its weights in DALL-E's layout.

    Raises:
        UserError: the weights have a different layout.
    """
    try:
        first, last = weights["blocks.input.w"], weights["blocks.output.conv.w"]
        blocks = min(_BLOCKS, len({name.split(".")[2] for name in weights if name.startswith("blocks.group_1.")}))
        side = first.shape[-1]
        return NetworkConfig(
            channels=first.shape[1], width=first.shape[0], blocks=blocks, codes=last.shape[0],
            patch=1 if side == 7 else side,
        )  # fmt: skip
    except (KeyError, IndexError, UserError):
        raise UserError(f"{source}: not the weights of an image encoder; give DALL-E's encoder.pkl.") from None
