"""Recipes: all settings of a training run, as frozen dataclasses (docs/reference/r2gen-family.md).

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
        _not_below(f"{section}.{name}", getattr(config, name), least)


def _not_below(field: str, value: float, least: int) -> None:
    if not value >= least:  # also true of NaN
        raise UserError(f"recipe field '{field}' is {value}; give at least {least}.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How batches are made from a prepared dataset.

    Attributes:
        batch_size: number of studies per process and step.
        workers: number of processes that load batches; 0 loads them in the training process.
        section: section of the report that the model learns to generate.
        cleaner: cleaner of the reports (legacy, legacy_mimic, fixed or none); the papers use the legacy ones.
        tokenizer: kind of tokenizer; it is trained on the reports of the training split unless `vocabulary` is given.
        vocabulary: existing WordPiece vocabulary, for the wordpiece tokenizer only: vocab.txt or tokenizer.json, a
            folder with one of them, or the name of a BERT model on the Hugging Face hub.
        min_count: minimum number of times that a word must occur in the training split to be in the vocabulary (word
            tokenizer).
        vocabulary_size: maximum size of the vocabulary (wordpiece tokenizer).
        max_length: maximum number of tokens in a report, including the begin and end tokens.
        views: maximum number of views per study.
        image: resizing, augmentation and normalization of the images.
        cache_features: compute the output of frozen modules once per image, store it, and train on the stored output.
        feature_variants: number of versions of each image in the feature cache; all but the first are augmented.
        feature_dtype: number format of the feature cache.
        feature_engine: what fills the feature cache: "local" for the training process, or "ray" for the Ray cluster at
            RAY_ADDRESS, else one on this machine (extra `ray`).
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
    feature_engine: Literal["local", "ray"] = "local"

    def __post_init__(self) -> None:
        """Validate the fields."""
        _at_least("data", self, 1, "batch_size", "min_count", "views", "feature_variants")
        _at_least("data", self, 0, "workers")
        _at_least("data", self, 3, "max_length")
        if self.vocabulary and self.tokenizer != "wordpiece":
            raise UserError(f"recipe field 'data.vocabulary' is {self.vocabulary}; set data.tokenizer to wordpiece.")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of training, with its own losses, loss weights and optimizer.

    Attributes:
        epochs: number of passes over the training split.
        objective: train on the true reports (likelihood), or on the scores of sampled reports (reward; see section
            `reward`).
        loss_weights: weight of each loss by name. Losses that are not listed have the system's default weight; losses
            with weight 0 are only logged. Every system that generates reports also has the loss "supervision", which
            predicts the observations from the mean of the decoder's input (weight 0 by default). A stage with objective
            reward also has "reward" (1) and "kl" (0), and the default weights of the system's own losses are divided
            by ten.
        freeze: prefixes of the names of parameters that this stage does not train; their modules run in eval mode.
        switches: new values for configuration fields of the model (its `switchable` fields).
        learning_rates: `optimizer.groups` for this stage; the key "" replaces `optimizer.learning_rate`.
        start_from: initial weights of the stage: "last" or "best" of the previous stage; in the first stage, also the
            folder of a saved model or run of the same system and sizes, whose vocabulary is then used.
        monitor: validation metric that selects the best model of this stage; "" uses `trainer.monitor`. If it differs
            from the previous stage's, the stage selects a new best model, and the previous one is moved to
            `best-stageN`.
        mode: whether a larger (max) or a smaller (min) value of this stage's `monitor` is better.
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
        """Validate the fields."""
        _at_least("stages", self, 1, "epochs")
        for prefix, rate in self.learning_rates.items():
            _not_below(f"stages.learning_rates.{prefix}", rate, 0)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The reward of stages with objective reward.

    Attributes:
        samples: number of reports sampled per study in each step.
        baseline: subtracted from the reward of a sample: the mean reward of the study's other samples (group), or the
            reward of the greedy report (greedy, as in self-critical training).
        standardize: divide the advantages of a study by the standard deviation of its rewards.
        temperature: sampling temperature; above 1, samples are more diverse.
        cider: weight of CIDEr-D (0 to 10), with document frequencies from the training reports.
        cider_limit: upper limit of CIDEr-D in the reward. Without it, one rare template for every study pays off: the
            few reports that match it word for word earn ten times the reward of a good report.
        clinical: weight of the F1 of the observations (0 to 1), labeled by the rules.
        rarity: exponent r of the observations' weights in this F1: each weighs its frequency in the training reports to
            the power of -r. With 0, all weigh the same, and calling every study normal earns the most.
        length: weight of the penalty for a length that differs from the true report's by more than a quarter (logarithm
            of the ratio).
        repetition: weight of the penalty for repeated 4-grams (their share in a report).
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
        """Validate the fields."""
        _at_least("reward", self, 2 if self.baseline == "group" or self.standardize else 1, "samples")
        _at_least("reward", self, 0, "cider", "cider_limit", "clinical", "rarity", "length", "repetition")
        if self.temperature <= 0:
            raise UserError(f"recipe field 'reward.temperature' is {self.temperature}; give a value above 0.")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its parameter groups.

    Attributes:
        name: adam (L2 penalty) or adamw (decoupled weight decay).
        learning_rate: learning rate of all parameters that are not in `groups`.
        groups: learning rates by prefix of the parameter name; the longest matching prefix applies.
        amsgrad: use the AMSGrad variant.
        betas: decay rates of the two moving averages.
        eps: number added to the denominator for numerical stability.
        weight_decay: strength of the L2 penalty or weight decay.
        weight_decay_skip: do not apply weight decay to biases and normalization layers.
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
        """Validate the fields."""
        _at_least("optimizer", self, 0, "learning_rate", "weight_decay", "eps")
        for prefix, rate in self.groups.items():  # PyTorch accepts a negative rate, which trains uphill
            _not_below(f"optimizer.groups.{prefix}", rate, 0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"recipe field 'optimizer.betas' is {self.betas}; give two numbers from 0 to below 1.")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning-rate schedule: a factor on every learning rate, by optimizer step within the stage.

    Attributes:
        name: constant; step (multiplied by `gamma` every `step_epochs` epochs); or cosine (decreases to `minimum`).
        warmup_steps: number of optimizer steps of linear warmup at the start of the stage.
        step_epochs: number of epochs between two drops (step).
        gamma: factor of each drop (step).
        minimum: final factor (cosine).
    """

    name: Literal["constant", "step", "cosine"] = "constant"
    warmup_steps: int = 0
    step_epochs: int = 10
    gamma: float = 0.1
    minimum: float = 0.0

    def __post_init__(self) -> None:
        """Validate the fields."""
        _at_least("schedule", self, 0, "warmup_steps", "minimum", "gamma")
        _at_least("schedule", self, 1, "step_epochs")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """The training loop.

    Attributes:
        max_epochs: maximum number of epochs over all stages; 0 for no limit beyond the stages' own.
        max_minutes: maximum training time in minutes, not counting interruptions; 0 for no limit.
        precision: 32 for float32, or bf16 for automatic mixed precision. Machines without bf16 arithmetic, such as most
            laptops, always train in float32, which is faster there.
        accelerator: cpu, gpu, or auto for the fastest available.
        devices: number of processes (cpu) or devices (gpu) per machine; each processes its own share of every batch.
        nodes: number of machines, each with `devices`. Start the same command on all of them with torchrun or SLURM;
            they must share the folders of the dataset and of the run.
        accumulate: number of batches whose gradients are accumulated for one optimizer step.
        clip_value: maximum absolute value of each element of a gradient; 0 for no limit.
        clip_norm: maximum norm of all gradients together; 0 for no limit.
        average: decay of an exponential moving average of the weights, which is validated and saved instead of them
            (typically 0.99 to 0.9999); 0 for no averaging.
        seed: random seed of the initial weights, the order of the studies, augmentation and dropout.
        monitor: validation metric that selects the best model: bleu1 to bleu4, rouge_l, cider, ce_macro_f1 or
            ce_micro_f1 (labeled by the rules), image_gain, loss, auroc, or any other metric in metrics.jsonl. Names
            joined by + stand for their mean. The example-based ce_f1 favors models that call every study normal.
        mode: whether a larger (max) or a smaller (min) value of `monitor` is better.
        patience: number of validations without improvement after which the stage ends; 0 for no early stopping.
        min_epochs: minimum number of epochs of a stage before a model can be selected, because early models write the
            same report for every study.
        validate_every: number of epochs between two validations.
        greedy_validation: generate the validation reports with greedy search instead of the recipe's decoding, which
            can take as long as the training between two validations.
        log_every: number of optimizer steps between two rows of training losses in metrics.jsonl.
        checkpoint_steps: number of optimizer steps between two checkpoints within an epoch; 0 to ignore steps.
        checkpoint_minutes: minutes between two checkpoints within an epoch; 0 to ignore time.
        mirror: address of a folder in object storage, such as s3://bucket/runs/a, or in another store that fsspec
            knows. It receives a copy of the run after every checkpoint, which another machine can continue: `crossray
            train --resume ADDRESS --out FOLDER --data DATA`.
        logger: experiment tracker that also receives the rows of metrics.jsonl: none; csv or tensorboard, which write
            to the folder of the run; wandb or mlflow.
        threads: number of CPU threads of PyTorch; 0 for PyTorch's default.
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
    mirror: str = ""
    logger: Literal["none", "csv", "tensorboard", "wandb", "mlflow"] = "none"
    threads: int = 0

    def __post_init__(self) -> None:
        """Validate the fields."""
        _at_least("trainer", self, 1, "devices", "nodes", "accumulate", "validate_every", "log_every")
        _at_least("trainer", self, 0, "max_epochs", "max_minutes", "clip_value", "clip_norm", "patience", "min_epochs")
        if not 0 <= self.average < 1:
            raise UserError(f"recipe field 'trainer.average' is {self.average}; give a decay from 0 to below 1.")
        _at_least("trainer", self, 0, "checkpoint_steps", "checkpoint_minutes", "threads", "seed")
        if self.mirror and "://" not in self.mirror:
            raise UserError(
                f"recipe field 'trainer.mirror' is '{self.mirror}'; give an address, such as s3://bucket/runs/a or "
                "file:///mnt/share/a."
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run; `crossray train` needs only the dataset in addition.

    Attributes:
        system: name of the system, as in `crossray models`.
        model: configuration of the system, an instance of its `config_class`.
        data: how batches are made from the dataset.
        stages: the stages of training, in order.
        optimizer: the optimizer of every stage.
        schedule: the learning-rate schedule of every stage.
        trainer: the training loop.
        decoding: how reports are generated, in validation and by the trained model.
        reward: the reward of stages with objective reward.
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
        """Number of epochs of each stage, limited by `trainer.max_epochs`; 0 for stages beyond the limit."""
        left = self.trainer.max_epochs or sum(stage.epochs for stage in self.stages)
        epochs = []
        for stage in self.stages:
            epochs.append(min(stage.epochs, left))
            left -= epochs[-1]
        return tuple(epochs)
