"""Measures whether the modules of a paper have an effect: dependence on the input, effect, attention, and gradients.

A module can run and pass tests of its shapes although its output is the same for every input. The following numbers
distinguish such a module from a working one, with the model's actual weights:

* dependent share: the norm of the output minus its mean, over the norm of the output;
* effect: the change of logits and losses when the output is replaced by its mean, relative to rounding errors;
* perplexity of the attention over K slots, which is K for a plain mean;
* gradient: the smallest relative gradient of the module's parameters, compared with the median of all parameters that a
  loss reaches.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from crossray.data.batches.batch import Batch
from crossray.layers.attention import CrossAttention
from crossray.models.base import PaperModule, ReportModel

#: Minimum size (RMS) assumed for a parameter, the usual scale of initial weights: relative to a bias that is still 0,
#: even a gradient due to rounding would be large.
_LEAST_SIZE = 0.02


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """The measurements of one module.

    Attributes:
        dependent: dependent share of its output, 0 to 1; None for a scalar: a loss may be the same for all batches.
        effect: relative change (RMS, median over batches) of the quantity that changes most, relative to rounding, when
            the mean replaces the output.
        observed: this quantity: "logits", or the name of a loss.
        over_rounding: the change as a multiple of rounding noise, the difference between float32 and float64.
        perplexity: perplexity of the attention, averaged over queries and heads; None without attention.
        slots: K, the number of slots that it attends to.
        gradient: smallest relative gradient of its parameters, see `relative_gradients`; None for a module without
            trained parameters.
        weakest: name of the parameter with that gradient.
    """

    dependent: float | None
    effect: float
    observed: str
    over_rounding: float
    perplexity: float | None
    slots: int
    gradient: float | None
    weakest: str


@dataclass(frozen=True)
class Measured:
    """The measurements of a model.

    Attributes:
        modules: measurements by name of the module in the paper.
        gradients: relative gradient by trained parameter, see `relative_gradients`.
    """

    modules: Mapping[str, Liveness]
    gradients: Mapping[str, float]


def measure(model: ReportModel, batches: Sequence[Batch], weights: Mapping[str, float]) -> Measured:
    """Measure the modules in `model.paper_modules`, and the gradients of all parameters.

    The model is not changed. Outputs are those of eval mode; gradients are those of a training step.

    Args:
        model: model with the weights to measure; `requires_grad` must be False for parameters that are not trained.
        batches: at least two batches, with transformed images.
        weights: weights of the losses, 1 by default.
    """
    gradients = relative_gradients(model, batches, weights)
    training = model.training
    model.eval()
    declared = model.paper_modules()
    outputs = {name: _Outputs(module) for name, module in declared.items()}
    attention = {name: _Attention(module.slots) for name, module in declared.items() if module.attention}
    try:
        with ExitStack() as taps:
            for name, module in declared.items():
                taps.enter_context(_tapped(model, module.path, module.method, outputs[name].add))
                if module.attention:
                    taps.enter_context(_attending(model, module.attention, attention[name]))
            before = [observed(model, batch) for batch in batches]
        noise = [rounding(model, batch) for batch in batches]
        found = {}
        for name, module in declared.items():
            if not outputs[name].calls:
                raise ValueError(f"{model.system}: {module.path}.{module.method} is never called")
            with _tapped(model, module.path, module.method, outputs[name].replaced):
                after = [observed(model, batch) for batch in batches]
            what, multiple, relative = largest_change(before, after, noise)
            own = {n: g for n, g in gradients.items() if n.startswith(f"{module.path}.") and module.path}
            weakest = min(own, key=lambda n: own[n], default="")
            looked = attention.get(name)
            found[name] = Liveness(
                dependent=outputs[name].dependent(), effect=relative, observed=what, over_rounding=multiple,
                perplexity=None if looked is None else looked.perplexity(), slots=0 if looked is None else looked.slots,
                gradient=own.get(weakest), weakest=weakest,
            )  # fmt: skip
        return Measured(found, gradients)
    finally:
        model.train(training)


def relative_gradients(model: ReportModel, batches: Sequence[Batch], weights: Mapping[str, float]) -> dict[str, float]:
    """Size of each trained parameter's gradient relative to its own size, as a multiple of the median over parameters.

    Each loss is considered separately: a parameter is compared with the other parameters that the same loss reaches,
    and its maximum over the losses is used. Otherwise, a contrastive loss with a large gradient in the backbone would
    make all parameters look dead that only the language loss trains.

    Args:
        model: see `measure`.
        batches: batches whose gradients are accumulated.
        weights: see `measure`; losses with weight 0 are ignored.

    Returns:
        Relative gradient by parameter; 0 if no gradient reaches it.
    """
    model = copy.deepcopy(model).train()  # a copy, because training mode changes running statistics
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    sums: dict[str, dict[str, Tensor]] = {}
    torch.manual_seed(0)
    for batch in batches:
        for loss, value in model.losses(batch).items():
            if weights.get(loss, 1.0) and value.requires_grad:
                found = torch.autograd.grad(value, list(trained.values()), retain_graph=True, allow_unused=True)
                total = sums.setdefault(loss, {})
                for name, gradient in zip(trained, found, strict=True):
                    if gradient is not None:
                        total[name] = total[name] + gradient if name in total else gradient
    best = dict.fromkeys(trained, 0.0)
    for gradients in sums.values():
        ratios = {name: _rms(g) / max(_rms(trained[name]), _LEAST_SIZE) for name, g in gradients.items()}
        reached = sorted(ratio for ratio in ratios.values() if ratio > 0)
        for name, ratio in ratios.items():
            if ratio > 0:
                best[name] = max(best[name], ratio / reached[len(reached) // 2])
    return best


def observed(model: ReportModel, batch: Batch) -> dict[str, Tensor]:
    """Logits under teacher forcing, and all losses."""
    own = dataclasses.replace(batch.guide, labels=None)
    with torch.no_grad():
        logits = model.step(batch.targets.tokens[:, :-1], model.encode(batch.inputs, own)).logits
        return {"logits": logits, **model.losses(batch)}


def largest_change(
    before: Sequence[Mapping[str, Tensor]], after: Sequence[Mapping[str, Tensor]], noise: Sequence[Mapping[str, float]]
) -> tuple[str, float, float]:
    """The quantity of `observed` that changed most relative to rounding.

    The median over batches is used: in one batch, opposite changes of studies can cancel out in a loss, and a selection
    (the highest scores of a memory) that rounding flips can look like large noise.

    Args:
        before: results of `observed` by batch.
        after: the same with a module replaced.
        noise: results of `rounding` by batch.

    Returns:
        Name of the quantity, its change as a multiple of rounding, and its relative change; both are infinite if a
        quantity has another shape after than before, or exists only before or only after.
    """
    multiples: dict[str, list[float]] = {}
    relative: dict[str, list[float]] = {}
    for old, new, rounded in zip(before, after, noise, strict=True):
        for name in sorted({*old, *new}):
            if name not in old or name not in new or old[name].shape != new[name].shape:
                return name, math.inf, math.inf
            change = _rms(new[name].double() - old[name].double())
            multiples.setdefault(name, []).append(change / rounded[name])
            relative.setdefault(name, []).append(change / max(_rms(old[name]), 1e-30))
    medians = {name: (median(multiples[name]), median(relative[name])) for name in multiples}
    largest = max(medians, key=lambda name: medians[name][0])
    return (largest if medians[largest][0] else "", *medians[largest])


def rounding(model: ReportModel, batch: Batch) -> dict[str, float]:
    """Rounding noise (RMS) of each quantity of `observed`: the difference between float32 and float64 results."""
    exact = observed(copy.deepcopy(model).double(), batch.apply(_double))
    found = observed(model, batch)
    # Even if a result happens to be exact, assume a rounding error in its last place.
    return {
        name: max(_rms(found[name].double() - exact[name]), torch.finfo(torch.float32).eps * _rms(exact[name]), 1e-30)
        for name in found
    }


class _Outputs:
    """Accumulates the norms of a module's outputs, and of their deviations from the mean."""

    def __init__(self, module: PaperModule) -> None:
        self.module = module
        self.calls = 0
        self._whole = self._rest = 0.0
        self._scalars: list[float] = []

    def add(self, result: Any) -> Any:
        output = self._output(result).detach().double()
        self.calls += 1
        if output.ndim == 0:
            self._scalars.append(float(output))
        else:
            self._whole += float(output.square().sum())
            self._rest += float((output - self._mean(output)).square().sum())
        return result

    def replaced(self, result: Any) -> Any:
        """The result with the output replaced by its mean."""
        output = self._output(result)
        mean = self._mean(output.double()) if output.ndim else torch.tensor(sum(self._scalars) / len(self._scalars))
        mean = (mean if output.is_floating_point() else mean.round()).to(output.dtype).expand_as(output)
        if not isinstance(result, tuple):
            return mean
        return (*result[: self.module.output], mean, *result[self.module.output + 1 :])

    def dependent(self) -> float | None:
        if self._scalars:
            return None
        return math.sqrt(self._rest / self._whole) if self._whole else 0.0

    def _output(self, result: Any) -> Tensor:
        found = result[self.module.output] if isinstance(result, tuple) else result
        assert isinstance(found, Tensor)
        return found

    def _mean(self, output: Tensor) -> Tensor:
        axes = {"token": tuple(range(output.ndim - 1)) or (0,), "study": (0,), "slot": (output.ndim - 2,)}
        return output.mean(axes[self.module.varies], keepdim=True)


