"""A memory that reports write and images read (COACL; SPEC 2.5, "Memory").

Shapes: B studies, M slots, D width, L queries, T words.
"""

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.attention import attend


class KnowledgeMemory(nn.Module):
    """Slots, their linear map, and what reports have written.

    Published is an update by the report of the same study, in training only: training relies on it and generation lacks
    it. Here reports write into a buffer that is part of the memory in training and in generation alike: after each step
    it moves a little towards what the reports of the batch would have added. No gradient can reach that path, so it has
    no weights of its own: the slots attend to the words by plain scaled products, and words get length 1, as the slots
    had at the beginning. What is written of a slot can thus never be longer than 1.

    Args:
        slots: M; `width`: D.
        trained: train the slots; otherwise they stay unit vectors, and only their map is trained.
        momentum: share of what was written that a step leaves; 1: nothing is ever written.
    """

    def __init__(self, slots: int, width: int, *, trained: bool = True, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.slots: Tensor
        if trained:
            self.slots = nn.Parameter(torch.eye(slots, width))
        else:
            self.register_buffer("slots", torch.eye(slots, width))
        self.map = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.map.weight)
        nn.init.zeros_(self.map.bias)
        self.written: Tensor
        self.register_buffer("written", torch.zeros(slots, width))
        self._sum: Tensor | None = None
        self._studies = 0

    def forward(self) -> Tensor:
        """The memory, (M, D)."""
        return self.map(self.slots) + self.written

    @torch.no_grad()
    def read(self, words: Tensor, mask: Tensor) -> None:
        """Remember what these reports would add to the memory, until `write`.

        Args:
            words: (B, T, D), encoded reports.
            mask: (B, T) bool, True where there is a word.
        """
        if self.momentum == 1:
            return
        with torch.autocast(words.device.type, enabled=False):
            slots, words = self.map(self.slots.float()), words.float()
            query = F.layer_norm(slots, slots.shape[1:]).expand(len(words), -1, -1)
            added = look_up(query, words, F.normalize(words, dim=2), mask).sum(dim=0)
        self._sum = added if self._sum is None else self._sum + added
        self._studies += len(words)

    @torch.no_grad()
    def write(self) -> None:
        """Move what is written towards the mean over the studies that were read, over all processes."""
        if self._sum is None:
            return
        total = torch.cat([self._sum.flatten(), self._sum.new_tensor([self._studies])])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        self.written.lerp_((total[:-1] / total[-1]).view_as(self.written), 1 - self.momentum)
        self._sum, self._studies = None, 0


def look_up(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention with one head and without weights.

    Args:
        query: (B, L, D).
        key: (B, M, D).
        value: (B, M, D).
        mask: (B, M) bool, True where a key is valid.

    Returns:
        (B, L, D).
    """
    visible = None if mask is None else mask[:, None, None]
    found, _ = attend(query[:, None], key[:, None], value[:, None], mask=visible)
    return found[:, 0]
