"""REVTAF's LRE alone: does training make the nearest reports of a model's index nearer by their labels?

The ranking loss (eq. 7) sees nothing but entities and labels, so LRE is trained here without the rest of the model: on
the log-odds that an index holds, in batches of its training, and asked with the studies of a split. Printed for each
way to train: how many observations differ between a study and the nearest training report, and the 21 nearest ones,
mean and deviation over seeds; and its share of the radius that points of the training studies keep from the origin.
Rows without training say what the entities themselves are worth.

    python benchmarks/lre.py --model runs/revtaf --data data/phantom-1 [--split test] [--seeds 5] [--epochs 6] [--json]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common import parser, report
from crossray.analysis.inputs import collator_of, transform_of
from crossray.data.dataset import Dataset
from crossray.data.transform import transform_inputs
from crossray.layers.hyperbolic import HyperbolicNetwork, poincare_distance
from crossray.layers.ranking import hamming, ranking_loss
from crossray.models.revtaf import REVTAF
from crossray.serving.generator import Generator
from crossray.serving.index import retrieving

#: A curvature at which float32 cannot tell the ball from flat space.
FLAT = 1e-8
DEPTHS = (1, 21)


@dataclass(frozen=True)
class Way:
    """How LRE is trained."""

    values: Literal["log_odds", "standardized", "probability"]
    ties: Literal["uniform", "first", "soft"]
    curvature: float = 0.01
    batch: int = 18
    last_relu: bool = False

    def __str__(self) -> str:
        space = "flat" if self.curvature == FLAT else "hyperbolic"
        return f"{space}, {self.ties}, batches of {self.batch}{', last ReLU' * self.last_relu}"


WAYS = (
    Way("log_odds", "uniform", last_relu=True), Way("log_odds", "first", last_relu=True),
    Way("standardized", "uniform", last_relu=True), Way("standardized", "soft", last_relu=True),
    Way("standardized", "soft", FLAT, last_relu=True), Way("probability", "uniform", last_relu=True),
    Way("log_odds", "uniform"), Way("standardized", "uniform"), Way("standardized", "soft"),
    Way("standardized", "soft", FLAT),
)  # fmt: skip


@torch.inference_mode()
def asked(model: REVTAF, dataset: Dataset, split: str) -> tuple[Tensor, Tensor]:
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


def train(way: Way, known: Tensor, labels: Tensor, width: int, epochs: int, seed: int) -> HyperbolicNetwork:
    """The network after some epochs; optimizer and schedule of the recipe `revtaf/phantom`."""
    torch.manual_seed(seed)
    network = HyperbolicNetwork((known.shape[1], width, width), way.curvature, last_relu=way.last_relu)
    # the weight that the recipe gives to the loss does not matter to Adam
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4, weight_decay=0.05)
    steps = epochs * (len(known) // way.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-5)
    for _ in range(epochs):
        for part in torch.randperm(len(known))[: len(known) // way.batch * way.batch].split(way.batch):
            points = network(known[part])
            distances = poincare_distance(points, points, way.curvature)
            loss = ranking_loss(distances, hamming(labels[part], labels[part]), way.ties)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


def measure(
    way: Way, known: Tensor, labels: Tensor, queries: Tensor, apart: Tensor, *, width: int, epochs: int, seeds: int
) -> dict[str, Any]:
    """One line of the table."""
    scores, radii = [], []
    for seed in range(seeds):
        network = train(way, known, labels, width, epochs, seed)
        with torch.no_grad():
            points = network(known)
            scores.append(differing(poincare_distance(network(queries), points, way.curvature), apart))
            radii.append(float(way.curvature**0.5 * points.norm(dim=1).mean()))
    return {"values": way.values, "retrieved by": str(way), **columns(np.array(scores)), "radius": np.mean(radii)}


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
    values = {
        "log_odds": lambda x: x,
        "standardized": lambda x: (x - mean) / deviation,
        "probability": torch.sigmoid,
    }
    rows = []
    for name, value in values.items():
        ours, theirs = value(queries), value(log_odds)
        cosine = 1 - F.normalize(ours, dim=1) @ F.normalize(theirs, dim=1).T
        for metric, distances in (("Euclidean", torch.cdist(ours, theirs)), ("cosine", cosine)):
            scores = np.array([differing(distances, apart)])
            rows.append({"values": name, "retrieved by": metric, **columns(scores), "radius": None})
    for way in WAYS:
        value = values[way.values]
        rows.append(
            measure(
                way, value(log_odds), labels, value(queries), apart,
                width=model.config.retrieval_width, epochs=given.epochs, seeds=given.seeds,
            )
        )  # fmt: skip
    report(f"LRE alone, {len(queries)} studies ask {len(labels)}", rows, json=given.json)


if __name__ == "__main__":
    main()
