"""The image gain: how much less probable a report is given the image of another study.

The language loss decreases long before a model uses the image, and the greedy reports change long after. The difference
between the losses of the same reports with shuffled and with true images shows when a model starts to use the image.
"""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crossray.data.batches.batch import Targets
from crossray.models.base import Encoded, ReportModel

#: Index that marks a study without a partner.
NO_PARTNER = -1


def partners(report_keys: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Draw for each study another study with a different report; each study is drawn at most once.

    Args:
        report_keys: (N,) keys that are equal for equal reports.
        seed: random seed.

    Returns:
        (N,) indices; `NO_PARTNER` for studies without a partner, which occur only if more than half of the studies have
        the same report.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(report_keys))
    # studies with equal reports are adjacent, so a rotation by the size of the largest group moves each out of its own
    groups, group, sizes = np.unique(report_keys[order], return_inverse=True, return_counts=True)
    order = order[np.argsort(generator.permutation(len(groups))[group], kind="stable")]
    turned = np.roll(order, int(sizes.max(initial=0)))
    result = np.full(len(report_keys), NO_PARTNER, np.int64)
    differ = report_keys[order] != report_keys[turned]
    result[order[differ]] = turned[differ]
    return result


def surprise(model: ReportModel, encoded: Encoded, targets: Targets) -> Tensor:
    """Negative log-probability of each whole report, (B,) float32 in nats, given the encoded studies."""
    logits = model.step(targets.tokens[:, :-1], encoded).logits
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.tokens[:, 1:].flatten(), reduction="none")
    return (losses.view_as(targets.tokens[:, 1:]) * targets.mask[:, 1:]).sum(dim=1)


def image_gain(model: ReportModel, encoded: Encoded, other: Encoded, targets: Targets) -> Tensor:
    """Gain in log-probability of each whole report from its own image over another study's, (B,) float32 in nats.

    Args:
        model: the system in eval mode.
        encoded: B encoded studies.
        other: B encoded studies whose images are used instead.
        targets: reports of the studies.
    """
    return surprise(model, other, targets) - surprise(model, encoded, targets)
