"""Chooses the device and the precision of a training run, and measures its memory."""

import re
from pathlib import Path

import torch

from crossray.errors import UserError
from crossray.layers.packed import computes_bf16
from crossray.training.config import TrainerConfig


def choose_device(config: TrainerConfig) -> str:
    """Return Lightning's accelerator: "cpu" or "gpu".

    Raises:
        UserError: the recipe requires a GPU, but PyTorch finds none.
    """
    wanted = config.accelerator
    if wanted == "gpu" and not torch.cuda.is_available():
        raise UserError("recipe field 'trainer.accelerator' is gpu, but PyTorch finds none; set it to cpu or auto.")
    if wanted == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return wanted


def choose_precision(config: TrainerConfig, device: str) -> str:
    """Return Lightning's precision: "bf16-mixed" if the recipe and `device` ("cpu", "gpu") allow it, else "32-true"."""
    supported = computes_bf16("cuda" if device == "gpu" else "cpu")
    return "bf16-mixed" if config.precision == "bf16" and supported else "32-true"


def peak_memory(device: str) -> float | None:
    """The most memory in GB that was in use so far, on a GPU ("cuda") or in this process; None if unknown."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    try:  # `getrusage` would begin with the memory of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024 / 1e9
