"""The reader of PyTorch's files: `torch.load` is the oracle, and hostile files run nothing and take little memory."""

import io
import itertools
import math
import multiprocessing
import os
import pickle
import random
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fuzz.run import peak_memory
from torch import Tensor, nn

from crossray.files.pytorch_files import (
    ForbiddenNameError,
    Inert,
    PyTorchFileError,
    float_copies,
    named_tensors,
    read_pytorch,
)

DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


@pytest.fixture(params=["zip", "legacy"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Path]:
    """Saves an object in one of the two formats."""

    def write(content: Any) -> Path:
        torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=request.param == "zip")
        return tmp_path / "file.pt"

    return write


def assert_same(found: Any, expected: Any) -> None:
    """Equal to the last bit and of equal shapes and strides, in plain containers."""
    if isinstance(expected, Tensor):
        assert type(found) is Tensor
        assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
        assert not found.requires_grad
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert type(found) is dict
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_same(found[name], value)
    elif isinstance(expected, list | tuple):
        assert type(found) is (list if isinstance(expected, list) else tuple)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(expected)
        assert found == expected


class TestAgainstTorch:
    def check(self, path: Path) -> Any:
        found = read_pytorch(path)
        assert_same(found, torch.load(path, weights_only=True))
        return found

    def test_every_type(self, save: Callable[[Any], Path]) -> None:
        content = {str(dtype): (torch.randn(5, 7) * 50).to(dtype) for dtype in DTYPES}
        assert len(self.check(save(content))) == len(DTYPES)

    def test_views(self, save: Callable[[Any], Path]) -> None:
        base = torch.arange(60.0)
        grid = base.view(3, 4, 5)
        views = {
            "part": base[7:20], "transposed": grid.permute(2, 0, 1), "strided": grid[::2, 1:, ::3], "number": base[59],
            "diagonal": grid[0].diagonal(), "empty": base[:0], "empty grid": torch.empty(0, 3), "last": base[60:],
            "windows": base[:12].unfold(0, 5, 7), "channels last": torch.randn(2, 3, 4, 4).to(
                memory_format=torch.channels_last
            ),
        }  # fmt: skip
        self.check(save(views))

    def test_what_is_shared_stays_shared(self, save: Callable[[Any], Path]) -> None:
        base = torch.zeros(6)
        found = read_pytorch(save([base, base[2:], {"again": base.view(2, 3)}, torch.zeros(6)]))
        found[0][3] = 5
        assert found[1][1] == found[2]["again"][1, 0] == 5
        assert found[3].sum() == 0

    def test_what_a_checkpoint_holds(self, save: Callable[[Any], Path]) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).half().float()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
        for _ in range(2):
            model(torch.randn(2, 3, 4, 4)).sum().backward()
            optimizer.step()
            schedule.step()
        content = {
            "model": model.state_dict(),
            "parameter": nn.Parameter(torch.ones(3)),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "epoch": 3,
            "more": (1.5, True, None, "text é", -(2**80), [], {}, (), math.inf),
            "size": torch.randn(2, 3).size(),
            "dtype": torch.float16,
            "device": torch.device("cpu"),
            "members": {1, 2},
            "counts": Counter(milestones=2),
            "order": OrderedDict(b=1, a=OrderedDict()),
        }
        path = save(content)
        expected = torch.load(path, weights_only=True)
        found = read_pytorch(path)
        assert found.pop("parameter").equal(expected.pop("parameter").data)
        assert found.pop("size") == tuple(expected.pop("size"))
        assert_same(found, expected)

    def test_one_list_in_two_places_stays_one(self, save: Callable[[Any], Path]) -> None:
        row = [torch.zeros(2)]
        found = read_pytorch(save({"a": row, "b": [row, row]}))
        assert found["a"] is found["b"][0] is found["b"][1]

    def test_entries_that_are_not_aligned(self, tmp_path: Path) -> None:
        torch.save({str(dtype): torch.ones(3).to(dtype) for dtype in DTYPES}, tmp_path / "plain.pt")
        repack(tmp_path / "plain.pt", tmp_path / "packed.pt")
        self.check(tmp_path / "packed.pt")


