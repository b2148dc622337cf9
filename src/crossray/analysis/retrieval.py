"""Scores retrieved reports by the similarity of their labels and words to those of the study.

Shapes: Q queries, R reports of the database, E entities, K observations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossray.analysis.inputs import collator_of, tokenizer_of, transform_of
from crossray.data.batches.loading import reported_rows
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.metrics.nlg import NlgStatistics, ReportPairs
from crossray.evaluation.statistics.significance import Interval, bootstrap, paired_difference
from crossray.layers.ranking import hamming
from crossray.models.retrieval.retrieving import RetrievingModel
from crossray.retrieval.index import ReportIndex

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Quality:
    """Statistics of the reports retrieved by one method, by study.

    Attributes:
        words: statistics of the retrieved reports against the true ones.
        differing: (Q,) number of observations with a different status; NaN for a study without labels.
    """

    words: NlgStatistics
    differing: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.differing)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """CIDEr, and the mean number of differing observations as "hamming", of R resamples; NaN without any labels."""
        known = np.isfinite(self.differing)
        with np.errstate(invalid="ignore"):
            mean = weights[:, known] @ self.differing[known] / weights[:, known].sum(axis=1)
        return {"hamming": mean, "cider": self.words.weighted_scores(weights)["cider"]}


@dataclass(frozen=True)
class Retrieved:
    """The scores of one retrieval method.

    Attributes:
        scores: "hamming" and "cider" with their intervals.
        difference: scores of the model's own method minus these; empty for the model's own method.
        reports: number of distinct retrieved reports.
    """

    scores: Mapping[str, Interval]
    difference: Mapping[str, Interval]
    reports: int


def retrieval_quality(
    model: RetrievingModel,
    dataset: Dataset,
    split: str,
    *,
    section: str = "findings",
    batch_size: int = 16,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Retrieved]:
    """Compare methods that retrieve a training report for each study of a split.

    The model's own method comes first: the learned "hyperbolic" distance, or "euclidean" for a model without LRE.
    "euclidean" and "cosine" compare the log-odds of the entities directly, "random" draws a report, and "labels" takes
    any of the studies with the nearest true labels, which is the target of the learned distance. For a study without
    labels, and where no training study has labels, "labels" draws a report like "random".

    Args:
        model: model with tokenizer, transform and a database of training studies of `dataset`.
        dataset: dataset with the queries and the training studies.
        split: "val" or "test".
        section: section of the reports; studies without it are left out.
        batch_size: number of studies per batch.
        resamples: number of bootstrap resamples of the studies.
        seed: seed of all random choices.
        progress: called with the number of finished and of all studies.

    Returns:
        The scores by name of the method.

    Raises:
        UserError: the database is empty or belongs to another dataset, or the split has no studies.
    """
    rows = reported_rows(dataset, split, section, tokenizer_of(model).cleaner)
    place = {study: row for row, study in enumerate(dataset.ids(np.arange(dataset.studies)))}
    database = model.database
    if not len(database) or not set(database.studies) <= place.keys():
        raise UserError(
            f"{dataset.path}: the model's index was built from other studies; run `crossray index build` with this "
            f"dataset."
        )
    trained = np.array([place[study] for study in database.studies])
    entities, own = _queries(model, dataset, rows, batch_size, progress)
    generator = np.random.default_rng(seed)
    found = {"hyperbolic" if model.config.lre else "euclidean": own}
    for metric in ("euclidean", "cosine"):
        found[metric] = _nearest(ReportIndex(database.entities, metric=metric), entities)
    found["random"] = generator.integers(len(database), size=len(rows))
    apart = _label_distances(dataset, rows, trained)
    if apart is not None:
        # Noise below 1 makes the choice among equally near ones random. All are equally near to a study without labels.
        distances = np.nan_to_num(apart, nan=0, posinf=len(dataset.info.observations) + 1)
        found["labels"] = (distances + generator.random(apart.shape)).argmin(axis=1)
    clean = tokenizer_of(model).clean
    truth = [clean(report) for report in dataset.reports(rows, section)]
    known = [clean(report) for report in dataset.reports(trained, section)]
    qualities = {name: _quality(chosen, truth, known, apart) for name, chosen in found.items()}
    first, *_ = qualities.values()
    return {
        name: Retrieved(
            scores=bootstrap(quality, resamples=resamples, seed=seed),
            difference={} if quality is first else paired_difference(first, quality, resamples=resamples, seed=seed),
            reports=len(np.unique(found[name])),
        )
        for name, quality in qualities.items()
    }


@torch.inference_mode()
def _queries(
    model: RetrievingModel, dataset: Dataset, rows: NDArray[np.int64], batch_size: int, progress: Progress | None
) -> tuple[Tensor, NDArray[np.int64]]:
    """Log-odds (Q, E) of the studies, and the rows (Q,) that the model itself retrieves."""
    collator, transform = collator_of(model, dataset), transform_of(model)
    device = next(model.parameters()).device
    entities, chosen = [], []
    for first in range(0, len(rows), batch_size):
        inputs = collator.inputs(rows[first : first + batch_size]).to(device)
        inputs = transform_inputs(inputs, transform, train=False)
        entities.append(model.entities(inputs)[0])
        chosen.append(model.retrieve(inputs)[1][:, 0])
        if progress is not None:
            progress(min(first + batch_size, len(rows)), len(rows))
    return torch.cat(entities), torch.cat(chosen).cpu().numpy()


def _nearest(index: ReportIndex, queries: Tensor) -> NDArray[np.int64]:
    nearest: NDArray[np.int64] = index.search(queries, 1)[1][:, 0].cpu().numpy()
    return nearest


def _label_distances(
    dataset: Dataset, rows: NDArray[np.int64], trained: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Number of differing observations (Q, R); without labels, NaN for queries and infinite for training studies."""
    if dataset.labels is None:
        return None
    ours, theirs = (torch.from_numpy(np.asarray(dataset.labels[part])) for part in (rows, trained))
    apart = hamming(ours, theirs).double()
    apart[:, (theirs < 0).any(1)] = torch.inf
    apart[(ours < 0).any(1)] = torch.nan
    distances: NDArray[np.float64] = apart.numpy()
    return distances


def _quality(
    chosen: NDArray[np.int64], truth: Sequence[str], known: Sequence[str], apart: NDArray[np.float64] | None
) -> Quality:
    words = ReportPairs([known[row] for row in chosen.tolist()], truth).statistics()
    differing = np.full(len(chosen), np.nan) if apart is None else apart[np.arange(len(chosen)), chosen]
    return Quality(words, np.where(np.isfinite(differing), differing, np.nan))
