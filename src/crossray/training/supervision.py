"""Observations as a second teacher: a linear map from what the decoder reads to the dataset's labels.

The language loss reaches the most frequent report first and has little to say about the image for long; the labels say
at once what is to be seen. Every system has it, through what `encode` returns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Guide
from crossray.errors import UserError
from crossray.models.base import Encoded
from crossray.text.observations import STATUSES

_PRESENT = [STATUSES.index("positive"), STATUSES.index("uncertain")]


class Supervision(nn.Module):
    """One logit for each observation, from the mean of the memory.

    It belongs to the training, not to the model: a saved folder does not have it.

    Args:
        width: D of the memory.
        observations: K.
    """

    def __init__(self, width: int, observations: int) -> None:
        super().__init__()
        if not observations:
            raise UserError("recipe field 'stages.loss_weights': 'supervision' needs labels, and the dataset has none; "
                            "remove it or prepare the dataset with a labeler.")  # fmt: skip
        self.head = nn.Linear(width, observations)

    def forward(self, encoded: Encoded, guide: Guide) -> Tensor:
        """Binary cross-entropy, mean over the labelled studies and their observations; 0 without any.

        An observation is there when it is positive or uncertain; what a report does not mention is not.
        """
        weights = encoded.memory_mask.to(encoded.memory.dtype).unsqueeze(2)
        logits: Tensor = self.head((encoded.memory * weights).sum(dim=1) / weights.sum(dim=1)).float()
        if guide.labels is None:
            return logits.sum() * 0.0
        known = guide.labels.sum(dim=(1, 2)) > 0
        present = guide.labels[:, :, _PRESENT].sum(dim=2)
        losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(dim=1)
        return torch.sum(losses * known) / known.sum().clamp_min(1)
