"""The systems by name: those in this folder and those that other packages add (`crossray.models.base.SYSTEMS`)."""

from typing import Any

from crossray.models.base import SYSTEMS, ReportModel, Trainable, system_class


def list_trainables() -> list[str]:
    """Sorted names of everything that can be trained."""
    return SYSTEMS.names()


def list_models() -> list[str]:
    """Sorted names of the systems that write reports."""
    return [name for name, cls in SYSTEMS.all().items() if issubclass(cls, ReportModel)]


def create_model(system: str, **overrides: Any) -> Trainable:
    """Build a system with new weights from its default configuration and `overrides` of its fields.

    Raises:
        UserError: there is no such system.
        TypeError: a field that its configuration does not have.
    """
    cls = system_class(system)
    return cls(cls.config_class(**overrides))