def test_a_module_that_was_saved_whole(save: Callable[[Any], Path]) -> None:
    activation = nn.ReLU()
    inner = nn.Sequential(OrderedDict([("conv", nn.Conv1d(2, 3, 1, bias=False)), ("norm", nn.BatchNorm1d(3))]))
    model = nn.Sequential(inner, activation, nn.Linear(3, 2), activation)
    with pytest.raises(ForbiddenNameError, match=r"^torch.nn.modules.container.Sequential$"):
        read_pytorch(save(model))
    found = read_pytorch(save(model), ("torch.nn.modules.",))
    assert isinstance(found, Inert)
    tensors = named_tensors(found)
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())


def test_tables() -> None:
    assert named_tensors({"a": torch.ones(1), 3: torch.ones(1), "b": 2, "c\n": torch.ones(1)}) == {"a": torch.ones(1)}
    for other in ([torch.ones(1)], torch.ones(1), None):
        with pytest.raises(PyTorchFileError):
            named_tensors(other)


def test_a_module_inside_itself_is_named_once() -> None:
    module = Inert()
    module.state = {"_parameters": {"w": torch.ones(1)}, "_modules": {"again": module}}
    assert named_tensors(module).keys() == {"w"}


def test_copies_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save({"a": torch.arange(6).view(2, 3).T, "b": torch.ones(2, dtype=torch.bfloat16)}, path)
    copies = float_copies(read_pytorch(path))
    path.write_bytes(bytes(path.stat().st_size))
    assert all(copy.dtype == torch.float32 and copy.is_contiguous() for copy in copies.values())
    assert copies["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert copies["b"].tolist() == [1, 1]


# --- hostile files


def repack(source: Path, target: Path, method: int = zipfile.ZIP_STORED, **contents: bytes) -> None:
    """The same archive made by another program, some entries with other contents."""
    with zipfile.ZipFile(source) as plain, zipfile.ZipFile(target, "w", method) as packed:
        for name in plain.namelist():
            packed.writestr(name, contents.get(name.rpartition("/")[2], plain.read(name)))


HEAD = 0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}


def legacy(pickled: bytes, keys: Iterable[str] = (), rest: bytes = b"", parts: Iterable[object] = HEAD) -> bytes:
    """A file in the format before PyTorch 1.6 around a pickle."""
    head = [pickle.dumps(part, 2) for part in parts]
    return b"".join([*head, pickled, pickle.dumps(list(keys), 2), rest])


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def storage(length: int, kind: str = "Float") -> bytes:
    """Opcodes that put a storage with the key 0 on the stack."""
    parts = text("storage"), f"ctorch\n{kind}Storage\n".encode(), text("0"), text("cpu"), integer(length)
    return b"(" + b"".join(parts) + b"tQ"


