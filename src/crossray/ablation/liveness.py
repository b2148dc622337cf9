"""Liveness of the systems of recipes, at initialization and after a few steps on a few drawn studies."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning

from crossray.analysis.inputs import collator_of, tokenizer_of, transform_of
from crossray.analysis.liveness import Measured, measure
from crossray.data.batches.batch import Batch
from crossray.data.batches.features import build_features
from crossray.data.batches.loading import reported_rows
from crossray.data.batches.module import StudyDataModule
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset, write_dataset
from crossray.models.base import ReportModel
from crossray.models.registry import list_models
from crossray.phantom.source import phantom_studies
from crossray.training.config import Recipe, ScheduleConfig
from crossray.training.module import TrainingModule
from crossray.training.prerequisites import fulfil
from crossray.training.recipe import load
from crossray.training.run import build_model, train
from crossray.training.stages import StageKeeper, loss_weights

#: Studies to train on, and steps.
STUDIES, STEPS = 64, 50

#: Recipes that are measured of every system: for drawn radiographs, and for real ones on a laptop.
RECIPES = tuple(f"{system}/{kind}" for system in list_models() for kind in ("phantom", "iu_xray-laptop"))

#: Overrides for a short training without changes to the model.
SMALL: Mapping[str, Any] = {
    "data.batch_size": 8, "data.feature_variants": 3, "trainer.accelerator": "cpu", "trainer.threads": 1,
    "decoding.forbidden": (),  # the drawn reports may lack these words; no report is written here
}  # fmt: skip

#: Studies in a batch on which a trained model is measured.
_BATCH = 16

#: Side of the images of a system that trains its own backbone.
_SIDE = 96


@dataclass
class Newborn:
    """A system with initial weights and its training data.

    Attributes:
        recipe: recipe with all stages merged into one, with the switches of all and the loss weights of the last.
        model: model in the state of that stage.
        data: its batches, augmented in training.
    """

    recipe: Recipe
    model: ReportModel
    keeper: StageKeeper
    data: StudyDataModule

    def batches(self) -> list[Batch]:
        """The training studies in batches, not augmented."""
        return [self.data.on_after_batch_transfer(batch, 0) for batch in self.data.evaluation_loader("train")]

    def weights(self) -> Mapping[str, float]:
        """Weights of the losses."""
        return loss_weights(self.model, self.recipe.stages[0])

    def measure(self) -> Measured:
        """See `crossray.analysis.liveness.measure`; half of the studies are enough."""
        return measure(self.model, self.batches()[:4], self.weights())

    def train(self, steps: int = STEPS) -> None:
        """Perform optimizer steps like `crossray train`, without validation."""
        epochs = -(-steps // len(self.data.train_dataloader()))
        module = TrainingModule(self.model, self.recipe, self.keeper, epochs=epochs)
        trainer = lightning.Trainer(
            max_steps=steps, max_epochs=epochs, accelerator="cpu", devices=1, logger=False, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=self.data)


def draw_studies(folder: Path, studies: int = STUDIES) -> Dataset:
    """Drawn training studies, and an eighth as many for validation, by which prerequisites are selected."""
    drawn = list(phantom_studies(studies + studies // 8, 0, "easy"))
    split = [dataclasses.replace(s, split="train" if n < studies else "val") for n, s in enumerate(drawn)]
    return write_dataset(folder, split, size=256, source={"kind": "phantom", "studies": studies}, workers=0)


def newborn(name: str, dataset: Dataset, overrides: Mapping[str, Any] | None = None) -> Newborn:
    """The system of a recipe with fresh weights, on images as small as it allows.

    Models that the recipe needs are trained for two epochs, once per dataset.

    Args:
        name: name of the recipe.
        dataset: result of `draw_studies`.
        overrides: dotted field -> value, for an ablation's row.
    """
    recipe, _ = fulfil(joined(load(name, {**SMALL, **(overrides or {})})), dataset, _briefly)
    if recipe.data.image.size > _SIDE and _trains_backbone(recipe):
        image = dataclasses.replace(recipe.data.image, size=_SIDE, resize=_SIDE + 8)
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, image=image))
    model = build_model(recipe, dataset)
    assert isinstance(model, ReportModel)
    keeper = StageKeeper(model)
    keeper.enter(recipe.stages[0])
    model.eval()
    data, features, fingerprint = recipe.data, None, model.features_fingerprint()
    if fingerprint is not None:
        features = build_features(
            dataset, model.prepare_features, data.image, fingerprint, variants=data.feature_variants,
            dtype=data.feature_dtype,
        )  # fmt: skip
    model.learn_from(dataset, data.section, features)
    module = StudyDataModule(
        dataset, model.tokenizer, data.image, section=data.section, max_length=data.max_length, views=data.views,
        batch_size=data.batch_size, features=features, seed=recipe.trainer.seed,
    )  # fmt: skip
    return Newborn(recipe, model, keeper, module)


def measure_trained(model: ReportModel, dataset: Dataset, split: str, section: str) -> Measured:
    """Measure a trained model on the first `STUDIES` studies of a split; see `crossray.analysis.liveness.measure`.

    Raises:
        UserError: the dataset has no such split, or the model lacks its tokenizer or transform.
    """
    transform = transform_of(model)
    tokenizer = tokenizer_of(model)
    collator = collator_of(model, dataset, tokenizer, section)
    rows = reported_rows(dataset, split, section, tokenizer.cleaner)[:STUDIES]
    frozen = set(model.frozen())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    parts = [collator(rows[first : first + _BATCH]) for first in range(0, len(rows), _BATCH)]
    batches = [replace(part, inputs=transform_inputs(part.inputs, transform, train=False)) for part in parts]
    return measure(model, batches, model.loss_weights)


def _trains_backbone(recipe: Recipe) -> bool:
    """Whether images go through a backbone that is trained: the size of other images is part of what they are."""
    backbone = getattr(recipe.model, "backbone", None)
    return backbone is not None and backbone.trainable and getattr(recipe.model, "visual", "") != "tokens"


def joined(recipe: Recipe) -> Recipe:
    """The recipe with one stage: the switches of all its stages, the last one's loss weights, a constant rate."""
    switches: dict[str, Any] = {}
    for stage in recipe.stages:
        switches.update(stage.switches)
    last = recipe.stages[-1]
    stage = dataclasses.replace(last, switches=switches, learning_rates={}, start_from="last")
    schedule = ScheduleConfig(name="constant", warmup_steps=5)
    return dataclasses.replace(recipe, stages=(stage,), schedule=schedule)


def _briefly(recipe: Recipe, data: Path, run: Path) -> None:
    """Train a prerequisite, and before it what it needs itself, for two epochs."""
    filled, _ = fulfil(recipe, Dataset.open(data), _briefly)
    trainer = dataclasses.replace(filled.trainer, max_epochs=2, min_epochs=0, validate_every=1, accelerator="cpu")
    train(dataclasses.replace(filled, trainer=trainer), data, run)
