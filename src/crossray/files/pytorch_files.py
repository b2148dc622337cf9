"""Reads files of `torch.save` as data, without running their code or importing their classes.

A pickle is a program. Here, it may only use the names in `_NAMES`; a file with any other name is rejected. While the
pickle runs, it creates immutable records of tensors, which it cannot change. The tensors are created afterwards on the
memory-mapped file, and checked against its actual content. Whatever the file claims, memory is limited to a few times
its size, plus a quarter of a gigabyte for a pickle of the maximum length.
"""

import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

#: Maximum size in bytes of the pickle, and of a zip's directory. An empty set takes one byte in the file but 224 in
#: memory; the pickle of a checkpoint with a thousand tensors has 150 KB.
_PICKLE_BYTES = 2**20

#: Maximum size of float32 copies of all tensors, relative to the size of their storages.
_COPIES = 4

#: Maximum number of characters in a tensor's name, and of dimensions of a tensor.
_NAME_LENGTH, _DIMENSIONS = 256, 64

#: Magic number of the format before PyTorch 1.6.
_LEGACY = 0x1950A86A20F9469CFC6C

_DTYPES = {
    "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16, "Double": torch.float64,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip


class PyTorchFileError(Exception):
    """The file is not from `torch.save`, is damaged, or requests too much memory."""


class ForbiddenNameError(PyTorchFileError):
    """The file uses a class or function that weights do not need; the message is its name."""


class Inert:
    """Replaces an instance of a class in the file: stores its state and does nothing."""

    state: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_pytorch(path: Path, classes: tuple[str, ...] = ()) -> Any:
    """Read a file of `torch.save`, in the current format or that before PyTorch 1.6.

    Args:
        path: path of the file; it must be little-endian and uncompressed, as PyTorch writes it.
        classes: prefixes of names of classes (`torch.nn.modules.`) whose instances become `Inert`.

    Returns:
        Plain dicts, lists, tuples, sets, numbers and strings, `Inert` objects, and tensors on the CPU without
        gradients, which share storages as they did when they were saved. The tensors are views of the mapped file: copy
        them with `float_copies` before the file may change. An `OrderedDict` or a `Counter` becomes a dict.

    Raises:
        OSError: the file cannot be read.
        ForbiddenNameError: the file uses another class or function, which was not run.
        PyTorchFileError: the file is not from `torch.save` or is damaged.
    """
    with _BoundedFile(path) as file:
        try:
            found, places = (_open_zip if zipfile.is_zipfile(file) else _open_legacy)(file, classes)
            content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
            return _Reader(content, places).read(found)
        except PyTorchFileError:
            raise
        except Exception as error:  # a damaged or hostile file can cause any error
            raise PyTorchFileError(type(error).__name__) from None


def named_tensors(found: Any) -> dict[str, Tensor]:
    """Return the tensors of a state dict, or the parameters and buffers of a saved module, by their dotted names.

    A module that occurs twice is listed once. Values that are not tensors are left out, and so are names that are too
    long or not printable.

    Raises:
        PyTorchFileError: the object is neither a dict nor a module.
    """
    if not isinstance(found, dict | Inert):
        raise PyTorchFileError("no table of tensors")
    pairs = _entries(found, "", set()) if isinstance(found, Inert) else _named(found)
    return {name: value for name, value in pairs if isinstance(value, Tensor) and len(name) <= _NAME_LENGTH}


def float_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous float32 copies that are independent of the file.

    Raises:
        PyTorchFileError: so many tensors share a storage that the copies would be far larger than the file.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(tensor.numel() * 4 for tensor in tensors.values()) > _COPIES * sum(storages.values()):
        raise PyTorchFileError("the same numbers under too many names")
    return {
        name: tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _entries(module: Inert, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and buffers of a module and its submodules."""
    seen.add(id(module))
    state = module.state if isinstance(module.state, dict) else {}
    for kind in ("_parameters", "_buffers"):
        yield from ((prefix + name, value) for name, value in _named(state.get(kind)))
    for name, child in _named(state.get("_modules")):
        if isinstance(child, Inert) and id(child) not in seen and len(prefix) <= _NAME_LENGTH:
            yield from _entries(child, f"{prefix}{name}.", seen)


def _named(table: Any) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a dict whose names are printable and not too long."""
    for name, value in table.items() if isinstance(table, dict) else ():
        if isinstance(name, str) and len(name) <= _NAME_LENGTH and name.isprintable():
            yield name, value


class _Storage(NamedTuple):
    """Record of a storage in the file: its key and its number of elements."""

    dtype: torch.dtype
    key: str
    length: int


class _View(NamedTuple):
    """Record of a tensor on a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Place(NamedTuple):
    """Position of the bytes of a storage in the file, and their CRC-32 if the format has one."""

    start: int
    size: int
    checksum: int | None = None


class _Table(dict[Any, Any]):
    """Replaces `OrderedDict`, to whose instances a pickle could assign methods."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Ignore the state: `state_dict` stores the versions of modules in it."""


class _Call(NamedTuple):
    """A function whose attributes a pickle cannot set."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _set(members: list[Any]) -> set[Any]:
    """Make a set and clear the list; otherwise, a pickle of a few bytes could make many large sets from one list."""
    found = set(members)
    members.clear()
    return found


_VIEW = _Call(lambda storage, offset, size, stride, *_: _View(storage, offset, size, stride))
_FIRST = _Call(lambda first, *_: first)

#: Names that a file may use, and their replacements. Replacements are immutable, and no call creates an object larger
#: than its arguments.
_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Table,
    ("collections", "Counter"): _FIRST,
    ("builtins", "set"): _Call(_set),
    ("__builtin__", "set"): _Call(_set),
    ("torch", "device"): torch.device,
    ("torch", "Size"): _FIRST,
    ("torch._utils", "_rebuild_tensor_v2"): _VIEW,
    ("torch._utils", "_rebuild_tensor"): _VIEW,
    ("torch._utils", "_rebuild_parameter"): _FIRST,
    ("torch._utils", "_rebuild_parameter_with_state"): _FIRST,
    ("torch.nn.parameter", "Parameter"): _FIRST,
    **{("torch", f"{name}Storage"): dtype for name, dtype in _DTYPES.items()},
    **{("torch", str(dtype).removeprefix("torch.")): dtype for dtype in _DTYPES.values()},
}


class _BoundedFile(io.FileIO):
    """A file that limits the size of a read, because `zipfile` would read a directory of any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _PICKLE_BYTES:
            raise PyTorchFileError("too much at a time")
        return super().read(size)


class _Unpickler(pickle.Unpickler):
    """Accepts `_NAMES` and some classes, rejects every other name, and records the storages.

    Args:
        file: file, positioned at the beginning of a pickle.
        classes: prefixes of names of classes that become `Inert`.
    """

    def __init__(self, file: BinaryIO, classes: tuple[str, ...] = ()) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        self._file, self._classes = file, classes

    def load(self) -> Any:
        """Load the object; reject memo indices beyond the maximum length, for which memory would be allocated."""
        start = self._file.tell()
        for operation, argument, _ in pickletools.genops(self._file):
            if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= (argument or 0) <= _PICKLE_BYTES:
                raise PyTorchFileError("a memo larger than the pickle")
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module.startswith(self._classes):
            return Inert
        raise ForbiddenNameError(ascii(f"{module}.{name}"[:100])[1:-1])

    def persistent_load(self, identity: Any) -> Any:
        kind, *rest = identity
        if kind == "module":  # before 1.6: a class, its file and its source code
            return rest[0]
        dtype, key, _, length, *view = rest
        if kind != "storage" or not isinstance(key, str) or any(view):
            raise PyTorchFileError("a storage of another kind")
        storage = _Storage(dtype, key, length)
        if self.storages.setdefault(key, storage) != storage:
            raise PyTorchFileError("two storages of one key")
        return storage


def _open_zip(file: BinaryIO, classes: tuple[str, ...]) -> tuple[Any, dict[str, _Place]]:
    """Load the object from a file in the format since PyTorch 1.6, and the positions of its storages."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise PyTorchFileError("two entries of one name")
        if any(entry.compress_type or entry.file_size != entry.compress_size for entry in entries.values()):
            raise PyTorchFileError("a compressed entry")
        if sum(entry.file_size for entry in entries.values()) > file.seek(0, io.SEEK_END):
            raise PyTorchFileError("entries that overlap")
        (name,) = (name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = name.removesuffix("data.pkl")
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise PyTorchFileError("numbers of a big-endian machine")
        unpickler = _Unpickler(io.BytesIO(archive.read(name)), classes)
        found = unpickler.load()
        return found, {key: _entry_place(file, entries[f"{folder}data/{key}"]) for key in unpickler.storages}


def _entry_place(file: BinaryIO, entry: zipfile.ZipInfo) -> _Place:
    """Find the content of a zip entry; it follows a local header whose length is only in that header."""
    file.seek(entry.header_offset)
    name, extra = struct.unpack("<26xHH", file.read(30))
    return _Place(entry.header_offset + 30 + name + extra, entry.file_size, entry.CRC)


def _open_legacy(file: BinaryIO, classes: tuple[str, ...]) -> tuple[Any, dict[str, _Place]]:
    """Load the object from a file in the format before PyTorch 1.6: pickles, followed by the storages."""
    file.seek(0)
    pickled = io.BytesIO(file.read(_PICKLE_BYTES))
    magic, _, system = (_Unpickler(pickled).load() for _ in range(3))
    if magic != _LEGACY or not system["little_endian"]:
        raise PyTorchFileError("another format")
    unpickler = _Unpickler(pickled, classes)
    found = unpickler.load()
    keys = _Unpickler(pickled).load()
    places, start = {}, pickled.tell()
    for key in keys:
        file.seek(start)
        (length,) = struct.unpack("<q", file.read(8))
        places[key] = _Place(start + 8, length * unpickler.storages[key].dtype.itemsize)
        start += 8 + places[key].size
    return found, places


class _Reader:
    """Replaces the records in an object by tensors.

    Args:
        content: bytes of the file.
        places: positions of the storages in the file.
    """

    def __init__(self, content: Tensor, places: Mapping[str, _Place]) -> None:
        self._content, self._places = content, places
        self._bytes: dict[str, Tensor] = {}
        self._made: dict[int, Any] = {}

    def read(self, part: Any) -> Any:
        """Replace the records in a part by tensors; an object that occurs twice remains one object."""
        if id(part) in self._made:
            return self._made[id(part)]
        match part:
            case _View():
                return self._keep(part, self._tensor(part))
            case _Storage():
                return self._keep(part, self._numbers(part))
            case dict():
                table: dict[Any, Any] = self._keep(part, {})
                table.update((name, self.read(value)) for name, value in part.items())
                return table
            case list():
                row: list[Any] = self._keep(part, [])
                row.extend(self.read(value) for value in part)
                return row
            case tuple():
                return self._keep(part, tuple(self.read(value) for value in part))
            case Inert():
                self._keep(part, part)
                part.state = self.read(part.state)
        return part

    def _keep(self, part: Any, made: Any) -> Any:
        self._made[id(part)] = made
        return made

    def _tensor(self, view: _View) -> Tensor:
        numbers = self._numbers(view.storage)
        size, stride = tuple(view.size), tuple(view.stride)
        if len(size) > _DIMENSIONS or min(view.offset, *size, *stride, 0) < 0:
            raise PyTorchFileError("no shape of a tensor")
        last = view.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)
        if count and (count > len(numbers) or last >= len(numbers)):
            raise PyTorchFileError("a tensor larger than its storage")
        return numbers.as_strided(size, stride, numbers.storage_offset() + view.offset)

    def _numbers(self, storage: _Storage) -> Tensor:
        """Return the elements of a storage, in one dimension, as a view of the file if they are aligned in it."""
        dtype, key, length = storage
        place = self._places[key]
        if not 0 <= length * dtype.itemsize <= place.size:
            raise PyTorchFileError("a storage larger than the file")
        if key not in self._bytes:
            found = self._content[place.start : place.start + place.size]
            if len(found) != place.size or place.checksum not in (None, zlib.crc32(found.numpy().data)):
                raise PyTorchFileError("a damaged storage")
            self._bytes[key] = found.clone() if place.start % dtype.itemsize else found
        return self._bytes[key][: length * dtype.itemsize].view(dtype)
