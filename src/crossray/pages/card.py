"""Writes the model card: description, training and scores of a model folder."""

import json
from pathlib import Path
from typing import Any

_WARNING = "Research software. It is not a medical device, and no report that it writes may be used for care."


def model_card(folder: Path, system: str) -> str:
    """Write a model card in the Hugging Face hub's format, without paths of the training machine.

    Args:
        folder: model folder.
        system: name of its system.
    """
    provenance = _json(folder / "provenance.json")
    recipe, data = _mapping(provenance.get("recipe")), _mapping(provenance.get("data"))
    source = _mapping(data.get("source"))
    facts = {
        "system": system,
        "training data": source.get("kind", "unknown"),
        "images are drawn": "yes" if source.get("synthetic_images") else "no",
        "dataset SHA-256": str(data.get("sha256", "unknown"))[:16],
        "section": _mapping(recipe.get("data")).get("section", "findings"),
        "seed": provenance.get("seed", "unknown"),
        "selected by": provenance.get("monitor", "unknown"),
        **{f"{name} version": version for name, version in _mapping(provenance.get("versions")).items()},
    }
    scores = _mapping(provenance.get("validation"))
    lines = [
        "---", "library_name: crossray", "pipeline_tag: image-to-text",
        "tags: [radiology, chest-x-ray, report-generation]", "---", "",
        f"# {system} of CrossRay", "", f"> {_WARNING}", "",
        "```python", "import crossray", "",
        "model = crossray.load(\"user/name\")", "print(model.report(\"frontal.png\"))",
        "```", "", "## Training", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()),
    ]  # fmt: skip
    if scores:
        lines += ["", "## Validation", "", "Scores on the validation split, by which the model was selected; they are "
                  "therefore optimistic, and not test scores.", "", "| metric | value |", "|---|---:|"]  # fmt: skip
        lines += [f"| {name} | {value:.3f} |" for name, value in scores.items() if isinstance(value, int | float)]
    return "\n".join(lines) + "\n"


def _json(path: Path) -> dict[str, Any]:
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
