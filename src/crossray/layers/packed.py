"""Makes products fast in incremental decoding: weights of linear maps that are packed once, and bfloat16.

`torch.nn.functional.linear` passes float32 to the BLAS library, which rearranges the weights in every call and does not
use wide registers on some processors. oneDNN, which is part of PyTorch, accepts prepacked weights. Without oneDNN,
nothing changes.
"""

import functools
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@functools.cache
def packable(dtype: torch.dtype) -> bool:
    """Whether oneDNN supports packed weights of this element type on this machine."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and computes_bf16("cpu"))


def computes_bf16(device: str) -> bool:
    """Whether a type of device ("cpu", "cuda") has native bf16 arithmetic.

    Without it, as on most laptops, PyTorch converts every number to float32 and back, which is several times slower
    than computing in float32.
    """
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return device == "cpu" and bool(supported and supported())


def mixed_precision(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Compute the products of a block in bfloat16, if that is wanted and `device` has the arithmetic."""
    return torch.autocast(device.type, torch.bfloat16) if bf16 and computes_bf16(device.type) else nullcontext()


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Compute the linear maps of `model` on a CPU with packed weights while the block runs.

    Each map is packed when it is first used, and the copies are released at the end. Use this only without gradients
    and while the weights do not change. If two threads use one model, the second uses the packed weights of the first
    or none.

    Args:
        model: any module; subclasses of `torch.nn.Linear` keep their own computation.
    """
    changed = [
        module
        for module in model.modules()
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and "forward" not in vars(module)
    ]
    for module in changed:
        module.forward = _Packed(module)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for module in changed:
            vars(module).pop("forward", None)


class _Packed:
    """Replaces the `forward` of a linear map."""

    def __init__(self, module: nn.Linear) -> None:
        self.weight, self.bias = module.weight, module.bias
        self.packed: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """(..., features) -> (..., outputs), in autocast's element type where it is on."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else self.weight.dtype
        if torch.is_grad_enabled() or not x.numel() or not packable(dtype):
            return F.linear(x, self.weight, self.bias)
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        if dtype not in self.packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().to(dtype), rows.shape[0])
            self.packed[dtype] = weight, None if self.bias is None else self.bias.detach().to(dtype)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(rows, *self.packed[dtype], "none", [], "")
        return y.view(*x.shape[:-1], y.shape[-1])