@dataclass
class _Attention:
    """Accumulates statistics of attention weights."""

    known_slots: int
    _sum: float = 0.0
    _rows: int = 0
    _seen: list[float] = field(default_factory=list)

    def add(self, result: Any) -> Any:
        weights = (result[1] if isinstance(result, tuple) else result).detach().double()
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)
        entropy = -(weights * weights.clamp_min(1e-300).log()).sum(-1)
        self._sum += float(entropy.exp().sum())
        self._rows += entropy.numel()
        # a masked slot has a weight of exactly 0 for every query; a sharp attention has such weights for some
        used = (weights > 0).flatten(1, -2).any(1) if weights.dim() > 2 else weights > 0
        self._seen.append(float(used.sum(-1).double().mean()))
        return result

    def perplexity(self) -> float:
        return self._sum / self._rows if self._rows else math.nan

    @property
    def slots(self) -> int:
        return self.known_slots or round(sum(self._seen) / max(1, len(self._seen)))


@contextmanager
def _tapped(model: nn.Module, path: str, method: str, tap: Callable[[Any], Any]) -> Iterator[None]:
    """Context in which the result of a submodule's method passes through `tap`."""
    owner = model.get_submodule(path)
    original = getattr(owner, method)

    def through(*arguments: Any, **options: Any) -> Any:
        return tap(original(*arguments, **options))

    with _in_place(owner, method, through):
        yield


@contextmanager
def _attending(model: nn.Module, path: str, attention: _Attention) -> Iterator[None]:
    """Context in which `attention` collects the attention weights of a submodule."""
    if not path:
        yield
        return
    owner = model.get_submodule(path)
    forward = owner.forward

    def through(*arguments: Any, **options: Any) -> Any:
        if isinstance(owner, CrossAttention):
            options["need_weights"] = True
        return attention.add(forward(*arguments, **options))

    with _in_place(owner, "forward", through):
        yield


@contextmanager
def _in_place(owner: nn.Module, method: str, function: Callable[..., Any]) -> Iterator[None]:
    """Context in which `function` replaces a method; replacements can be nested."""
    before = vars(owner).get(method)
    setattr(owner, method, function)
    try:
        yield
    finally:
        delattr(owner, method)
        if before is not None:
            setattr(owner, method, before)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())
