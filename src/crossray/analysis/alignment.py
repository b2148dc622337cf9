"""Measures how well a system aligns images with reports: UAR's alignment score, retrieval (UAR Fig. 3 and 4).

Shapes: N studies, D width of the embeddings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import lgamma

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.analysis.gram import Gram, gram
from crossray.analysis.inputs import collator_of, tokenizer_of, transform_of
from crossray.data.batches.batch import Batch
from crossray.data.batches.loading import reported_rows
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.statistics.significance import Interval, bootstrap
from crossray.models.base import ReportModel

#: Ranks k of recall@k.
RECALL_AT = (1, 5, 10)

#: A similarity above this, after min-max normalization, counts as aligned (UAR, footnote 3).
ALIGNED = 0.5

Similarity = NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    """UAR's alignment score, with values for comparison.

    Attributes:
        aligned: share of the images that are aligned with their own report, normalized over these N pairs (UAR's
            score).
        aligned_common: the same, normalized over all N x N pairs.
        aligned_any: share of all N x N pairs that are aligned, normalized over them.
        own: mean cosine of an image and its own report.
        other: mean cosine of an image and a different report.
        spread: largest minus smallest of all N x N cosines.
    """

    aligned: float
    aligned_common: float
    aligned_any: float
    own: float
    other: float
    spread: float


@dataclass(frozen=True)
class Retrieval:
    """Retrieval in one direction.

    Attributes:
        recall: interval over queries for each "recall@k".
        median_rank: median rank of the best hit; ties with non-hits count against it.
        chance: "recall@k" and "median_rank" of a random order.
    """

    recall: Mapping[str, Interval]
    median_rank: float
    chance: Mapping[str, float]


@dataclass(frozen=True)
class Alignment:
    """The results of one model on one split.

    Attributes:
        name: name of the model; `system`: its system.
        split: split of the dataset.
        ids: identifiers of the N studies; `reports`: their reports as cleaned for the model.
        similarity: (N, N) cosines, images by reports.
        scores: alignment scores.
        retrieval: results for "report" (by an image) and "image" (by a report).
        grams: Gram matrices of the system's memories, by name.
    """

    name: str
    system: str
    split: str
    ids: tuple[str, ...]
    reports: tuple[str, ...]
    similarity: Similarity
    scores: Scores
    retrieval: Mapping[str, Retrieval]
    grams: Mapping[str, Gram]


def align(
    model: ReportModel,
    dataset: Dataset,
    split: str,
    *,
    name: str,
    section: str = "findings",
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Alignment:
    """Embed the images and reports of a split, and compare them.

    Args:
        model: model with tokenizer and image transform, on its device.
        dataset: dataset with the studies.
        split: "train", "val" or "test".
        name: name of the model.
        section: section of the report that the model learned; studies without it are left out.
        batch_size: number of studies per batch.
        progress: called with the number of finished and of all studies.

    Raises:
        UserError: the system has no embeddings of both, or there is no such split.
    """
    rows = reported_rows(dataset, split, section, tokenizer_of(model).cleaner)
    images, texts, keys = embed(model, dataset, rows, section=section, batch_size=batch_size, progress=progress)
    similarity = cosines(images, texts)
    same = keys[:, None] == keys
    return Alignment(
        name=name,
        system=model.system,
        split=split,
        ids=tuple(dataset.ids(rows)),
        reports=tuple(map(tokenizer_of(model).clean, dataset.reports(rows, section))),
        similarity=similarity,
        scores=alignment_scores(similarity, same),
        retrieval={"report": retrieval(similarity, same), "image": retrieval(similarity.T, same)},
        grams={title: gram(matrix.detach().cpu().double().numpy()) for title, matrix in model.memories().items()},
    )


@torch.inference_mode()
def embed(
    model: ReportModel,
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    section: str,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Compute embeddings of images (N, D) and reports (N, D), and a key (N,) that is the same for equal reports.

    Raises:
        UserError: the system has no embeddings of both.
    """
    transform = transform_of(model)
    collator = collator_of(model, dataset, tokenizer_of(model), section)
    device = next(model.parameters()).device
    images, texts, keys = [], [], []
    for first in range(0, len(rows), batch_size):
        batch: Batch = collator(rows[first : first + batch_size]).to(device)
        batch.inputs = transform_inputs(batch.inputs, transform, train=False)
        found = model.embeddings(batch)
        if found is None:
            raise UserError(
                f"system '{model.system}' in this configuration does not map images and reports to one space; give "
                "a model that does (cmn, rcan with its memory, coacl with its text branch, uar)."
            )
        images.append(found[0].double().cpu().numpy())
        texts.append(found[1].double().cpu().numpy())
        keys.append(batch.targets.report_key.cpu().numpy())
        if progress is not None:
            progress(min(first + batch_size, len(rows)), len(rows))
    return np.concatenate(images), np.concatenate(texts), np.concatenate(keys)


