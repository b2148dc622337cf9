"""Recorded logits of a small model of every system: `python -m tests.models.golden` records the missing ones anew.

Delete a file in `golden/` and record it again only when a system is meant to compute something else from now on.
"""

import json
from pathlib import Path

import torch
from tests.models.tiny import make_batch, set_weights, tiny

from crossray.models.registry import list_models

FOLDER = Path(__file__).parent / "golden"


def logits(system: str) -> list[list[float]]:
    """Logits of the first five words after every token of the second study, which lacks a view."""
    model, batch = tiny(system), make_batch()
    set_weights(model)
    with torch.no_grad():
        found = model.step(batch.targets.tokens, model.encode(batch.inputs)).logits[1, :, :5]
    return [[round(float(value), 5) for value in row] for row in found]


def main() -> None:
    """Record every system that has no file yet."""
    FOLDER.mkdir(exist_ok=True)
    for system in list_models():
        path = FOLDER / f"{system}.json"
        if not path.exists():
            path.write_text(json.dumps(logits(system)).replace("], ", "],\n ") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
