"""A few damaged requests; `python -m tests.serving.fuzz_requests` sends many."""

import pytest

pytest.importorskip("fastapi")

from tests.serving.fuzz_requests import fuzz


def test_damaged_requests_do_no_harm() -> None:
    outcome = fuzz(60)
    assert not outcome.faults
    assert sum(outcome.answers.values()) == 60
    assert outcome.answers[200] and sum(outcome.answers[status] for status in (400, 401, 404, 422)) > 10
