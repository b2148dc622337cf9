"""Retrieval of reports of similar training studies, and the base class of systems that use them.

`LRE`, REVTAF's learnable retrieval enhancer (Zhou et al., 2025, section 3.3, eq. 3-7), learns the distance between
studies. `RetrievingModel` is the base of every system with a report database.

Shapes: B studies, V views, E entities, K observations, R reports of the database.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crossray.data.batches.batch import Guide, Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.layers.contrastive import gather_ranks
from crossray.layers.hyperbolic import HyperbolicNetwork, poincare_distance
from crossray.layers.ranking import hamming, ranking_loss
from crossray.models.base import Event, ModelConfig
from crossray.models.parts.backbones import BackboneConfig, BackboneReportModel, build_backbone, of_views
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig, build_knowledge_encoder
from crossray.models.retrieval.reference_reports import read_training_reports
from crossray.retrieval.database import ReportDatabase
from crossray.retrieval.index import NO_GROUP, NO_ROW, Metric, ReportIndex
from crossray.text.observations import CHEXPERT

#: The report database inside a model folder.
DATABASE = "retrieval.safetensors"

#: Number of database entries embedded at once.
_CHUNK = 16384
#: Minimum standard deviation of an entity's log-odds, which prevents division by 0.
_LEAST_DEVIATION = 1e-4


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(ModelConfig):
    """Configuration of a system that retrieves reports.

    Attributes:
        backbone: the vision backbone.
        knowledge: the knowledge encoder, which is frozen.
        lre: retrieve by the learned hyperbolic distance (LRE); otherwise by the Euclidean distance of the entities'
            log-odds.
        entity_values: input of LRE for each entity: its log_odds, its probability, or its standardized log-odds, with
            mean 0 and standard deviation 1 over the training studies. Other distances compare log-odds.
        retrieval_width: width of the hyperbolic network's layers.
        curvature: curvature c of the Poincare ball.
        last_relu: also use a ReLU after the last layer of the hyperbolic network (as released).
        ties: how to treat equally near labels, see `crossray.layers.ranking.ranking_loss`.
        ranking_temperature: temperature that divides the distances in the ranking loss.
        retrieval_share: share of the training studies that read the report they would retrieve in testing; the others,
            and all studies in the first epoch, read a report with the nearest labels.
        auxiliary: also compare and diagnose the last observations, which are not in CheXpert.
        sentences: maximum number of sentences of a report that are kept.
        local_prompt: template of a local prompt, with {entity}, {place} and {existence}.
        store_reports: keep the text of the training reports in the model folder, for `crossray index query`.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    knowledge: KnowledgeEncoderConfig = field(default_factory=KnowledgeEncoderConfig)
    lre: bool = True
    entity_values: Literal["standardized", "log_odds", "probability"] = "standardized"
    retrieval_width: int = 512
    curvature: float = 0.01
    last_relu: bool = False
    ties: Literal["uniform", "first", "soft"] = "soft"
    ranking_temperature: float = 1.0
    retrieval_share: float = 0.5
    auxiliary: bool = True
    sentences: int = 20
    local_prompt: str = "{entity}; located at {place}; {existence}"
    store_reports: bool = False


