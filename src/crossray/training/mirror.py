"""A copy of a run in object storage, from which another machine can continue it: `trainer.mirror`.

The copy is one tar archive of the whole folder, because stores replace a single object atomically, but no folder.
"""

import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem
from rich.console import Console

from crossray.errors import UserError
from crossray.training.folder import RECIPE

#: Name of the archive at the address.
ARCHIVE = "run.tar"


class Mirror:
    """Copies the folder of a run after every checkpoint.

    Args:
        address: folder in a store that fsspec knows, such as s3://bucket/runs/a.
        run: folder of the run.

    Raises:
        UserError: the store cannot be written to, its package is missing, or it has a copy of another run.
    """

    def __init__(self, address: str, run: Path) -> None:
        self.address, self.run = address, run
        self._console = Console(stderr=True, markup=False, emoji=False)
        try:
            self._store, self._folder = fsspec.core.url_to_fs(address)
            if isinstance(self._store, LocalFileSystem):  # on an object store, this would create a misspelled bucket
                self._store.makedirs(self._folder, exist_ok=True)
            self._whole, self._part = (f"{self._folder}/{name}" for name in (ARCHIVE, f"{ARCHIVE}.part"))
            self._store.pipe_file(self._part, b"")
            self._store.rm_file(self._part)
            taken = self._store.exists(self._whole)
        except Exception as error:  # every store has errors of its own
            raise UserError(
                f"recipe field 'trainer.mirror': {address} cannot be written to ({_reason(error)}); check the address, "
                "the access rights, and that the package of this store is installed (pip install 'crossray[s3]' for s3://)."
            ) from error
        if taken and not (run / RECIPE).exists():
            raise UserError(
                f"recipe field 'trainer.mirror': {address} has the copy of another run; give another address, or "
                f"continue that run with --resume {address}."
            )

    def update(self) -> None:
        """Replace the copy. Training goes on if that fails, and says so; the previous copy remains."""
        try:
            self._write()
        except Exception as error:
            self._console.print(
                f"{self.address}: the copy of this run is out of date ({_reason(error)}); trying again after the next "
                "checkpoint.", soft_wrap=True,
            )  # fmt: skip

    def _write(self) -> None:
        # hidden files are locks and unfinished files
        files = [path for path in sorted(self.run.rglob("*")) if path.is_file() and not _hidden(path, self.run)]
        with self._store.open(self._part, "wb") as file, tarfile.open(fileobj=file, mode="w|") as archive:
            for path in files:
                archive.add(path, path.relative_to(self.run).as_posix(), filter=_anonymous)
        self._store.mv(self._part, self._whole)


def fetch(address: str, run: Path) -> None:
    """Write the copy of a run to a new folder.

    Raises:
        UserError: there is no copy, it is damaged or has files outside its folder, or `run` exists.
    """
    if run.exists():
        raise UserError(f"{run} exists; give a new folder for the copy of {address} with --out.")
    run.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.parent, prefix=f".{run.name}.") as beside:
        folder = Path(beside) / "run"
        folder.mkdir()
        try:
            _extract(address, folder)
        except Exception as error:  # every store has errors of its own
            raise UserError(
                f"{address}: no run can be read from there ({_reason(error)}); name the 'trainer.mirror' of a run."
            ) from error
        folder.replace(run)


def _extract(address: str, folder: Path) -> None:
    place = f"{address.rstrip('/')}/{ARCHIVE}"
    with fsspec.open(place, "rb") as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if not member.isfile() or name.is_absolute() or ".." in name.parts:
                raise ValueError("an entry is no file inside the folder")
            target, source = folder / name, archive.extractfile(member)
            assert source is not None  # a file has content
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                shutil.copyfileobj(source, out)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the account that trained."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _reason(error: Exception) -> str:
    words = str(error).splitlines()
    return f"{type(error).__name__}: {words[0][:150]}" if words else type(error).__name__
