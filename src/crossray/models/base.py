"""The contract of everything that CrossRay trains: `Trainable`, and `ReportModel` for the systems.

Shapes: B studies, V views, S memory positions, D memory width, T tokens, P prompt tokens or pooled width.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.data.batches.features import FeatureCache, find_features
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.files.configs import config_from_dict, read_json, write_json
from crossray.layers.cache import Cache
from crossray.models.records import Encoded, Event, PaperModule, Step
from crossray.registry import Registry
from crossray.text.tokenizer import Tokenizer

__all__ = [
    "BUILD", "SYSTEMS", "Batch", "Cache", "Encoded", "Event", "Guide", "Inputs", "ModelConfig", "PaperModule",
    "ReportModel", "Step", "Targets", "Trainable", "TrainableConfig", "config_from_dict", "language_loss", "register",
    "system_class",
]  # fmt: skip

FORMAT = 1

#: Prefix of a text field in a configuration that names a recipe; `crossray train` replaces it by the folder that the
#: recipe trains (`training.prerequisites`).
BUILD = "build:"


@dataclass(frozen=True, kw_only=True)
class TrainableConfig:
    """Base of all configurations: a frozen dataclass whose field docstrings become the help of the command line."""

    #: Fields that a stage may change without new weights (`Stage.switches`).
    switchable: ClassVar[tuple[str, ...]] = ()

    #: Values of fields that make the model small enough to be built and run in milliseconds, for the tests of every
    #: system. Only fields that no other system has need a value here.
    small: ClassVar[Mapping[str, Any]] = {}

    def fitted(self, reports: Callable[[], Sequence[str]]) -> Self:
        """This configuration, completed from the training reports, which are read only if the function is called."""
        return self


@dataclass(frozen=True, kw_only=True)
class ModelConfig(TrainableConfig):
    """The fields of every system's configuration. The first four are set from the data.

    Attributes:
        vocabulary_size: number of token ids, including special tokens.
        max_length: maximum number of tokens in a report, including bos and eos.
        observations: names of the observations in `Guide.labels`.
        views: maximum number of views of a study.
        label_smoothing: label smoothing of the language loss in training, as in `torch.nn.functional.cross_entropy`.
    """

    vocabulary_size: int = 0
    max_length: int = 60
    observations: tuple[str, ...] = ()
    views: int = 2
    label_smoothing: float = 0.0


class Trainable(nn.Module, ABC):
    """Base class of everything that is trained: systems, image tokenizer, knowledge encoder, backbone.

    Attributes:
        loss_weights: every loss that `losses` may return, with its default weight (`Stage`).
        metrics: names of the metrics that `summary` returns; a name that ends in * stands for several.
    """

    loss_weights: ClassVar[Mapping[str, float]]
    #: Losses that are means over the tokens of a batch; the others are means over its studies.
    token_losses: frozenset[str] = frozenset({"language"})
    metrics: ClassVar[tuple[str, ...]] = ()
    config_class: ClassVar[type[TrainableConfig]]
    system: ClassVar[str]
    config: Any

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Unweighted scalar losses by the names in `loss_weights`. Also called in validation, in eval mode."""

    def advance(self, event: Event) -> None:
        """Called at the end of a step, validation, epoch or stage, for example to update moving averages."""

    def frozen(self) -> list[str]:
        """Names of parameters that no stage trains."""
        return []

    def observe(self, batch: Batch) -> None:
        """Accumulate data for `summary` from a validation batch, in eval mode and without gradients."""

    def summary(self) -> dict[str, float]:
        """The system's own validation metrics since the last call; resets the accumulated data."""
        return {}

    def switch(self, **fields: Any) -> None:
        """Change configuration fields that do not change the weights (`Stage.switches`).

        Raises:
            UserError: a field is not switchable, or the value of a boolean field is neither true nor false.
        """
        for name, value in fields.items():
            if name not in self.config.switchable:
                raise UserError(
                    f"stage switch '{name}' does not exist in {self.system}, which has "
                    f"{', '.join(self.config.switchable) or 'none'}; remove it."
                )
            # a misspelled value, such as "flase", would count as true
            if isinstance(getattr(self.config, name), bool) and not isinstance(value, bool):
                raise UserError(f"stage switch '{name}' is {value!r}; give true or false.")
        self.config = dataclasses.replace(self.config, **fields)

    def saved_config(self) -> dict[str, Any]:
        """The JSON-ready configuration that rebuilds this module from the saved folder alone.

        Folders whose weights are now in this one are named by their last two parts, so that a published model does not
        tell where they were.
        """
        return _without_places(dataclasses.asdict(self.config))

    def save_pretrained(self, folder: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
        """Write `config.json`, `model.safetensors` and `provenance.json` to `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {"format": FORMAT, "system": self.system, "config": self.saved_config()}
        write_json(folder / "config.json", config)
        # clone, because tied or viewed tensors are rejected; contiguous, because channels-last has no file layout
        state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        write_json(folder / "provenance.json", dict(provenance or {}))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Load a folder that `save_pretrained` wrote, in eval mode; nothing is unpickled.

        Raises:
            UserError: the folder is not a saved model, or is of another kind than `cls`.
        """
        folder = Path(folder)
        saved = read_json(folder / "config.json", "name the model folder that training wrote (runs/NAME/best)")
        if not isinstance(saved, dict) or saved.get("format") != FORMAT or not isinstance(saved.get("system"), str):
            raise UserError(f"{folder / 'config.json'}: field 'format' is not {FORMAT}; save the model again.")
        kind = system_class(saved["system"])
        if not issubclass(kind, cls):
            raise UserError(
                f"{folder / 'config.json'}: system '{saved['system']}' is not a {cls.__name__}; choose one."
            )
        model = kind(config_from_dict(kind.config_class, saved.get("config"), str(folder / "config.json")))
        try:
            model.load_state_dict(load_file(folder / "model.safetensors"))
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"{folder / 'model.safetensors'}: weights do not fit config.json ({reason}); copy the folder again."
            ) from error
        model.restore(folder)
        return model.eval()

    def restore(self, folder: Path) -> None:
        """Read the files of `save_pretrained` other than configuration and weights."""


