"""Gram matrices of memories and bases (UAR Fig. 5): the orthogonality of their rows, compared with random rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Gram:
    """The products of a matrix's rows.

    Attributes:
        rows: number M of rows; `width`: their width D.
        lengths: mean length of the rows.
        cosine: mean absolute cosine of two different rows.
        random: the same for M random directions in D dimensions, sqrt(2 / (pi D)) for large D.
        least: smallest possible root mean square cosine of M rows, 0 if M <= D (Welch's bound).
        rms: root mean square cosine of two different rows.
        effective_rank: exponential of the entropy of the squared singular values' shares, at most min(M, D).
        cosines: cosines of the first rows, for a figure.
        products: the Gram matrix itself of the first rows, for a figure.
    """

    rows: int
    width: int
    lengths: float
    cosine: float
    random: float
    rms: float
    least: float
    effective_rank: float
    cosines: NDArray[np.float64]
    products: NDArray[np.float64]


#: Maximum number of rows in a figure.
SHOWN = 256


def gram(matrix: NDArray[np.float64]) -> Gram:
    """The Gram matrix of a matrix (M, D), M at least 2, and how orthogonal its rows are."""
    rows, width = matrix.shape
    lengths = np.linalg.norm(matrix, axis=1)
    directions = matrix / np.where(lengths > 0, lengths, 1)[:, None]
    cosines = directions @ directions.T
    different = ~np.eye(rows, dtype=bool)
    energy = np.linalg.svd(matrix, compute_uv=False) ** 2
    shares = energy[energy > 0] / energy.sum()
    return Gram(
        rows=rows,
        width=width,
        lengths=float(lengths.mean()),
        cosine=float(np.abs(cosines[different]).mean()),
        random=random_cosine(width),
        rms=float(np.sqrt((cosines[different] ** 2).mean())),
        least=float(np.sqrt(max(rows - width, 0) / (width * (rows - 1)))),
        effective_rank=float(np.exp(-(shares * np.log(shares)).sum())),
        cosines=cosines[:SHOWN, :SHOWN],
        products=(matrix @ matrix.T)[:SHOWN, :SHOWN],
    )


def random_cosine(width: int) -> float:
    """Mean absolute cosine of two random directions in `width` dimensions: Gamma(D/2) / (sqrt(pi) Gamma((D+1)/2))."""
    from math import exp, lgamma, pi, sqrt

    return exp(lgamma(width / 2) - lgamma((width + 1) / 2)) / sqrt(pi)
