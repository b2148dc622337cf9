"""A frozen encoder of `dvae.py` as UAR uses it: images to tokens, wherever its weights come from (SPEC 5.1).

DALL-E's weights are published as a pickled module, and reading a pickle can run code. Here nothing is run: the reader
below knows the few names that such a file needs, takes tensors out of them, and refuses any other.
"""

import io
import json
import pickle
import struct
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor, nn

from crossray.errors import UserError
from crossray.models.base import BUILD
from crossray.models.dvae import DALLE, DOWNSAMPLING, Encoder, NetworkConfig
from crossray.models.networks import fingerprint, model_folder

#: What `random:NAME` builds.
RANDOM = {"dalle": DALLE, "tiny": NetworkConfig(width=8, blocks=1, codes=24, patch=4)}

_PREFIX = "encoder."


#: What may be named.
_REMEDY = "give the folder of a `crossray pretrain tokenizer` run, DALL-E's encoder.pkl, or a name on the hub"


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig:
    """Which image tokenizer.

    Attributes:
        name: the folder of a run of `crossray pretrain tokenizer` or its model folder; DALL-E's encoder.pkl; the name
            of a model folder on the Hugging Face hub; build: and a recipe (build:tokenizer/phantom), which
            `crossray train` trains first where the dataset has none yet; or random:dalle and random:tiny for tests.
        architecture: filled in when it is built, so that a saved folder needs nothing else; leave it out.
    """

    name: str = "random:dalle"
    architecture: dict[str, int] | None = None


class ImageTokenizer(nn.Module):
    """The encoder, never trained: one token for each 8 x 8 pixels of an image.

    Args:
        encoder: the network.
        config: how it was found; its `architecture` describes it.
    """

    def __init__(self, encoder: Encoder, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.requires_grad_(False)

    @property
    def codes(self) -> int:
        """Entries of the codebook."""
        return self.encoder.config.codes

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Tokens (N, L), row by row, of images (N, 3, H, W) in [0, 1]; int16 where that is enough.

        In the precision of its weights whatever is around it: tokens computed while training equal those cached before.
        """
        weights = next(self.encoder.parameters())
        with torch.autocast(images.device.type, enabled=False):
            tokens = self.encoder(images.to(weights.dtype)).argmax(dim=1).flatten(1)
        return tokens.to(torch.int16 if self.codes <= torch.iinfo(torch.int16).max else torch.int32)

    def fingerprint(self) -> str:
        """Hash of architecture and weights."""
        return fingerprint(self.encoder, json.dumps(self.config.architecture, sort_keys=True))


def grid(size: int) -> int:
    """Tokens of an image of size x size pixels.

    Raises:
        UserError: the size is no multiple of 8.
    """
    if size % DOWNSAMPLING:
        raise UserError(f"recipe field 'data.image.size' is {size}; image tokens need a multiple of {DOWNSAMPLING}.")
    return (size // DOWNSAMPLING) ** 2


def build_image_tokenizer(config: ImageTokenizerConfig) -> ImageTokenizer:
    """The tokenizer that `config` names, with its weights; with fresh ones where its architecture is given.

    Raises:
        UserError: there is none of that name, or its weights do not fit.
    """
    name, weights = config.name, None
    if config.architecture is not None:
        network = NetworkConfig(**config.architecture)
    elif name.startswith("random:"):
        if name.removeprefix("random:") not in RANDOM:
            raise UserError(f"image tokenizer '{name}' does not exist; write random: and one of {sorted(RANDOM)}.")
        network = RANDOM[name.removeprefix("random:")]
    elif name.startswith(BUILD):
        raise UserError(f"image tokenizer '{name}' is built by `crossray train`; here name the folder of a tokenizer.")
    elif Path(name).is_file():
        weights = read_encoder(Path(name))
        network = infer_network(weights, name)
    else:
        network, weights = _from_folder(model_folder(name, "image tokenizer", _REMEDY))
    if weights is None:
        encoder = Encoder(network)
    else:
        try:
            with torch.device("meta"):  # a file may claim any size: no memory before its weights are known to fit
                encoder = Encoder(network)
            encoder.load_state_dict(weights, assign=True)
        except (RuntimeError, OverflowError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{name}: weights do not fit ({reason}); give a whole image tokenizer.") from None
    described = {field.name: getattr(network, field.name) for field in fields(NetworkConfig)}
    return ImageTokenizer(encoder, replace(config, architecture=described))


def _from_folder(folder: Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Size and encoder weights of a saved `dvae`."""
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if saved["system"] != "dvae":
            raise UserError(f"{folder / 'config.json'}: system '{saved['system']}' is no image tokenizer; give a dvae.")
        network = NetworkConfig(**{field.name: saved["config"][field.name] for field in fields(NetworkConfig)})
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(_PREFIX)]  # noqa: SIM118
            return network, {name.removeprefix(_PREFIX): file.get_tensor(name).float() for name in names}
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{folder}: no readable image tokenizer ({type(error).__name__}); copy it again.") from error


class _Inert:
    """Stands for an instance of a class in the file: keeps what it was made of, and does nothing."""

    state: Any = None

    def __new__(cls, *arguments: Any, **options: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _tensor(numbers: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
    """A tensor over the numbers of a storage; `as_strided` refuses what lies outside, here also what repeats them."""
    view = numbers.as_strided(size, stride, offset)
    if view.numel() > numbers.numel():
        raise ValueError("a tensor is larger than its storage")
    return view


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


#: Names that a pickled module of tensors needs, and what they stand for here; all of them only hold data.
_DATA: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch", "device"): torch.device,
    ("torch", "Size"): torch.Size,
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "BFloat16Storage"): torch.bfloat16,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "LongStorage"): torch.int64,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
}

