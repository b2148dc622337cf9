"""REVTAF: learnable retrieval enhanced visual-text alignment and fusion (SPEC 4; Zhou et al., arXiv 2507.07568).

PromptMRG with the features of a knowledge encoder, and what the paper adds to it. In the order of the paper: LRE (a
report of a similar study is retrieved in hyperbolic space), prompts (its sentences, GRP; what the knowledge encoder
sees, LRP), FVTAF (MPSA: image positions read both by optimal transport; FCC: prompts that say the same look at the same
place), diagnosis branch, decoder. The public code cannot be run; `docs/models/revtaf.md` says what differs, and why.

Shapes: B studies, V views, n views that exist, S tokens of a view, C backbone channels, E entities, N sentences, K
observations, D text width, W fusion width, R reports of the database.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batch import Batch, Guide, Inputs
from crossray.data.dataset import Dataset
from crossray.data.features import FeatureCache
from crossray.errors import UserError
from crossray.layers.cache import Cache
from crossray.layers.diagnosis import POSITIVE, DiagnosisBranch, LogitAdjustment, base_probabilities
from crossray.layers.hyperbolic import HyperbolicNetwork, poincare_distance
from crossray.layers.ranking import hamming, ranking_loss
from crossray.layers.sinkhorn import SinkhornAttention, soft_iou_consistency
from crossray.layers.transformer import FeedForward, prepend_prompt
from crossray.models.backbones import BackboneConfig, BackboneReportModel, build_backbone, join_views
from crossray.models.base import Encoded, Event, ModelConfig, Step, language_loss, register
from crossray.models.bert_decoder import BertDecoder, BertDecoderConfig
from crossray.models.knowledge_encoder import KnowledgeEncoderConfig, build_knowledge_encoder
from crossray.models.reference_reports import read_training_reports
from crossray.retrieval.database import ReportDatabase
from crossray.retrieval.index import NO_GROUP, NO_ROW, Metric, ReportIndex
from crossray.text.observations import CHEXPERT, STATUSES

#: The report database inside a model folder.
DATABASE = "retrieval.safetensors"

#: Database entries that are embedded at a time.
_CHUNK = 16384


@dataclass(frozen=True, kw_only=True)
class REVTAFConfig(ModelConfig):
    """Configuration of `REVTAF`. The weights of its losses (eq. 15) stand in the stages.

    Attributes:
        status_ids: tokens of the four statuses, filled in from the tokenizer; the vocabulary's last four when empty.
        backbone: the vision backbone.
        knowledge: the knowledge encoder, which is never trained.
        lre: retrieve by the learned hyperbolic distance; otherwise by the Euclidean distance of the entities' values.
        entity_values: what the knowledge encoder says of an entity, as log_odds or as a probability.
        retrieval_width: width of the hyperbolic network's layers.
        curvature: c of the Poincare ball.
        ties: of equally near labels, see `crossray.layers.ranking.ranking_loss`.
        ranking_temperature: divides the distances in the ranking loss.
        retrieval_share: share of the training studies that read the report which they would read when they are tested;
            the others read one with the nearest labels. In the first epoch all do.
        sentences: most sentences of a report that are kept.
        local_prompt: text of a local prompt, with {entity}, {place} and {existence} in it.
        attention: of image positions to prompts: sinkhorn; softmax; legacy_uniform, which is what the released code
            computes; none: the decoder reads the image tokens alone, as in PromptMRG.
        fusion_width: channels W of the fusion, for each of global and local prompts.
        fusion_heads: transport problems a view, a divisor of `fusion_width`.
        fusion_dropout: in the fusion.
        epsilon: weight of the plan's entropy.
        iterations: most Sinkhorn iterations.
        share_branches: one set of fusion weights for global and local prompts.
        consistency: FCC: soft, legacy (as released, without gradient for the plans), or none.
        neighbours: reports that the diagnosis branch reads, the nearest by the cosine of the entities' values.
        diagnosis_width: width of the diagnosis branch.
        diagnosis_layers: layers of its encoder, and as many of its decoder.
        diagnosis_heads: its attention heads, a divisor of `diagnosis_width`.
        decoder: released BERT that the decoder begins with, a name on the Hugging Face hub or a folder; its sizes then
            take the place of `layers` to `positions`. Empty: fresh weights.
        layers: layers of the decoder.
        width: its width.
        heads: its attention heads, a divisor of `width`.
        feedforward: width of the hidden layer of its feed-forward blocks.
        dropout: in decoder and diagnosis branch.
        positions: most decoder positions, prompt included.
        label_smoothing: of the language loss in training.
        store_reports: keep the text of the training reports in the model folder, for `crossray index query`.
    """

    status_ids: tuple[int, ...] = ()
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    knowledge: KnowledgeEncoderConfig = field(default_factory=KnowledgeEncoderConfig)
    lre: bool = True
    entity_values: Literal["log_odds", "probability"] = "log_odds"
    retrieval_width: int = 512
    curvature: float = 0.01
    ties: Literal["uniform", "first", "soft"] = "uniform"
    ranking_temperature: float = 1.0
    retrieval_share: float = 0.5
    sentences: int = 20
    local_prompt: str = "{entity}; located at {place}; {existence}"
    attention: Literal["sinkhorn", "softmax", "legacy_uniform", "none"] = "sinkhorn"
    fusion_width: int = 1024
    fusion_heads: int = 1
    fusion_dropout: float = 0.1
    epsilon: float = 0.05
    iterations: int = 50
    share_branches: bool = True
    consistency: Literal["soft", "legacy", "none"] = "soft"
    neighbours: int = 21
    diagnosis_width: int = 512
    diagnosis_layers: int = 2
    diagnosis_heads: int = 8
    decoder: str = ""
    layers: int = 12
    width: int = 768
    heads: int = 12
    feedforward: int = 3072
    dropout: float = 0.1
    positions: int = 512
    label_smoothing: float = 0.1
    store_reports: bool = False


class LRE(nn.Module):
    """Learnable retrieval enhancer: entities as points of the Poincare ball, near where labels are alike (eq. 3-7).

    `steady` are the weights at the end of the last epoch. Training retrieves with them, so that the database is
    embedded once an epoch and a run that is continued in the middle of one finds the same reports.

    Args:
        config: its fields from `retrieval_width` to `ranking_temperature`.
        entities: E.
    """

    def __init__(self, config: REVTAFConfig, entities: int) -> None:
        super().__init__()
        self.config = config
        self.network = HyperbolicNetwork((entities, config.retrieval_width, config.retrieval_width), config.curvature)
        self.steady = copy.deepcopy(self.network).requires_grad_(False)

    def current(self) -> HyperbolicNetwork:
        """The weights to retrieve with."""
        return self.steady if self.training else self.network

    def settle(self) -> None:
        """An epoch has ended."""
        self.steady.load_state_dict(self.network.state_dict())

    def loss(self, entities: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        """The ranking loss of a batch (eq. 7).

        Args:
            entities: (B, E) values.
            labels: (B, K) status codes.
            known: (B,) bool, True where a study has labels.
        """
        config, points = self.config, self.network(entities)
        distances = poincare_distance(points, points, config.curvature)
        pairs = known[:, None] & known[None, :]
        return ranking_loss(distances, hamming(labels, labels), config.ties, config.ranking_temperature, pairs)


class MPSA(nn.Module):
    """Multi-prompt Sinkhorn attention, residual fusion, and a feed-forward block (eq. 10-11; SPEC 4.5).

    Args:
        config: its fields from `attention` to `iterations`.
    """

    def __init__(self, config: REVTAFConfig) -> None:
        super().__init__()
        width = config.fusion_width
        assert config.attention != "none"
        self.attention = SinkhornAttention(
            width, width, width, config.fusion_heads, config.attention, config.epsilon, config.iterations,
            dropout=config.fusion_dropout,
        )  # fmt: skip
        self.attention_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, 4 * width, config.fusion_dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.fusion_dropout)

    def forward(self, visual: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image positions (n, S, W) with what they read in prompts (n, M, W), and the plan (n, h, S, M)."""
        attended, plan = self.attention(visual, text, mask)
        x = self.attention_norm(visual + self.dropout(attended))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x))), plan


