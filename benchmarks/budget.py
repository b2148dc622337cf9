"""What training on MIMIC-CXR costs at paper size: operations counted here, hours and money by arithmetic.

The matrix products of a training step are counted for four studies at the sizes and epochs of the recipes
`SYSTEM/mimic_cxr`, with one view, 100 tokens, and image tokens or places of UAR and REVTAF computed before. A step
takes its operations at a share of the accelerator's peak rate, but at least some time for launching its kernels, which
decides for the recipes' batches of 16. Both are **assumed**, not measured. Give your own numbers.
Images must arrive at the rate that is printed.

    python benchmarks/budget.py [--peak 989] [--share 0.1] [--launch 0.03] [--devices 8] [--price 3] [--json]
"""

import dataclasses
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from common import parser, report
from crossray.models.base import system_class
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig
from crossray.models.registry import create_model
from crossray.models.revtaf import REVTAF
from crossray.text.observations import OBSERVATIONS
from crossray.training import recipe as recipes
from revtaf_step import database, make_batch

#: Training studies with findings of MIMIC-CXR in R2Gen's split, each image a study of its own.
TRAINING_IMAGES = 270_790
STUDIES, WORDS, VOCABULARY = 4, 100, 4500
SYSTEMS = ("baseline", "cmn", "rcan", "coacl", "uar", "revtaf")
#: Downloaded encoders of the recipes -> ones of the same size with random weights.
ENCODERS = {"microsoft/resnet-101": "random:resnet101", "facebook/deit-base-patch16-224": "random:vit_b16"}


def gflop_of(system: str) -> float:
    """Billions of operations of a training step, for each study."""
    torch.manual_seed(0)
    backbone = recipes.load(f"{system}/mimic_cxr").model.backbone  # type: ignore[attr-defined]
    known: dict[str, Any] = {
        "backbone": BackboneConfig(name=ENCODERS[backbone.name], cls_token=backbone.cls_token),
        "image_tokenizer": ImageTokenizerConfig(name="random:tiny"),
        "knowledge": KnowledgeEncoderConfig(name="random:tiny"),
        "vocabulary_size": VOCABULARY, "observations": OBSERVATIONS, "max_length": WORDS, "views": 1,
    }  # fmt: skip
    fields = {field.name for field in dataclasses.fields(system_class(system).config_class)}
    model: Any = create_model(system, **{name: known[name] for name in known.keys() & fields}).train()
    batch = make_batch(model, STUDIES, WORDS, None, channels=1)  # without cached features, channels are not used
    if system == "uar":
        batch.inputs.features["tokens"] = torch.randint(0, model.visual.tokenizer.codes, (STUDIES, 1, 196))
    if isinstance(model, REVTAF):
        model.database = database(model)
    with FlopCounterMode(display=False) as counter:
        torch.stack([*model.losses(batch).values()]).sum().backward()
    return float(counter.get_total_flops()) / STUDIES / 1e9


def main() -> None:
    """Count and print."""
    options = parser(__doc__ or "")
    options.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of the accelerator in bf16 (H100, H200)")
    options.add_argument("--share", type=float, default=0.1, help="assumed share of it that a step reaches")
    options.add_argument("--launch", type=float, default=0.03, help="assumed least seconds of a step")
    options.add_argument("--devices", type=int, default=8, help="accelerators of the second estimate")
    options.add_argument("--scaling", type=float, default=0.9, help="assumed efficiency of these")
    options.add_argument("--price", type=float, default=3.0, help="assumed price of an accelerator for an hour")
    given = options.parse_args()
    rows = []
    for system in SYSTEMS:
        recipe = recipes.load(f"{system}/mimic_cxr")
        epochs, batch = sum(recipe.stage_epochs()), recipe.data.batch_size
        gflop = gflop_of(system)
        computing = batch * gflop / (given.peak * 1e3 * given.share)
        rate = batch / max(computing, given.launch)
        hours = TRAINING_IMAGES * epochs / rate / 3600
        rows.append(
            {
                "system": system,
                "GFLOP per image": gflop,
                "epochs": epochs,
                "batch": batch,
                "computing ms": 1e3 * computing,
                "images/s": rate,
                "hours, 1 device": hours,
                f"hours, {given.devices} devices": hours / given.devices / given.scaling,
                "price": hours * given.price,
            }
        )
    report(f"MIMIC-CXR at {given.share} of {given.peak:.0f} TFLOP/s", rows, json=given.json)


if __name__ == "__main__":
    main()
