"""REVTAF's diagnosis alone: does it need the reports of the neighbors, and does it read them?

The diagnosis branch is trained without the rest of the model, on the pooled images and the 21 reports that a trained
model gives it, with the optimizer of `revtaf/iu_xray-laptop`. Printed: the mean AUROC of frequent observations on the
training studies and on the validation studies; on the latter also with the reports of other studies, and with the
images of others; and how many of the reports the first attention reads.

    python benchmarks/diagnosis_reports.py --model runs/revtaf --data data/iu [--steps 1040] [--json]
"""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from common import parser, report
from crossray.analysis.inputs import collator_of, transform_of
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.layers.diagnosis import ALA, POSITIVE, DiagnosisBranch, QueryLayer, base_probabilities, status_shares
from crossray.models.base import ReportModel
from crossray.models.pretraining.vision import auroc
from crossray.models.revtaf import REVTAF

#: Fewest positive studies of an observation whose AUROC counts.
FEWEST = 10
#: Studies of a batch.
BATCH = 16
#: Steps between two updates of the class priors: four epochs of IU X-Ray.
UPDATE = 520

Studies = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.inference_mode()
def studies(model: REVTAF, dataset: Dataset, split: str) -> Studies:
    """Pooled images (N, C), reports of the neighbors (N, R, D) with their mask, and status codes (N, K)."""
    collator, transform, parts = collator_of(model, dataset), transform_of(model), []
    rows = dataset.rows(split)
    for first in range(0, len(rows), 32):
        part = rows[first : first + 32]
        inputs = transform_inputs(collator.inputs(part), transform, train=False)
        views = inputs.view_mask.unsqueeze(2)
        pooled = model.backbone.views(inputs)[1].masked_fill(~views, 0).sum(1) / views.sum(1)
        exclude = model.database.groups_of(dataset.ids(part)) if split == "train" else None
        entities = model.entities(inputs)[0]
        near = model._search(entities, model.config.neighbours, metric="cosine", exclude=exclude)[1]
        reports, mask = model.database.reports_of(near)
        parts.append((pooled, model.neighbours(reports), mask))
    labels = torch.from_numpy(np.asarray(dataset.labels)[rows]).long()[:, : model.classes]
    pooled, reports, mask = (torch.cat(column) for column in zip(*parts, strict=True))
    known = (labels >= 0).all(1)
    return pooled[known].clone(), reports[known].clone(), mask[known].clone(), labels[known]


def area(branch: DiagnosisBranch, pooled: Tensor, reports: Tensor, mask: Tensor, labels: Tensor) -> float:
    """Mean AUROC of "positive" over the frequent observations."""
    with torch.no_grad():
        scores = branch.eval()(pooled, reports, mask).softmax(1)[:, POSITIVE]
    positive = labels == POSITIVE
    places = [place for place in range(labels.shape[1]) if int(positive[:, place].sum()) >= FEWEST]
    return float(np.mean([auroc(scores[:, place], positive[:, place]) for place in places]))


def perplexity(branch: DiagnosisBranch, pooled: Tensor, reports: Tensor, mask: Tensor) -> float:
    """How many reports the first attention reads."""
    layer, weights = branch.decoder[0], []
    assert isinstance(layer, QueryLayer)
    plain = layer.cross.forward

    def kept(*given: Any, **options: Any) -> tuple[Tensor, None]:
        found, attention = plain(*given, **{**options, "need_weights": True})
        weights.append(attention)
        return found, None

    with torch.no_grad(), mock.patch.object(layer.cross, "forward", kept):
        branch.eval()(pooled, reports, mask)
    return float(torch.special.entr(weights[0]).sum(-1).exp().mean())


def measure(
    name: str, model: REVTAF, train: Studies, val: Studies, steps: int, *, blind: bool, dropped: float
) -> dict[str, Any]:
    """One line of the table; `blind`: the classification never sees the image, which still chooses the reports."""
    torch.manual_seed(0)
    config, (pooled, reports, mask, labels) = model.config, train
    branch = DiagnosisBranch(
        pooled.shape[1], reports.shape[2], model.classes, config.diagnosis_width, config.diagnosis_layers,
        config.diagnosis_heads, config.dropout, dropped,
    )  # fmt: skip
    priors = base_probabilities(labels)
    loss = ALA(model.classes, priors, auxiliary=model._auxiliary)
    branch.begin_with(status_shares(labels).log() - loss.offset())
    if blind:
        image = branch.classify.weight[:, : pooled.shape[1]]
        image.data.zero_()
        branch.classify.weight.register_hook(lambda gradient: _without(gradient, pooled.shape[1]))
    optimizer = torch.optim.AdamW(branch.parameters(), lr=5e-4, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 1) * (0.51 + 0.49 * math.cos(math.pi * step / steps))
    )
    for step in range(1, steps + 1):
        chosen = torch.randint(0, len(pooled), (BATCH,))
        logits = branch.train()(pooled[chosen], reports[chosen], mask[chosen])
        optimizer.zero_grad()
        loss.train()(logits, labels[chosen], torch.ones(BATCH)).backward()
        torch.nn.utils.clip_grad_norm_(branch.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % UPDATE == 0:
            with torch.no_grad():
                loss.observe(branch.eval()(*val[:3]).softmax(1)[:, POSITIVE], val[3])
            loss.update()
    others = torch.roll(torch.arange(len(val[0])), 7)
    return {
        "diagnosis": name,
        "AUROC, training": area(branch, *train),
        "validation": area(branch, *val),
        "others' reports": area(branch, val[0], val[1][others], val[2][others], val[3]),
        "others' images": area(branch, val[0][others], *val[1:]),
        "reports read": perplexity(branch, *val[:3]),
    }


def _without(gradient: Tensor, columns: int) -> Tensor:
    gradient = gradient.clone()
    gradient[:, :columns] = 0
    return gradient


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "")
    options.add_argument("--model", type=Path, required=True, help="folder of a trained revtaf model")
    options.add_argument("--data", type=Path, required=True, help="prepared dataset with labels")
    options.add_argument("--steps", type=int, default=1040, help="of each training")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    model, dataset = ReportModel.from_pretrained(given.model), Dataset.open(given.data)
    assert isinstance(model, REVTAF)
    train, val = (studies(model.eval(), dataset, split) for split in ("train", "val"))
    rows = [
        measure("as published", model, train, val, given.steps, blind=False, dropped=0.0),
        measure("reports alone", model, train, val, given.steps, blind=True, dropped=0.0),
        measure("image dropped for half", model, train, val, given.steps, blind=False, dropped=0.5),
    ]
    report(f"REVTAF's diagnosis, {given.steps} steps", rows, json=given.json)


if __name__ == "__main__":
    main()
