"""All systems by name. A new system is one file in this folder with the decorator `register` on its class."""

import importlib
import pkgutil
from typing import Any

import crossray.models
import crossray.models.pretraining
from crossray.models.base import ReportModel, Trainable, registered, system_class


def list_trainables() -> list[str]:
    """Names of everything that goes through the training path, sorted."""
    for package in (crossray.models, crossray.models.pretraining):
        for module in pkgutil.iter_modules(package.__path__):
            if not module.ispkg:
                importlib.import_module(f"{package.__name__}.{module.name}")
    return sorted(registered())


def list_models() -> list[str]:
    """Names of the systems that write reports, sorted."""
    return [name for name in list_trainables() if issubclass(registered()[name], ReportModel)]


def create_model(system: str, **overrides: Any) -> Trainable:
    """Build a system with fresh weights from its default configuration and `overrides` of its fields.

    Raises:
        UserError: no such system.
        TypeError: a field that its configuration does not have.
    """
    cls = system_class(system)
    return cls(cls.config_class(**overrides))
