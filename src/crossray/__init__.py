"""CrossRay writes the radiology report of a chest X-ray and compares systems that do so.

    import crossray

    model = crossray.load("runs/a")
    print(model.report("frontal.png", "lateral.png"))

Importing the package is fast: each public name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossray.api import InputCheck, Report, Reporter, Scores, Sentence, evaluate, load
    from crossray.models.registry import create_model, list_models

__version__ = "0.2.0"

_PLACES = {
    **dict.fromkeys(("InputCheck", "Report", "Reporter", "Scores", "Sentence", "evaluate", "load"), "crossray.api"),
    **dict.fromkeys(("create_model", "list_models"), "crossray.models.registry"),
}

__all__ = [
    "InputCheck", "Report", "Reporter", "Scores", "Sentence", "__version__", "create_model", "evaluate", "list_models",
    "load",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'crossray' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
