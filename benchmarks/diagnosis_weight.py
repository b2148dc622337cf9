"""What `decoding.diagnosis_weight` changes: one set of samples for each drawing, from which every weight chooses.

    python benchmarks/diagnosis_weight.py runs/results/union-seed0 runs/results/union-seed1 --data data/iu

Reads the references of the validation studies from `val.jsonl` in each run, and everything else about the decoding from
the run. Prints a table of the scores under protocol `r2gen`: mean and deviation over models and drawings.
"""

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from crossray.analysis.inputs import collator_of, transform_of
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.decoding.reports import study_seed, write_reports
from crossray.decoding.risk import consensus
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.utilities import utility_of
from crossray.generation.generator import Generator

METRICS = {"bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "cider": "CIDEr-D", "ce_macro_f1": "macro F1",
           "ce_micro_f1": "micro F1", "ce_f1": "example F1"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="training runs of a system that makes a diagnosis")
    parser.add_argument("--data", required=True, help="prepared dataset")
    parser.add_argument("--weights", nargs="+", type=float, default=[0, 0.1, 0.3, 1])
    parser.add_argument("--drawings", nargs="+", type=int, default=[0, 1, 2], help="seeds of the samples")
    chosen = parser.parse_args()
    dataset = Dataset.open(chosen.data)
    found: dict[float, list[list[float]]] = defaultdict(list)
    for run in chosen.runs:
        for drawing in chosen.drawings:
            for weight, scores in scores_of(run, dataset, drawing, chosen.weights).items():
                found[weight].append(scores)
                print(run, drawing, weight, [round(score, 3) for score in scores], flush=True)
    print("| weight |", " | ".join([*METRICS.values(), "CIDEr-D minus shuffled", "distinct"]), "|")
    for weight, rows in found.items():
        mean, deviation = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=min(1, len(rows) - 1))
        cells = (f"{one:.3f} ± {other:.3f}" for one, other in zip(mean, deviation, strict=True))
        print(f"| {weight} |", " | ".join(cells), "|")


def scores_of(run: Path, dataset: Dataset, drawing: int, weights: list[float]) -> dict[float, list[float]]:
    """The scores by weight for one model and one drawing of the samples."""
    generator = Generator.from_pretrained(run)
    model, config = generator.model, replace(generator.decoding, method="mbr", diagnosis_weight=0.0)
    utility = utility_of(config)
    assert utility is not None
    collator, transform, rows = collator_of(model, dataset), transform_of(model), dataset.rows("val")
    texts: dict[float, dict[str, str]] = {weight: {} for weight in weights}
    for first in range(0, len(rows), 16):
        part = rows[first : first + 16]
        names = [str(name) for name in dataset.ids(part)]
        with torch.inference_mode():
            encoded = model.encode(transform_inputs(collator.inputs(part), transform, train=False))
        seeds = [study_seed(drawing, name) for name in names]
        written = write_reports(model, collator.inputs(part), config, seeds=seeds, encoded=encoded, utility=utility)
        assert encoded.called is not None, "this system makes no diagnosis"
        for name, report, called in zip(names, written, encoded.called.numpy(), strict=True):
            for weight in weights:
                place = consensus(report.samples, utility, model.config.observations, called, weight)
                texts[weight][name] = report.samples[place]
    file = PredictionFile.load(run / "val.jsonl")
    result = {}
    for weight, reports in texts.items():
        chosen = replace(file, rows=tuple(replace(row, prediction=reports[row.id]) for row in file.rows))
        found = evaluate(chosen, dataset=dataset, meteor="no", resamples=100).protocols["r2gen"]
        assert found.shuffle is not None
        values = [found.result.scores[metric].value for metric in METRICS]
        result[weight] = [*values, found.shuffle.differences["cider"].value, found.result.variety.distinct_reports]
    return result


if __name__ == "__main__":
    main()
