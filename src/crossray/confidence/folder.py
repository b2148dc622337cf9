"""Saves and loads the input check of a model folder: `input_check.json`, with arrays in `input_check.safetensors`."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy

from crossray.confidence.check import FLAGS, InputChecker
from crossray.confidence.density import Density
from crossray.confidence.heads import Head
from crossray.errors import UserError
from crossray.files.digest import sha256
from crossray.files.write import write_whole

DESCRIPTION, ARRAYS = "input_check.json", "input_check.safetensors"
FORMAT = 1

_REMEDY = "remove it, or run `crossray calibrate` again"
_HEADS = ("rotation", "inverted", "mirrored", "lateral")


def save_check(checker: InputChecker, folder: Path) -> None:
    """Write both files; the JSON file comes last and contains the digest of the arrays, so that they match."""
    arrays = {
        "mean": checker.mean,
        "deviation": checker.deviation,
        "centres": checker.density.centres,
        "whitening": checker.density.whitening,
    }
    for name in _HEADS:
        head: Head | None = getattr(checker, name)
        if head is not None:
            arrays |= {f"{name}.weights": head.weights, f"{name}.bias": head.bias}
    # arrays of scikit-learn may be in column-major order, but safetensors stores memory as if it were row-major
    write_whole(
        folder / ARRAYS, safetensors.numpy.save({name: np.ascontiguousarray(one) for name, one in arrays.items()})
    )
    described = {
        "format": FORMAT,
        "weights": checker.weights,
        "arrays": sha256(folder / ARRAYS),
        "limits": checker.limits,
        "about": checker.about,
        "measured": checker.measured,
    }
    write_whole(folder / DESCRIPTION, json.dumps(described, indent=2) + "\n")


def load_check(folder: Path, weights: str) -> InputChecker | None:
    """Read the input check; None if the folder has none.

    Args:
        folder: a model folder.
        weights: SHA-256 of its weights.

    Raises:
        UserError: the files are damaged or belong to other weights.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT or values["arrays"] != sha256(folder / ARRAYS):
            raise ValueError
        arrays = safetensors.numpy.load_file(folder / ARRAYS)
        heads = {
            name: Head(arrays[f"{name}.weights"], arrays[f"{name}.bias"])
            for name in _HEADS
            if f"{name}.weights" in arrays
        }
        found = InputChecker(
            mean=arrays["mean"],
            deviation=arrays["deviation"],
            density=Density(arrays["centres"], arrays["whitening"]),
            rotation=heads["rotation"],
            inverted=heads["inverted"],
            mirrored=heads["mirrored"],
            lateral=heads.get("lateral"),
            limits={name: float(values["limits"][name]) for name in FLAGS if name in values["limits"]},
            weights=str(values["weights"]),
            about=dict(values["about"]),
            measured=dict(values["measured"]),
        )
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
        raise UserError(f"{path}: cannot be read; {_REMEDY}.") from None
    if found.weights != weights:
        raise UserError(f"{path}: field 'weights' belongs to another model; {_REMEDY}.")
    return found
