"""Registries of plug-ins by name: those in this package, and those of other installed packages.

A file registers its definitions with a decorator when it is imported. The files of this package are found in the
folders of each kind; another package names its module in an entry point of the kind's group:

    [project.entry-points."crossray.systems"]
    mean = "mypackage.mean"
"""

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from crossray.errors import UserError, did_you_mean

T = TypeVar("T")
_D = TypeVar("_D")


class Registry(Generic[T]):
    """All plug-ins of one kind, imported on demand.

    Args:
        kind: name of the kind in messages, such as "system".
        group: entry-point group for other packages.
        places: packages and modules of CrossRay with definitions of this kind.
        remedy: end of the message about a name that does not exist.
    """

    def __init__(self, kind: str, group: str, places: Sequence[str], remedy: str) -> None:
        self.kind, self.group = kind, group
        self._places, self._remedy = tuple(places), remedy
        self._found: dict[str, T] = {}
        self._complete = False

    def register(self, name: str) -> Callable[[_D], _D]:
        """Decorator that registers a definition as `name`.

        Raises:
            UserError: another module has registered the name.
        """

        def decorate(defined: _D) -> _D:
            self.add(name, defined)  # type: ignore[arg-type]
            return defined

        return decorate

    def add(self, name: str, defined: T) -> None:
        """Register without a decorator; raises like `register`."""
        before = self._found.get(name)
        if before is not None and _module(before) != _module(defined):
            raise UserError(
                f"{self.kind} '{name}': {_module(before)} and {_module(defined)} both define it; rename one of them."
            )
        self._found[name] = defined

    def get(self, name: str) -> T:
        """The plug-in `name`; if its file has the same name, only that file is imported.

        Raises:
            UserError: there is no such plug-in, or its package cannot be imported.
        """
        if name not in self._found:
            self._import_file(name)
        if name not in self._found and (plugin := self.plugins().get(name)):
            self._load(plugin)
        if name not in self._found:
            self._import_all()
        if name not in self._found:
            raise UserError(f"{self.kind} '{name}' does not exist; {self._remedy}{did_you_mean(name, self._found)}.")
        return self._found[name]

    def names(self) -> list[str]:
        """All names, sorted. A plug-in that cannot be imported is skipped with a warning."""
        self._import_all()
        return sorted(self._found)

    def all(self) -> dict[str, T]:
        """All plug-ins by name, in the order of `names`."""
        return {name: self._found[name] for name in self.names()}

    def plugins(self) -> Mapping[str, EntryPoint]:
        """The entry points of other packages, not imported."""
        return {point.name: point for point in entry_points(group=self.group)}

    def implementation(self, name: str) -> str:
        """Name and version of the package that defines `name`, such as "crossray-mean 0.1"; "" for CrossRay."""
        package = getattr(self.plugins().get(name), "dist", None)
        return f"{package.name} {package.version}" if package is not None else ""

    def _import_file(self, name: str) -> None:
        file = name.replace("-", "_")
        for place in self._places:
            if name not in self._found and file.isidentifier():
                try:
                    importlib.import_module(f"{place}.{file}")
                except ModuleNotFoundError as error:
                    if error.name != f"{place}.{file}":
                        raise

    def _load(self, plugin: EntryPoint) -> None:
        package = plugin.dist.name if plugin.dist is not None else plugin.module
        try:
            plugin.load()
        except Exception as error:  # another package's code can fail in any way
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.kind} '{plugin.name}' of the package {package} cannot be imported "
                f"({type(error).__name__}: {reason}); repair or uninstall that package."
            ) from error
        if plugin.name not in self._found:
            raise UserError(
                f"{self.kind} '{plugin.name}' of the package {package}: {plugin.module} registers no {self.kind} of "
                "that name; correct its entry point."
            )

    def _import_all(self) -> None:
        if self._complete:
            return
        for place in self._places:
            package = importlib.import_module(place)
            for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                if not module.ispkg:
                    importlib.import_module(f"{place}.{module.name}")
        for plugin in self.plugins().values():
            if plugin.name not in self._found:
                try:
                    self._load(plugin)
                except UserError as error:
                    warnings.warn(str(error), stacklevel=3)
        self._complete = True


def _module(defined: Any) -> str:
    """The module that defines a class, a function, or an object that has either as its attribute `definition`."""
    return str(getattr(defined, "definition", defined).__module__)
