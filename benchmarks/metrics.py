"""Time to score 3,858 generated reports of 60 words (the size of MIMIC-CXR's test split) without METEOR.

`pycocoevalcap`, to which every score is equal, is timed on the same reports; so is the whole bootstrap.
The reports are made up: words of a vocabulary of 760 whose frequencies fall off as in real text. Clinical efficacy is
timed on made-up labels, beside scikit-learn: all averages, both sets of observations, both conventions.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from sklearn.metrics import precision_recall_fscore_support

from common import median_seconds, parser, peak_memory_mb, report
from crossray.evaluation.metrics.clinical import (
    CONVENTIONS,
    MEASURES,
    OBSERVATION_SETS,
    ClinicalStatistics,
    metric_name,
)
from crossray.evaluation.metrics.degeneracy import shuffle_check
from crossray.evaluation.metrics.ngrams import code_reports
from crossray.evaluation.metrics.nlg import METRICS, ReportPairs, score
from crossray.evaluation.metrics.rouge import rouge_l
from crossray.evaluation.statistics.significance import bootstrap, scores_of
from crossray.text.observations import CHEXPERT, STATUSES


def made_up_reports(count: int, words: int, vocabulary: int, seed: int) -> list[str]:
    """Reports in which each word mostly decides the next, so that longer n-grams recur as they do in real reports."""
    draw = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, vocabulary + 1)
    following = np.random.default_rng(0).choice(vocabulary, size=vocabulary, p=frequency / frequency.sum())
    current = draw.choice(vocabulary, size=count, p=frequency / frequency.sum())
    columns = [current]
    for _ in range(words - 1):
        fresh = draw.choice(vocabulary, size=count, p=frequency / frequency.sum())
        current = np.where(draw.random(count) < 0.7, following[current], fresh)
        columns.append(current)
    return [" ".join(f"word{word}" for word in line) for line in np.stack(columns, axis=1)]


def reference_scores(hypotheses: list[str], references: list[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of pycocoevalcap, and the seconds that each metric takes."""
    truth, generated = ({index: [text] for index, text in enumerate(side)} for side in (references, hypotheses))
    scores: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name, metric in (("BLEU", Bleu(4)), ("ROUGE-L", Rouge()), ("CIDEr", Cider())):
        options = {"verbose": 0} if name == "BLEU" else {}
        start = time.perf_counter()
        value = metric.compute_score(truth, generated, **options)[0]
        seconds[name] = time.perf_counter() - start
        names = METRICS[:4] if name == "BLEU" else (METRICS[4] if name == "ROUGE-L" else METRICS[5],)
        scores.update(zip(names, np.atleast_1d(value), strict=True))
    return scores, seconds


def made_up_codes(count: int, seed: int) -> np.ndarray:
    """Status codes (N, 14) of reports that mention one observation in five."""
    draw = np.random.default_rng(seed)
    return draw.choice(len(STATUSES), size=(count, len(CHEXPERT)), p=[0.8, 0.1, 0.07, 0.03]).astype(np.int8)


def clinical_by_sklearn(statistics: ClinicalStatistics) -> dict[str, float]:
    scores: dict[str, float] = {}
    for convention in CONVENTIONS:
        ours, theirs = (convention.present_in(codes) for codes in (statistics.hypothesis, statistics.reference))
        for key, observations in OBSERVATION_SETS.items():
            columns = [CHEXPERT.index(name) for name in observations]
            for average, by_them in (("example", "samples"), ("micro", "micro"), ("macro", "macro")):
                values = precision_recall_fscore_support(
                    theirs[:, columns], ours[:, columns], average=by_them, zero_division=0
                )
                names = [metric_name(measure, average, key, convention.suffix) for measure in MEASURES]
                scores.update(zip(names, values[:3], strict=True))
    return scores


def clinical_rows(count: int) -> list[dict[str, Any]]:
    hypothesis, reference = (made_up_codes(count, seed) for seed in (1, 2))

    def fresh() -> ClinicalStatistics:
        return ClinicalStatistics(hypothesis, reference)  # what it counts once is part of the time

    expected, ours = clinical_by_sklearn(fresh()), scores_of(fresh())
    return [
        {
            "what": f"clinical efficacy, {len(ours)} scores",
            "crossray s": median_seconds(lambda: scores_of(fresh())),
            "scikit-learn s": median_seconds(lambda: clinical_by_sklearn(fresh())),
            "largest difference": max(abs(ours[name] - expected[name]) for name in expected),
        },
        {"what": "the same, 1000 resamples", "crossray s": median_seconds(lambda: bootstrap(fresh()))},
        {"what": "14 observations, 1000 resamples", "crossray s": median_seconds(lambda: fresh().class_scores())},
    ]


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--reports", type=int, default=3858, help="pairs of reports")
    options.add_argument("--words", type=int, default=60, help="words of a report")
    options.add_argument("--vocabulary", type=int, default=760, help="different words")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    hypotheses, references = (made_up_reports(chosen.reports, chosen.words, chosen.vocabulary, seed) for seed in (1, 2))
    expected, seconds = reference_scores(hypotheses, references)
    ours = score(hypotheses, references)
    difference = max(abs(ours[name] - expected[name]) for name in METRICS)

    pairs = ReportPairs(hypotheses, references)
    statistics = pairs.statistics()
    partner = np.arange(chosen.reports)
    total = median_seconds(lambda: score(hypotheses, references))
    rouge = median_seconds(lambda: rouge_l(hypotheses, references))
    parts: list[tuple[str, Callable[[], Any]]] = [
        ("counting n-grams", lambda: code_reports(hypotheses, references)),
        ("another pairing (shuffle)", lambda: pairs.statistics(partner)),
        ("bootstrap, 1000 resamples", lambda: bootstrap(statistics)),
        ("shuffle check, 5 shuffles, 1000 resamples", lambda: shuffle_check(pairs)),
    ]
    rows: list[dict[str, Any]] = [
        {
            "what": "BLEU-1..4, ROUGE-L, CIDEr",
            "crossray s": total,
            "pycocoevalcap s": sum(seconds.values()),
            "times faster": sum(seconds.values()) / total,
            "reports/s": chosen.reports / total,
            "largest difference": difference,
            "peak memory MB": peak_memory_mb(),
        },
        {
            "what": "BLEU-1..4 and CIDEr",
            "crossray s": total - rouge,
            "pycocoevalcap s": seconds["BLEU"] + seconds["CIDEr"],
        },
        {"what": "ROUGE-L", "crossray s": rouge, "pycocoevalcap s": seconds["ROUGE-L"]},
        *({"what": name, "crossray s": median_seconds(run)} for name, run in parts),
        *clinical_rows(chosen.reports),
    ]
    report(f"metrics: {chosen.reports} reports of {chosen.words} words", rows, json=chosen.json)


if __name__ == "__main__":
    main()
