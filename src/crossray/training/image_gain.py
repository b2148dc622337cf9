"""What the image is worth to a system: how much less probable a report becomes behind another study's image.

The language loss falls long before a system looks at its image, and its greedy text changes long after. The difference
between the two losses of the same reports, with images shuffled and with true ones, shows when it begins to look.
"""

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crossray.data.batches.batch import Targets
from crossray.models.base import Encoded, ReportModel

#: Place of a study for which there is no other.
NO_PARTNER = -1


def partners(report_keys: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For each study another one whose report differs from its own, at random; every study is taken at most once.

    Args:
        report_keys: (N,) equal for equal reports.
        seed: of the shuffle.

    Returns:
        (N,) places; `NO_PARTNER` for studies that find none, which happens only where one report is that of more than
        half of the studies.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(report_keys))
    # studies with one report stand together, so that a turn by the largest group's size leads out of every group
    groups, group, sizes = np.unique(report_keys[order], return_inverse=True, return_counts=True)
    order = order[np.argsort(generator.permutation(len(groups))[group], kind="stable")]
    turned = np.roll(order, int(sizes.max(initial=0)))
    result = np.full(len(report_keys), NO_PARTNER, np.int64)
    differ = report_keys[order] != report_keys[turned]
    result[order[differ]] = turned[differ]
    return result


def surprise(model: ReportModel, encoded: Encoded, targets: Targets) -> Tensor:
    """(B,) float32: minus the log-probability of each study's whole report, read behind `encoded`."""
    logits = model.step(targets.tokens[:, :-1], encoded).logits
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.tokens[:, 1:].flatten(), reduction="none")
    return (losses.view_as(targets.tokens[:, 1:]) * targets.mask[:, 1:]).sum(dim=1)


def image_gain(model: ReportModel, encoded: Encoded, other: Encoded, targets: Targets) -> Tensor:
    """(B,) nats that each study's own image is worth more than the image of another study, over its whole report.

    Args:
        model: in eval mode.
        encoded: B studies.
        other: for each of them the study whose image is read instead.
        targets: their reports.
    """
    return surprise(model, other, targets) - surprise(model, encoded, targets)
