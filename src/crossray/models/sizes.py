"""The number of parameters of each system at its default size, and a one-line summary.

Building the systems takes seconds, mostly to import PyTorch and transformers. `sizes.json` therefore stores the sizes
of the systems in this folder (`python -m tests.models.golden` records them, and a test checks them). Systems of other
packages, and those that are not recorded, are built to measure them.
"""

import dataclasses
import json
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

__all__ = ["RECORD", "SystemSize", "measure", "record", "sizes"]

#: The record, next to this file.
RECORD = Path(__file__).with_name("sizes.json")

#: Size of the vocabulary that is built for.
VOCABULARY = 760


@dataclass(frozen=True)
class SystemSize:
    """A system at its default size.

    Attributes:
        parameters: number of all parameters.
        frozen: number of frozen parameters.
        summary: first line of the system's docstring.
    """

    parameters: int
    frozen: int
    summary: str


def sizes() -> dict[str, SystemSize]:
    """Every system that writes reports, by its name, sorted.

    Raises:
        UserError: another package's system cannot be imported.
    """
    found = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    if found.get("files") != _files():  # a system was added
        from crossray.models.registry import list_models

        return measure(list_models())
    known = {name: SystemSize(**values) for name, values in found["systems"].items()}
    others = {point.name for point in entry_points(group="crossray.systems")} - known.keys()
    if others:
        from crossray.models.registry import list_models

        known |= measure(others.intersection(list_models()))
    return dict(sorted(known.items()))


def measure(names: Iterable[str]) -> dict[str, SystemSize]:
    """Build systems without memory (PyTorch's meta device) and count.

    Raises:
        UserError: no such system.
    """
    import torch

    from crossray.models.registry import create_model
    from crossray.text.observations import OBSERVATIONS

    found = {}
    for name in names:
        with torch.device("meta"):  # shapes without memory, so that nothing is drawn
            model = create_model(name, vocabulary_size=VOCABULARY, observations=OBSERVATIONS)
        counts = {key: parameter.numel() for key, parameter in model.named_parameters()}
        frozen = sum(counts[key] for key in set(model.frozen()) & counts.keys())
        summary = (type(model).__doc__ or "").strip().splitlines()[0]
        found[name] = SystemSize(sum(counts.values()), frozen, summary)
    return found


def record() -> dict[str, Any]:
    """What the record should hold: the sizes of the systems of this folder, and the files that it was made of."""
    from crossray.models.registry import list_models

    own = [name for name in list_models() if name in _files()]
    return {
        "files": _files(),
        "systems": {name: dataclasses.asdict(size) for name, size in measure(own).items()},
    }


def _files() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules([str(RECORD.parent)]) if not module.ispkg)
