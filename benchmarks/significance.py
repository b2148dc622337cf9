"""Time of intervals and tests of 590 studies (IU X-Ray's test split), all metrics, from statistics of single studies.

NLG statistics come from made-up reports. The counts of METEOR and the labels are made up themselves: Java and the
labeler would be timed otherwise, which `crossray compare` runs once before everything timed here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from common import median_seconds, parser, report
from crossray.evaluation.metrics.clinical import ClinicalStatistics
from crossray.evaluation.metrics.meteor import MeteorStatistics
from crossray.evaluation.metrics.nlg import ReportPairs
from crossray.evaluation.metrics.statistics import StudyStatistics
from crossray.evaluation.statistics.randomization import exchanged_differences, paired_tests
from crossray.evaluation.statistics.significance import bootstrap, paired_difference, scores_of
from metrics import made_up_reports


def made_up_statistics(studies: int, seed: int) -> StudyStatistics:
    """Statistics of all metrics of one system."""
    draw = np.random.default_rng(seed)
    hypotheses, references = (made_up_reports(studies, 60, 760, part) for part in (seed, 0))
    return StudyStatistics(
        {
            "nlg": ReportPairs(hypotheses, references).statistics(),
            "meteor": MeteorStatistics(draw.integers(1, 40, size=(studies, 23)).astype(np.float64)),
            "clinical": ClinicalStatistics(*draw.integers(4, size=(2, studies, 14)).astype(np.int8)),
        }
    )


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--studies", type=int, default=590, help="studies of the test split")
    options.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples, and exchanges")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    systems = {name: made_up_statistics(chosen.studies, seed) for seed, name in enumerate("abcd", start=1)}
    one, two, *_ = systems.values()
    pairs = [(first, second) for first in systems for second in systems if first < second]
    resamples = chosen.resamples
    parts: list[tuple[str, Callable[[], Any]]] = [
        ("bootstrap, one system", lambda: bootstrap(one, resamples=resamples)),
        ("paired bootstrap, two systems", lambda: paired_difference(one, two, resamples=resamples)),
        ("approximate randomization, two systems", lambda: exchanged_differences(one, two, resamples=resamples)),
        (
            "all tests, two systems",
            lambda: paired_tests({"a": one, "b": two}, [("a", "b")], resamples=resamples),
        ),
        ("all tests, four systems, six pairs", lambda: paired_tests(systems, pairs, resamples=resamples)),
    ]
    rows = [{"what": name, "seconds": median_seconds(run)} for name, run in parts]
    title = f"significance: {chosen.studies} studies, {resamples} resamples, {len(scores_of(one))} metrics"
    report(title, rows, json=chosen.json)


if __name__ == "__main__":
    main()
