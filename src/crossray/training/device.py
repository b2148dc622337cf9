"""Where a training computes, and how precisely."""

import torch

from crossray.errors import UserError
from crossray.training.config import TrainerConfig


def choose_device(config: TrainerConfig) -> str:
    """Lightning's accelerator: "cpu" or "gpu".

    Raises:
        UserError: a GPU is required, and PyTorch sees none.
    """
    wanted = config.accelerator
    if wanted == "gpu" and not torch.cuda.is_available():
        raise UserError("recipe field 'trainer.accelerator' is gpu, but PyTorch sees none; set it to cpu or auto.")
    if wanted == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return wanted


def choose_precision(config: TrainerConfig, device: str) -> str:
    """Lightning's precision: "bf16-mixed" where it is wanted and `device` computes in bf16, otherwise "32-true"."""
    return "bf16-mixed" if config.precision == "bf16" and computes_bf16(device) else "32-true"


def computes_bf16(device: str) -> bool:
    """Whether a device ("cpu", "gpu") has arithmetic for bf16.

    Without it, as on most laptops, PyTorch converts every number back and forth and is several times slower than in
    float32.
    """
    if device == "gpu":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported and supported())
