"""On how many studies the CIDEr-D of predictions rests: its mean and median, and what the best studies earn of it.

CIDEr-D gives 10 to a report that fits word for word and about 0.3 to a good one, so that a mean can rest on a few
studies that fit a template. Printed for each file: mean, median, mean of what counts up to 1, share of the five best
studies, and the shares of generated and true reports with the most overused sentence.

    python benchmarks/cider_spread.py runs/a/val.jsonl runs/b/val.jsonl
"""

import sys

import numpy as np

from crossray.evaluation.metrics.cider import cider
from crossray.evaluation.metrics.degeneracy import template
from crossray.evaluation.metrics.ngrams import code_reports
from crossray.evaluation.predictions import PredictionFile


def main() -> None:
    """Print a line for every file."""
    for name in sys.argv[1:]:
        file = PredictionFile.load(name)
        written, references = file.hypotheses(), file.references("r2gen")
        ours, theirs, documents = code_reports(written, references, references)
        values = np.sort(cider(ours, theirs, np.arange(len(written)), documents))
        shares = template(written, file.references("full"))
        overused = "none" if shares is None else f"{shares[0]:.3f}, true {shares[1]:.3f}"
        print(
            f"{name}: mean {values.mean():.3f}, median {np.median(values):.3f}, "
            f"up to 1 {values.clip(max=1).mean():.3f}, "
            f"five best {values[-5:].sum() / values.sum():.2f} of all, most overused sentence {overused}"
        )


if __name__ == "__main__":
    main()
