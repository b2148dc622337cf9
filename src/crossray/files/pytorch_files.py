"""Reads files of `torch.save` as data, without running their code or importing their classes.

A pickle is a program. The one in such a file may only use the names in `_NAMES` and is rejected for any other. While it
runs, there are no tensors that it could change, only immutable records of them. Tensors are created afterwards on the
memory-mapped file, and checked against its actual content. Whatever the file claims, memory stays within a few times
its size, and a quarter of a gigabyte for a pickle of the maximum length.
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

#: Most bytes of the pickle and of a zip's directory. An empty set costs one byte in the file and 224 in memory; the
#: pickle of a checkpoint with a thousand tensors has 150 KB.
_PICKLE_BYTES = 2**20

#: Most times that copies of the tensors of a table, in float32, may take the memory of their storages.
_COPIES = 4

#: Most characters of a tensor's name, and most dimensions of a tensor.
_NAME_LENGTH, _DIMENSIONS = 256, 64

#: Begins a file in the format before PyTorch 1.6.
_LEGACY = 0x1950A86A20F9469CFC6C

_DTYPES = {
    "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16, "Double": torch.float64,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip


class PyTorchFileError(Exception):
    """The file is not from `torch.save`, is damaged, or requests too much memory."""


class ForbiddenNameError(PyTorchFileError):
    """The file uses a name that weights do not need; the message is that name."""


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
        path: the file; little-endian, its numbers not compressed, as PyTorch writes it.
        classes: beginnings of the names of classes (`torch.nn.modules.`) whose instances become `Inert`.

    Returns:
        Plain dicts, lists, tuples, sets, numbers and strings, `Inert`, and tensors on the CPU without gradients, which
        share what they shared when they were saved. They lie in the mapped file: take copies with `float_copies`
        before it may change. An `OrderedDict` and a `Counter` become a dict.

    Raises:
        OSError: the file cannot be read.
        ForbiddenNameError: it uses any other name; nothing was run.
        PyTorchFileError: it is not such a file.
    """
    with _BoundedFile(path) as file:
        try:
            found, places = (_open_zip if zipfile.is_zipfile(file) else _open_legacy)(file, classes)
            content = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
            return _Reader(content, places).read(found)
        except PyTorchFileError:
            raise
        except Exception as error:  # a broken or hostile file can fail in any way, also by a place before its beginning
            raise PyTorchFileError(type(error).__name__) from None


def named_tensors(found: Any) -> dict[str, Tensor]:
    """Tensors of a table, or parameters and buffers of a module that was saved whole, by their dotted names.

    A module that occurs twice is named once. What is no tensor, and what no sentence could name, is left out.

    Raises:
        PyTorchFileError: the object is neither a table nor a module.
    """
    if not isinstance(found, dict | Inert):
        raise PyTorchFileError("no table of tensors")
    pairs = _entries(found, "", set()) if isinstance(found, Inert) else _named(found)
    return {name: value for name, value in pairs if isinstance(value, Tensor) and len(name) <= _NAME_LENGTH}


def float_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies in float32, which are independent of the file.

    Raises:
        PyTorchFileError: so many of them share their numbers that the copies would not fit the size of the file.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(tensor.numel() * 4 for tensor in tensors.values()) > _COPIES * sum(storages.values()):
        raise PyTorchFileError("the same numbers under too many names")
    return {
        name: tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def _entries(module: Inert, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Parameters and buffers of a module and those below it."""
    seen.add(id(module))
    state = module.state if isinstance(module.state, dict) else {}
    for kind in ("_parameters", "_buffers"):
        yield from ((prefix + name, value) for name, value in _named(state.get(kind)))
    for name, child in _named(state.get("_modules")):
        if isinstance(child, Inert) and id(child) not in seen and len(prefix) <= _NAME_LENGTH:
            yield from _entries(child, f"{prefix}{name}.", seen)


def _named(table: Any) -> Iterator[tuple[str, Any]]:
    """What a table has under names that can be printed."""
    for name, value in table.items() if isinstance(table, dict) else ():
        if isinstance(name, str) and len(name) <= _NAME_LENGTH and name.isprintable():
            yield name, value


class _Storage(NamedTuple):
    """Note on numbers in the file: `length` of them under that key."""

    dtype: torch.dtype
    key: str
    length: int


class _View(NamedTuple):
    """Note on a tensor over a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Place(NamedTuple):
    """Where the bytes of a storage are, and their CRC-32 where the format has one."""

    start: int
    size: int
    checksum: int | None = None


class _Table(dict[Any, Any]):
    """In place of an `OrderedDict`, whose instances a pickle can give other methods."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """A module's `state_dict` has versions of its modules here."""


class _Call(NamedTuple):
    """A function as a pickle may have it: one whose attributes cannot be set."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _set(members: list[Any]) -> set[Any]:
    """The list is empty afterwards: a pickle of a few bytes could make many large sets of one list."""
    found = set(members)
    members.clear()
    return found


_VIEW = _Call(lambda storage, offset, size, stride, *_: _View(storage, offset, size, stride))
_FIRST = _Call(lambda first, *_: first)

#: Names that a file may have, and what they stand for here. Nothing of it can be changed, and no call makes more than
#: its arguments are.
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
    """A file of which nobody takes much at a time: `zipfile` would read a directory of any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _PICKLE_BYTES:
            raise PyTorchFileError("too much at a time")
        return super().read(size)


class _Unpickler(pickle.Unpickler):
    """Knows `_NAMES` and some classes, refuses every other name, and remembers the storages.

    Args:
        file: at the beginning of a pickle.
        classes: beginnings of the names of classes that become `Inert`.
    """

    def __init__(self, file: BinaryIO, classes: tuple[str, ...] = ()) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}
        self._file, self._classes = file, classes

    def load(self) -> Any:
        """The object; a number of the memo beyond the pickle's length, for which room would be made, is refused."""
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
        if kind == "module":  # before 1.6: a class, its file and its source
            return rest[0]
        dtype, key, _, length, *view = rest
        if kind != "storage" or not isinstance(key, str) or any(view):
            raise PyTorchFileError("a storage of another kind")
        storage = _Storage(dtype, key, length)
        if self.storages.setdefault(key, storage) != storage:
            raise PyTorchFileError("two storages of one key")
        return storage


def _open_zip(file: BinaryIO, classes: tuple[str, ...]) -> tuple[Any, dict[str, _Place]]:
    """The object in a file that PyTorch wrote since 1.6, and where its storages are."""
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
    """Where the content of an entry is: behind a header of its own, whose length only that header tells."""
    file.seek(entry.header_offset)
    name, extra = struct.unpack("<26xHH", file.read(30))
    return _Place(entry.header_offset + 30 + name + extra, entry.file_size, entry.CRC)


def _open_legacy(file: BinaryIO, classes: tuple[str, ...]) -> tuple[Any, dict[str, _Place]]:
    """The object in a file that PyTorch wrote before 1.6 - pickles, then every storage - and where its storages are."""
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
    """Makes tensors of the notes in an object.

    Args:
        content: the bytes of the file.
        places: where the storages are in it.
    """

    def __init__(self, content: Tensor, places: Mapping[str, _Place]) -> None:
        self._content, self._places = content, places
        self._bytes: dict[str, Tensor] = {}
        self._made: dict[int, Any] = {}

    def read(self, part: Any) -> Any:
        """The part with tensors in place of notes, in plain containers; what occurs twice stays one object."""
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
        """The numbers of a storage, in one dimension: a view of the file where they are aligned in it."""
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
