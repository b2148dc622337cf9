"""Loads vision networks of `transformers` by hub name, folder or architecture; nothing is unpickled."""

import contextlib
import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from crossray.errors import UserError, choose
from crossray.files.folders import model_folder
from crossray.models.parts.resnet_files import read_resnet
from crossray.registry import Registry

_VIT_TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}

#: Networks of `random:NAME`: the model type, and the differences from its default configuration. Channels are multiples
#: of 16: with 8, oneDNN's backward pass of a strided 1 x 1 convolution, channels last, writes outside its buffers.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet18": {
        "model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512],
    },
    "resnet18_narrow": {
        "model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 128, 256],
        "embedding_size": 32,
    },
    "resnet50": {"model_type": "resnet", "depths": [3, 4, 6, 3]},
    "resnet101": {"model_type": "resnet", "depths": [3, 4, 23, 3]},
    "resnet_tiny": {
        "model_type": "resnet", "layer_type": "basic", "depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32],
        "embedding_size": 16,
    },
    "vit_b16": {"model_type": "vit"},
    "vit_tiny": {"model_type": "vit", "intermediate_size": 64, **_VIT_TINY},
    "rad_dino": {"model_type": "dinov2", "image_size": 518},
    "dinov2_tiny": {"model_type": "dinov2", "mlp_ratio": 2, **_VIT_TINY},
}  # fmt: skip

#: Configuration fields that do not describe the network.
_INCIDENTAL = ("transformers_version", "architectures", "_name_or_path", "dtype", "id2label", "label2id")


class Family(Protocol):
    """The interface of a family of backbones, in addition to `crossray.models.parts.backbones.Backbone`.

    Attributes:
        model_type: `model_type` in the architecture of its networks.
    """

    model_type: ClassVar[str]

    def __call__(self, network: nn.Module, config: Any) -> Any:
        """Create the backbone of a network; implemented by the class itself."""

    def load(self, name: str) -> nn.Module:
        """Load the network NAME of the family, with weights; `network.config.to_dict()` must describe it.

        Raises:
            UserError: there is no such network.
        """

    def build(self, architecture: dict[str, Any]) -> nn.Module:
        """Build a network with random weights from its description without `model_type`."""


#: Families of backbones outside `transformers`: subclasses of `crossray.models.parts.backbones.Backbone` that implement
#: `Family`, each in a file of this folder, or in another package that declares its module as an entry point of the
#: group `crossray.backbones`. PREFIX:NAME is the network NAME of the family PREFIX.
FAMILIES: Registry[Family] = Registry(
    "backbone family",
    "crossray.backbones",
    ["crossray.models.parts"],
    "write random: and an architecture, a local folder, or the name of a model on the hub",
)

#: Suffixes of files with weights only.
_WEIGHT_FILES = (".pth", ".pt", ".safetensors")


def family_of(model_type: Any) -> Family | None:
    """The family with this `model_type`; None for a model type of `transformers`."""
    if model_type in _SETTINGS:
        return None
    return next((family for family in FAMILIES.all().values() if family.model_type == model_type), None)


@dataclass(frozen=True)
class _Kind:
    config: Any
    model: Any
    options: dict[str, Any]


#: Configuration fields to set, by model type, so that every parameter has a gradient: DINOv2's mask token and SigLIP's
#: pooling head are used only in their own training.
_SETTINGS: dict[str, dict[str, Any]] = {
    "resnet": {}, "vit": {}, "dinov2": {"use_mask_token": False}, "siglip_vision_model": {"vision_use_head": False},
}  # fmt: skip


