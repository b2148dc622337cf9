"""Recipes: everything that decides how something is trained, as frozen dataclasses (docs/reference/r2gen-family.md).

`recipe.py` reads and writes them as YAML; the field descriptions below are the help of `crossray train`.
"""

from dataclasses import dataclass, field
from typing import Literal

from crossray.data.batches.transform import ImageTransform
from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError
from crossray.models.base import TrainableConfig

__all__ = [
    "DataConfig", "OptimizerConfig", "Recipe", "RewardConfig", "ScheduleConfig", "Stage", "TrainerConfig",
]  # fmt: skip


def _at_least(section: str, config: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value < least:
            raise UserError(f"recipe field '{section}.{name}' is {value}; give at least {least}.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How a prepared dataset becomes batches.

    Attributes:
        batch_size: studies of one process and step.
        workers: processes that load batches; 0 loads in the training process.
        section: section of the report to learn.
        cleaner: report cleaner (legacy, legacy_mimic, fixed or none); the papers use the legacy ones.
        tokenizer: kind of tokenizer, trained on the reports of the training split unless `vocabulary` is given.
        vocabulary: released WordPiece vocabulary: vocab.txt or tokenizer.json, a folder that holds one of them, or the
            name of a BERT on the Hugging Face hub; with the wordpiece tokenizer only.
        min_count: fewest occurrences of a word in the training split to enter the vocabulary (word tokenizer).
        vocabulary_size: most entries of the vocabulary (wordpiece tokenizer).
        max_length: most tokens of a report, begin and end included.
        views: most views of a study that the model sees.
        image: geometry and normalisation of the images.
        cache_features: compute the output of frozen parts once per image and train from it.
        feature_variants: augmented versions of each image in that cache; 1 stores the unaugmented image only.
        feature_dtype: number format of that cache.
    """

    batch_size: int = 16
    workers: int = 0
    section: Literal["findings", "impression"] = "findings"
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy"
    tokenizer: Literal["word", "wordpiece"] = "word"
    vocabulary: str = ""
    min_count: int = 3
    vocabulary_size: int = 30522
    max_length: int = 60
    views: int = 2
    image: ImageTransform = field(default_factory=ImageTransform)
    cache_features: bool = True
    feature_variants: int = 1
    feature_dtype: Literal["float16", "float32"] = "float16"

    def __post_init__(self) -> None:
        """Refuse values that no training can use."""
        _at_least("data", self, 1, "batch_size", "min_count", "views", "feature_variants")
        _at_least("data", self, 0, "workers")
        _at_least("data", self, 3, "max_length")
        if self.vocabulary and self.tokenizer != "wordpiece":
            raise UserError(f"recipe field 'data.vocabulary' is {self.vocabulary}; set data.tokenizer to wordpiece.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training with its own losses, weights and fresh optimiser.

    Attributes:
        epochs: passes over the training split.
        objective: what is learned from: the true reports (likelihood), or what sampled reports score (reward, see
            section `reward`).
        loss_weights: weight of each named loss; losses that are left out weigh what the system declares, those with
            weight 0 are only logged. Every system that writes reports has "supervision" besides (the observations, from
            the mean of what the decoder reads; 0 unless given). A stage of objective reward has "reward" (1) and "kl"
            (0), and the system's own losses weigh a tenth there.
        freeze: beginnings of the names of parameters that this stage leaves alone; their modules run in eval mode.
        switches: configuration fields of the model that this stage changes (its `switchable` ones).
        learning_rates: like `optimizer.groups`, for this stage; the key "" replaces `optimizer.learning_rate`.
        start_from: weights that the stage begins with: "last" or "best" of the stage before. In the first stage also
            the folder of a saved model or run of the same system and sizes; the vocabulary is then that model's.
        monitor: validation metric that selects the best model of this stage; "": `trainer.monitor`. A stage that
            selects by another metric than the stage before begins its own best model; the earlier one stays in
            `best-stageN`.
        mode: of `monitor`, as in `trainer.mode`.
    """

    epochs: int = 30
    objective: Literal["likelihood", "reward"] = "likelihood"
    loss_weights: dict[str, float] = field(default_factory=dict)
    freeze: tuple[str, ...] = ()
    switches: dict[str, bool | int | float | str] = field(default_factory=dict)
    learning_rates: dict[str, float] = field(default_factory=dict)
    start_from: str = "last"
    monitor: str = ""
    mode: Literal["max", "min"] = "max"

    def __post_init__(self) -> None:
        """Refuse a stage without epochs."""
        _at_least("stages", self, 1, "epochs")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What stages of objective reward learn from.

    Attributes:
        samples: reports that are drawn for each study and step.
        baseline: what a sample's reward is compared with: the mean of the study's other samples (group), or the reward
            of the report that greedy search writes (greedy, self-critical training).
        standardize: divide the advantages of a study by the deviation of its rewards.
        temperature: of the samples; above 1 they differ more.
        cider: weight of CIDEr-D (0 to 10), with document frequencies of the training reports.
        cider_limit: CIDEr-D counts up to this much. Without a limit it pays to write a rarely used template for
            everyone: the few reports that repeat it word for word earn ten times what a good report does.
        clinical: weight of the F1 of the observations (0 to 1), read by the embedded labeler.
        rarity: of that F1: an observation weighs its frequency among the training reports to the power of minus this.
            With 0 all weigh alike, and a report that calls everyone normal earns most.
        length: weight of the logarithm of a length more than a quarter off the true one; it counts against a report.
        repetition: weight of the share of 4-grams that a report repeats; it counts against it.
    """

    samples: int = 5
    baseline: Literal["group", "greedy"] = "group"
    standardize: bool = False
    temperature: float = 1.0
    cider: float = 0.1
    cider_limit: float = 1.0
    clinical: float = 1.0
    rarity: float = 0.0
    length: float = 0.5
    repetition: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that no training can use."""
        _at_least("reward", self, 2 if self.baseline == "group" or self.standardize else 1, "samples")
        _at_least("reward", self, 0, "cider", "cider_limit", "clinical", "rarity", "length", "repetition")
        if self.temperature <= 0:
            raise UserError(f"recipe field 'reward.temperature' is {self.temperature}; give a value above 0.")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser and its parameter groups.

    Attributes:
        name: adam (L2 penalty) or adamw (decoupled weight decay).
        learning_rate: of every parameter that `groups` does not name.
        groups: beginning of a parameter's name -> its learning rate; the longest fitting beginning counts.
        amsgrad: use the AMSGrad variant.
        betas: decay rates of the two moving averages.
        eps: added to the denominator.
        weight_decay: strength of the penalty or decay.
        weight_decay_skip: leave biases and the parameters of normalisation layers without weight decay.
    """

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    groups: dict[str, float] = field(default_factory=dict)
    amsgrad: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    weight_decay_skip: bool = False

    def __post_init__(self) -> None:
        """Refuse negative rates."""
        _at_least("optimizer", self, 0, "learning_rate", "weight_decay")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The factor on every learning rate, a function of the optimiser step within the stage.

    Attributes:
        name: constant; step (multiplied by `gamma` every `step_epochs` epochs); cosine (falls to `minimum` at the end).
        warmup_steps: steps of linear rise at the beginning.
        step_epochs: epochs between two drops (step).
        gamma: factor of each drop (step).
        minimum: lowest factor (cosine).
    """

    name: Literal["constant", "step", "cosine"] = "constant"
    warmup_steps: int = 0
    step_epochs: int = 10
    gamma: float = 0.1
    minimum: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative lengths."""
        _at_least("schedule", self, 0, "warmup_steps", "minimum")
        _at_least("schedule", self, 1, "step_epochs")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The training loop.

    Attributes:
        max_epochs: most epochs over all stages; 0: as many as the stages say.
        max_minutes: most minutes of training, interruptions not counted; 0: no limit.
        precision: 32, or bf16 for automatic mixed precision.
        accelerator: cpu, gpu, or auto for the fastest there is.
        devices: processes (cpu) or devices (gpu) that train together; each sees its own share of every batch.
        nodes: machines that train together, each with so many `devices`; torchrun or SLURM starts the same command on
            all of them, and they share the folders of the data and of the run.
        accumulate: batches whose gradients are added up before one optimiser step.
        clip_value: largest absolute value of a gradient's element; 0: no limit.
        clip_norm: largest norm of all gradients together; 0: no limit.
        average: validate and keep an exponential moving average of the weights, of which this share stays at each step
            (0.99 to 0.9999); 0: the weights themselves.
        seed: of the initial weights, the order of the studies, augmentation and dropout.
        monitor: validation metric that selects the best model: bleu1 ... bleu4, rouge_l, cider, ce_macro_f1 or
            ce_micro_f1 (by the embedded labeler), image_gain, loss, auroc, or any other that metrics.jsonl shows; names
            joined by + stand for their mean. The example-based ce_f1 rewards a model that calls everyone normal.
        mode: whether a larger (max) or a smaller (min) value of it is better.
        patience: validations without improvement before the stage ends; 0: never.
        min_epochs: epochs of a stage before a model can be selected (early models write the same report for all).
        validate_every: epochs between two validations.
        greedy_validation: write the reports of a validation by greedy search instead of the recipe's decoding, which
            may cost as much as the training between two validations.
        log_every: optimiser steps between two rows of training losses in metrics.jsonl.
        checkpoint_steps: optimiser steps between two checkpoints inside an epoch; 0: none by steps.
        checkpoint_minutes: minutes between two checkpoints inside an epoch; 0: none by time.
        logger: tracker that receives the rows of metrics.jsonl besides: csv, tensorboard (both in the run's folder),
            wandb or mlflow; none.
        threads: threads of PyTorch on the processor; 0: leave as they are.
    """

    max_epochs: int = 0
    max_minutes: float = 0.0
    precision: Literal["32", "bf16"] = "32"
    accelerator: Literal["cpu", "gpu", "auto"] = "auto"
    devices: int = 1
    nodes: int = 1
    accumulate: int = 1
    clip_value: float = 0.0
    clip_norm: float = 0.0
    average: float = 0.0
    seed: int = 0
    monitor: str = "bleu4"
    mode: Literal["max", "min"] = "max"
    patience: int = 0
    min_epochs: int = 0
    validate_every: int = 1
    greedy_validation: bool = False
    log_every: int = 20
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 5.0
    logger: Literal["none", "csv", "tensorboard", "wandb", "mlflow"] = "none"
    threads: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no training can use."""
        _at_least("trainer", self, 1, "devices", "nodes", "accumulate", "validate_every", "log_every")
        _at_least("trainer", self, 0, "max_epochs", "max_minutes", "clip_value", "clip_norm", "patience", "min_epochs")
        if not 0 <= self.average < 1:
            raise UserError(f"recipe field 'trainer.average' is {self.average}; give a share from 0 to below 1.")
        _at_least("trainer", self, 0, "checkpoint_steps", "checkpoint_minutes", "threads", "seed")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that `crossray train` needs to know besides the dataset.

    Attributes:
        system: name of the system in the registry.
        model: configuration of the system, an instance of its `config_class`.
        data: how the dataset becomes batches.
        stages: parts of the training, one after the other.
        optimizer: the optimiser of every stage.
        schedule: the learning rate over the steps of every stage.
        trainer: the training loop.
        decoding: how reports are written for validation.
        reward: what stages of objective reward learn from.
    """

    system: str
    model: TrainableConfig
    data: DataConfig = field(default_factory=DataConfig)
    stages: tuple[Stage, ...] = (Stage(),)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)

    def stage_epochs(self) -> tuple[int, ...]:
        """Epochs of each stage under the cap `trainer.max_epochs`; the last ones may be 0."""
        left = self.trainer.max_epochs or sum(stage.epochs for stage in self.stages)
        epochs = []
        for stage in self.stages:
            epochs.append(min(stage.epochs, left))
            left -= epochs[-1]
        return tuple(epochs)
