"""The served models, which can be reloaded without interrupting requests."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossray.api import Reporter, load
from crossray.generation.checks import no_check
from crossray.serving.batcher import Batcher, Job
from crossray.serving.problems import Problem


@dataclass(frozen=True)
class Shelved:
    """A served model.

    Attributes:
        reporter: the model; `batcher`: batcher that runs it.
        loaded: time of loading, in seconds since 1970.
    """

    reporter: Reporter
    batcher: Batcher
    loaded: float


class Shelf:
    """The served models by name."""

    def __init__(
        self,
        folders: Mapping[str, Path | str],
        *,
        device: str = "auto",
        batch: int = 16,
        window: float = 0.01,
        strict: bool = False,
        observe: Callable[[str, int, float], None] | None = None,
    ) -> None:
        """Load every model.

        Args:
            folders: folder of each model by name; the first is the default.
            device: device of all models.
            batch: maximum number of studies per batch.
            window: maximum number of seconds that a study waits for others.
            strict: whether every model must have an input check.
            observe: called with the name of the model, the number of studies and the seconds of each batch.

        Raises:
            UserError: a model cannot be loaded or lacks a required input check.
        """
        self._folders, self._device, self._batch, self._window = dict(folders), device, batch, window
        self._observe, self._lock, self._strict = observe, threading.Lock(), strict
        self._models: dict[str, Shelved] = {}
        for name in self._folders:
            self._models[name] = self._load(name)
        self.default = next(iter(self._folders))

    @property
    def names(self) -> list[str]:
        """Names of the models, the default first."""
        return list(self._folders)

    def get(self, name: str) -> Shelved:
        """Return a model.

        Raises:
            Problem: 404, if the model does not exist.
        """
        if name not in self._models:
            raise Problem(404, f"model: no model has this name; choose one of {', '.join(self.names)}.")
        return self._models[name]

    def submit(self, name: str, job: Job) -> Shelved:
        """Queue a study for a model, and return the model that will report it."""
        with self._lock:  # a stopped batcher receives no more studies
            model = self.get(name)
            model.batcher.submit(job)
        return model

    def reload(self, name: str) -> Shelved:
        """Reload a model's folder; requests use the old model until the new one is loaded.

        Raises:
            Problem: 404, if the model does not exist.
            UserError: the folder cannot be loaded or lacks a required input check; the old model remains in use.
        """
        self.get(name)
        new = self._load(name)
        with self._lock:
            old, self._models[name] = self._models[name], new
        old.batcher.stop()  # after its queued studies
        return new

    def close(self) -> None:
        """Let every model finish its queue."""
        for model in self._models.values():
            model.batcher.stop()
        for model in self._models.values():
            model.batcher.join(30)

    def _load(self, name: str) -> Shelved:
        reporter = load(self._folders[name], device=self._device)
        if self._strict and reporter.generator.checker is None:
            raise no_check(name)

        def observe(studies: int, seconds: float) -> None:
            if self._observe is not None:
                self._observe(name, studies, seconds)

        return Shelved(reporter, Batcher(reporter, self._batch, self._window, observe), time.time())


def described(name: str, model: Shelved) -> dict[str, Any]:
    """Describe a model for callers, as JSON values."""
    generator = model.reporter.generator
    return {
        "name": name,
        "system": model.reporter.system,
        "weights_sha256": generator.fingerprint,
        "section": generator.section,
        "views": generator.model.config.views,
        "decoding": generator.decoding.method,
        "calibrated": generator.calibration is not None,
        "checks_inputs": generator.checker is not None,
        "loaded": model.loaded,
    }
