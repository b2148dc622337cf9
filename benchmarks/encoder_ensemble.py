"""What several encoders and several augmented copies of each image add to one encoder: AUROC on validation.

    python benchmarks/encoder_ensemble.py ENCODER [ENCODER ...] --data data/iu

Prints the mean AUROC over the observations with at least 10 positives: of every encoder on the images as they are, and
with the logits of four augmented copies added; and of the mean of all encoders, each standardized.
"""

import argparse

import torch
from torch import Tensor

from crossray.data.batches.module import StudyDataModule
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.models.pretraining.vision import FREQUENT, Vision, auroc
from crossray.training.recipe import load

COPIES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="+", help="model folders of `crossray pretrain vision`")
    parser.add_argument("--data", required=True, help="prepared dataset")
    chosen = parser.parse_args()
    recipe = load("vision/iu_xray").data
    data = StudyDataModule(Dataset.open(chosen.data), None, recipe.image, views=recipe.views, batch_size=16)
    plain, copied = [], []
    for name in chosen.encoders:
        model = Vision.from_pretrained(name)
        torch.manual_seed(0)
        one, several, truth = [], [], []
        with torch.inference_mode():
            for batch in data.val_dataloader():
                kinds = [False] + [True] * COPIES
                found = [model(transform_inputs(batch.inputs, recipe.image, train=kind)).double() for kind in kinds]
                one.append(found[0])
                several.append(torch.stack(found).mean(0))
                truth.append(model.truth(batch))
        plain.append(torch.cat(one))
        copied.append(torch.cat(several))
        print(f"{name}: {mean_auroc(plain[-1], torch.cat(truth)):.3f}, with {COPIES} augmented copies of each image "
              f"{mean_auroc(copied[-1], torch.cat(truth)):.3f}", flush=True)  # fmt: skip
    for what, scores in (("the mean of all", plain), ("with copies", copied)):
        mean = torch.stack([(logits - logits.mean(0)) / logits.std(0) for logits in scores]).mean(0)
        print(f"{what}: {mean_auroc(mean, torch.cat(truth)):.3f}")


def mean_auroc(scores: Tensor, truth: Tensor) -> float:
    """Mean over the frequent observations of scores (N, K) and targets (N, K), which are 1, 0, or -1 if unknown."""
    found = [
        auroc(scores[truth[:, place] >= 0, place], truth[truth[:, place] >= 0, place] == 1)
        for place in range(truth.shape[1])
        if (truth[:, place] == 1).sum() >= FREQUENT
    ]
    return sum(value for value in found if value is not None) / len(found)


if __name__ == "__main__":
    main()
