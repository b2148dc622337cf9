"""Records in the contract of systems: encoded images, results of decoder steps, and events.

Shapes: B studies, V views, S memory positions, D memory width, T tokens, P prompt tokens or pooled width.
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from crossray.data.batches.batch import TensorRecord
from crossray.layers.cache import Cache

__all__ = ["Encoded", "Event", "PaperModule", "Step"]


@dataclass
class Encoded(TensorRecord):
    """An encoded image, ready for decoding.

    Attributes:
        memory: (B, S, D), to which the decoder attends.
        memory_mask: (B, S) bool, True where a position is valid; at least one in every row.
        pooled: (B, V, P), one vector per view, for losses and analyses.
        prompt: (B, P) int64 tokens that the decoder reads before the report; None if the system has none.
        called: (B, K) bool, which observations of `ModelConfig.observations` the system's own diagnosis finds in the
            images; None if it makes none.
        aux: anything else that the system's own `step` or `losses` needs.
    """

    memory: Tensor
    memory_mask: Tensor
    pooled: Tensor
    prompt: Tensor | None = None
    called: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)

    def select(self, studies: Tensor) -> "Encoded":
        """Keep only these studies, (B',) int64."""
        return self.apply(lambda tensor: tensor.index_select(0, studies))


@dataclass
class Step:
    """The result of one decoder call.

    Attributes:
        logits: (N, T, vocabulary) for the report positions of this call.
        cache: the state for the next call; None if the call had no cache.
        cross_attention: (N, layers, heads, T, S) weights, if they were requested.
    """

    logits: Tensor
    cache: Cache | None = None
    cross_attention: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class PaperModule:
    """A module that a paper names, and where to measure whether it does anything (`crossray.analysis.liveness`).

    Attributes:
        path: the submodule that computes it, such as "cra" or "encoder.layers.0.memory"; empty: the model itself.
        method: which of its methods computes it; "forward" is what calling the submodule runs.
        output: index of its output, where the method returns a tuple.
        varies: what the output must vary with: the "token" (every axis but the last counts as tokens), the "study" (the
            first axis), or the "slot" (the last axis but one). A scalar, such as a loss, must differ between batches.
        attention: the submodule whose attention weights are measured: a `CrossAttention`, or any submodule that returns
            weights (..., K), alone or as the second of a tuple. Empty: the module attends to no slots.
        slots: K, where the weights hold only the largest of K.
        starts_closed: whether it intentionally starts as the identity or a constant (for example with scale 0), so it
            is only measured after training.
    """

    path: str
    method: str = "forward"
    output: int = 0
    varies: Literal["token", "study", "slot"] = "token"
    attention: str = ""
    slots: int = 0
    starts_closed: bool = False


@dataclass(frozen=True)
class Event:
    """End of a step, validation, epoch or stage; see `Trainable.advance`.

    Attributes:
        kind: "step" (an optimizer step), "validation", "epoch" or "stage".
        step: optimizer steps so far; `epoch`: epochs so far; `stage`: index of the stage.
        steps: optimizer steps planned in the whole training, for schedules.
    """

    kind: Literal["step", "validation", "epoch", "stage"]
    step: int = 0
    epoch: int = 0
    stage: int = 0
    steps: int = 0
