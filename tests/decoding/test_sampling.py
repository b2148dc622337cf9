"""Sampling follows the distribution it claims."""

import pytest
import torch

from crossray.decoding.choice import Best, Sample
from crossray.decoding.config import DecodingConfig

LOG_PROBABILITIES = torch.tensor([0.05, 0.4, 0.15, 0.1, 0.3]).log()


def _frequencies(**options):
    count = 20_000
    choice = Sample(DecodingConfig(method="sample", max_length=1, **options), range(count), torch.device("cpu"))
    chosen = choice(LOG_PROBABILITIES.expand(count, -1), 0)
    return torch.bincount(chosen[:, 0], minlength=5) / count


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.05, 0.4, 0.15, 0.1, 0.3]),
        ({"top_k": 2}, [0, 4 / 7, 0, 0, 3 / 7]),
        ({"top_p": 0.5}, [0, 4 / 7, 0, 0, 3 / 7]),
        ({"top_p": 0.4}, [0, 1, 0, 0, 0]),
        ({"top_p": 0.75}, [0, 0.4 / 0.85, 0.15 / 0.85, 0, 0.3 / 0.85]),
        ({"top_k": 3, "top_p": 0.6}, [0, 4 / 7, 0, 0, 3 / 7]),
        ({"temperature": 0.5}, [0.0025 / 0.285, 0.16 / 0.285, 0.0225 / 0.285, 0.01 / 0.285, 0.09 / 0.285]),
        ({"temperature": 1e-3}, [0, 1, 0, 0, 0]),
    ],
    ids=str,
)
def test_frequencies(options, expected):
    assert _frequencies(**options).tolist() == pytest.approx(expected, abs=0.015)


def test_a_study_has_its_own_numbers():
    config = DecodingConfig(method="sample", max_length=30)
    first = Sample(config, [7, 8], torch.device("cpu")).draws
    second = Sample(config, [8], torch.device("cpu")).draws
    assert torch.equal(first[1], second[0])
    assert not torch.equal(first[0], first[1])


def test_forbidden_words_are_never_drawn():
    totals = torch.full((1000, 6), -torch.inf)
    totals[:, 3] = -40.0  # a long report: only differences may matter
    totals[:, 5] = -40.0
    chosen = Sample(DecodingConfig(method="sample"), range(1000), torch.device("cpu"))(totals, 0)
    assert set(chosen.flatten().tolist()) == {3, 5}


def test_best_orders_by_value_then_by_index():
    totals = torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert Best(4)(totals, 0).tolist() == [[1, 3, 2, 4], [0, 1, 2, 3]]
