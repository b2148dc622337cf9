"""The systems by name: those in this folder and those that other packages add (`crossray.models.base.SYSTEMS`)."""

from typing import Any

from crossray.models.base import SYSTEMS, ReportModel, Trainable, system_class


def list_trainables() -> list[str]:
    """Names of everything that goes through the training path, sorted."""
    return SYSTEMS.names()


def list_models() -> list[str]:
    """Names of the systems that write reports, sorted."""
    return [name for name, cls in SYSTEMS.all().items() if issubclass(cls, ReportModel)]


def create_model(system: str, **overrides: Any) -> Trainable:
    """Build a system with fresh weights from its default configuration and `overrides` of its fields.

    Raises:
        UserError: no such system.
        TypeError: a field that its configuration does not have.
    """
    cls = system_class(system)
    return cls(cls.config_class(**overrides))