def tensor(stored: bytes, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """Opcodes that put a tensor over a storage on the stack."""
    shapes = b"".join(b"(" + b"".join(map(integer, shape)) + b"t" for shape in (size, stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + integer(offset) + shapes + b"\x89}tR"


def with_storage(pickled: bytes) -> bytes:
    """A storage that no pickle mentions would be a fault of its own."""
    return pickled if text("storage") in pickled else storage(4) + pickled + b"\x86"


def with_numbers(pickled: bytes) -> bytes:
    """A file from before PyTorch 1.6 with a storage 0 of four zeros."""
    return legacy(b"\x80\x02" + with_storage(pickled) + b".", ["0"], struct.pack("<q", 4) + bytes(16))


def zipped(pickled: bytes, count: int = 4, method: int = zipfile.ZIP_STORED) -> bytes:
    """A file of today with a storage 0 of so many zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a/data.pkl", b"\x80\x04" + with_storage(pickled) + b".")
        archive.writestr("a/data/0", bytes(4 * count))
    return stream.getvalue()


class Command:
    """Runs a command when it is unpickled by anyone who lets it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_code_is_named_and_not_run(save: Callable[[Any], Path], tmp_path: Path) -> None:
    path = save({"a": torch.zeros(1), "b": Command(tmp_path / "ran")})
    with pytest.raises(ForbiddenNameError, match=r"^\w+\.system$"):
        read_pytorch(path, ("torch.nn.modules.",))
    path.write_bytes(pickle.dumps(Command(tmp_path / "ran")))
    with pytest.raises(ForbiddenNameError, match="system"):
        read_pytorch(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "torch load", "torch._utils _rebuild_tensor_v3", "torch.nn.modules.module Module",
     "numpy.core.multiarray scalar", "torch float8_e4m3fn", "builtins getattr", "collections OrderedDict.fromkeys"],
)  # fmt: skip
def test_other_names_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(legacy(b"\x80\x02c" + name.replace(" ", "\n").encode() + b"\n."))
    with pytest.raises(ForbiddenNameError) as caught:
        read_pytorch(tmp_path / "file.pt")
    assert str(caught.value) == name.replace(" ", ".")


def test_a_name_of_many_lines_is_short_and_on_one(tmp_path: Path) -> None:
    name = text("a\nb\x1b[31m") + text("c" * 10_000)
    (tmp_path / "file.pt").write_bytes(legacy(b"\x80\x04" + name + b"\x93."))
    with pytest.raises(ForbiddenNameError) as caught:
        read_pytorch(tmp_path / "file.pt")
    assert str(caught.value).startswith(r"a\nb\x1b[31m.ccc")
    assert len(str(caught.value)) < 120


FLOATS = storage(4)


@pytest.mark.parametrize("pack", [with_numbers, zipped])
@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(tensor(FLOATS, (10**6, 10**6), (0, 0)), id="one number many times"),
        pytest.param(tensor(FLOATS, (3, 3), (1, 1)), id="more windows than numbers"),
        pytest.param(tensor(FLOATS, (5,), (1,)), id="past the end"),
        pytest.param(tensor(FLOATS, (2,), (1,), 3), id="past the end by its offset"),
        pytest.param(tensor(FLOATS, (2,), (4,)), id="past the end by its stride"),
        pytest.param(tensor(FLOATS, (1,), (1,), -1), id="before the beginning"),
        pytest.param(tensor(FLOATS, (2,), (-1,), 3), id="backwards"),
        pytest.param(tensor(FLOATS, (-2, -2), (1, 1)), id="negative sizes"),
        pytest.param(tensor(FLOATS, (2, 2), (1,)), id="too few strides"),
        pytest.param(tensor(FLOATS, (1,) * 70, (1,) * 70), id="too many dimensions"),
        pytest.param(tensor(storage(4, "Double"), (4,), (1,)), id="a wider type"),
        pytest.param(tensor(storage(-4), (0,), (1,)), id="a storage of negative length"),
        pytest.param(tensor(storage(1 << 40), (1,), (1,)), id="a storage of terabytes"),
        pytest.param(tensor(FLOATS.replace(text("0"), text("1")), (1,), (1,)), id="a storage that is not there"),
        pytest.param(tensor(text("0"), (1,), (1,)), id="no storage"),
        pytest.param(FLOATS + tensor(storage(4, "Int"), (1,), (1,)) + b"\x86", id="a storage of two types"),
        pytest.param(tensor(FLOATS, (1,), (1,)) + b"(" + FLOATS + integer(0) + integer(1 << 40) + integer(0) + b"tb",
                     id="a state for a tensor"),
        pytest.param(b"cbuiltins\nset\n(" + tensor(FLOATS, (4,), (1,)) + b"tR", id="a set of a tensor"),
        pytest.param(b"ccollections\nOrderedDict\n(]tR", id="a table of a list"),
        pytest.param(b"ccollections\nOrderedDict\n}" + text("get") + b"Nsb", id="an attribute of a class"),
        pytest.param(b"ctorch\nSize\n}" + text("broken") + b"Nsb", id="an attribute of a function"),
        pytest.param(b"(" + text("storage") + b"ctorch\nFloatStorage\n)" + text("cpu") + integer(4) + b"tQ",
                     id="a key that is no text"),
        pytest.param(b"Nr\xff\xff\xff\x0f", id="a memo of gigabytes"),
        pytest.param(b"\x8e" + struct.pack("<Q", 1 << 40), id="a terabyte of bytes"),
        pytest.param(b"\x96" + struct.pack("<Q", 1 << 40), id="a terabyte of a bytearray"),
        pytest.param(b"]" * 100_000 + b"a" * 99_999, id="lists too deep"),
    ],
)  # fmt: skip
def test_hostile_pickles_are_refused(pickled: bytes, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(pack(pickled))
    with pytest.raises(PyTorchFileError):
        read_pytorch(tmp_path / "file.pt")


@pytest.mark.parametrize("pack", [with_numbers, zipped])
def test_what_hostile_pickles_are_made_of_is_read(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """The helpers above make a whole file, so that it is their one fault that is refused."""
    table = b"ccollections\nOrderedDict\n)R" + text("a") + tensor(FLOATS, (2, 2), (1, 2)) + b"s"
    attributes = b"}" + text("items") + b"Nsb"  # in place of the method
    (tmp_path / "file.pt").write_bytes(pack(table + attributes))
    found = read_pytorch(tmp_path / "file.pt")
    assert_same(found, {"a": torch.zeros(2, 2).T})
    assert type(found.items) is type({}.items)


def test_damaged_files_are_refused(save: Callable[[Any], Path]) -> None:
    path = save({"a": torch.randn(50), "b": [torch.zeros(3)]})
    content = path.read_bytes()
    for length in range(0, len(content), 41):
        path.write_bytes(content[:length])
        with pytest.raises(PyTorchFileError):
            read_pytorch(path)
    for seed in range(50):
        path.write_bytes(random.Random(seed).randbytes(seed * 20))
        with pytest.raises(PyTorchFileError):
            read_pytorch(path)


def test_other_files_of_pickles_are_refused(tmp_path: Path) -> None:
    path, pickled = tmp_path / "file.pt", pickle.dumps({}, 2)
    path.write_bytes(legacy(pickled))
    assert read_pytorch(path) == {}
    for parts in [(7, *HEAD[1:]), (*HEAD[:2], {"little_endian": False})]:
        path.write_bytes(legacy(pickled, parts=parts))
        with pytest.raises(PyTorchFileError, match="another format"):
            read_pytorch(path)


def test_a_storage_that_ends_early_is_refused_whatever_is_used_of_it(tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(with_numbers(tensor(FLOATS, (1,), (1,)))[:-1])
    with pytest.raises(PyTorchFileError, match="damaged"):
        read_pytorch(tmp_path / "file.pt")


def test_damaged_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    torch.save(torch.full((9,), 1.5), path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((9,), 1.5).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(PyTorchFileError):
        read_pytorch(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pt", tmp_path / "file.pt"
    torch.save({"a": torch.zeros(1000)}, plain)
    repack(plain, path)
    assert read_pytorch(path)["a"].shape == (1000,)
    for change in ({"0": bytes(400)}, {"byteorder": b"big"}):
        repack(plain, path, **change)
        with pytest.raises(PyTorchFileError):
            read_pytorch(path)
    repack(plain, path, zipfile.ZIP_DEFLATED)
    with pytest.raises(PyTorchFileError, match="compressed"):
        read_pytorch(path)
    repack(plain, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("plain/data/0", bytes(4000))
    with pytest.raises(PyTorchFileError, match="two entries"):
        read_pytorch(path)


def test_entries_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """A directory whose entries all mean one large content."""
    content = bytearray(zipped(b"N", count=10_000))
    end = content.rindex(b"PK\x05\x06")
    first = content.index(b"PK\x01\x02")
    large = content.index(b"PK\x01\x02", first + 1)
    # the same content under ten names
    entries = [content[large:end].replace(b"a/data/0", f"a/data/{digit}".encode()) for digit in "0123456789"]
    directory = content[first:large] + b"".join(entries)
    closing = struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, 11, 11, len(directory), first, 0)
    (tmp_path / "file.pt").write_bytes(content[:first] + directory + closing)
    assert len(zipfile.ZipFile(tmp_path / "file.pt").namelist()) == 11
    with pytest.raises(PyTorchFileError, match="overlap"):
        read_pytorch(tmp_path / "file.pt")


def test_copies_of_shared_numbers_are_bounded(tmp_path: Path) -> None:
    numbers = torch.zeros(1 << 12)
    torch.save({str(number): numbers[:] for number in range(100)}, tmp_path / "file.pt")
    found = read_pytorch(tmp_path / "file.pt")
    with pytest.raises(PyTorchFileError, match="too many names"):
        float_copies(found)
    assert len(float_copies(dict(itertools.islice(found.items(), 3)))) == 3


def numbers_that_inflate() -> bytes:
    return zipped(tensor(storage(1 << 25), (1 << 25,), (1,)), 1 << 25, zipfile.ZIP_DEFLATED)


def pickle_that_inflates() -> bytes:
    return zipped(b"(" + b"}" * (1 << 22) + b"t", 4, zipfile.ZIP_DEFLATED)


def longer_than_any_pickle() -> bytes:
    return zipped(b"(" + b"\x8f" * (1 << 22) + b"t")


def sets_of_one_list() -> bytes:
    members = b"".join(b"M" + struct.pack("<H", number) for number in range(65536))
    return zipped(b"cbuiltins\nset\nq\x000(](" + members + b"eq\x01" + b"h\x00(h\x01tR" * 200 + b"t")


def storage_many_times() -> bytes:
    return zipped(b"(" + storage(1 << 18) * 200 + b"t", 1 << 18)


def directory_of_nothing() -> bytes:
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 9, 6, *[0] * 6)
    directory = b"".join(entry + b"%06d" % number for number in range(100_000))
    return directory + struct.pack("<4s4HIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 0, 0)


def key_of_nested_pairs() -> bytes:
    """The text of the key has more than 2 to the power of 26 characters."""
    pairs = b"".join(b"h%ch%c\x86q%c0" % (n, n, n + 1) for n in range(26))
    return zipped(b"(Nq\x000" + pairs + b"(" + text("storage") + b"ctorch\nFloatStorage\nh\x1aNK\x04tQt")


def memo_of_gigabytes() -> bytes:
    return zipped(b"Nr\xff\xff\xff\x03")


def longest_pickle() -> bytes:
    """Nothing else takes as much memory for one byte."""
    return zipped(b"(" + b"\x8f" * (2**20 - 200) + b"t")


BOMBS = [
    numbers_that_inflate, pickle_that_inflates, longer_than_any_pickle, sets_of_one_list, storage_many_times,
    directory_of_nothing, key_of_nested_pairs, memo_of_gigabytes, longest_pickle,
]  # fmt: skip


def _measure(folder: Path, sender: Connection) -> None:
    """Sends of each bomb the bytes of its file and of the memory it took, and whether it was read."""
    for number, make in enumerate(BOMBS):
        (folder / str(number)).write_bytes(make())
    memory = 0
    for number in range(len(BOMBS)):
        path = folder / str(number)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        memory = memory or peak_memory()
        try:
            read_pytorch(path)
        except PyTorchFileError:
            was_read = False
        else:
            was_read = True
        sender.send((path.stat().st_size, peak_memory() - memory, was_read))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory cannot be set back")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A few times the file, and a quarter of a gigabyte for the longest pickle, whatever it is made of."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(tmp_path, sender))
    process.start()
    sender.close()
    harmless = sets_of_one_list, storage_many_times, longest_pickle
    for make in BOMBS:
        size, memory, was_read = receiver.recv()
        assert was_read == (make in harmless), make.__name__
        assert memory < 3 * size + (2**28 if make is longest_pickle else 2**25), make.__name__
    process.join()
