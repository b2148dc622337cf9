"""The frozen knowledge encoder of REVTAF: maps images to entities and places, and texts to vectors.

It is loaded from a model folder or from MedKLIP's checkpoint, of which only tensors are read.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn

from crossray.errors import UserError, choose
from crossray.files.folders import find_model
from crossray.files.pytorch_files import PyTorchFileError, float_copies, named_tensors, read_pytorch
from crossray.models.base import BUILD, config_from_dict
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.parts.networks import fingerprint
from crossray.models.parts.text_encoder import TextEncoder, TextEncoderConfig, build_text_encoder
from crossray.models.pretraining.knowledge import KnowledgeNetwork, KnowledgeNetworkConfig
from crossray.text.entities import DESCRIPTIONS, ENTITIES, PLACES, place_text

#: Network sizes of `random:NAME`: that of MedKLIP, except for its text encoder, and a small one for tests.
RANDOM = {
    "medklip": KnowledgeNetworkConfig(text=TextEncoderConfig(width=768, heads=12)),
    "tiny": KnowledgeNetworkConfig(
        backbone=BackboneConfig(name="random:resnet_tiny"),
        text=TextEncoderConfig(width=16, layers=1, heads=2, buckets=64),
        width=16, layers=1, heads=2, feedforward=32,
    ),
}  # fmt: skip

#: Number of texts encoded at once.
_CHUNK = 64


#: The possible names, for error messages.
_REMEDY = "give the folder of a `crossray pretrain knowledge` run, MedKLIP's checkpoint, or a name on the hub"


@dataclass(frozen=True, kw_only=True)
class KnowledgeEncoderConfig:
    """Configuration of the knowledge encoder.

    Attributes:
        name: the folder of a run of `crossray pretrain knowledge` or its model folder; MedKLIP's checkpoint file; a
            model on the Hugging Face hub; build:RECIPE (such as build:knowledge/phantom), which `crossray train` trains
            first unless the dataset already has it; or random:medklip or random:tiny for tests.
        text: for MedKLIP's checkpoint, which contains no text encoder: hub name or folder of the text encoder it was
            trained with.
        descriptions: for MedKLIP's checkpoint: a JSON file that maps entities to descriptions, such as the one it was
            trained with; by default, CrossRay's own sentences.
        architecture: set when the encoder is built, so that a saved folder is self-contained; leave it out.
    """

    name: str = "random:medklip"
    text: str = "emilyalsentzer/Bio_ClinicalBERT"
    descriptions: str | None = None
    architecture: dict[str, Any] | None = None


class KnowledgeEncoder(nn.Module):
    """The frozen network with the vectors of its descriptions and places.

    Args:
        network: the network.
        text: the text encoder that the network was trained with.
        config: the configuration, whose `architecture` describes both.

    Attributes:
        entities: names of the entities, in the order of the outputs of `forward`.
        places: names of the places.
        thresholds: (E,) log-odds above which an entity counts as present; 0 for MedKLIP's checkpoint, which has none.
    """

    entities: tuple[str, ...] = ENTITIES
    places: tuple[str, ...] = PLACES

    def __init__(self, network: KnowledgeNetwork, text: TextEncoder, config: KnowledgeEncoderConfig) -> None:
        super().__init__()
        self.network, self.text, self.config = network, text, config
        self.entity_vectors: Tensor
        self.place_vectors: Tensor
        self.thresholds: Tensor
        self.register_buffer("thresholds", torch.zeros(len(ENTITIES)))
        self.register_buffer("entity_vectors", torch.zeros(len(ENTITIES), text.width))
        self.register_buffer("place_vectors", torch.zeros(len(PLACES), text.width))
        self.requires_grad_(False)
        self.eval()

    @property
    def text_width(self) -> int:
        """Width of a text vector."""
        return self.text.width

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Classify entities and their places in images.

        Autocast is disabled, so that results computed during training equal cached ones.

        Args:
            images: (N, 3, H, W), normalized with the statistics of ImageNet.

        Returns:
            "entities": (N, 75) float32, log-odds that each entity is present; "places": (N, 75) int16, the most
            probable place of each entity, as an index of `places`.
        """
        with torch.autocast(images.device.type, enabled=False):
            logits, scores = self.network(images.to(self.entity_vectors.dtype), self.entity_vectors, self.place_vectors)
        existence = logits.float()
        return {
            "entities": existence[..., 1] - existence[..., 0],
            "places": scores.argmax(dim=-1).to(torch.int16),
        }

    def present(self, log_odds: Tensor) -> Tensor:
        """Whether each entity is present, (..., E) bool, given log-odds (..., E)."""
        return log_odds > self.thresholds

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode n texts to vectors (n, text_width) float32."""
        if not texts:
            return self.entity_vectors.new_zeros(0, self.text_width).float()
        with torch.autocast(self.entity_vectors.device.type, enabled=False):
            parts = [self.text(texts[first : first + _CHUNK]) for first in range(0, len(texts), _CHUNK)]
        return torch.cat(parts).float()

    def describe(self, descriptions: Sequence[str] = DESCRIPTIONS) -> None:
        """Compute the vectors of `descriptions`, one per entity, and of the places; does nothing on the meta device."""
        if self.entity_vectors.is_meta:
            return
        self.entity_vectors.copy_(self.encode_texts(descriptions))
        self.place_vectors.copy_(self.encode_texts([place_text(place) for place in PLACES]))

    def fingerprint(self) -> str:
        """Hash of architecture and weights."""
        return fingerprint(self, json.dumps(self.config.architecture, sort_keys=True))

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the encoder always stays in evaluation mode."""
        return super().train(False)


