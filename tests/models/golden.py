"""Recorded logits and losses of a small model of every system; `python -m tests.models.golden` records missing ones.

Delete a file in `golden/` and record it again only when a system is meant to compute something else from now on.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tests.models.tiny import make_batch, set_weights, tiny

from crossray.models import sizes
from crossray.models.registry import list_models

FOLDER = Path(__file__).parent / "golden"


def record(system: str) -> dict[str, Any]:
    """All losses of a batch, and logits of the first five words after every token of its second study.

    That study lacks a view.
    """
    model, batch = tiny(system), make_batch()
    set_weights(model)
    with torch.no_grad():
        found = model.step(batch.targets.tokens, model.encode(batch.inputs)).logits[1, :, :5]
        losses = model.losses(batch)
    return {
        "losses": {name: round(float(loss), 5) for name, loss in losses.items()},
        "logits": [[round(float(value), 5) for value in row] for row in found],
    }


def main() -> None:
    """Record every system that has no file yet, and the sizes of all."""
    FOLDER.mkdir(exist_ok=True)
    for system in list_models():
        path = FOLDER / f"{system}.json"
        if not path.exists():
            path.write_text(json.dumps(record(system)).replace("], ", "],\n ") + "\n", encoding="utf-8")
    sizes.RECORD.write_text(json.dumps(sizes.record(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
