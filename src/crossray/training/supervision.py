"""Supervision by observations: a linear map from the decoder's input to the labels of the dataset.

The language loss first learns the most frequent report and has little to say about the image for long; the labels say
from the start what is visible. It applies to every system, because it uses the result of `encode`.
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
    """One logit for each observation, from the mean of the memory, or of its image tokens (`aux["image_mask"]`).

    It is part of the training, not of the model, and is not saved in the model folder.

    Args:
        width: width D of the memory.
        observations: number K of observations.
    """

    def __init__(self, width: int, observations: int) -> None:
        super().__init__()
        if not observations:
            raise UserError("recipe field 'stages.loss_weights': 'supervision' needs labels, and the dataset has none; "
                            "remove it or prepare the dataset with a labeler.")  # fmt: skip
        self.head = nn.Linear(width, observations)

    def forward(self, encoded: Encoded, guide: Guide) -> Tensor:
        """Binary cross-entropy, averaged over the labeled studies and their observations; 0 if there are none.

        An observation counts as present if it is positive or uncertain; if a report does not mention it, it is absent.
        """
        # what a memory holds beside the image may have been told the labels
        weights = encoded.aux.get("image_mask", encoded.memory_mask).to(encoded.memory.dtype).unsqueeze(2)
        logits: Tensor = self.head((encoded.memory * weights).sum(dim=1) / weights.sum(dim=1)).float()
        if guide.labels is None:
            return logits.sum() * 0.0
        known = guide.labels.sum(dim=(1, 2)) > 0
        present = guide.labels[:, :, _PRESENT].sum(dim=2)
        losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(dim=1)
        return torch.sum(losses * known) / known.sum().clamp_min(1)
