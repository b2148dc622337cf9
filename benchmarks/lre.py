"""REVTAF's LRE alone: does training make the nearest reports of a model's index nearer by their labels?

The ranking loss (eq. 7) sees nothing but entities and labels, so LRE is trained here without the rest of the model: on
the log-odds that an index holds, in batches of its training, and asked with the studies of a split. Printed for each
way to train: how many observations differ between a study and the nearest training report, and the 21 nearest ones,
mean and deviation over seeds; and its share of the radius that points of the training studies keep from the origin.
Rows without training say what the entities themselves are worth, as log-odds and standardized, which is what LRE reads.

    python benchmarks/lre.py --model runs/revtaf --data data/phantom-1 [--split test] [--seeds 5] [--epochs 6] [--json]
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common import parser, report
from crossray.analysis.inputs import collator_of, transform_of
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.generation.generator import Generator
from crossray.generation.index import retrieving
from crossray.layers.hyperbolic import poincare_distance
from crossray.layers.ranking import hamming
from crossray.models.retrieval.retrieving import LRE, RetrievingModel
from crossray.models.revtaf import REVTAFConfig

#: A curvature at which float32 cannot tell the ball from flat space.
FLAT = 1e-8
#: How many of the nearest reports are looked at.
DEPTHS = (1, 21)
#: Studies of a batch.
BATCH = 18


def way(entity_values: str, ties: str, *, curvature: float = 0.01, last_relu: bool = False) -> dict[str, Any]:
    """Fields of the configuration that make up one way to train LRE."""
    return {"entity_values": entity_values, "ties": ties, "curvature": curvature, "last_relu": last_relu}


WAYS = (
    way("log_odds", "uniform", last_relu=True), way("log_odds", "first", last_relu=True),
    way("standardized", "uniform", last_relu=True), way("standardized", "soft", last_relu=True),
    way("probability", "uniform", last_relu=True), way("log_odds", "uniform"), way("standardized", "uniform"),
    way("standardized", "soft"), way("standardized", "soft", curvature=FLAT),
)  # fmt: skip


@torch.inference_mode()
def asked(model: RetrievingModel, dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
    """Log-odds (Q, E) and labels (Q, K) of the studies of a split that have labels."""
    rows = dataset.rows(split)
    rows = rows[(np.asarray(dataset.labels)[rows] >= 0).all(1)]
    collator, transform, found = collator_of(model, dataset), transform_of(model), []
    for first in range(0, len(rows), 16):
        inputs = collator.inputs(rows[first : first + 16])
        found.append(model.entities(transform_inputs(inputs, transform, train=False))[0])
    return torch.cat(found), torch.from_numpy(np.asarray(dataset.labels)[rows]).long()


def differing(distances: Tensor, apart: Tensor) -> list[float]:
    """Mean number of observations that differ from the nearest reports, for each of `DEPTHS`."""
    order = distances.topk(max(DEPTHS), largest=False).indices
    return [float(apart.gather(1, order[:, :depth]).mean()) for depth in DEPTHS]


def train(config: REVTAFConfig, known: Tensor, labels: Tensor, epochs: int, seed: int) -> LRE:
    """LRE after some epochs; batches, optimizer and schedule of the recipe `revtaf/phantom`."""
    torch.manual_seed(seed)
    lre = LRE(config, known.shape[1])
    lre.standardize(known)
    # the weight that the recipe gives to the loss does not matter to Adam
    optimizer = torch.optim.AdamW(lre.network.parameters(), lr=5e-4, weight_decay=0.05)
    steps = epochs * (len(known) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-5)
    everyone = torch.ones(BATCH, dtype=torch.bool)
    for _ in range(epochs):
        for part in torch.split(torch.randperm(len(known))[: len(known) // BATCH * BATCH], BATCH):
            loss = lre.loss(known[part], labels[part], everyone)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return lre.eval()


def measure(
    config: REVTAFConfig, known: Tensor, labels: Tensor, queries: Tensor, apart: Tensor, epochs: int, seeds: int
) -> dict[str, Any]:
    """One line of the table."""
    scores, radii = [], []
    for seed in range(seeds):
        lre = train(config, known, labels, epochs, seed)
        with torch.no_grad():
            points = lre(known)
            scores.append(differing(poincare_distance(lre(queries), points, config.curvature), apart))
            radii.append(float(config.curvature**0.5 * points.norm(dim=1).mean()))
    space = f"{'flat' if config.curvature == FLAT else 'hyperbolic'}, {config.ties}{', last ReLU' * config.last_relu}"
    return {
        "values": config.entity_values,
        "retrieved by": space,
        **columns(np.array(scores)),
        "radius": np.mean(radii),
    }


def columns(scores: np.ndarray) -> dict[str, Any]:
    """Mean and deviation over the rows of (S, depths)."""
    found: dict[str, Any] = {}
    for column, depth in enumerate(DEPTHS):
        found[f"nearest {depth}"] = scores[:, column].mean()
        found[f"deviation {depth}"] = scores[:, column].std(ddof=1) if len(scores) > 1 else None
    return found


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "")
    options.add_argument("--model", type=Path, required=True, help="folder of a trained revtaf model")
    options.add_argument("--data", type=Path, required=True, help="prepared dataset with labels")
    options.add_argument("--split", default="test", help="which studies ask")
    options.add_argument("--seeds", type=int, default=5, help="trainings of each way")
    options.add_argument("--epochs", type=int, default=6, help="of each training")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    model = retrieving(Generator.from_pretrained(given.model), given.model)
    queries, truth = asked(model, Dataset.open(given.data), given.split)
    kept = (model.database.labels >= 0).all(1)
    log_odds, labels = model.database.entities[kept].float(), model.database.labels[kept].long()
    apart = hamming(truth, labels).float()
    mean, deviation = log_odds.mean(0), log_odds.std(0).clamp_min(1e-4)
    chance = columns(np.full((1, len(DEPTHS)), float(apart.mean())))
    rows: list[dict[str, Any]] = [{"values": "", "retrieved by": "chance", **chance, "radius": None}]
    for values, (asking, stored) in {
        "log_odds": (queries, log_odds),
        "standardized": ((queries - mean) / deviation, (log_odds - mean) / deviation),
    }.items():
        cosine = 1 - F.normalize(asking, dim=1) @ F.normalize(stored, dim=1).T
        for metric, distances in (("Euclidean", torch.cdist(asking, stored)), ("cosine", cosine)):
            found = columns(np.array([differing(distances, apart)]))
            rows.append({"values": values, "retrieved by": metric, **found, "radius": None})
    for fields in WAYS:
        config = replace(model.config, **fields)
        rows.append(measure(config, log_odds, labels, queries, apart, given.epochs, given.seeds))
    report(f"LRE alone, {len(queries)} studies ask {len(labels)}", rows, json=given.json)


if __name__ == "__main__":
    main()