#: Packages whose classes become `_Inert`: never imported, never called.
_MODULES = ("dall_e.", "torch.nn.modules.")

#: Most bytes of the pickled part, which can ask for a hundred times as much memory; the released file's is far smaller.
_PICKLE_BYTES = 2**24

#: Begins a file in the format before PyTorch 1.6.
_LEGACY = 0x1950A86A20F9469CFC6C


class _ForbiddenError(Exception):
    """The file asks for a name that weights do not need."""


class _Unpickler(pickle.Unpickler):
    """Knows `_DATA` and `_MODULES`, and refuses every other name.

    Args:
        file: at the beginning of a pickle.
        numbers: storage of that key, type and length -> its numbers as a tensor of one dimension.
    """

    def __init__(self, file: BinaryIO, numbers: Callable[[str, torch.dtype, int], Tensor]) -> None:
        super().__init__(file, encoding="utf-8")
        self._numbers = numbers

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _DATA:
            found = _DATA[module, name]
            # a pickle may set attributes of a function: of this call's own copy, not of the one that all files share
            return partial(found) if isinstance(found, types.FunctionType) else found
        if module.startswith(_MODULES):
            return _Inert
        raise _ForbiddenError(f"{module}.{name}")

    def persistent_load(self, identity: Any) -> Any:
        kind, *rest = identity
        if kind == "module":  # before 1.6: a class, its file and its source
            return rest[0]
        dtype, key, _, length, *view = rest
        if kind != "storage" or any(view):
            raise ValueError("a storage of another kind")
        return self._numbers(key, dtype, length)


def _read_zip(path: Path) -> Any:
    """What a file holds that PyTorch wrote since 1.6."""
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        (table,) = (name for name in sizes if name.count("/") == 1 and name.endswith("/data.pkl"))
        if sizes[table] > _PICKLE_BYTES or sum(sizes.values()) > path.stat().st_size:
            raise ValueError("the file grows when it is unpacked")

        def numbers(key: str, dtype: torch.dtype, length: int) -> Tensor:
            content = bytearray(archive.read(f"{table.removesuffix('data.pkl')}data/{key}"))
            return torch.frombuffer(content, dtype=dtype, count=length)

        return _Unpickler(io.BytesIO(archive.read(table)), numbers).load()


def _read_legacy(path: Path) -> Any:
    """What a file holds that PyTorch wrote before 1.6: pickles, then the numbers of every storage."""
    left = path.stat().st_size
    storages: dict[str, Tensor] = {}

    def numbers(key: str, dtype: torch.dtype, length: int) -> Tensor:
        nonlocal left
        if key not in storages:
            left -= length * dtype.itemsize
            if length < 0 or left < 0:
                raise ValueError("more numbers than the file has")
            storages[key] = torch.zeros(length, dtype=dtype)
        return storages[key]

    with path.open("rb") as file:
        pickled = io.BytesIO(file.read(_PICKLE_BYTES))
        magic, _, system, found, keys = (_Unpickler(pickled, numbers).load() for _ in range(5))
        if magic != _LEGACY or not system["little_endian"]:
            raise ValueError("not PyTorch's format")
        file.seek(pickled.tell())
        for key in keys:
            (length,) = struct.unpack("<q", file.read(8))
            storage = storages[key]
            content = bytearray(file.read(storage.nbytes))
            storage.copy_(torch.frombuffer(content, dtype=storage.dtype, count=length))
    return found


def read_encoder(path: Path) -> dict[str, Tensor]:
    """The tensors of DALL-E's encoder.pkl, or of a state dict with the same names, without running any code.

    It needs no more memory than a few times the size of the file.

    Returns:
        Tensors `blocks.*.w` and `blocks.*.b` in float32.

    Raises:
        UserError: the file holds a name that weights do not need, or no such tensors.
    """
    remedy = "give DALL-E's encoder.pkl"
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found: Any = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            found = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
        tensors = _tensors(found) if isinstance(found, _Inert) else found
    except _ForbiddenError as error:
        raise UserError(f"{path}: refused, {error} has no place among weights and nothing was run; {remedy}.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from None
    except Exception:  # a broken or hostile pickle can fail in any way
        raise UserError(f"{path}: no PyTorch weights; {remedy}.") from None
    if not isinstance(tensors, Mapping):
        raise UserError(f"{path}: no table of tensors; {remedy}.")
    chosen = {
        name: tensor.float().contiguous()
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and isinstance(name, str)
        and name.startswith("blocks.") and name.endswith((".w", ".b"))
    }  # fmt: skip
    if not chosen:
        raise UserError(f"{path}: no tensor named blocks.*.w in it; {remedy}.")
    return chosen


def _tensors(module: _Inert, prefix: str = "") -> dict[str, Tensor]:
    """Parameters of a module and those below it, by their dotted names."""
    state = module.state if isinstance(module.state, dict) else {}
    found = {prefix + name: value for name, value in (state.get("_parameters") or {}).items() if value is not None}
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, _Inert):
            found |= _tensors(child, f"{prefix}{name}.")
    return found


def infer_network(weights: Mapping[str, Tensor], source: str) -> NetworkConfig:
    """The size of the encoder with these weights, in DALL-E's layout.

    Raises:
        UserError: it is none.
    """
    try:
        first, last = weights["blocks.input.w"], weights["blocks.output.conv.w"]
        blocks = len({name.split(".")[2] for name in weights if name.startswith("blocks.group_1.")})
        side = first.shape[-1]
        return NetworkConfig(
            channels=first.shape[1], width=first.shape[0], blocks=blocks, codes=last.shape[0],
            patch=1 if side == 7 else side,
        )  # fmt: skip
    except (KeyError, IndexError, UserError):
        raise UserError(f"{source}: not the weights of an image encoder; give DALL-E's encoder.pkl.") from None