def _random_names() -> list[str]:
    return [f"random:{size}" for size in sorted(RANDOM)]


def build_knowledge_encoder(config: KnowledgeEncoderConfig) -> KnowledgeEncoder:
    """Build the encoder that `config` names: with its weights, or with random ones if `architecture` is set.

    Raises:
        UserError: there is no such encoder, or its weights do not match.
    """
    name = config.name
    if config.architecture is not None:
        size = config_from_dict(KnowledgeNetworkConfig, config.architecture, f"knowledge encoder '{name}'")
        return _assemble(size, config)
    if name.startswith("random:"):
        if name.removeprefix("random:") not in RANDOM:
            raise UserError(f"knowledge encoder '{name}' does not exist; {choose(name, _random_names())}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # so that weights and fingerprint are reproducible
            encoder = _assemble(RANDOM[name.removeprefix("random:")], config)
        encoder.describe()
        return encoder
    if name.startswith(BUILD):
        raise UserError(f"knowledge encoder '{name}' is built by `crossray train`; here name the folder of one.")
    if Path(name).is_file():
        return _from_checkpoint(Path(name), config)
    return _from_folder(find_model(name, "knowledge encoder", _REMEDY), config)


def _assemble(size: KnowledgeNetworkConfig, config: KnowledgeEncoderConfig) -> KnowledgeEncoder:
    text = build_text_encoder(size.text)
    network = KnowledgeNetwork(size, text.width)
    # The backbone is not trained here, so its batch statistics must not change.
    backbone = replace(network.backbone.config, trainable=False)
    described = replace(size, backbone=backbone, text=text.config)
    return KnowledgeEncoder(network, text, replace(config, architecture=dataclasses.asdict(described)))


def _fill(encoder: KnowledgeEncoder, weights: Mapping[str, Tensor], source: Path) -> None:
    """Load the weights of the network and the text encoder, but not the vectors of the descriptions.

    Raises:
        UserError: the weights do not match.
    """
    own = encoder.state_dict()
    needed = {name: own[name] for name in own.keys() - {"entity_vectors", "place_vectors", "thresholds"}}
    _require(needed, weights, source)
    encoder.load_state_dict({name: weights[name] for name in needed}, strict=False)
    if "thresholds" in weights and weights["thresholds"].shape == encoder.thresholds.shape:
        encoder.thresholds.copy_(weights["thresholds"])


def _require(needed: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: Path) -> None:
    """Raise a `UserError` unless `weights` contains each name in `needed` with the same shape."""
    for name in sorted(needed):
        if name not in weights or weights[name].shape != needed[name].shape:
            raise UserError(
                f"{source}: tensor '{name}' is missing or of another shape; give a whole knowledge encoder."
            )


def _from_folder(folder: Path, config: KnowledgeEncoderConfig) -> KnowledgeEncoder:
    """Load the encoder of a saved `Knowledge`."""
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if saved["system"] != "knowledge":
            raise UserError(
                f"{folder / 'config.json'}: system '{saved['system']}' is not a knowledge encoder; name the folder of "
                f"one."
            )
        known = {field.name for field in dataclasses.fields(KnowledgeNetworkConfig)}
        values = {name: value for name, value in saved["config"].items() if name in known}
        encoder = _assemble(config_from_dict(KnowledgeNetworkConfig, values, str(folder / "config.json")), config)
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"{folder}: not a readable knowledge encoder ({type(error).__name__}); copy it again."
        ) from error
    _fill(encoder, weights, folder / "model.safetensors")
    encoder.describe()
    return encoder


