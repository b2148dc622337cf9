"""Supervision by observations: a linear classifier on the decoder's input, trained on the labels of the dataset.

Under the language loss alone, a model first learns the most frequent report and uses the image late; the labels say
what is visible from the start. Every system can be supervised, because the classifier reads the output of `encode`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Guide
from crossray.errors import UserError
from crossray.models.base import Encoded
from crossray.text.observations import CALLED


class Supervision(nn.Module):
    """Predicts each observation from the mean of the memory, or of its image tokens only (`aux["image_mask"]`).

    It is part of the training, not of the model, and is not saved with the model.

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
        """Return the binary cross-entropy, averaged over the observations of the labeled studies; 0 if there are none.

        An observation counts as present if it is positive or uncertain, and as absent if it is not mentioned.
        """
        # other parts of the memory may contain the labels themselves
        weights = encoded.aux.get("image_mask", encoded.memory_mask).to(encoded.memory.dtype).unsqueeze(2)
        logits: Tensor = self.head((encoded.memory * weights).sum(dim=1) / weights.sum(dim=1)).float()
        if guide.labels is None:
            return logits.sum() * 0.0
        known = guide.labels.sum(dim=(1, 2)) > 0
        present = guide.labels[..., CALLED].sum(dim=2)
        losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean(dim=1)
        return torch.sum(losses * known) / known.sum().clamp_min(1)