class FVTAF(nn.Module):
    """Fine-grained visual-text alignment and fusion: what MPSA makes of global and of local prompts, side by side.

    Args:
        channels: C.
        text_width: D.
        config: its fields from `attention` to `share_branches`.
    """

    def __init__(self, channels: int, text_width: int, config: REVTAFConfig) -> None:
        super().__init__()
        width = config.fusion_width
        self.visual = nn.Linear(channels, width)
        self.sentences = nn.Linear(text_width, width)
        self.phrases = nn.Linear(text_width, width)
        self.branches = nn.ModuleList(MPSA(config) for _ in range(1 if config.share_branches else 2))

    def forward(
        self, visual: Tensor, sentences: Tensor, mask: Tensor, phrases: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fuse views with the prompts of their studies.

        Args:
            visual: (n, S, C).
            sentences: (n, N, D), global prompts.
            mask: (n, N) bool, True where there is a sentence.
            phrases: (n, E, D), local prompts.

        Returns:
            (n, S, 2 W), and the plans of the global (n, h, S, N) and of the local prompts (n, h, S, E).
        """
        image = self.visual(visual)
        everywhere = torch.ones(phrases.shape[:2], dtype=torch.bool, device=phrases.device)
        seen, plan = self.branches[0](image, self.sentences(sentences), mask)
        known, local_plan = self.branches[-1](image, self.phrases(phrases), everywhere)
        return torch.cat([seen, known], dim=2), plan, local_plan


@register("revtaf", REVTAFConfig)
class REVTAF(BackboneReportModel):
    """LRE and prompts, FVTAF over the image tokens, a diagnosis that the decoder reads before it writes.

    Attributes:
        database: reports of the training studies; it is empty until `learn_from` or `restore`, which is allowed.
    """

    config: REVTAFConfig

    def __init__(self, config: REVTAFConfig) -> None:
        super().__init__()
        if not config.observations:
            raise UserError("revtaf diagnoses, and the dataset has no labels (field 'observations'); prepare it again.")
        self.backbone = build_backbone(config.backbone)
        self.knowledge = build_knowledge_encoder(config.knowledge)
        channels, text_width, classes = self.backbone.width, self.knowledge.text_width, len(config.observations)
        self.lre = LRE(config, len(self.knowledge.entities)) if config.lre else None
        self.fvtaf = FVTAF(channels, text_width, config) if config.attention != "none" else None
        self.diagnosis = DiagnosisBranch(
            channels, text_width, classes, config.diagnosis_width, config.diagnosis_layers, config.diagnosis_heads,
            config.dropout,
        )  # fmt: skip
        self.adjustment = LogitAdjustment(classes, auxiliary=_auxiliary(config.observations))
        sizes = {name: getattr(config, name) for name in _DECODER_SIZES}
        memory = channels if self.fvtaf is None else 2 * config.fusion_width
        self.decoder = BertDecoder(
            BertDecoderConfig(vocabulary_size=config.vocabulary_size, memory_width=memory, name=config.decoder, **sizes)
        )
        built = {name: getattr(self.decoder.config, name) for name in _DECODER_SIZES}
        self.config = replace(
            config, backbone=self.backbone.config, knowledge=self.knowledge.config, decoder="", **built
        )
        self.database = ReportDatabase.empty(
            len(self.knowledge.entities), len(self.knowledge.places), classes, text_width
        )
        ids = config.status_ids or range(config.vocabulary_size - len(STATUSES), config.vocabulary_size)
        self._status_ids: Tensor
        self.register_buffer("_status_ids", torch.tensor(list(ids)), persistent=False)
        self._epochs: Tensor
        self.register_buffer("_epochs", torch.zeros((), dtype=torch.int64))
        self._indices: dict[str, tuple[Any, ReportIndex]] = {}

    # what is known of the training studies

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """Build the report database of the training split, or find it in the dataset; begin with its class priors."""
        if self.tokenizer is None or self.transform is None:
            raise ValueError("learn_from needs the tokenizer and the transform of the model")
        device = self._status_ids.device
        self.database = read_training_reports(
            dataset, self.knowledge, self.transform, self.tokenizer, section=section, views=self.config.views,
            sentences=self.config.sentences, local_prompt=self.config.local_prompt, features=features,
            store_reports=self.config.store_reports, device=device,
        ).to(device)  # fmt: skip
        labelled = self.database.labels[(self.database.labels >= 0).all(1)]
        if len(labelled):
            priors = base_probabilities(labelled)
            priors[len(priors) - _auxiliary(self.config.observations) :] = 1
            self.adjustment.priors.copy_(LogitAdjustment(len(priors), priors).priors)

    def save_pretrained(self, folder: Path | str, provenance: Mapping[str, Any] | None = None) -> None:
        """Write the whole model folder, the report database included."""
        super().save_pretrained(folder, provenance)
        self.database.save(Path(folder) / DATABASE)

    def restore(self, folder: Path) -> None:
        """Read tokenizer, transform and report database."""
        super().restore(folder)
        database = ReportDatabase.load(folder / DATABASE)
        if len(database) and database.encoder != self.knowledge.fingerprint():
            raise UserError(f"{folder / DATABASE}: another knowledge encoder made it than the model has; run "
                            "`crossray index build`.")  # fmt: skip
        self.database = database

    def prepare_features(self, images: Tensor) -> dict[str, Tensor]:
        """Over a frozen backbone: its features, and the "entities" (N, E) and "places" (N, E) of the images."""
        prepared = self.backbone.prepare(images)
        return {**prepared, **self.knowledge(images)} if prepared else {}

    def features_fingerprint(self) -> str | None:
        """Hash of backbone and knowledge encoder; None when the backbone is trained."""
        backbone = self.backbone.fingerprint()
        return backbone and hashlib.sha256(f"{backbone} {self.knowledge.fingerprint()}".encode()).hexdigest()

    def frozen(self) -> list[str]:
        """The knowledge encoder, LRE's steady weights, a frozen backbone, and queries and keys that nothing reads."""
        names = super().frozen() + [f"knowledge.{name}" for name, _ in self.knowledge.named_parameters()]
        if self.lre is not None:
            names += [f"lre.steady.{name}" for name, _ in self.lre.steady.named_parameters()]
        if self.fvtaf is not None and self.config.attention == "legacy_uniform":
            unread = (".attention.query.", ".attention.key.")
            fusion = [f"fvtaf.{name}" for name, _ in self.fvtaf.named_parameters()]
            names += [name for name in fusion if any(part in name for part in unread)]
        return names

    # retrieval

    def entities(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What the knowledge encoder sees in each study: log-odds (B, E), and places (B, E) int64.

        Of several views the log-odds are averaged, and the place is that of the view which is surest of the entity.
        """
        mask = inputs.view_mask
        if {"entities", "places"} <= inputs.features.keys():
            seen, places = inputs.features["entities"], inputs.features["places"].long()
        else:
            found = self.knowledge(inputs.images[mask])
            seen = found["entities"].new_zeros(*mask.shape, found["entities"].shape[1])
            seen = seen.index_put((mask,), found["entities"])
            places = torch.zeros_like(seen, dtype=torch.long).index_put((mask,), found["places"].long())
        missing = ~mask.unsqueeze(2)
        surest = seen.masked_fill(missing, -torch.inf).argmax(dim=1, keepdim=True)
        mean = seen.masked_fill(missing, 0).sum(1) / mask.sum(1, keepdim=True)
        return mean, places.gather(1, surest).squeeze(1)

    def retrieve(self, inputs: Inputs, k: int = 1) -> tuple[Tensor, Tensor]:
        """The studies of the database whose reports these studies would read, nearest first.

        Returns:
            Distances (B, k) float64, and rows of `database` (B, k); `NO_ROW` where it has fewer.
        """
        return self._search(self.entities(inputs)[0], k, metric="hyperbolic" if self.lre else "euclidean")

    def _values(self, entities: Tensor) -> Tensor:
        return entities.sigmoid() if self.config.entity_values == "probability" else entities

    def _search(
        self, entities: Tensor, k: int, *, metric: Metric, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Nearest studies of the database by log-odds (B, E), without those of the groups `exclude` (B,)."""
        if not len(self.database):
            far = torch.full((len(entities), k), torch.inf, dtype=torch.float64, device=entities.device)
            return far, torch.full_like(far, NO_ROW, dtype=torch.int64)
        with torch.no_grad():
            values = self._values(entities.float())
            queries = self.lre.current()(values) if metric == "hyperbolic" and self.lre is not None else values
        return self._index(metric).search(queries, k, exclude)

    def _index(self, metric: Metric) -> ReportIndex:
        """The index of the database, built anew when the weights behind it have changed."""
        network = self.lre.current() if metric == "hyperbolic" and self.lre is not None else None
        read = [self.database.entities, *([] if network is None else network.parameters())]
        made_of = tuple((tensor.data_ptr(), tensor._version, tensor.device, tensor.dtype) for tensor in read)
        if metric not in self._indices or self._indices[metric][0] != made_of:
            with torch.inference_mode(False), torch.no_grad():
                vectors = self._values(self.database.entities.float())
                if network is not None:
                    vectors = torch.cat([network(part) for part in vectors.split(_CHUNK)])
                curvature, groups = self.config.curvature, self.database.groups
                index = ReportIndex(vectors, metric=metric, curvature=curvature, groups=groups)
            self._indices[metric] = made_of, index
        return self._indices[metric][1]

    def _reference(self, entities: Tensor, guide: Guide | None, exclude: Tensor | None) -> Tensor:
        """Rows (B,) of the reports whose sentences are the global prompts (SPEC 4.3, "GRP selection")."""
        metric: Metric = "hyperbolic" if self.lre is not None else "euclidean"
        labels, known = _codes(guide)
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
        """Rows (B,) of studies with the nearest labels (B, K), any of equally near ones; `NO_ROW` without any."""
        database = self.database
        differing = hamming(labels, database.labels) + torch.rand(len(labels), len(database), device=labels.device)
        own = (database.groups == exclude[:, None]) & (exclude[:, None] != NO_GROUP)
        differing = differing.masked_fill(own | (database.labels < 0).any(1), torch.inf)
        nearest, rows = differing.min(dim=1)
        return rows.where(nearest.isfinite(), NO_ROW)

    # from image to report

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views, retrieved report, entities -> FVTAF; neighbours -> diagnosis -> prompt. Labels guide training."""
        guide = guide if self.training else None
        tokens, pooled = self.backbone.views(inputs)
        entities, places = self.entities(inputs)
        exclude = None if guide is None else self.database.groups_of(guide.study)
        neighbours = self._search(entities, self.config.neighbours, metric="cosine", exclude=exclude)[1]
        statuses = self._diagnose(pooled, inputs.view_mask, neighbours)
        prompt = statuses.argmax(dim=1)
        labels, known = _codes(guide)
        if labels is not None:
            prompt = torch.where(known[:, None], labels, prompt)
        aux = {"entities": entities, "statuses": statuses}
        if self.fvtaf is not None:
            reference = self._reference(entities, guide, exclude)
            tokens = self._fuse(self.fvtaf, tokens, inputs.view_mask, reference, places, entities > 0, aux)
        memory, mask = join_views(tokens, inputs.view_mask)
        return Encoded(memory=memory, memory_mask=mask, pooled=pooled, prompt=self._status_ids[prompt], aux=aux)

    def _diagnose(self, pooled: Tensor, views: Tensor, neighbours: Tensor) -> Tensor:
        """Logits (B, 4, K) of the statuses, from pooled views (B, V, C) and the reports of neighbours (B, n)."""
        reports, mask = self.database.reports_of(neighbours)
        # a study without neighbours reads one blank report
        mask = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)
        image = pooled.masked_fill(~views.unsqueeze(2), 0).sum(1) / views.sum(1, keepdim=True)
        return self.diagnosis(image, reports, mask)

    def _fuse(
        self, fvtaf: FVTAF, tokens: Tensor, views: Tensor, reference: Tensor, places: Tensor, present: Tensor,
        aux: dict[str, Tensor],
    ) -> Tensor:  # fmt: skip
        """Tokens (B, V, S, 2 W) of all views; plans and what FCC compares go into `aux`."""
        sentences, mask = self.database.sentences_of(reference)
        phrases = self.database.phrases_of(places, present)
        study = views.nonzero()[:, 0]
        fused, *plans = fvtaf(tokens[views], sentences[study], mask[study], phrases[study])
        for name, plan in zip(("sentence_plan", "phrase_plan"), plans, strict=True):
            aux[name] = plan.new_zeros(*views.shape, *plan.shape[1:]).index_put((views,), plan)
        aux["reference"], aux["sentences"] = reference, mask
        if self.config.consistency != "none":
            cosine = F.normalize(sentences.float(), dim=2) @ F.normalize(phrases.float(), dim=2).mT
            aux["similarity"] = cosine.sigmoid()  # eq. 12
        return fused.new_zeros(*views.shape, *fused.shape[1:]).index_put((views,), fused)

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the fused image, once a study."""
        return self.decoder.start(encoded.memory, encoded.memory_mask, beams)

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Statuses and report -> decoder; no logits for the statuses."""
        read, skip = prepend_prompt(tokens, encoded.prompt, cache)
        logits, attention = self.decoder(
            read, encoded.memory, encoded.memory_mask, cache, need_attention=need_attention
        )
        return Step(logits[:, skip:], cache, None if attention is None else attention[:, :, :, skip:])

    # training

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Language, "diagnosis", "ranking" and "consistency" (eq. 15); validation predicts its own prompts."""
        encoded = self.encode(batch.inputs, batch.guide)
        targets = batch.targets
        logits = self.step(targets.tokens[:, :-1], encoded).logits
        smoothing = self.config.label_smoothing if self.training else 0.0
        losses = {"language": language_loss(logits, targets.tokens[:, 1:], targets.mask[:, 1:], smoothing)}
        labels, known = _codes(batch.guide)
        if labels is not None:
            statuses = self.adjustment.adjust(encoded.aux["statuses"].float())
            each = F.cross_entropy(statuses, labels, reduction="none").mean(dim=1)
            losses["diagnosis"] = (each * known).sum() / known.sum().clamp_min(1)
            if self.lre is not None:
                losses["ranking"] = self.lre.loss(self._values(encoded.aux["entities"]), labels, known)
        if "similarity" in encoded.aux and self.config.consistency != "none":
            views, study = batch.inputs.view_mask, batch.inputs.view_mask.nonzero()[:, 0]
            losses["consistency"] = soft_iou_consistency(
                encoded.aux["sentence_plan"][views].mean(dim=1), encoded.aux["phrase_plan"][views].mean(dim=1),
                encoded.aux["similarity"][study], encoded.aux["sentences"][study], self.config.consistency,
            )  # fmt: skip
        return losses

    def observe(self, batch: Batch) -> None:
        """How sure the diagnosis is of what the validation studies have."""
        labels, known = _codes(batch.guide)
        if labels is not None:
            probabilities = self.encode(batch.inputs).aux["statuses"].float().softmax(dim=1)[:, POSITIVE]
            self.adjustment.observe(probabilities[known], labels[known])

    def advance(self, event: Event) -> None:
        """After a validation the class priors are renewed; after an epoch LRE's steady weights are."""
        if event.kind == "validation":
            self.adjustment.update()
        if event.kind == "epoch":
            self._epochs += 1
            if self.lre is not None:
                self.lre.settle()


_DECODER_SIZES = tuple(
    f.name for f in dataclasses.fields(BertDecoderConfig) if f.name not in ("vocabulary_size", "memory_width", "name")
)


def _auxiliary(observations: tuple[str, ...]) -> int:
    """How many of the last observations CheXpert does not know."""
    known = [place for place, name in enumerate(observations) if name in CHEXPERT]
    return len(observations) - 1 - known[-1] if known else 0


def _codes(guide: Guide | None) -> tuple[Tensor | None, Tensor]:
    """Status codes (B, K) and where a study has labels (B,) bool; None and nothing without any labels."""
    if guide is None or guide.labels is None:
        return None, torch.zeros(0, dtype=torch.bool)
    return guide.labels.argmax(dim=2), guide.labels.sum(dim=(1, 2)) > 0
