"""The reward stage: what learning from CIDEr-D and clinical F1 adds to a trained system, and whether it games them."""

import json
from statistics import fmean

from crossray.evaluation.metrics.degeneracy import template
from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.results import Evaluation
from crossray.text.observations import label_report
from crossray.text.sentences import split_sentences
from formats import SPLITS, grid, over_seeds
from steps import Bench, scored

_METRICS = {"bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "cider": "CIDEr-D", "ce_macro_f1": "macro F1"}


def table(bench: Bench) -> str:
    """Every system over the seeds before and after the stage, which begins with the system's best model."""
    scores = ["system", *_METRICS.values(), "image gain", "CIDEr-D minus shuffled"]
    texts = ["system", "words", "distinct", "most overused sentence", "normal", "repeats a sentence",
             "contradicts itself"]  # fmt: skip
    rows = []
    for system in bench.systems:
        for seed in bench.seeds:
            for before in (True, False):
                scored(bench, system, seed, before)
        rows += [_row(bench, system, before) for before in (True, False)]
    truth = PredictionFile.load(bench.predictions(bench.systems[0], bench.seeds[0]))
    true_reports = [row.references["full"] for row in truth.rows]
    written = [[row[0], *row[len(scores) :]] for row in rows]
    written.append(["true reports", *_language(true_reports, true_reports, len(set(true_reports)) / len(true_reports))])
    about = (
        "The best model after the language loss, and the model after the recipe's last stage, which starts from it and "
        "learns from rewards (CIDEr-D and clinical F1; [training](../training.md#rewards)). Protocol `r2gen`. *Most "
        "overused sentence*: the share of generated and of true reports that contain it (alarm *template*). *Normal*: "
        "reports labeled as without findings. A report contradicts itself if it both states and denies an observation."
    )
    title = f"# The reward stage ({SPLITS[bench.split]})"
    return f"{title}\n\n{about}\n\n{grid(scores, [row[: len(scores)] for row in rows])}\n{grid(texts, written)}"


def _row(bench: Bench, system: str, before: bool) -> list[str]:
    runs = [Evaluation.load(bench.scores(system, seed, before)).protocols["r2gen"] for seed in bench.seeds]
    best = [json.loads(bench.best(system, seed, before).read_text(encoding="utf-8")) for seed in bench.seeds]
    files = [PredictionFile.load(bench.predictions(system, seed, before)).rows for seed in bench.seeds]
    written = [row for rows in files for row in rows]
    distinct = fmean(len({row.prediction for row in rows}) / len(rows) for rows in files)
    shuffles = [run.shuffle.differences["cider"].value for run in runs if run.shuffle is not None]
    return [
        f"{system}, language loss" if before else f"{system}, reward stage",
        *(over_seeds([run.result.scores[metric].value for run in runs]) for metric in _METRICS),
        over_seeds([run["validation"]["image_gain"] for run in best]),
        over_seeds(shuffles),
        *_language([row.prediction for row in written], [row.references["full"] for row in written], distinct),
    ]


def _language(reports: list[str], truth: list[str], distinct: float) -> list[str]:
    """Mean number of words, share of different reports, most overused sentence, and shares of three kinds of report."""
    cut = [split_sentences(report) for report in reports]
    normal = [label_report(report).status("no_finding") == "positive" for report in reports]
    repeats = [len({*sentences}) < len(sentences) for sentences in cut]
    contradicts = [_contradicts(sentences) for sentences in cut]
    words = sum(len(report.split()) for report in reports) / len(reports)
    shares = template(reports, truth)
    overused = "" if shares is None else f"{shares[0]:.2f}, true {shares[1]:.2f}"
    kinds = [f"{sum(found) / len(reports):.2f}" for found in (normal, repeats, contradicts)]
    return [f"{words:.1f}", f"{distinct:.2f}", overused, *kinds]


def _contradicts(sentences: list[str]) -> bool:
    stated: dict[str, set[str]] = {}
    for sentence in sentences:
        for place in label_report(sentence).evidence:
            stated.setdefault(place.observation, set()).add(place.status)
    return any({"positive", "negative"} <= statuses for statuses in stated.values())
