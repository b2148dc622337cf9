"""A training step of REVTAF against the same model without LRE and FVTAF, which is PromptMRG, taken in turns.

Processor seconds of this process are counted and the smallest of all turns is kept. `trained` is a ResNet-50 that
learns, one view of 224 pixels, a decoder of six BERT layers and the paper's widths; `cached` is the model of the recipe
`revtaf/phantom` over cached features: two views of 7 x 7 tokens, 18 studies. Both have a database of 2,000 made-up
reports.

    python benchmarks/revtaf_step.py [--cases trained cached] [--repeats 3] [--threads 1] [--json]
"""

from typing import Any

import torch

from common import parser, report
from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.models.base import ReportModel
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig
from crossray.models.registry import create_model
from crossray.models.revtaf import REVTAF
from crossray.retrieval.database import ReportDatabase
from crossray.text.observations import OBSERVATIONS, STATUSES
from systems import in_turns

VOCABULARY, REPORTS, SENTENCES, ENTITIES = 1000, 2000, 8, 75

#: Model, studies, views, words and tokens of a view.
CASES: dict[str, dict[str, Any]] = {
    "trained": {
        "model": {"backbone": BackboneConfig(name="random:resnet50"), "layers": 6, "views": 1},
        "studies": 4, "words": 60, "tokens": None,
    },
    "cached": {
        "model": {
            "backbone": BackboneConfig(name="random:resnet18_narrow", trainable=False), "views": 2,
            "retrieval_width": 128, "fusion_width": 128, "diagnosis_width": 128,
            "layers": 3, "width": 256, "heads": 4, "feedforward": 512, "positions": 128,
        },
        "studies": 18, "words": 60, "tokens": 49,
    },
}  # fmt: skip


def database(model: REVTAF) -> ReportDatabase:
    """Made-up reports of other studies."""
    entities, places, _, width = model.database.phrases.shape
    return ReportDatabase(
        entities=torch.randn(REPORTS, entities),
        labels=torch.randint(0, len(STATUSES), (REPORTS, len(OBSERVATIONS))).to(torch.int8),
        groups=torch.arange(REPORTS),
        reports=torch.randn(REPORTS, width).half(),
        sentences=torch.randn(REPORTS, width).half(),
        sentence_rows=torch.randint(0, REPORTS, (REPORTS, SENTENCES), dtype=torch.int32),
        phrases=torch.randn(entities, places, 2, width).half(),
        studies=[f"other{row}" for row in range(REPORTS)],
        encoder=model.knowledge.fingerprint(),
    )


def make_batch(
    model: ReportModel, studies: int, words: int, tokens: int | None, channels: int = 0, size: int = 224
) -> Batch:
    """Random studies; with `tokens` their features, of so many `channels` or the backbone's, are cached."""
    views = model.config.views
    channels = channels or model.backbone.width  # type: ignore[union-attr, assignment]
    mask = torch.ones(studies, views, dtype=torch.bool)
    features = {}
    if tokens is not None:
        features = {
            "visual": torch.randn(studies, views, tokens, channels),
            "pooled": torch.randn(studies, views, channels),
        }
    if tokens is not None and isinstance(model, REVTAF):
        features |= {
            "entities": torch.randn(studies, views, ENTITIES),
            "places": torch.randint(0, len(model.knowledge.places), (studies, views, ENTITIES)),
        }
    images = torch.randn(studies, views, 3, size, size)
    sizes, positions = torch.full((studies, views, 2), size), torch.zeros(studies, views, dtype=torch.long)
    statuses = torch.randint(0, len(STATUSES), (studies, len(OBSERVATIONS)))
    names = tuple(f"study{number}" for number in range(studies))
    return Batch(
        Inputs(images, sizes, mask, positions, features),
        Guide(torch.nn.functional.one_hot(statuses, len(STATUSES)).float(), names, names),
        Targets(
            torch.randint(4, VOCABULARY - 4, (studies, words)), torch.ones(studies, words, dtype=torch.bool),
            torch.arange(studies),
        ),
    )  # fmt: skip


def measure(case: str, repeats: int) -> dict[str, Any]:
    """One line of the table."""
    chosen = CASES[case]
    runs = {}
    batch: Batch | None = None
    for name, overrides in {"without": {"lre": False, "attention": "none"}, "revtaf": {}}.items():
        torch.manual_seed(0)
        model = create_model(
            "revtaf", vocabulary_size=VOCABULARY, observations=OBSERVATIONS,
            knowledge=KnowledgeEncoderConfig(name="random:tiny"), **chosen["model"], **overrides,
        ).train()  # fmt: skip
        assert isinstance(model, REVTAF)
        model.database = database(model)
        batch = batch or make_batch(model, chosen["studies"], chosen["words"], chosen["tokens"])
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

        def step(model: REVTAF = model, optimizer: torch.optim.Optimizer = optimizer, batch: Batch = batch) -> None:
            sum(model.losses(batch).values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()

        runs[name] = step
    seconds = in_turns(runs, repeats)
    return {
        "case": case, "studies": chosen["studies"], "without s": seconds["without"], "revtaf s": seconds["revtaf"],
        "ratio": seconds["revtaf"] / seconds["without"],
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "")
    options.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="models and batches")
    options.add_argument("--repeats", type=int, default=3, help="measured turns after the first")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measure(case, given.repeats) for case in given.cases]
    report("a training step of REVTAF, processor seconds", rows, json=given.json)


if __name__ == "__main__":
    main()
