"""What UAR's image tokens tell about the findings: a linear probe of the embeddings that LSU gives.

Ridge regression from the embeddings of all places of both views to the observations, in its dual form. It learns from
the training studies, its penalty is chosen on the validation studies, and it is scored on the test studies by the mean
AUROC of observations that occur in at least 5% of them. Compared are the variants of each image that it learns from
(crops alone, or the evaluation's transform among them), random and codebook embeddings, and two ways to quiet single
tokens.

    python benchmarks/uar_tokens.py --data data/phantom-1 --tokenizer runs/tokenizer [--variants 3] [--json]
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common import parser, report
from crossray.data.batches.batch import Inputs
from crossray.data.batches.features import FeatureCache, build_features
from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig
from crossray.models.pretraining.vision import auroc
from crossray.models.uar import LSU, UARConfig
from crossray.text.observations import STATUSES

TRANSFORM = ImageTransform(size=112, resize=128, squash_train=True, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
LEAST_PREVALENCE = 0.05
#: Penalties, as multiples of the mean of the kernel's diagonal.
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def unifier(options: Any, **fields: Any) -> LSU:
    """LSU with fresh embeddings."""
    torch.manual_seed(0)
    name = ImageTokenizerConfig(name=options.tokenizer)
    return LSU(UARConfig(image_tokenizer=name, width=256, basis_size=256, image_size=112, **fields)).eval()


def inputs(dataset: Dataset, cache: FeatureCache, split: str, variant: int, limit: int | None = None) -> Inputs:
    """The studies of a split, or the first `limit` of them, in one variant."""
    return Collator(dataset, None, features=cache, variant=variant).inputs(dataset.rows(split)[:limit])


@torch.no_grad()
def vectors(lsu: LSU, given: Inputs, one_hot: bool) -> Tensor:
    """One vector a study (N, ...): all places of its views; a view that is missing is 0."""
    if one_hot:
        tokens = lsu.tokens(given)[0][..., 0]
        found = F.one_hot(tokens, lsu.tokenizer.codes).to(torch.float32)
    else:
        found = lsu(given)
    return (found * given.view_mask[:, :, None, None]).flatten(1)


def truth(dataset: Dataset, split: str) -> Tensor:
    """Which observations are positive, (N, K) bool."""
    assert dataset.labels is not None
    return torch.from_numpy(dataset.labels[dataset.rows(split)] == STATUSES.index("positive"))


def probe(lsu: LSU, dataset: Dataset, cache: FeatureCache, variants: list[int], one_hot: bool, studies: int) -> float:
    """Macro AUROC on the test split, learned from these variants of the first training studies."""
    train = torch.cat([vectors(lsu, inputs(dataset, cache, "train", v, studies), one_hot) for v in variants])
    labels = truth(dataset, "train")[:studies].float().repeat(len(variants), 1)
    mean, center = labels.mean(0), train.mean(0)
    train -= center
    kernel = (train @ train.T).double()
    asked = {split: vectors(lsu, inputs(dataset, cache, split, 0), one_hot) - center for split in ("val", "test")}
    products = {split: (part @ train.T).double() for split, part in asked.items()}
    values, bases = torch.linalg.eigh(kernel)
    projected = bases.T @ (labels - mean).double()
    chosen, best = 0.0, 0.0
    for penalty in PENALTIES:
        weights = bases @ (projected / (values + penalty * values.mean())[:, None])
        areas = {split: macro(part @ weights, truth(dataset, split)) for split, part in products.items()}
        if areas["val"] > best:
            best, chosen = areas["val"], areas["test"]
    return chosen


def macro(scores: Tensor, positive: Tensor) -> float:
    """Mean AUROC of the observations that are frequent enough."""
    areas = [
        auroc(scores[:, place], positive[:, place])
        for place in range(positive.shape[1])
        if LEAST_PREVALENCE <= float(positive[:, place].float().mean()) <= 1 - LEAST_PREVALENCE
    ]
    known = [area for area in areas if area is not None]
    return sum(known) / len(known)


def changed(dataset: Dataset, cache: FeatureCache) -> float:
    """Share of the tokens of test images that differ between the evaluation's transform and a training crop."""
    first, second = (inputs(dataset, cache, "test", variant) for variant in (0, 1))
    return float((first.features["tokens"] != second.features["tokens"])[first.view_mask].float().mean())


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, required=True, help="prepared dataset")
    options.add_argument("--tokenizer", required=True, help="folder of a trained image tokenizer")
    options.add_argument("--variants", type=int, default=3, help="variants of each image that the probe learns from")
    options.add_argument("--studies", type=int, default=1000, help="training studies that it learns from")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dataset = Dataset.open(given.data)
    crops, joined = list(range(1, given.variants + 1)), list(range(given.variants))
    rows: list[dict[str, Any]] = []
    for name, fields, variants, one_hot in (
        ("one-hot tokens, crops alone", {}, crops, True),
        ("one-hot tokens, evaluation's among them", {}, joined, True),
        ("random vectors, evaluation's among them", {"codebook": False}, joined, False),
        ("codebook, crops alone", {}, crops, False),
        ("codebook, evaluation's among them", {}, joined, False),
        ("codebook, four codes a token", {"token_codes": 4}, joined, False),
        ("codebook, averaged 2 x 2", {"token_pool": 2}, joined, False),
        ("codebook, both", {"token_codes": 4, "token_pool": 2}, joined, False),
    ):
        lsu = unifier(given, **fields)
        # what is cached does not depend on the averaging
        kept = unifier(given, **{key: value for key, value in fields.items() if key == "token_codes"})
        cache = build_features(dataset, kept.prepare, TRANSFORM, kept.fingerprint(), variants=given.variants + 1)
        rows.append({"embeddings": name, "AUROC": probe(lsu, dataset, cache, variants, one_hot, given.studies)})
        if len(rows) == 1:
            rows[0]["tokens that differ in a crop"] = changed(dataset, cache)
    report("Linear probe of UAR's image tokens", rows, json=given.json)


if __name__ == "__main__":
    main()
