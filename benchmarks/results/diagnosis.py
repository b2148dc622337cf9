"""How well a system's diagnosis tells the observations apart: best and held-out F1 of each on a split.

Compare them with the same columns of the encoder's table (`benchmarks/results --tables eye`): both see the same image.

    python benchmarks/results/diagnosis.py --model runs/union/best --data data/iu [--split val]
"""

from argparse import ArgumentParser

import numpy as np
import torch

from crossray.analysis.inputs import collator_of, transform_of
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.models.base import ReportModel
from crossray.text.observations import CALLED, CHEXPERT
from eye import best_f1, held_out_f1


def main() -> None:
    """Print a line for each observation, and the mean of the 14."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a model that diagnoses: union, revtaf")
    parser.add_argument("--data", required=True, help="prepared dataset")
    parser.add_argument("--split", default="val", help="split whose studies are scored")
    chosen = parser.parse_args()
    model, dataset = ReportModel.from_pretrained(chosen.model), Dataset.open(chosen.data)
    collator, transform, rows = collator_of(model, dataset), transform_of(model), dataset.rows(chosen.split)
    found = []
    with torch.inference_mode():
        for first in range(0, len(rows), 16):
            inputs = transform_inputs(collator.inputs(rows[first : first + 16]), transform, train=False)
            aux = model.encode(inputs).aux
            if "observations" in aux:  # the encoder's own classifier has one logit for an observation
                found.append(aux["observations"].float().sigmoid())
            else:
                found.append(aux["statuses"].float().softmax(1)[:, CALLED].sum(1))
    scores = torch.cat(found).numpy()
    truth = np.isin(np.asarray(dataset.labels)[rows], CALLED)
    columns = {name: (scores[:, i].astype(np.float64), truth[:, i]) for i, name in enumerate(dataset.info.observations)}
    values = {name: (best_f1(*column), held_out_f1(*column)) for name, column in columns.items()}
    means = np.mean([values[name] for name in CHEXPERT], axis=0)
    for name, (best, held) in [*values.items(), ("mean of the 14 of CheXpert", means)]:
        print(f"{name}: best F1 {best:.3f}, held-out F1 {held:.3f}")


if __name__ == "__main__":
    main()
