"""What a module makes of a whole codebook, computed once for a model that is only read."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenFeatures:
    """What a module makes of tokens, where it treats every one alone: of a model that is only read, a look-up.

    The table of all tokens holds as long as no weight changes. A change in place, such as loading a file, counts up the
    version of a tensor; a fused optimiser does not, so every use in training drops the table.

    Args:
        embedding: the tokens' embeddings.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        self._embedding = embedding
        self._weights: tuple[Any, ...] = ()
        self._table = torch.empty(0)

    def __call__(self, tokens: Tensor, module: nn.Module) -> Tensor:
        """Tokens (B, ...) through embedding and module, (B, ..., D).

        Args:
            tokens: int64.
            module: (B, T, D) -> (B, T, D).
        """
        embedding = self._embedding.weight
        # tensors born in inference mode have no version
        if module.training or torch.is_grad_enabled() or embedding.is_inference():
            self._weights = ()
            embedded = self._embedding(tokens)
            features: Tensor = module(embedded.flatten(1, -2))
            return features.view_as(embedded)
        read = (embedding, *module.parameters(), *module.buffers())
        weights = tuple((weight.data_ptr(), weight._version, weight.device, weight.dtype) for weight in read)
        if weights != self._weights:
            # in the precision of the weights and outside inference mode, whatever is around the first call
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
                self._table = module(embedding[None])[0]
            self._weights = weights
        return F.embedding(tokens, self._table)
