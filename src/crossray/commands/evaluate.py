"""`crossray evaluate`: the scores of a predictions file."""

from pathlib import Path
from typing import Literal

from crossray.commands.show import console


def evaluate(
    predictions: Path,
    data: Path | None = None,
    out: Path | None = None,
    meteor: Literal["auto", "yes", "no"] = "auto",
    resamples: int = 1000,
    seed: int = 0,
) -> None:
    """Score predictions under both protocols, beside the trivial baselines and the image-shuffle check.

    Args:
        predictions: JSON lines from `crossray generate`, or rows of your own with id, prediction and reference.
        data: prepared dataset for the trivial baselines; by default the one that the predictions name.
        out: also write the scores to this JSON file; default: beside the predictions.
        meteor: METEOR 1.5 needs Java and pycocoevalcap: auto computes it when both are there.
        resamples: bootstrap resamples behind every interval.
        seed: seed of the resampling.
    """
    from crossray.evaluation.evaluate import evaluate as score
    from crossray.evaluation.tables import print_evaluation

    with console().status("scoring"):
        result = score(predictions, dataset=data, meteor=meteor, resamples=resamples, seed=seed)
    target = out or predictions.with_suffix(".scores.json")
    result.save(target)
    print_evaluation(result, console())
    console().print(f"scores in {target}")
