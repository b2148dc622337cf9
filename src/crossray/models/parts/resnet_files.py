"""Reads ResNet weights in the layout of torchvision and timm, which most checkpoints use.

A file contains tensors named conv1, bn1, layer1.0.conv1 ... layer4.2.bn3, possibly with a common prefix such as
`module.` or in an entry `state_dict`; other tensors, such as the classifier, are ignored. Depths and widths follow from
names and shapes: ResNet-18, 34, 50, 101 and 152, and any other with the same blocks.
"""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from crossray.errors import UserError
from crossray.files.pytorch_files import PyTorchFileError, float_copies, named_tensors, read_pytorch

_REMEDY = "give a ResNet in torchvision's or timm's layout, as .pth or .safetensors"
_FIRST = "layer1.0.conv1.weight"

#: Entries of a checkpoint that may contain the weights.
_ENTRIES = ("state_dict", "model_state_dict", "model")

#: Names in `transformers` by their names of the parts of a block; `{last}` is the index of the last convolution.
_BLOCK = {
    "conv": "layer.{place}.convolution", "bn": "layer.{place}.normalization",
    "downsample.0": "shortcut.convolution", "downsample.1": "shortcut.normalization",
}  # fmt: skip


def read_resnet(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the architecture of a ResNet (for `build_network`) and its weights, under the names of `transformers`.

    Raises:
        UserError: the file cannot be read or contains no such weights. Code in the file is never run.
    """
    tensors = _read(path)
    prefixes = [name.removesuffix(_FIRST) for name in tensors if name.endswith(_FIRST)]
    if len(prefixes) != 1:
        raise UserError(f"{path}: it contains {len(prefixes)} tensors named {_FIRST}; {_REMEDY}.")
    prefix = prefixes[0]
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    weights = {}
    for name, tensor in found.items():
        if renamed := _renamed(name):
            weights[renamed] = tensor
            # Files from before PyTorch 0.4.1 have no batch counts.
            if renamed.endswith("running_mean"):
                counted = name.replace("running_mean", "num_batches_tracked")
                weights[renamed.replace("running_mean", "num_batches_tracked")] = found.get(counted, torch.tensor(0))
    return _architecture(found, path), weights


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        found = read_pytorch(path)
        for entry in _ENTRIES:
            found = found.get(entry, found) if isinstance(found, dict) else found
        tensors = named_tensors(found)
        counts = {name: tensor for name, tensor in tensors.items() if name.endswith("num_batches_tracked")}
        return float_copies({name: tensor for name, tensor in tensors.items() if name not in counts}) | {
            name: tensor.clone() for name, tensor in counts.items()
        }
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {_REMEDY}.") from None
    except (PyTorchFileError, SafetensorError) as error:
        raise UserError(
            f"{path}: it contains more than weights, and nothing in it was run ({error}); {_REMEDY}."
        ) from None


def _renamed(name: str) -> str | None:
    """The name of a tensor in `transformers`; None if it is outside the backbone."""
    part, _, field = name.rpartition(".")
    if part in ("conv1", "bn1"):
        return f"embedder.embedder.{'convolution' if part == 'conv1' else 'normalization'}.{field}"
    match = re.fullmatch(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|(downsample\.[01]))", part)
    if match is None:
        return None
    stage, block, kind, place, downsample = match.groups()
    ours = _BLOCK[downsample or kind].format(place=int(place or 1) - 1)
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{ours}.{field}"


def _architecture(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    last = "conv3" if "layer1.0.conv3.weight" in tensors else "conv2"
    try:
        return {
            "model_type": "resnet",
            "layer_type": "bottleneck" if last == "conv3" else "basic",
            "embedding_size": len(tensors["conv1.weight"]),
            "depths": [_count(tensors, f"layer{stage}.") for stage in (1, 2, 3, 4)],
            "hidden_sizes": [len(tensors[f"layer{stage}.0.{last}.weight"]) for stage in (1, 2, 3, 4)],
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: tensor {error} is missing; {_REMEDY}.") from None


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith(prefix)})