#: Patterns of MedKLIP's tensor names, in torchvision's ResNet and elsewhere, and the names used here.
_NAMES = (
    (r"^res_features\.0\.", "backbone.network.embedder.embedder.convolution."),
    (r"^res_features\.1\.", "backbone.network.embedder.embedder.normalization."),
    (r"^res_features\.([456])\.(\d+)\.", lambda m: f"backbone.network.encoder.stages.{int(m[1]) - 4}.layers.{m[2]}."),
    (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
    (r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
    (r"^res_l1\.", "expand."),
    (r"^res_l2\.", "contract."),
    (r"^disease_embedding_layer\.", "query."),
    (r"^cl_fc\.", "position."),
    (r"^classifier\.", "existence."),
)  # fmt: skip

#: Number of attention heads of MedKLIP's decoder, which the shapes do not determine.
_HEADS = 4

#: Maximum number of blocks per stage, and of decoder layers, in weights that are read; MedKLIP has 6 and 4.
_LAYERS = 64


def _from_checkpoint(path: Path, config: KnowledgeEncoderConfig) -> KnowledgeEncoder:
    """Load the encoder of MedKLIP's checkpoint, with a text encoder of `transformers`."""
    weights = _read_checkpoint(path)
    size = replace(_infer_size(weights, path), text=TextEncoderConfig(name=config.text))
    renamed = {}
    for name, tensor in weights.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[f"network.{name}"] = tensor
    with torch.device("meta"):  # a file may claim any size, so allocate memory only once the weights fit
        network = KnowledgeNetwork(size, renamed["network.query.weight"].shape[1])
    _require({f"network.{name}": tensor for name, tensor in network.state_dict().items()}, renamed, path)
    encoder = _assemble(size, config)
    own_text = {f"text.{name}": tensor for name, tensor in encoder.text.state_dict().items()}
    _fill(encoder, renamed | own_text, path)
    encoder.describe(DESCRIPTIONS if config.descriptions is None else _read_descriptions(Path(config.descriptions)))
    return encoder


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by MedKLIP's names, in float32, read without running code from the file."""
    remedy = "give MedKLIP's checkpoint"
    try:
        found = read_pytorch(path)
        found = found.get("model", found) if isinstance(found, dict) else {}
        weights = float_copies(named_tensors(found if isinstance(found, dict) else {}))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from None
    except PyTorchFileError:
        raise UserError(f"{path}: it contains more than weights, and nothing else was read; {remedy}.") from None
    # The checkpoint was saved from a DataParallel module.
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    if "res_features.0.weight" not in weights:
        raise UserError(f"{path}: it contains no tensor named res_features.0.weight; {remedy}.")
    return weights


def _infer_size(weights: Mapping[str, Tensor], path: Path) -> KnowledgeNetworkConfig:
    """Infer the size of the network from weights in MedKLIP's layout."""
    try:
        last = "conv3" if "res_features.4.0.conv3.weight" in weights else "conv2"
        depths = [_count(weights, f"res_features.{stage}.") for stage in (4, 5, 6)]
        architecture = {
            "model_type": "resnet",
            "layer_type": "bottleneck" if last == "conv3" else "basic",
            "embedding_size": weights["res_features.0.weight"].shape[0],
            "depths": depths,
            "hidden_sizes": [weights[f"res_features.{stage}.0.{last}.weight"].shape[0] for stage in (4, 5, 6)],
        }
        return KnowledgeNetworkConfig(
            backbone=BackboneConfig(name=str(path.name), architecture=architecture),
            width=weights["res_l2.weight"].shape[0],
            layers=_count(weights, "decoder.layers."),
            heads=_HEADS,
            feedforward=weights["decoder.layers.0.linear1.weight"].shape[0],
        )
    except KeyError as error:
        raise UserError(f"{path}: tensor {error} is missing; give MedKLIP's checkpoint.") from None
    except IndexError:
        raise UserError(f"{path}: a weight is a single number; give MedKLIP's checkpoint.") from None


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Number of parts `PREFIX.0.`, `PREFIX.1.` ..., up to `_LAYERS`."""
    return min(_LAYERS, len({name.split(".")[2] for name in weights if name.startswith(prefix)}))


def _read_descriptions(path: Path) -> list[str]:
    """Descriptions in the order of the entities; the keys are not checked, since one of MedKLIP's is misspelled."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({type(error).__name__}); give an object from entity to description."
        ) from None
    if (
        not isinstance(found, dict)
        or len(found) != len(ENTITIES)
        or not all(isinstance(x, str) for x in found.values())
    ):
        raise UserError(
            f"{path}: it does not have {len(ENTITIES)} descriptions; give a JSON object from entity to description."
        )
    return list(found.values())
