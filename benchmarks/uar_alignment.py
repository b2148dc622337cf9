"""UAR's triplet loss alone, with the hardest and with semi-hard negatives: does it bring images and reports together?

The image tokens, word embeddings and CRA of UAR are trained with nothing but L_global (eq. 10) on the training studies
of a dataset. Printed: the loss of the last batches beside twice the margin, where it stays when all vectors are equal;
how far the cosines of one validation image with all reports are apart, and those of one report with all images; how
often the own report is among the ten most similar of them, beside chance.

    python benchmarks/uar_alignment.py --data data/phantom-1 --tokenizer runs/tokenizer [--steps 200] [--json]
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from common import parser, report
from crossray.data.batches.batch import Batch
from crossray.data.batches.features import build_features
from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig
from crossray.models.uar import LSU, UAR, UARConfig
from crossray.text.tokenizer import Tokenizer

TRANSFORM = ImageTransform(size=112, resize=128, squash_train=True, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
RANK = 10


def batches(dataset: Dataset, collator: Collator, split: str, size: int, studies: int | None = None) -> Iterator[Batch]:
    """Shuffled studies of a split, or the first `studies` of them."""
    rows = np.random.default_rng(0).permutation(dataset.rows(split))[:studies]
    for first in range(0, len(rows), size):
        yield collator(rows[first : first + size])


@torch.no_grad()
def similarities(model: UAR, studies: Sequence[Batch]) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines between all images and all reports, and the reports' keys."""
    pairs = [model.embeddings(batch) for batch in studies]
    images, reports = (F.normalize(torch.cat(part), dim=1) for part in zip(*pairs, strict=True))
    return images @ reports.T, torch.cat([batch.targets.report_key for batch in studies])


def measure(negatives: str, dataset: Dataset, options: Any) -> dict[str, Any]:
    """One line of the table."""
    tokenizer = Tokenizer.train(dataset.reports(dataset.rows("train"), "findings"), kind="word", cleaner="legacy")
    torch.manual_seed(0)
    model = UAR(
        UARConfig(
            vocabulary_size=tokenizer.vocabulary_size, width=256, feedforward=512, basis_size=512, dropout=0.0,
            negatives=negatives, image_tokenizer=ImageTokenizerConfig(name=options.tokenizer), mask="none",  # type: ignore[arg-type]
        )
    )  # fmt: skip
    assert isinstance(model.visual, LSU)
    # the image tokens, computed once for all lines
    cache = build_features(dataset, model.visual.prepare, TRANSFORM, model.visual.fingerprint())
    collator = Collator(dataset, tokenizer, section="findings", views=2, max_length=60, features=cache, variant=0)
    train = itertools.cycle(list(batches(dataset, collator, "train", 16)))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    losses = []
    model.train()
    for batch in itertools.islice(train, options.steps):
        loss = model.alignment_loss(model.encode(batch.inputs), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    found, keys = similarities(model.eval(), list(batches(dataset, collator, "val", 50, 300)))
    equal = keys[:, None] == keys[None, :]
    top = found.topk(RANK, dim=1).indices
    return {
        "negatives": negatives,
        "loss": float(np.mean(losses[-50:])),
        "2 x margin": 2 * model.config.margin,
        "spread over reports": float((found.amax(1) - found.amin(1)).mean()),
        "spread over images": float((found.amax(0) - found.amin(0)).mean()),
        f"recall@{RANK}": float(equal.gather(1, top).any(1).float().mean()),
        "chance": float((1 - torch.pow(1 - equal.float().mean(1), RANK)).mean()),
    }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, required=True, help="prepared dataset")
    options.add_argument("--tokenizer", required=True, help="folder of a trained image tokenizer")
    options.add_argument("--steps", type=int, default=200, help="batches of 16 studies")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measure(negatives, Dataset.open(given.data), given) for negatives in ("hard", "semi_hard", "all")]
    report("UAR's triplet loss alone", rows, json=given.json)


if __name__ == "__main__":
    main()
