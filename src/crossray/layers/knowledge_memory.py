"""A memory that reports write to and images read from (COACL).

Shapes: B studies, M slots, D width, L queries, T words.
"""

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.attention import attend


class KnowledgeMemory(nn.Module):
    """Memory slots with a linear map, plus content that is averaged from reports.

    The published update uses the report of the same study, in training only, so training relies on data that generation
    lacks. Here, reports write to a buffer that is part of the memory in both training and generation.

    Each word is assigned to the slot that matches it best, as in the codebooks of VQ-VAE (van den Oord et al. 2017),
    and the content of a slot is a moving average of its words. An average over all words would be nearly the same for
    every slot and cancel in the softmax over slots; for the same reason, the mean of all words is subtracted first. No
    gradient reaches this path, so it has no weights. Words are normalized to length 1, like the initial slots, so the
    content of a slot is never longer than 1.

    Args:
        slots: M; `width`: D.
        trained: whether to train the slots; otherwise, they remain unit vectors, and only their linear map is trained.
        momentum: weight of the previous content in each update; 1 for no updates.
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
        self._words: list[Tensor] = []

    def forward(self) -> Tensor:
        """Return the memory (M, D)."""
        return self.map(self.slots) + self.update()

    def update(self) -> Tensor:
        """Return the content from reports, (M, D)."""
        return self.written

    @torch.no_grad()
    def read(self, words: Tensor, mask: Tensor) -> None:
        """Collect the words of reports for the next `write`.

        Args:
            words: (B, T, D), encoded reports.
            mask: (B, T) bool, True where there is a word.
        """
        if self.momentum < 1:
            self._words.append(words[mask].float())

    @torch.no_grad()
    def write(self) -> None:
        """Move the content of each slot toward the mean of its best-matching words, over all processes."""
        if not self._words:
            return
        words = torch.cat(self._words)
        self._words = []
        with torch.autocast(words.device.type, enabled=False):
            total = _over_processes(torch.cat([words.sum(dim=0), words.new_tensor([len(words)])]))
            words = F.normalize(words - total[:-1] / total[-1], dim=1)
            slots = self.map(self.slots.float())
            slot = (words @ F.layer_norm(slots, slots.shape[1:]).T).argmax(dim=1)
            sums = slots.new_zeros(len(slots), words.shape[1] + 1)
            sums.index_add_(0, slot, torch.cat([words, words.new_ones(len(words), 1)], dim=1))
            sums, counts = _over_processes(sums).split([words.shape[1], 1], dim=1)
        moved = self.written.lerp(sums / counts.clamp_min(1), 1 - self.momentum)
        self.written.copy_(moved.where(counts > 0, self.written))


def _over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(tensor)
    return tensor


def look_up(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Apply scaled dot-product attention with a single head and no learned projections.

    Args:
        query: queries (B, L, D).
        key: keys (B, M, D).
        value: values (B, M, D).

    Returns:
        Attended values (B, L, D).
    """
    found, _ = attend(query[:, None], key[:, None], value[:, None])
    return found[:, 0]