def _kind(model_type: Any, source: str) -> _Kind:
    """The classes of `transformers` for a vision model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        config = CONFIG_MAPPING[model_type]
        model = MODEL_MAPPING[config]
    except KeyError:
        config = model = None
    if getattr(model, "main_input_name", None) != "pixel_values" or getattr(config, "sub_configs", None):
        raise UserError(
            f"backbone '{source}': model type '{model_type}' is not supported; name a vision model of transformers, "
            "such as resnet, convnext, efficientnet, swin, vit, dinov2, dinov3_vit or siglip_vision_model."
        )
    pooled = "add_pooling_layer" in inspect.signature(model.__init__).parameters
    return _Kind(config, model, {"add_pooling_layer": False} if pooled else {})


def load_network(name: str) -> nn.Module:
    """Load the network named by `BackboneConfig.name`, with its weights, in float32.

    Raises:
        UserError: there is no such architecture, folder or model, or its weights do not match.
    """
    if name.startswith("random:"):
        architecture = ARCHITECTURES.get(name.removeprefix("random:"))
        if architecture is None:
            known = [f"random:{architecture}" for architecture in sorted(ARCHITECTURES)]
            raise UserError(f"backbone '{name}' does not exist; {choose(name, known)}.")
        return build_network(architecture, name)
    prefix, colon, rest = name.partition(":")
    if colon and not Path(name).exists():
        return FAMILIES.get(prefix).load(rest)
    folder = model_folder(name)
    if name.endswith(_WEIGHT_FILES):
        architecture, weights = read_resnet(folder)
        return _filled(build_network(architecture, name), weights, folder)
    saved = _crossray_config(folder)
    return _pretrained(name) if saved is None else _from_crossray(folder, saved)


def build_network(architecture: dict[str, Any], source: str) -> nn.Module:
    """Build a network with random weights.

    Args:
        architecture: result of `describe_network`, or an entry of `ARCHITECTURES`.
        source: name of the network in error messages.

    Raises:
        UserError: the model type is not supported.
    """
    model_type = architecture.get("model_type")
    fields = {key: value for key, value in architecture.items() if key != "model_type"}
    network: nn.Module
    if family := family_of(model_type):
        network = family.build(fields)
        return network
    kind = _kind(model_type, source)
    network = kind.model(_set(kind.config(**fields)), **kind.options)
    return network


def _filled(network: nn.Module, weights: dict[str, Tensor], path: Path) -> nn.Module:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not the weights of a ResNet ({reason}); give another file.") from None
    return network


def describe_network(network: Any) -> dict[str, Any]:
    """The JSON-serializable architecture of a network, for `build_network`."""
    return {key: value for key, value in network.config.to_dict().items() if key not in _INCIDENTAL}


def _set(config: Any) -> Any:
    for name, value in _SETTINGS.get(config.model_type, {}).items():
        setattr(config, name, value)
    return config


def _pretrained(name: str) -> nn.Module:
    from transformers import AutoConfig

    try:
        with quiet():
            config = AutoConfig.from_pretrained(name)
            # the vision tower of a vision-language model
            config = getattr(config, "vision_config", config)
            kind = _kind(config.model_type, name)
            network, report = kind.model.from_pretrained(
                name, config=_set(config), use_safetensors=True, output_loading_info=True,
                dtype=torch.float32, **kind.options,
            )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"backbone '{name}': cannot be loaded ({reason}); give a local folder with config.json and "
            "model.safetensors, a name on the hub, or random:resnet101."
        ) from error
    if report["missing_keys"]:
        raise UserError(
            f"backbone '{name}': model.safetensors lacks '{sorted(report['missing_keys'])[0]}'; "
            "give a folder whose weights belong to its config.json."
        )
    loaded: nn.Module = network
    return loaded


def _crossray_config(folder: Path) -> dict[str, Any] | None:
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return saved if isinstance(saved, dict) and "system" in saved and "config" in saved else None


def _from_crossray(folder: Path, saved: dict[str, Any]) -> nn.Module:
    architecture = (saved["config"].get("backbone") or {}).get("architecture")
    if not architecture:
        raise UserError(f"{folder / 'config.json'}: system '{saved['system']}' has no backbone; name another folder.")
    network = build_network(architecture, str(folder))
    try:
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            # In a knowledge encoder, the backbone is nested one level deeper.
            names = [name for name in weights.keys() if re.match(r"(network\.)?backbone\.network\.", name)]  # noqa: SIM118
            network.load_state_dict(
                {name.partition("backbone.network.")[2]: weights.get_tensor(name) for name in names}
            )
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"{folder / 'model.safetensors'}: holds no fitting backbone ({reason}); copy the whole folder again."
        ) from error
    return network


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the tables and progress bars of `transformers`; only errors are logged."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    bar = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def fingerprint(module: nn.Module, *about: str) -> str:
    """Hash of a module's weights and of `about`, such as its architecture."""
    digest = hashlib.sha256()
    for text in about:
        digest.update(text.encode())
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
