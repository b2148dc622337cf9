"""How much of a phantom set's labels can be read off coarse brightness, and how much only off structure.

A linear probe sees 16 x 16 thumbnails of both views, a small convolutional network the views at `--size` pixels. Both
predict the observations of the scene that occur in at least 5% of the studies. Prints one table; `--json` one line.

    python benchmarks/phantom_probe.py --train 6000 --test 1500 --size 128 --epochs 20
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from crossray.data.phantom.draw import draw
from crossray.data.phantom.labels import labels_of
from crossray.data.phantom.sample import sample_scene
from crossray.text.observations import OBSERVATIONS

Pictures = NDArray[np.uint8]
Labels = NDArray[np.bool_]


def _study(index: int, seed: int, severity: str, size: int) -> tuple[Pictures, Labels]:
    scene = sample_scene(seed, index, severity)
    views = [Image.fromarray(draw(scene, view, size).pixels).resize((size, size)) for view in ("frontal", "lateral")]
    statuses = labels_of(scene)
    return np.stack([np.asarray(view) for view in views]), np.asarray(
        [statuses.get(name) == "positive" for name in OBSERVATIONS]
    )


def draw_studies(first: int, count: int, seed: int, severity: str, size: int, workers: int) -> tuple[Pictures, Labels]:
    """Both views (count, 2, size, size) and labels (count, 18) of the studies `first` and on."""
    one = partial(_study, seed=seed, severity=severity, size=size)
    indices = range(first, first + count)
    if workers < 2:
        drawn = [one(index) for index in indices]
    else:
        with ProcessPoolExecutor(workers) as pool:
            drawn = list(pool.map(one, indices, chunksize=16))
    return np.stack([views for views, _ in drawn]), np.stack([labels for _, labels in drawn])


def thumbnails(pictures: Pictures) -> NDArray[np.float32]:
    """16 x 16 means of both views, (count, 512)."""
    count, views, size, _ = pictures.shape
    cells = pictures.reshape(count, views, 16, size // 16, 16, size // 16).mean((3, 5), dtype=np.float32)
    return cells.reshape(count, -1)


def linear_probe(train: Pictures, train_labels: Labels, test: Pictures) -> NDArray[np.float64]:
    """Scores (tests, labels) of a logistic regression on thumbnails."""
    scaler = StandardScaler().fit(thumbnails(train))
    features, queries = scaler.transform(thumbnails(train)), scaler.transform(thumbnails(test))
    columns = []
    for column in train_labels.T:
        probe = LogisticRegression(C=0.003, max_iter=300).fit(features, column)
        columns.append(probe.decision_function(queries))
    return np.stack(columns, 1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


class _Network(nn.Module):
    """One trunk a view; maxima over places, because most findings are small."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 24, 5, stride=2, padding=2, bias=False),
                nn.BatchNorm2d(24),
                nn.ReLU(),
                nn.MaxPool2d(2),
                _block(24, 48),
                _block(48, 96),
            )
            for _ in range(2)
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(4 * 96, labels))

    def forward(self, pictures: Tensor) -> Tensor:
        maps = [trunk(pictures[:, view : view + 1]) for view, trunk in enumerate(self.trunks)]
        pooled = [part for x in maps for part in (x.amax((2, 3)), x.mean((2, 3)))]
        return self.head(torch.cat(pooled, 1))


def _prepared(pictures: Pictures) -> Tensor:
    x = torch.from_numpy(pictures).float() / 255
    return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-3)


def network_probe(
    train: Pictures, train_labels: Labels, test: Pictures, *, epochs: int, seed: int
) -> NDArray[np.float64]:
    """Scores (tests, labels) of a small convolutional network trained from nothing."""
    torch.manual_seed(seed)
    network = _Network(train_labels.shape[1])
    x, y = _prepared(train), torch.from_numpy(train_labels).float()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    batches = len(x) // 32
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(x))[: batches * 32].view(batches, 32)
        for rows in order:
            shift = torch.randint(-4, 5, (2,)).tolist()
            batch = torch.roll(x[rows], shift, (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(network(batch), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part) for part in _prepared(test).split(64)]).double().numpy()


def measure(
    *, train: int, test: int, size: int, epochs: int, seed: int, severity: str, workers: int
) -> dict[str, object]:
    """AUROC by observation of both probes; `epochs` = 0 leaves the network out."""
    pictures, labels = draw_studies(0, train + test, seed, severity, size, workers)
    common = labels.mean(0) >= 0.05
    names = [name for name, chosen in zip(OBSERVATIONS, common, strict=True) if chosen]
    labels = labels[:, common]
    truth = labels[train:]
    result: dict[str, object] = {"train": train, "test": test, "size": size, "seed": seed, "severity": severity}
    scores = {"linear": linear_probe(pictures[:train], labels[:train], pictures[train:])}
    if epochs:
        scores["network"] = network_probe(pictures[:train], labels[:train], pictures[train:], epochs=epochs, seed=seed)
    for probe, score in scores.items():
        areas = [float(roc_auc_score(truth[:, k], score[:, k])) for k in range(len(names))]
        result[probe] = dict(zip(names, areas, strict=True))
        result[f"{probe}_macro"] = float(np.mean(areas))
    result["prevalence"] = dict(zip(names, labels.mean(0).tolist(), strict=True))
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=1500)
    parser.add_argument("--size", type=int, default=128, help="a multiple of 16")
    parser.add_argument("--epochs", type=int, default=20, help="of the network; 0: the linear probe alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--severity", choices=("easy", "realistic"), default="realistic")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one line")
    options = vars(parser.parse_args(arguments))
    as_json = options.pop("json")
    start = time.perf_counter()
    result = measure(**options)
    result["seconds"] = round(time.perf_counter() - start)
    if as_json:
        print(json.dumps(result))
        return
    probes = [probe for probe in ("linear", "network") if probe in result]
    print(f"{'observation':28}{'prevalence':>12}" + "".join(f"{probe:>10}" for probe in probes))
    for name, share in result["prevalence"].items():
        print(f"{name:28}{share:12.3f}" + "".join(f"{result[probe][name]:10.3f}" for probe in probes))
    print(f"{'macro AUROC':40}" + "".join(f"{result[f'{probe}_macro']:10.3f}" for probe in probes))
    print(", ".join(f"{key} {result[key]}" for key in ("severity", "train", "test", "size", "seed", "seconds")))


if __name__ == "__main__":
    main()
