"""How well the rules read phantom's reports, and a knowledge encoder its images, where the truth is known.

Entities that a phantom finding stands for (`crossray.phantom.entities`), on the test split. The rules: of the
positive mentions, how many are true and how many of the true ones are found; how often a place is among the true ones.
The encoder: AUROC on the first view, doubtful findings left out, and how often its place is among the true ones.

    python benchmarks/knowledge_truth.py --data data/phantom-1 --model runs/knowledge
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from common import parser, report
from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig, build_knowledge_encoder
from crossray.models.pretraining.vision import auroc
from crossray.phantom.entities import FINDINGS, true_triplets
from crossray.text.entities import ENTITIES, PLACES, read_sentences
from crossray.training.recipe import from_dict

BATCH = 50
#: Entities that occur less often count in no mean.
LEAST = 10


def truths(dataset: Dataset) -> dict[int, dict[str, tuple[str, frozenset[str]]]]:
    """True triplets by study row."""
    by_study: dict[int, list[Any]] = defaultdict(list)
    table = dataset.findings()
    assert table is not None, "the dataset has no findings; prepare a phantom set"
    for row in table.select(["study", "finding", "side", "place", "status"]).to_pylist():
        by_study[row["study"]].append(row)
    return {study: true_triplets(rows) for study, rows in by_study.items()}


def ratio(part: float, whole: float) -> float | None:
    """Nothing of nothing is left empty in the table."""
    return part / whole if whole else None


def encoded(dataset: Dataset, rows: NDArray[np.int64], folder: Path) -> tuple[Tensor, Tensor]:
    """Log-odds and places (studies, entities) that the encoder finds in the first views."""
    encoder = build_knowledge_encoder(KnowledgeEncoderConfig(name=str(folder)))
    transform = from_dict(yaml.safe_load((folder / "recipe.yaml").read_text()), "recipe.yaml").data.image
    collator, found = Collator(dataset, None, views=1), []
    for first in range(0, len(rows), BATCH):
        inputs = transform_inputs(collator.inputs(rows[first : first + BATCH]), transform, train=False)
        found.append(encoder(inputs.images[:, 0]))
    return torch.cat([each["entities"] for each in found]), torch.cat([each["places"] for each in found]).long()


def main() -> None:
    """Print the table."""
    options = parser(__doc__ or "")
    options.add_argument("--data", type=Path, required=True, help="prepared phantom set")
    options.add_argument("--model", type=Path, required=True, help="run of `crossray pretrain knowledge`")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    dataset = Dataset.open(given.data)
    rows = dataset.rows("test")
    truth = truths(dataset)
    said = [[t for _, triplets in read_sentences(text) for t in triplets] for text in dataset.reports(rows)]
    scores, places = encoded(dataset, rows, given.model)
    lines: list[dict[str, Any]] = []
    for name in sorted({name for entities, _ in FINDINGS.values() for name in entities}, key=ENTITIES.index):
        index = ENTITIES.index(name)
        true = [truth.get(int(row), {}).get(name, ("negative", frozenset())) for row in rows]
        positive = [status == "positive" for status, _ in true]
        read = [{p for t in ts if (t.entity, t.status) == (name, "positive") for p in t.places} for ts in said]
        right = [place for place, is_true in enumerate(positive) if is_true and read[place]]
        certain = torch.tensor([status != "uncertain" for status, _ in true])
        seen = [PLACES[places[place, index]] in true[place][1] for place, is_true in enumerate(positive) if is_true]
        lines.append({
            "entity": name, "true": sum(positive),
            "precision": ratio(len(right), sum(map(bool, read))), "recall": ratio(len(right), sum(positive)),
            "place read": ratio(sum(bool(read[place] & true[place][1]) for place in right), len(right)),
            "auroc": auroc(scores[certain, index], torch.tensor(positive)[certain]),
            "place seen": ratio(sum(seen), len(seen)),
        })  # fmt: skip
    columns = ("precision", "recall", "place read", "auroc", "place seen")
    frequent = [line for line in lines if line["true"] >= LEAST]
    mean = {key: float(np.mean([line[key] for line in frequent if line[key] is not None])) for key in columns}
    lines.append({"entity": f"mean ({len(frequent)} with {LEAST} or more)", **mean})
    report(f"Entities and places on {len(rows)} test studies", lines, json=given.json)


if __name__ == "__main__":
    main()
