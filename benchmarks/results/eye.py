"""The encoder that the systems share: AUROC of every observation, with intervals over studies."""

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.data.batches.module import StudyDataModule
from crossray.data.store import Dataset
from crossray.models.parts.backbone import BackboneConfig
from crossray.models.pretraining.vision import FREQUENT, Vision, auroc
from crossray.text.observations import CHEXPERT
from crossray.training.config import Recipe
from crossray.training.prerequisites import fulfil
from crossray.training.recipe import load
from crossray.training.run import train_or_resume
from formats import SPLITS, grid
from steps import Bench

#: Bootstrap resamples over studies.
RESAMPLES = 1000

#: Random halvings of the studies.
HALVINGS = 50


def table(bench: Bench) -> str:
    """Train the encoder of the systems' recipes, or find it in the dataset, and score it."""
    model = encoder(bench)
    scores, truth = _observed(model, Dataset.open(bench.data), _recipe(bench), bench.split)
    names = model.config.observations
    words, said = scores[:, len(names) :], truth[:, len(names) :]
    scores, truth = scores[:, : len(names)], truth[:, : len(names)]
    drawn = np.random.default_rng(0).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), RESAMPLES)
    values = {name: _auroc(scores[:, i], truth[:, i], drawn) for i, name in enumerate(names)}
    positives = {name: int((truth[:, i] == 1).sum()) for i, name in enumerate(names)}
    most = {name: best_f1(scores[:, i], truth[:, i] == 1) for i, name in enumerate(names)}
    held = {name: held_out_f1(scores[:, i], truth[:, i] == 1) for i, name in enumerate(names)}
    frequent = [name for name in names if positives[name] >= FREQUENT]
    rows = [
        [name.replace("_", " "), str(positives[name]), *_shown(values[name]), f"{most[name]:.3f}", f"{held[name]:.3f}"]
        for name in sorted(names, key=lambda name: -positives[name])
    ]
    mean = np.mean([values[name] for name in frequent], axis=0)
    rows.insert(0, [f"**mean of the {len(frequent)} with at least {FREQUENT} positives**", "", *_shown(mean), "", ""])
    means = [f"{np.mean([found[name] for name in CHEXPERT]):.3f}" for found in (most, held)]
    rows.insert(1, ["**mean of the 14 of CheXpert**", "", "", "", *means])
    return (
        f"# Image encoder ({SPLITS[bench.split]})\n\n{len(truth)} studies, labels by the rules; an uncertain finding "
        f"counts as positive, one that is not mentioned as negative. Intervals: {RESAMPLES} bootstrap resamples. Best "
        "F1: at the threshold that is best for these same studies, which flatters the encoder most where positives are "
        "few. Held-out F1: each half of the studies uses the threshold that is best for the other half; mean of "
        f"{HALVINGS} random halvings. Compare its mean over the 14 observations with the macro F1 of the reports.\n\n"
        + grid(["observation", "positives", "AUROC", "95% interval", "best F1", "held-out F1"], rows)
        + _words(words, said)
    )


def encoder(bench: Bench) -> Vision:
    """The encoder that the systems share, with the head that it was trained with: found in the dataset or trained."""
    filled, _ = fulfil(_recipe(bench), Dataset.open(bench.data), train_or_resume)
    backbone: BackboneConfig = filled.model.backbone  # type: ignore[attr-defined]  # every laptop recipe has one
    return Vision.from_pretrained(backbone.name)


def _recipe(bench: Bench) -> Recipe:
    return load(f"{bench.systems[0]}/{bench.recipe}")


def _words(scores: NDArray[np.float64], said: NDArray[np.int64]) -> str:
    """What the encoder knows of the words of a report, beside what it knows of another report's words."""
    frequent = said.sum(axis=0) >= FREQUENT
    if not frequent.any():
        return ""
    own = np.arange(len(said))
    others = np.random.default_rng(0).permutation(own)  # the studies stand in the order of their lengths

    def mean(order: NDArray[np.int64]) -> float:
        columns = np.flatnonzero(frequent)
        found = [auroc(torch.from_numpy(scores[order, i]), torch.from_numpy(said[:, i] == 1)) for i in columns]
        return float(np.mean([value for value in found if value is not None]))

    return (
        f"\nOf the {len(frequent)} words that it learns too, {frequent.sum()} occur in at least {FREQUENT} reports: "
        f"their mean AUROC is {mean(own):.3f}, and {mean(others):.3f} with the images of other studies.\n"
    )


def _observed(
    model: Vision, dataset: Dataset, recipe: Recipe, split: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    data = StudyDataModule(dataset, None, recipe.data.image, views=recipe.data.views, batch_size=16)
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    scores, truth = [], []
    with torch.inference_mode():
        for batch in loader:
            shown = data.on_after_batch_transfer(batch, 0)
            scores.append(model.logits(shown.inputs))
            truth.append(torch.cat([model.truth(shown), model.words(shown)], dim=1))
    return torch.cat(scores).double().numpy(), torch.cat(truth).numpy()


def _auroc(scores: NDArray[np.float64], truth: NDArray[np.int64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """(1 + resamples,): the AUROC, then that of every resample; one without both answers says 0.5."""
    counts = np.concatenate([np.ones((1, len(truth)), np.int64), drawn])
    rows = [np.repeat(np.arange(len(truth)), count) for count in counts]
    found = [auroc(torch.from_numpy(scores[row]), torch.from_numpy(truth[row] == 1)) for row in rows]
    return np.array([0.5 if value is None else value for value in found])


def best_f1(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """F1 of calling every score from a threshold on positive, at the best of all thresholds."""
    return _f1(scores >= _best_threshold(scores, truth), truth)


def held_out_f1(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """F1 of calling each half of the studies at the best threshold of the other half, mean of `HALVINGS`."""
    draw, found = np.random.default_rng(0), []
    for _ in range(HALVINGS):
        half = draw.permutation(len(truth)) < len(truth) // 2
        called = np.empty_like(truth)
        for part in (half, ~half):
            called[part] = scores[part] >= _best_threshold(scores[~part], truth[~part])
        found.append(_f1(called, truth))
    return float(np.mean(found))


def _best_threshold(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    order = np.argsort(-scores)
    hits, called = np.cumsum(truth[order]), np.arange(1, len(truth) + 1)
    return float(scores[order[np.argmax(hits / (called + truth.sum()))]])


def _f1(called: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (called & truth).sum() / max(1, called.sum() + truth.sum()))


def _shown(values: NDArray[np.float64]) -> list[str]:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return [f"{values[0]:.3f}", f"[{low:.3f}, {high:.3f}]"]
