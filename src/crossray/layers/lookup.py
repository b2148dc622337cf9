"""What a module makes of a whole codebook, computed once for a model that is only read."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ComputedTable:
    """A module over a look-up table, where it treats every entry alone: a token then costs a look-up.

    It holds as long as no weight changes; every change in place, be it an optimiser's or a loaded file's, counts up
    the version of a tensor.
    """

    def __init__(self) -> None:
        self._of: tuple[Any, ...] = ()
        self._rows = torch.empty(0)

    def rows(self, tokens: Tensor, table: nn.Embedding, module: nn.Module) -> Tensor:
        """The module's output (..., D) for the entries `tokens` (...), in the precision of the table."""
        weights = (table.weight, *module.parameters(), *module.buffers())
        of = tuple((w.data_ptr(), w._version, w.device, w.dtype) for w in weights)
        if of != self._of:
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
                self._rows = module(table.weight[None])[0]
            self._of = of
        return F.embedding(tokens, self._rows)