def cosines(images: NDArray[np.float64], texts: NDArray[np.float64]) -> Similarity:
    """(N, N) cosines of images (N, D) with reports (N, D)."""
    product: Similarity = unit(images) @ unit(texts).T
    return product


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows scaled to length 1; zero rows are unchanged."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float64] = vectors / np.where(length > 0, length, 1)
    return result


def alignment_scores(similarity: Similarity, same: NDArray[np.bool_]) -> Scores:
    """UAR's alignment score, and the same on the scale of all pairs.

    Args:
        similarity: (N, N) cosines.
        same: (N, N), True where two studies have equal reports.
    """
    own = np.diag(similarity)
    everywhere = normalised(similarity)
    return Scores(
        aligned=float((normalised(own) > ALIGNED).mean()),
        aligned_common=float((np.diag(everywhere) > ALIGNED).mean()),
        aligned_any=float((everywhere > ALIGNED).mean()),
        own=float(own.mean()),
        other=float(similarity[~same].mean()) if (~same).any() else float("nan"),
        spread=float(np.ptp(similarity)),
    )


def normalised(values: Similarity) -> Similarity:
    """Min-max normalization to 0 to 1; 0 if all values are equal."""
    low, high = values.min(), values.max()
    return np.zeros_like(values) if high == low else (values - low) / (high - low)


@dataclass(frozen=True)
class _Recalls:
    """Hits of each query at each k, for bootstrapping."""

    hits: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.hits)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        shares = weights @ self.hits / weights.sum(axis=1, keepdims=True)
        return {f"recall@{k}": shares[:, column] for column, k in enumerate(RECALL_AT)}


def retrieval(similarity: Similarity, same: NDArray[np.bool_]) -> Retrieval:
    """Evaluate retrieval among all columns for each row; columns with an equal report are hits.

    Args:
        similarity: (N, N), queries in rows and candidates in columns.
        same: (N, N) symmetric, True where two studies have equal reports; the diagonal is True.
    """
    ranks = best_ranks(similarity, same)
    hits = _Recalls((ranks[:, None] <= np.array(RECALL_AT)).astype(np.float64))
    return Retrieval(bootstrap(hits), float(np.median(ranks)), chance(same.sum(axis=1)))


def best_ranks(similarity: Similarity, same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) rank of the best hit of each row, from 1; ties with non-hits count against it."""
    best = np.where(same, similarity, -np.inf).max(axis=1, keepdims=True)
    ranks: NDArray[np.int64] = 1 + ((similarity >= best) & ~same).sum(axis=1)
    return ranks


def chance(hits: NDArray[np.int64]) -> dict[str, float]:
    """Recall and median rank of a random order, given how many of N columns are hits for each of N queries."""
    count = len(hits)
    found = np.array([_found_within(rank, hits, count) for rank in range(1, count + 1)])
    recall = {f"recall@{k}": float(found[min(k, count) - 1]) for k in RECALL_AT}
    return {**recall, "median_rank": float(1 + np.searchsorted(found, 0.5 - 1e-12))}


def _found_within(rank: int, hits: NDArray[np.int64], count: int) -> float:
    """Share of queries with a hit among the first `rank` of `count`: 1 - C(count - hits, rank) / C(count, rank)."""
    kinds, times = np.unique(hits, return_counts=True)
    missed = [np.exp(_log_choose(count - kind, rank) - _log_choose(count, rank)) for kind in kinds.tolist()]
    return float(1 - np.average(missed, weights=times))


def _log_choose(count: int, chosen: int) -> float:
    """Logarithm of the binomial coefficient; -inf if it is 0."""
    if chosen > count:
        return -np.inf
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)
