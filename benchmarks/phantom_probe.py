"""How much of a phantom set's labels can be read off coarse brightness, and how much only off structure.

A linear probe sees 16 x 16 thumbnails of both views, a trained image encoder (`crossray pretrain vision`) the views.
Both learn from the training split and are scored on the test split, on observations that occur in at least 5% of it.

    crossray prepare phantom --out data/phantom-1 --studies 3000 --seed 1
    crossray pretrain vision --data data/phantom-1 --out runs/encoder
    python benchmarks/phantom_probe.py --data data/phantom-1 --encoder runs/encoder
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from common import parser, report
from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.models.pretraining.vision import Vision, auroc
from crossray.text.observations import STATUSES
from crossray.training.recipe import from_dict

LEAST_PREVALENCE = 0.05
#: Inverse strengths of the linear probe's penalty; the one that is best on the validation split is used.
PENALTIES = (0.0003, 0.001, 0.003, 0.01, 0.03)


def thumbnails(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """16 x 16 means of two views (studies, 512); a missing view is black."""
    result = np.zeros((len(rows), 2, 256), dtype=np.float32)
    for place, row in enumerate(rows):
        for view, image in enumerate(dataset.views(int(row))[:2]):
            small = Image.fromarray(np.asarray(dataset.image(image))).resize((16, 16), Image.Resampling.BOX)
            result[place, view] = np.asarray(small, dtype=np.float32).ravel()
    return result.reshape(len(rows), -1)


def linear_scores(pictures: dict[str, NDArray[np.float32]], truth: dict[str, NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Scores of the test studies for one observation, by the probe that validates best."""
    best, scores = -1.0, np.zeros(len(truth["test"]))
    for penalty in PENALTIES:
        probe = LogisticRegression(C=penalty, max_iter=300).fit(pictures["train"], truth["train"])
        area = auroc(torch.from_numpy(probe.decision_function(pictures["val"])), torch.from_numpy(truth["val"]))
        if area is not None and area > best:
            best, scores = area, probe.decision_function(pictures["test"])
    return scores


def encoder_scores(dataset: Dataset, folder: Path) -> NDArray[np.float64]:
    """Logits (studies, K) of the test studies."""
    model = Vision.from_pretrained(folder / "best")
    transform = from_dict(yaml.safe_load((folder / "recipe.yaml").read_text()), "recipe.yaml").data.image
    collator = Collator(dataset, None, views=model.config.views)
    parts = np.array_split(dataset.rows("test"), max(1, len(dataset.rows("test")) // 32))
    with torch.inference_mode():
        scores = [model(transform_inputs(collator.inputs(rows), transform, train=False)).numpy() for rows in parts]
    return np.concatenate(scores).astype(np.float64)


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True, help="prepared phantom set")
    options.add_argument("--encoder", type=Path, required=True, help="run folder of `crossray pretrain vision`")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dataset = Dataset.open(given.data)
    positive = STATUSES.index("positive")
    labels = np.asarray(dataset.labels)
    truth = {split: labels[dataset.rows(split)] == positive for split in ("train", "val", "test")}
    pictures = {split: thumbnails(dataset, dataset.rows(split)) for split in truth}
    scaler = StandardScaler().fit(pictures["train"])
    pictures = {split: scaler.transform(values) for split, values in pictures.items()}
    encoder = encoder_scores(dataset, given.encoder)
    rows: list[dict[str, Any]] = []
    for index, name in enumerate(dataset.info.observations):
        share = float(truth["test"][:, index].mean())
        if not LEAST_PREVALENCE <= share <= 1 - LEAST_PREVALENCE:
            continue
        answer = torch.from_numpy(truth["test"][:, index])
        linear = linear_scores(pictures, {split: values[:, index] for split, values in truth.items()})
        areas = [auroc(torch.from_numpy(scores), answer) for scores in (linear, encoder[:, index])]
        rows.append({"observation": name, "prevalence": share, "linear": areas[0], "encoder": areas[1]})
    macro = {key: float(np.mean([row[key] for row in rows])) for key in ("prevalence", "linear", "encoder")}
    rows.append({"observation": "macro", **macro})
    source = dataset.info.source
    report(f"AUROC on {len(truth['test'])} test studies, {source.get('severity')}", rows, json=given.json)


if __name__ == "__main__":
    main()