class LRE(nn.Module):
    """Learnable retrieval enhancer: maps studies with similar labels to nearby points of the Poincare ball (eq. 3-7).

    `steady` contains the weights at the end of the previous epoch. Training retrieves with them, so the database is
    embedded only once per epoch, and a run resumed in the middle of an epoch retrieves the same reports.

    Args:
        config: configuration, of which the fields from `entity_values` to `ranking_temperature` are used.
        entities: number E of entities.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: RetrievalConfig, entities: int) -> None:
        super().__init__()
        self.config = config
        widths = (entities, config.retrieval_width, config.retrieval_width)
        self.network = HyperbolicNetwork(widths, config.curvature, last_relu=config.last_relu)
        self.steady = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(entities))
        self.register_buffer("deviation", torch.ones(entities))

    def standardize(self, log_odds: Tensor) -> None:
        """Set mean and standard deviation from the training studies (R, E), which share a large mean."""
        if len(log_odds) > 1:
            self.mean.copy_(log_odds.float().mean(dim=0))
            self.deviation.copy_(log_odds.float().std(dim=0).clamp_min(_LEAST_DEVIATION))

    def forward(self, log_odds: Tensor) -> Tensor:
        """Map log-odds (B, E) to points (B, W) of the ball, with the weights for retrieval."""
        return self._current()(self._values(log_odds))

    def state(self) -> list[Tensor]:
        """The tensors that `forward` depends on."""
        return [self.mean, self.deviation, *self._current().parameters()]

    def _current(self) -> HyperbolicNetwork:
        return self.steady if self.training else self.network

    def _values(self, log_odds: Tensor) -> Tensor:
        if self.config.entity_values == "probability":
            return log_odds.float().sigmoid()
        if self.config.entity_values == "standardized":
            return (log_odds.float() - self.mean) / self.deviation
        return log_odds.float()

    def settle(self) -> None:
        """At the end of an epoch, copy the current weights to `steady`."""
        self.steady.load_state_dict(self.network.state_dict())

    def loss(self, entities: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """The ranking loss (eq. 7) of a batch; in training, of the batches of all processes together.

        The entities have no gradient, so each process can compute all points and the same loss: its gradient, averaged
        over the processes, equals that of a single process with the whole batch.

        Args:
            entities: (B, E) log-odds.
            labels: (B, K) status codes.
            known: (B,) bool, True for studies with labels.
        """
        config, labels = self.config, labels.where(known[:, None], -1)
        if self.training:
            entities, labels = gather_ranks(entities), gather_ranks(labels)
        points = self.network(self._values(entities))
        distances = poincare_distance(points, points, config.curvature)  # eq. 5
        known = (labels >= 0).all(dim=1)
        pairs = known[:, None] & known[None, :]
        return ranking_loss(distances, hamming(labels, labels), config.ties, config.ranking_temperature, pairs)


class RetrievingModel(BackboneReportModel):
    """A report model with a knowledge encoder and the reports of its training studies.

    Attributes:
        database: reports of the training studies; empty until `learn_from` or `restore`. An empty database is allowed.
        classes: number K of observations that are compared and diagnosed.
    """

    config: Any

    def __init__(self, config: RetrievalConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone)
        if not self.backbone.placed:
            raise UserError(
                f"recipe field 'model.backbone.name' is {config.backbone.name}, but the knowledge encoder of "
                f"{self.system} needs images; choose another backbone."
            )
        self.knowledge = build_knowledge_encoder(config.knowledge)
        self.config = replace(config, backbone=self.backbone.config, knowledge=self.knowledge.config)
        entities, places = len(self.knowledge.entities), len(self.knowledge.places)
        self.lre = LRE(config, entities) if config.lre else None
        self.classes = len(config.observations) - (0 if config.auxiliary else auxiliary(config.observations))
        self.database = ReportDatabase.empty(entities, places, len(config.observations), self.knowledge.text_width)
        self._epochs: Tensor
        self.register_buffer("_epochs", torch.zeros((), dtype=torch.int64))
        # by metric, and whether it was made with LRE's current weights
        self._indices: dict[tuple[Metric, bool], tuple[Any, ReportIndex]] = {}

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """Build the report database of the training split, or load it from the dataset's cache."""
        if self.tokenizer is None or self.transform is None:
            raise ValueError("learn_from needs the tokenizer and the transform of the model")
        super().learn_from(dataset, section, features)
        device = self._epochs.device
        self.database = read_training_reports(
            dataset, self.knowledge, self.transform, self.tokenizer, section=section, views=self.config.views,
            sentences=self.config.sentences, local_prompt=self.config.local_prompt, features=features,
            store_reports=self.config.store_reports, device=device,
        ).to(device)  # fmt: skip
        if self.lre is not None:
            self.lre.standardize(self.database.entities)

    def save_pretrained(self, folder: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
        """Write the whole model folder, including the report database."""
        super().save_pretrained(folder, provenance)
        self.database.save(Path(folder) / DATABASE)

    def restore(self, folder: Path) -> None:
        """Read tokenizer, transform and report database."""
        super().restore(folder)
        database = ReportDatabase.load(folder / DATABASE)
        if len(database) and database.encoder != self.knowledge.fingerprint():
            raise UserError(f"{folder / DATABASE}: it was built with another knowledge encoder than the model's; run "
                            "`crossray index build`.")  # fmt: skip
        self.database = database

    def prepare_features(self, images: Tensor) -> dict[str, Tensor]:
        """Features of a frozen backbone, and the "entities" (N, E) and "places" (N, E) of the images."""
        prepared = self.backbone.prepare(images)
        return {**prepared, **self.knowledge(images)} if prepared else {}

    def features_fingerprint(self) -> str | None:
        """Hash of backbone and knowledge encoder; None if the backbone is trained."""
        backbone = self.backbone.fingerprint()
        return backbone and hashlib.sha256(f"{backbone} {self.knowledge.fingerprint()}".encode()).hexdigest()

    def frozen(self) -> list[str]:
        """The knowledge encoder, LRE's steady weights and a frozen backbone."""
        names = super().frozen() + [f"knowledge.{name}" for name, _ in self.knowledge.named_parameters()]
        if self.lre is not None:
            names += [f"lre.steady.{name}" for name, _ in self.lre.steady.named_parameters()]
        return names

    def entities(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The knowledge encoder's predictions for each study: log-odds (B, E), and places (B, E) int64.

        Log-odds are averaged over the views; the place of an entity is that in the view with its highest log-odds.
        """
        mask = inputs.view_mask
        if {"entities", "places"} <= inputs.features.keys():
            seen, places = inputs.features["entities"], inputs.features["places"].long()
        else:
            seen, places = of_views(self._seen, inputs.images, mask)
        missing = ~mask.unsqueeze(2)
        surest = seen.masked_fill(missing, -torch.inf).argmax(dim=1, keepdim=True)
        mean = seen.masked_fill(missing, 0).sum(1) / mask.sum(1, keepdim=True)
        return mean, places.gather(1, surest).squeeze(1)

    def _seen(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.knowledge(images)
        return found["entities"], found["places"].long()

    def retrieve(self, inputs: Inputs, k: int = 1, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the k most similar studies in the database, nearest first, without those of the groups `exclude` (B,).

        Returns:
            Distances (B, k) float64, and rows of `database` (B, k), which are `NO_ROW` if it has fewer.
        """
        metric: Metric = "hyperbolic" if self.lre else "euclidean"
        return self._search(self.entities(inputs)[0], k, metric=metric, exclude=exclude)

    def _search(
        self, entities: Tensor, k: int, *, metric: Metric, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Search the database by log-odds (B, E), without the studies of the groups `exclude` (B,)."""
        if not len(self.database):
            far = torch.full((len(entities), k), torch.inf, dtype=torch.float64, device=entities.device)
            return far, torch.full_like(far, NO_ROW, dtype=torch.int64)
        with torch.no_grad():
            queries = self.lre(entities) if metric == "hyperbolic" and self.lre is not None else entities.float()
        return self._index(metric).search(queries, k, exclude)

    def _index(self, metric: Metric) -> ReportIndex:
        """The index of the database, rebuilt after the weights that it depends on have changed."""
        lre = self.lre if metric == "hyperbolic" else None
        name = metric, lre is not None and not self.training
        read = [self.database.entities, *([] if lre is None else lre.state())]
        made_of = tuple((tensor.data_ptr(), tensor._version, tensor.device, tensor.dtype) for tensor in read)
        if name not in self._indices or self._indices[name][0] != made_of:
            with torch.inference_mode(False), torch.no_grad():
                vectors = self.database.entities.float()
                if lre is not None:
                    vectors = torch.cat([lre(part) for part in vectors.split(_CHUNK)])
                curvature, groups = self.config.curvature, self.database.groups
                index = ReportIndex(vectors, metric=metric, curvature=curvature, groups=groups)
            self._indices[name] = made_of, index
        return self._indices[name][1]

    def _reference(self, entities: Tensor, guide: Guide | None, exclude: Tensor | None) -> Tensor:
        """Rows (B,) of the reports that provide the global prompts (section 3.3, last paragraph)."""
        metric: Metric = "hyperbolic" if self.lre is not None else "euclidean"
        labels, known = self.status_codes(guide)
        if labels is None or exclude is None or not len(self.database):
            return self._search(entities, 1, metric=metric, exclude=exclude)[1][:, 0]
        rows = self._nearest_labels(labels, exclude)
        as_tested = torch.rand(len(rows), device=rows.device) < self.config.retrieval_share * bool(self._epochs > 0)
        as_tested |= ~known
        if bool(as_tested.any()):
            found = self._search(entities, 1, metric=metric, exclude=exclude)[1][:, 0]
            rows = torch.where(as_tested, found, rows)
        return rows

    def _nearest_labels(self, labels: Tensor, exclude: Tensor) -> Tensor:
        """Rows (B,) of studies with the nearest labels (B, K), random among equally near ones; `NO_ROW` without any."""
        database = self.database
        apart = hamming(labels, database.labels[:, : self.classes])
        differing = apart + torch.rand(apart.shape, device=labels.device)
        own = (database.groups == exclude[:, None]) & (exclude[:, None] != NO_GROUP)
        differing = differing.masked_fill(own | (database.labels < 0).any(1), torch.inf)
        nearest, rows = differing.min(dim=1)
        return rows.where(nearest.isfinite(), NO_ROW)

    def status_codes(self, guide: Guide | None) -> tuple[Tensor | None, Tensor]:
        """Status codes (B, K) and whether each study has labels (B,) bool; the codes are None without any labels."""
        if guide is None or guide.labels is None:
            return None, torch.zeros(0, dtype=torch.bool)
        return guide.labels[:, : self.classes].argmax(dim=2), guide.labels.sum(dim=(1, 2)) > 0

    def advance(self, event: Event) -> None:
        """After an epoch, update the steady weights of LRE."""
        if event.kind == "step" and self.lre is not None and any(p.grad is not None for p in self.lre.parameters()):
            # fused optimizers change weights without raising their versions
            self._indices.pop(("hyperbolic", True), None)
        if event.kind == "epoch":
            self._epochs += 1
            if self.lre is not None:
                self.lre.settle()


def auxiliary(observations: tuple[str, ...]) -> int:
    """Number of observations at the end that are not in CheXpert."""
    known = [place for place, name in enumerate(observations) if name in CHEXPERT]
    return len(observations) - 1 - known[-1] if known else 0
