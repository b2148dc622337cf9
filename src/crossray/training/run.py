"""Training runs: a folder with the best model and a record of its training, which can be resumed bit for bit.

recipe.yaml      the recipe with all overrides
provenance.json  dataset and its SHA-256, versions, seed, git commit
metrics.jsonl    rows of training losses at intervals, and a row for each validation
last.ckpt        checkpoint for resuming the run
best/            model folder with the best validation metric
"""

import contextlib
import dataclasses
import json
import logging
import platform
import shlex
import signal
import subprocess
import threading
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from rich.console import Console
from rich.progress import Progress

import crossray
from crossray.data.batches.features import FeatureCache, build_features
from crossray.data.batches.module import StudyDataModule
from crossray.data.store import Dataset
from crossray.decoding.reports import special_ids
from crossray.decoding.risk import require_diagnosis
from crossray.decoding.settings import GenerationSettings
from crossray.errors import UserError
from crossray.files.folders import BEST
from crossray.files.write import recover_folder, write_whole
from crossray.models.base import Encoded, ReportModel, Trainable, system_class
from crossray.text.tokenizer import Tokenizer
from crossray.training.averaging import WeightAverage
from crossray.training.callbacks import METRICS, Clock, LastValidation, MetricsLog
from crossray.training.checkpoints import LAST, BestModel, Interrupted, LastCheckpoint, read_checkpoint
from crossray.training.config import DataConfig, Recipe
from crossray.training.device import choose_device, choose_precision
from crossray.training.folder import LOCK, PROVENANCE, RECIPE, alone, first_process, is_over, say_finished
from crossray.training.heartbeat import Heartbeat, duration
from crossray.training.lengths import check_lengths
from crossray.training.loggers import build_logger
from crossray.training.module import TrainingModule
from crossray.training.prerequisites import fulfil
from crossray.training.progress import ProgressDisplay
from crossray.training.recipe import check_names, from_dict, to_dict, to_yaml
from crossray.training.reward import RewardFunction, RewardObjective
from crossray.training.selection import check_modes
from crossray.training.stages import StageKeeper, first_model, loss_weights, weights_from
from crossray.training.supervision import Supervision


