"""CrossRay writes the radiology report of a chest X-ray and compares the systems that do.

Importing the package loads nothing heavy; the functions below import what they need when they are called.
"""

from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "create_model", "list_models"]


def create_model(system: str, **overrides: Any) -> Any:
    """Build a system with fresh weights; see `crossray.models.registry.create_model`."""
    from crossray.models.registry import create_model as create

    return create(system, **overrides)


def list_models() -> list[str]:
    """Names of all registered systems; see `crossray.models.registry.list_models`."""
    from crossray.models.registry import list_models as names

    return names()
