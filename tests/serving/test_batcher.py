"""How long a study waits for others to share its batch."""

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from crossray.api import Reporter
from crossray.generation.files import FileStudy
from crossray.serving.batcher import Batcher, Job


class Stopwatch:
    """A reporter whose batches take no time, unless told otherwise; notes when they start."""

    system = "stopwatch"

    def __init__(self, takes: Callable[[], None] = lambda: None) -> None:
        self.takes = takes
        self.batches: list[tuple[float, list[str]]] = []

    def write(self, studies: Sequence[Any], names: Sequence[str], **_: Any) -> list[None]:
        self.batches.append((time.monotonic(), list(names)))
        self.takes()
        return [None] * len(studies)


def job(name: str = "a") -> Job:
    return Job(FileStudy((), (), ()), name)


@pytest.mark.parametrize("window", [0.0, 0.05])
def test_a_single_study_waits_for_the_window_and_no_longer(window: float) -> None:
    watch = Stopwatch()
    batcher = Batcher(cast(Reporter, watch), 4, window)
    waits = []
    for _ in range(20):
        one = job()
        batcher.submit(one)
        one.future.result(30)
        waits.append(watch.batches[-1][0] - one.since)
    batcher.stop()
    # the least of them: another process may take the processor from any of them
    assert window <= min(waits) < window + 0.02


def test_a_study_that_comes_during_a_batch_does_not_wait_after_it() -> None:
    window = 0.5
    watch = Stopwatch(lambda: time.sleep(2 * window))
    batcher = Batcher(cast(Reporter, watch), 4, window)
    first, second, third = job("first"), job("second"), job("third")
    batcher.submit(first)
    while not watch.batches:
        time.sleep(0.005)
    for one in (second, third):
        one.since = time.monotonic()
        batcher.submit(one)
    third.future.result(30)
    batcher.stop()
    (began, _), (then, names) = watch.batches
    assert names == ["second", "third"]
    assert then - began < 2.8 * window  # 2 for the first batch, and not another window