def train(recipe: Recipe, data: Path, out: Path) -> Path:
    """Train a system on a prepared dataset.

    Args:
        recipe: a recipe from `crossray.training.recipe`.
        data: prepared dataset; the reports and labels of its test split are never read.
        out: folder of the run, which must be empty or not exist.

    Returns:
        The folder of the best model.

    Raises:
        UserError: the folder is in use, the recipe does not match the dataset, or a loss is not finite.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    check_names(recipe)
    check_modes(recipe)
    with alone(out):
        # a process that was killed early leaves these two files without recipe.yaml
        if first_process() and any(path.name not in (LOCK, PROVENANCE) for path in out.iterdir()):
            folder = shlex.quote(str(out))
            raise UserError(f"{out} is not empty; choose another --out, or continue it with --resume {folder}.")
        dataset = Dataset.open(data)
        provenance = _provenance(recipe, dataset)
        filled, built = fulfil(recipe, dataset, train_or_resume)
        if built:
            provenance["built"] = built
        run = _Run(filled, dataset, out, provenance)
        if first_process():
            write_whole(out / PROVENANCE, json.dumps(provenance, indent=2) + "\n")
            write_whole(out / RECIPE, to_yaml(recipe))
        return run.go(None)


def resume(out: Path, data: Path | None = None) -> Path:
    """Resume a run from its last checkpoint; if it is finished, only print a message.

    Args:
        out: folder of the run.
        data: where its dataset is now, if it has moved.

    Returns:
        The folder of the best model.

    Raises:
        UserError: `out` is not the folder of a run, a file in it is damaged or missing, its dataset has changed, or
            another process is writing to it.
        KeyboardInterrupt: Ctrl-C; the run can be resumed.
    """
    foreign = f"{out}: not the folder of a training run ({{}}); name the --out of `crossray train`."
    if not (out / RECIPE).exists():
        raise UserError(foreign.format(f"it has no {RECIPE}"))
    with alone(out):
        try:
            values = yaml.safe_load((out / RECIPE).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"{RECIPE} is not a mapping")
            recipe = from_dict(values, str(out / RECIPE))
            provenance = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
            stored = Path(provenance["data"]["path"])
            moved = data is not None and data.resolve() != stored
            data = data or stored
            provenance["data"]["path"] = str(data.resolve())
            sha256 = str(provenance["data"]["sha256"])
            built = dict(provenance.get("built") or {})
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(foreign.format(f"{RECIPE} or {PROVENANCE}: {type(error).__name__}")) from error
        if not moved and not data.exists():
            raise UserError(f"{data}: the dataset of this run is not there; name its present folder with --data.")
        dataset = Dataset.open(data)
        if dataset.info.sha256 != sha256 and moved:
            raise UserError(f"{data}: is not the dataset that the run started with ('sha256'); give that one.")
        if dataset.info.sha256 != sha256:
            raise UserError(
                f"{dataset.path}: its content has changed since the run started ('sha256'); restore it or start a "
                f"new run."
            )
        recover_folder(out / BEST)
        checkpoint = read_checkpoint(out / LAST) if (out / LAST).exists() else None
        if checkpoint is not None and is_over(recipe, checkpoint):
            return say_finished(recipe, out, checkpoint)
        filled, _ = fulfil(recipe, dataset, train_or_resume, built)
        run = _Run(filled, dataset, out, provenance)
        if first_process():
            write_whole(out / PROVENANCE, json.dumps(provenance, indent=2) + "\n")
        return run.go(checkpoint)


def train_or_resume(recipe: Recipe, data: Path, run: Path) -> Path:
    """Start a run in a new folder, or resume the run in that folder (a `prerequisites.Trainer`)."""
    return resume(run, data) if (run / RECIPE).exists() else train(recipe, data, run)


class _Run:
    """A run in this process: model, data, callbacks, and the loop over the stages."""

    def __init__(self, recipe: Recipe, dataset: Dataset, out: Path, provenance: dict[str, Any]) -> None:
        self.recipe, self.out, self.provenance = recipe, out, provenance
        self.console = Console(stderr=True, markup=False, emoji=False)
        if recipe.trainer.threads:
            torch.set_num_threads(recipe.trainer.threads)
        self.model = build_model(recipe, dataset)
        folder = first_model(recipe)
        if folder is not None:
            # already now, because features and retrieved reports are those of its frozen networks
            weights_from(self.model, folder)
        self.keeper = StageKeeper(self.model)
        self.keeper.check(recipe.stages, recipe.optimizer)
        self.device = choose_device(recipe.trainer)
        self.precision = choose_precision(recipe.trainer, self.device)
        if recipe.trainer.precision == "bf16" and self.precision != "bf16-mixed" and first_process():
            self.console.print("Training in float32, because this machine has no bf16 arithmetic.")
        # more than one if the run was resumed on another type of machine
        precisions = provenance.setdefault("precisions", [])
        if self.precision not in precisions[-1:]:
            precisions.append(self.precision)
        self.dataset = dataset
        self.features: FeatureCache | None = None
        for split in ("train", "val"):
            self._data(0).rows(split)  # raises for a split without studies
        self.features = self._cached_features()
        if isinstance(self.model, ReportModel):
            device = "cuda" if self.device == "gpu" else "cpu"
            self.model.to(device).eval().learn_from(dataset, recipe.data.section, self.features)
        self._check_diagnosis()
        self.supervision = self._supervision()
        self.objective = self._objective()
        self.clock = Clock(recipe.trainer.max_minutes * 60)
        self.log = MetricsLog(out / METRICS, recipe.trainer.log_every, self.clock)
        self.logger = build_logger(recipe.trainer.logger, out)
        self.last = LastCheckpoint(out / LAST, recipe.trainer)
        # model folders are passed on, so they do not contain the path of the dataset
        data = {name: value for name, value in provenance["data"].items() if name != "path"}
        writes = isinstance(self.model, ReportModel)
        generation = GenerationSettings.of_recipe(recipe.decoding, provenance["recipe"]["data"]) if writes else None
        if generation is not None and folder is not None:  # its vocabulary
            earlier = GenerationSettings.load(folder, recipe.data.max_length)
            generation = dataclasses.replace(generation, min_count=earlier.min_count)
        self.best = BestModel(out / BEST, recipe.trainer, {**provenance, "data": data}, generation)

    def go(self, checkpoint: dict[str, Any] | None) -> Path:
        """Run all stages, or continue from `checkpoint`; return the folder of the best model."""
        first = int(checkpoint["stage"]) if checkpoint else 0
        if first_process():
            self.log.keep_until(int(checkpoint["step"]) if checkpoint else -1)
        for stage in self.recipe.stages[:first]:
            self.keeper.enter(stage)
        steps = int(checkpoint["steps_before"]) if checkpoint else 0
        epochs_before = int(checkpoint["epochs_before"]) if checkpoint else 0
        for index, epochs in enumerate(self.recipe.stage_epochs()):
            if index < first or not epochs:
                continue
            continued = checkpoint if index == first else None
            if continued is None:
                self._warm_start(index)
            self.keeper.enter(self.recipe.stages[index])
            module = TrainingModule(
                self.model, self.recipe, self.keeper, stage=index, epochs=epochs, steps_before=steps,
                epochs_before=epochs_before, supervision=self.supervision, objective=self.objective,
            )  # fmt: skip
            if continued and continued["finished"]:
                module.load_state_dict(continued["state_dict"])
                for callback in (self.clock, self.best):
                    callback.load_state_dict(continued["callbacks"][callback.state_key])
                steps, epochs_before = int(continued["step"]), epochs_before + int(continued["epoch"])
                continue
            self.best.begin(module)
            trainer = self._fit(module, epochs, continued is not None)
            steps, epochs_before = module.step, epochs_before + trainer.current_epoch
            if self.clock.over:
                break
        if first_process():
            self.console.print(
                f"Training ended at epoch {epochs_before} of {sum(self.recipe.stage_epochs())} after "
                f"{duration(self.clock.elapsed)}; the best model is in {self.out / BEST}.",
                soft_wrap=True, highlight=False,
            )  # fmt: skip
        return self.out / BEST

    def _warm_start(self, index: int) -> None:
        """Load the initial weights of the stage, if it does not continue with the current ones."""
        if index and self.recipe.stages[index].start_from == "best":
            weights_from(self.model, self.out / BEST)
        elif not index and (folder := first_model(self.recipe)):
            weights_from(self.model, folder)  # again, because `learn_from` computed statistics of this dataset

    def _fit(self, module: TrainingModule, epochs: int, continued: bool) -> lightning.Trainer:
        config = self.recipe.trainer
        average = [WeightAverage(config.average)] if config.average else []
        callbacks = [
            self.clock, LastValidation(), self.log, self.best, *average, ProgressDisplay(self.console), self.last,
        ]  # fmt: skip
        with _quiet(), _ctrl_c(self.last):
            trainer = lightning.Trainer(
                max_epochs=epochs, callbacks=callbacks, accelerator=self.device, devices=config.devices,
                strategy="auto" if config.devices * config.nodes == 1 else "ddp_find_unused_parameters_true",
                num_nodes=config.nodes,
                precision=self.precision, accumulate_grad_batches=config.accumulate,
                check_val_every_n_epoch=config.validate_every,
                num_sanity_val_steps=0, logger=self.logger or False, enable_checkpointing=True,
                enable_progress_bar=False, enable_model_summary=False,
                use_distributed_sampler=False, default_root_dir=self.out,
            )  # fmt: skip
            try:
                trainer.fit(
                    module,
                    datamodule=self._data(module.stage_index),
                    ckpt_path=self.out / LAST if continued else None,
                    weights_only=True,
                )
            except Interrupted:
                folder = shlex.quote(str(self.out))
                raise KeyboardInterrupt(f"Interrupted; continue with `crossray train --resume {folder}`.") from None
            module.finish()
            self.last.save(trainer)
        return trainer

    def _check_diagnosis(self) -> None:
        """Raise the error of generation before training, if there will be one."""
        if isinstance(self.model, ReportModel) and self.recipe.decoding.diagnosis_weight:
            require_diagnosis(self.model, self._encoded(), self.recipe.decoding)

    def _encoded(self) -> Encoded:
        """One training study."""
        model, data = typing.cast(ReportModel, self.model), self._data(0)
        with torch.inference_mode():
            return model.encode(data.inputs(data.rows("train")[:1], next(model.parameters()).device))

    def _supervision(self) -> Supervision | None:
        if not any(loss_weights(self.model, stage).get("supervision") for stage in self.recipe.stages):
            return None
        width = self._encoded().memory.shape[-1]
        torch.manual_seed(self.recipe.trainer.seed)
        return Supervision(width, len(self.dataset.info.observations))

    def _objective(self) -> RewardObjective | None:
        if all(stage.objective == "likelihood" for stage in self.recipe.stages):
            return None
        tokenizer, data, recipe = typing.cast(ReportModel, self.model).tokenizer, self._data(0), self.recipe
        if tokenizer is None:
            raise ValueError("rewards need the tokenizer of the model")
        reports = self.dataset.reports(data.rows("train"), recipe.data.section)
        documents = [tokenizer.decode(tokenizer.encode(report, recipe.data.max_length)) for report in reports]
        return RewardObjective(RewardFunction(documents, recipe.reward), recipe.reward, recipe.decoding)

    def _data(self, stage: int) -> StudyDataModule:
        data = self.recipe.data
        return StudyDataModule(
            self.dataset, self.model.tokenizer if isinstance(self.model, ReportModel) else None, data.image,
            section=data.section, max_length=data.max_length, views=data.views, batch_size=data.batch_size,
            workers=data.workers, features=self.features,
            seed=self.recipe.trainer.seed + (stage << 32),  # a different order of the studies in every stage
        )  # fmt: skip

    def _cached_features(self) -> FeatureCache | None:
        data, model = self.recipe.data, self.model
        if not isinstance(model, ReportModel):
            return None
        fingerprint = model.features_fingerprint()
        if fingerprint is None:
            return model.cached_features(self.dataset)
        if not data.cache_features:
            return None
        model.eval()
        # workers of Ray get the model from the CPU
        device = "cuda" if self.device == "gpu" and data.feature_engine == "local" else "cpu"
        with Progress(*Progress.get_default_columns(), console=self.console, disable=not first_process()) as bar:
            task, beat = bar.add_task("caching features"), Heartbeat("caching features", self.console)

            def progress(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)
                beat(done, total)

            found = build_features(
                self.dataset, model.to(device).prepare_features, data.image, fingerprint,
                variants=data.feature_variants, device=device, dtype=data.feature_dtype,
                engine=data.feature_engine, progress=progress,
            )  # fmt: skip
            beat.end()
            return found


def build_model(recipe: Recipe, dataset: Dataset) -> Trainable:
    """Build the system of a recipe with initial weights, with vocabulary, observations, views and length of a dataset.

    The tokenizer is trained on the training split only. It has status tokens if the system's configuration has the
    field `status_ids`.

    Raises:
        UserError: the dataset lacks data that the system needs, its reports are shorter than `decoding.min_length`, or
            a forbidden word is not in the vocabulary.
    """
    kind = system_class(recipe.system)
    data = recipe.data
    filled: dict[str, Any] = {
        "max_length": data.max_length,
        "observations": dataset.info.observations,
        "views": data.views,
        "image_size": data.image.size,
    }
    known = {field.name for field in dataclasses.fields(kind.config_class)}
    tokenizer = None
    if issubclass(kind, ReportModel):
        folder = first_model(recipe)
        if folder is not None:
            tokenizer = Tokenizer.load(folder / "tokenizer.json")
        else:
            tokenizer = _tokenizer(data, dataset, statuses="status_ids" in known)
        check_lengths(recipe, dataset, tokenizer)
        special_ids(tokenizer, recipe.decoding)  # otherwise, an unknown word would end the first validation
        filled["vocabulary_size"] = tokenizer.vocabulary_size
        filled["status_ids"] = tokenizer.status_ids
    config = dataclasses.replace(recipe.model, **{name: value for name, value in filled.items() if name in known})
    config = config.fitted(lambda: dataset.reports(dataset.rows("train"), data.section))
    torch.manual_seed(recipe.trainer.seed)
    model = kind(config)
    if isinstance(model, ReportModel):
        model.tokenizer, model.transform, model.stored = tokenizer, data.image, dataset.info.size
    return model


def _tokenizer(data: DataConfig, dataset: Dataset, statuses: bool) -> Tokenizer:
    if data.vocabulary:
        return Tokenizer.released(data.vocabulary, data.cleaner)
    return Tokenizer.train(
        dataset.reports(dataset.rows("train"), data.section), kind=data.tokenizer, cleaner=data.cleaner,
        min_count=data.min_count, size=data.vocabulary_size, statuses=statuses,
    )  # fmt: skip


def _provenance(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    versions = {"crossray": crossray.__version__, "torch": torch.__version__, "lightning": lightning.__version__}
    return {
        "data": {"path": str(dataset.path.resolve()), "sha256": dataset.info.sha256, "source": dataset.info.source},
        "recipe": to_dict(recipe),
        "seed": recipe.trainer.seed,
        "versions": {**versions, "python": platform.python_version()},
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Return the commit of the checkout that contains this package; None if there is no checkout."""
    folder = Path(crossray.__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's banners and hints, but not the warnings of other libraries."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _ctrl_c(checkpoint: LastCheckpoint) -> Iterator[None]:
    """Handle Ctrl-C: the first requests a checkpoint after the current step, the second stops immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals can only be handled in the main thread
        return

    def ask(number: int, frame: Any) -> None:
        checkpoint.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