class ReportModel(Trainable):
    """A system that writes reports.

    Teacher forcing and generation use the same `step`, `encode` never receives the targets, and a prediction depends
    only on its own study. `tokenizer` and `transform` are saved with the weights, so a saved folder is self-contained.
    `stored` is the short side of the images in the training dataset, to which files are first resized.
    """

    loss_weights: ClassVar = {"language": 1.0}
    config: ModelConfig
    tokenizer: Tokenizer | None = None
    transform: ImageTransform | None = None
    stored: int | None = None

    @abstractmethod
    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Encode images (or cached features) for the decoder.

        Args:
            inputs: B studies.
            guide: what is known of them in training. In eval mode nothing of it may reach the result; its identifiers
                only keep a study from reading its own report.
        """

    @abstractmethod
    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """An empty cache for `beams` rows per study, with the keys and values of the image computed once."""

    @abstractmethod
    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Logits of the token after each of `tokens`.

        Args:
            tokens: (N, T) int64, with the N / B texts of a study in adjacent rows. Without a cache, the whole decoder
                input from bos on: one text per study in training, several when learning from rewards. With a cache, the
                tokens after the positions in the cache, N = B x beams.
            encoded: result of `encode`; its prompt, if any, comes before the first token.
            cache: state from `start` or the previous step; it is updated in place and returned.
            need_attention: also return the cross-attention weights.
        """

    def prepare_features(self, images: Tensor) -> dict[str, Tensor]:
        """Features of normalized images (N, 3, H, W) that may be cached: (N, ...) tensors by name.

        `encode` calls this itself if `Inputs.features` lacks them. Empty if the system has nothing to cache.
        """
        return {}

    def features_fingerprint(self) -> str | None:
        """Identifies the frozen weights behind `prepare_features`; None if they are trained and cannot be cached."""
        return None

    def cached_features(self, dataset: Dataset) -> FeatureCache | None:
        """Features that the dataset already contains in place of `prepare_features`; None without any."""
        fingerprint = self.features_fingerprint()
        if fingerprint is None or self.transform is None:
            return None
        return find_features(dataset, self.transform, fingerprint)

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """Learn data from the training studies that the model keeps in addition to weights, such as a report database.

        Training calls this before the first stage, with tokenizer, transform and device set; `save_pretrained` and
        `restore` save and load the data. By default, it does nothing.

        Args:
            dataset: dataset of which only the training split is read, and of other splits images alone.
            section: section of the reports that the model learns to write.
            features: cached results of `prepare_features`, if there are any.
        """

    def memory_cells(self, views: int, positions: int) -> Tensor | None:
        """Which part of which view each memory position represents, to show attention on the image.

        Args:
            views: V of the inputs.
            positions: S of the encoded memory.

        Returns:
            (V, S) int64, the index of the position's cell in a square grid over the model's image, row by row from the
            top left; -1 if it does not belong to that view. None if positions do not correspond to places.
        """
        return None

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Vectors of the images and the reports of B studies in a common space, (B, D) each, for analyses.

        The vectors of a study depend only on that study. None if the system has no such space.
        """
        return None

    def paper_modules(self) -> dict[str, PaperModule]:
        """The modules of the system's paper, by their names in the paper, that this configuration has."""
        return {}

    def memories(self) -> dict[str, Tensor]:
        """Memories and bases that image and text share, (M, D) by name, for analyses."""
        return {}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Encode the batch and compute its losses."""
        return self.losses_of(self.encode(batch.inputs, batch.guide), batch)

    def losses_of(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """The language loss under teacher forcing; systems with more losses extend this.

        Args:
            encoded: result of `encode` for this batch and its guide.
            batch: see `losses`.
        """
        return {"language": self.language_loss(encoded, batch.targets)}

    def language_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Cross-entropy of each report token given the ones before it."""
        return self.language_loss_of(self.step(targets.tokens[:, :-1], encoded).logits, targets)

    def language_loss_of(self, logits: Tensor, targets: Targets) -> Tensor:
        """The language loss from the logits (B, T - 1, vocabulary) of a step; smoothed in training if configured."""
        smoothing = self.config.label_smoothing if self.training else 0.0
        return language_loss(logits, targets.tokens[:, 1:], targets.mask[:, 1:], smoothing)

    def save_pretrained(self, folder: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
        """Write the whole model folder: weights, configuration, tokenizer and image transform."""
        super().save_pretrained(folder, provenance)
        if self.tokenizer is not None:
            self.tokenizer.save(Path(folder) / "tokenizer.json")
        if self.transform is not None:
            self.save_transform(Path(folder))

    def save_transform(self, folder: Path) -> None:
        """Write only `preprocess.json`."""
        assert self.transform is not None
        write_json(folder / "preprocess.json", {**dataclasses.asdict(self.transform), "stored": self.stored})

    def restore(self, folder: Path) -> None:
        """Read tokenizer and image transform."""
        super().restore(folder)
        if (folder / "tokenizer.json").exists():
            self.tokenizer = Tokenizer.load(folder / "tokenizer.json")
            if self.tokenizer.vocabulary_size != self.config.vocabulary_size:
                raise UserError(f"{folder / 'tokenizer.json'}: {self.tokenizer.vocabulary_size} tokens, but the model "
                                f"has {self.config.vocabulary_size}; copy the whole folder again.")  # fmt: skip
        if (folder / "preprocess.json").exists():
            saved = read_json(folder / "preprocess.json", "copy the whole folder again")
            if isinstance(saved, dict):  # a folder of an earlier version lacks it
                self.stored = saved.pop("stored", None)
            if self.stored is not None and not (type(self.stored) is int and self.stored > 0):
                raise UserError(
                    f"{folder / 'preprocess.json'}: field 'stored' is not a length in pixels; copy the folder again."
                )
            self.transform = config_from_dict(ImageTransform, saved, str(folder / "preprocess.json"))


def language_loss(logits: Tensor, tokens: Tensor, mask: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over the valid positions of the whole batch, in float32.

    Args:
        logits: (B, T, vocabulary).
        tokens: (B, T) int64.
        mask: (B, T) bool, True where a token counts.
        label_smoothing: as in `torch.nn.functional.cross_entropy`.
    """
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), tokens.flatten(), reduction="none", label_smoothing=label_smoothing
    )
    weights = mask.flatten().to(losses.dtype)
    return (losses * weights).sum() / weights.sum().clamp_min(1)


#: Everything that can be trained. Other packages add systems by an entry point of the group `crossray.systems`.
SYSTEMS: Registry[type[Trainable]] = Registry(
    "system",
    "crossray.systems",
    ["crossray.models", "crossray.models.pretraining"],
    "`crossray models` lists those that do",
)

_T = TypeVar("_T", bound=type[Trainable])


def register(name: str, config: type[TrainableConfig]) -> Callable[[_T], _T]:
    """Class decorator that registers a class as the system `name`, with its configuration."""

    def decorate(cls: _T) -> _T:
        SYSTEMS.add(name, cls)
        cls.system, cls.config_class = name, config
        return cls

    return decorate


def system_class(name: str) -> type[Trainable]:
    """The class that is registered as `name`; its file is imported if necessary.

    Raises:
        UserError: there is no such system.
    """
    return SYSTEMS.get(name)


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the last two parts of each absolute path in a field "name"."""
    changed: dict[str, Any] = {key: _without_places(value) for key, value in config.items() if isinstance(value, dict)}
    name = config.get("name")
    if isinstance(name, str) and Path(name).is_absolute():
        changed["name"] = "/".join(Path(name).parts[-2:])
    return {**config, **changed}
