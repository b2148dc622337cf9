"""MedKLIP, which learns from reports which of 75 entities a radiograph shows, and where (Wu et al., 2023,
arXiv:2301.02228).

`knowledge_encoder.py` wraps the trained network for REVTAF.

Shapes: B studies, N images, E = 75 entities, A = 51 places, text vectors of width W, n sentences, m triplets.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Inputs
from crossray.data.batches.loading import report_key
from crossray.errors import UserError
from crossray.layers.dropout import Dropout
from crossray.models.base import Trainable, TrainableConfig, register
from crossray.models.parts.backbones import Backbone, BackboneConfig, ResNetBackbone, build_backbone
from crossray.models.parts.networks import describe_network
from crossray.models.parts.text_encoder import TextEncoderConfig, build_text_encoder
from crossray.models.pretraining.vision import auroc, gather_rows
from crossray.text.entities import (
    DESCRIPTIONS,
    ENTITIES,
    PLACES,
    Triplet,
    place_text,
    read_sentences,
    summarize,
    triplet_text,
)
from crossray.text.observations import STATUSES

_BLANK, _POSITIVE, _NEGATIVE, _UNCERTAIN = range(len(STATUSES))

#: Temperature of the cosine similarities between sentences and triplets.
_TEMPERATURE = 0.07

#: Number of reports whose triplets are cached (about 0.7 kB each); others are processed again in each epoch.
_REMEMBERED = 50_000


@dataclass(frozen=True, kw_only=True)
class KnowledgeNetworkConfig(TrainableConfig):
    """Size of the network.

    Attributes:
        backbone: the vision backbone.
        stages: number of ResNet stages to use; after three, the feature map is 14 x 14 for images of 224 pixels.
        text: the text encoder of descriptions and places.
        width: width of the decoder that reads the image.
        layers: number of decoder layers.
        heads: number of attention heads of the decoder.
        feedforward: hidden width of the feed-forward blocks.
        dropout: dropout in the decoder and before the output heads.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="random:resnet50"))
    stages: int = 3
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    width: int = 256
    layers: int = 4
    heads: int = 4
    feedforward: int = 1024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Reject invalid sizes."""
        if self.stages < 1 or self.layers < 1:
            raise UserError("fields 'stages' and 'layers' of a knowledge encoder need at least 1.")
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise UserError(f"field 'width' of a knowledge encoder is {self.width}; give a multiple of 'heads'.")


class KnowledgeNetwork(nn.Module):
    """Attends to the image with one query per entity; two heads predict whether and where the entity is present.

    Args:
        config: the size of the network.
        text_width: width W of a text vector.
    """

    def __init__(self, config: KnowledgeNetworkConfig, text_width: int) -> None:
        super().__init__()
        self.backbone = _cut(build_backbone(replace(config.backbone, standardize=False)), config.stages)
        channels, width = self.backbone.width, config.width
        self.expand = nn.Linear(channels, channels)
        self.contract = nn.Linear(channels, width)
        self.query = nn.Linear(text_width, width)
        layer = nn.TransformerDecoderLayer(
            width, config.heads, config.feedforward, config.dropout, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(width))
        self.dropout = Dropout(config.dropout)
        self.existence = nn.Linear(width, 2)
        self.position = nn.Linear(width, text_width)

    def forward(self, images: Tensor, entities: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Classify entities and their places.

        Args:
            images: (N, 3, H, W), normalized.
            entities: (E, W) vectors of the descriptions.
            places: (A, W) vectors of the places.

        Returns:
            Logits (N, E, 2) of absent and present, and logits (N, E, A) of the places.
        """
        tokens = self.contract(self.expand(self.backbone(images)[0]).relu())
        queries = self.query(entities).expand(len(images), -1, -1)
        read = self.dropout(self.decoder(queries, tokens))
        return self.existence(read), self.position(read) @ places.T


def _cut(backbone: Backbone, stages: int) -> Backbone:
    """Remove the stages of a ResNet after the first `stages`; other backbones are unchanged."""
    network = backbone.network
    if not isinstance(backbone, ResNetBackbone) or stages >= len(network.config.depths):
        return backbone
    network.encoder.stages = network.encoder.stages[:stages]
    described = describe_network(network)
    # These are derived from the depths.
    for name in ("stage_names", "out_features", "out_indices"):
        described.pop(name, None)
    described |= {name: described[name][:stages] for name in ("depths", "hidden_sizes")}
    network.config = type(network.config)(**{name: value for name, value in described.items() if name != "model_type"})
    return ResNetBackbone(network, replace(backbone.config, architecture=describe_network(network)))


@dataclass(frozen=True, kw_only=True)
class KnowledgeConfig(KnowledgeNetworkConfig):
    """Configuration of `Knowledge`.

    Attributes:
        blank: how to treat entities that a report does not mention: ignore (as in MedKLIP), or negative. With ignore,
            an entity that no report denies cannot be learned.
        candidates: number of places among which the true one must be found in training, 8 as in MedKLIP; validation
            uses all places.
        sentences: maximum number of sentences per batch from which CrossRay's own text encoder learns.
    """

    blank: Literal["ignore", "negative"] = "ignore"
    candidates: int = 8
    sentences: int = 64

    def __post_init__(self) -> None:
        """Reject values that cannot be trained."""
        super().__post_init__()
        if not 2 <= self.candidates < len(PLACES) or self.sentences < 2:
            raise UserError(f"give 'candidates' from 2 to {len(PLACES) - 1} and 'sentences' of at least 2.")


@register("knowledge", KnowledgeConfig)
class Knowledge(Trainable):
    """The trainable network. It learns from triplets that `crossray.text.entities` extracts from the reports.

    Attributes:
        thresholds: (E,) log-odds above which an entity counts as present. Each validation sets them such that the
            number of studies with an entity equals the number of reports that assert it (`presence_thresholds`).
    """

    loss_weights: ClassVar = {"existence": 1.0, "position": 1.0, "sentences": 1.0}
    metrics: ClassVar = ("place_accuracy", "auroc", "auroc_*")
    config: KnowledgeConfig
    thresholds: Tensor

    def __init__(self, config: KnowledgeConfig) -> None:
        super().__init__()
        self.text = build_text_encoder(config.text)
        self.network = KnowledgeNetwork(config, self.text.width)
        self.config = replace(config, backbone=self.network.backbone.config, text=self.text.config)
        if not self.text.trainable:
            # Computed once and saved with the model.
            known = config.text.architecture is not None
            for name, texts in (("entity_vectors", DESCRIPTIONS), ("place_vectors", _PLACE_TEXTS)):
                self.register_buffer(name, torch.zeros(len(texts), self.text.width) if known else self.text(texts))
        self.register_buffer("thresholds", torch.zeros(len(ENTITIES)))
        self._read: dict[int, tuple[bytes, bytes]] = {}
        self._scores: list[Tensor] = []
        self._found: list[Tensor] = []
        self._statuses: list[Tensor] = []

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, E, 2) of absent and present, and logits (N, E, A) of the places, of normalized images."""
        return self.network(images, *self._vectors())

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute "existence", "position" and, for CrossRay's own text encoder, "sentences".

        "existence" is the cross-entropy of the entities' presence, "position" that of the true place among sampled
        ones, and "sentences" the contrastive loss between sentences and their triplets as text.
        """
        statuses, places = self.truth(batch)
        study = batch.inputs.view_mask.nonzero()[:, 0]
        logits, scores = self(batch.inputs.images[batch.inputs.view_mask])
        statuses, places = statuses[study], places[study]
        known = (statuses == _POSITIVE) | (statuses == _NEGATIVE)
        if self.config.blank == "negative":
            known |= statuses == _BLANK
        target = (statuses == _POSITIVE).long()
        existence = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none")
        losses = {
            "existence": (existence * known.flatten()).sum() / known.sum().clamp_min(1),
            "position": self._position(scores.float(), places),
        }
        return losses | ({"sentences": self._sentences(batch.targets.reports)} if self.text.trainable else {})

    def truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Statuses (B, E) int8, indices of `STATUSES`, and positive places (B, E, A) bool in the reports."""
        said = [self._said(report) for report in batch.targets.reports]
        device = batch.inputs.view_mask.device
        statuses, places = (torch.from_numpy(np.stack(part)).to(device) for part in zip(*said, strict=True))
        return statuses, places

    def _said(self, report: str) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """Statuses (E,) and places (E, A) of one report, cached up to a limit."""
        # not `Targets.report_key`: reports that are equal when cleaned may differ in the punctuation that is read here
        key, shape = report_key(report), (len(ENTITIES), len(PLACES))
        if key in self._read:
            statuses, places = (np.frombuffer(part, np.uint8) for part in self._read[key])
            return statuses.view(np.int8), np.unpackbits(places, count=shape[0] * shape[1]).reshape(shape).astype(bool)
        said = summarize([triplet for _, triplets in read_sentences(report) for triplet in triplets])
        if len(self._read) < _REMEMBERED:
            self._read[key] = said.statuses.tobytes(), np.packbits(said.places).tobytes()
        return said.statuses, said.places

    def scores(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Log-odds (B, E) of the entities and logits (B, E, A) of their places, averaged over each study's views."""
        logits, scores = self(inputs.images[inputs.view_mask])
        study, count = inputs.view_mask.nonzero()[:, 0], inputs.view_mask.sum(dim=1)
        odds = (logits[..., 1] - logits[..., 0]).float()
        mean_odds = odds.new_zeros(inputs.size, len(ENTITIES)).index_add(0, study, odds) / count[:, None]
        mean_scores = scores.new_zeros(inputs.size, *scores.shape[1:]).index_add(0, study, scores)
        return mean_odds, mean_scores / count[:, None, None]

    def observe(self, batch: Batch) -> None:
        """Record log-odds, truth and hits of the places for a validation batch."""
        statuses, places = self.truth(batch)
        odds, scores = self.scores(batch.inputs)
        found = places.gather(2, scores.argmax(dim=-1, keepdim=True)).squeeze(2)
        self._scores.append(odds.cpu())
        self._statuses.append(statuses.cpu())
        self._found.append(found[places.any(dim=2)].cpu())

    def summary(self) -> dict[str, float]:
        """`place_accuracy` of positive mentions; `auroc_NAME` of entities with both classes; `auroc`, their mean."""
        if not self._scores:
            return {}
        odds, statuses = gather_rows(torch.cat(self._scores)), gather_rows(torch.cat(self._statuses))
        found = gather_rows(torch.cat(self._found))
        self.thresholds.copy_(presence_thresholds(odds, statuses == _POSITIVE))
        self._scores, self._statuses, self._found = [], [], []
        values = {}
        for index, name in enumerate(ENTITIES):
            known = statuses[:, index] != _UNCERTAIN
            if self.config.blank == "ignore":
                known &= statuses[:, index] != _BLANK
            value = auroc(odds[known, index], statuses[known, index] == _POSITIVE)
            if value is not None:
                values[f"auroc_{name}"] = value
        mean = sum(values.values()) / len(values) if values else float("nan")
        return {"auroc": mean, "place_accuracy": float(found.float().mean()), **values}

    def frozen(self) -> list[str]:
        """Parameters of the backbone, if it is not trainable, and of a text encoder of `transformers`."""
        text = [] if self.text.trainable else [f"text.{name}" for name, _ in self.text.named_parameters()]
        return self.network.backbone.frozen("network.backbone") + text

    def _vectors(self) -> tuple[Tensor, Tensor]:
        """Text vectors of the descriptions (E, W) and of the places (A, W)."""
        if self.text.trainable:
            both = self.text([*DESCRIPTIONS, *_PLACE_TEXTS])
            return both[: len(ENTITIES)], both[len(ENTITIES) :]
        return cast(Tensor, self.entity_vectors), cast(Tensor, self.place_vectors)

    def _position(self, scores: Tensor, places: Tensor) -> Tensor:
        """Cross-entropy of a true place among sampled false ones in training, among all others in validation."""
        chosen = places.any(dim=2)
        if not chosen.any():
            return scores.sum() * 0.0
        scores, places = scores[chosen], places[chosen]
        if not self.training:
            return (scores.logsumexp(1) - scores.masked_fill(~places, -torch.inf).logsumexp(1)).mean()
        noise = torch.rand_like(scores)
        true = noise.masked_fill(~places, -1.0).argmax(dim=1, keepdim=True)
        false = noise.masked_fill(places, -1.0).topk(self.config.candidates - 1, dim=1).indices
        drawn = scores.gather(1, torch.cat([true, false], dim=1))
        return F.cross_entropy(drawn, torch.zeros(len(drawn), dtype=torch.long, device=drawn.device))

    def _sentences(self, reports: tuple[str, ...]) -> Tensor:
        """Symmetric contrastive loss between sentences and their triplets as text; duplicates count once."""
        said: dict[str, tuple[Triplet, ...]] = {}
        for report in reports:
            said |= {text: triplets for text, triplets in read_sentences(report) if _prompts(triplets)}
        order = torch.randperm(len(said)).tolist() if self.training else range(len(said))
        texts = [list(said)[row] for row in order][: self.config.sentences]
        prompts = [_prompts(said[text]) for text in texts]
        known = list(dict.fromkeys(prompt for row in prompts for prompt in row))
        if len(known) < 2:
            return next(self.text.parameters()).sum() * 0.0
        vectors = F.normalize(self.text([*texts, *known]).float(), dim=1)
        with torch.autocast(vectors.device.type, enabled=False):
            similarity = vectors[: len(texts)] @ vectors[len(texts) :].T / _TEMPERATURE
        belongs = torch.tensor([[prompt in row for prompt in known] for row in prompts], device=similarity.device)
        own = similarity.masked_fill(~belongs, -torch.inf)
        return (
            sum(((similarity.logsumexp(axis) - own.logsumexp(axis)).mean() for axis in (0, 1)), own.new_zeros(())) / 2
        )


def presence_thresholds(odds: Tensor, asserted: Tensor) -> Tensor:
    """Thresholds at which an entity counts as present in as many studies as reports assert it.

    A network that learns unmentioned entities as absent rarely reaches log-odds of 0, however well it ranks studies.

    Args:
        odds: (N, E) log-odds.
        asserted: (N, E) bool, whether the report asserts the entity.

    Returns:
        (E,) thresholds midway between the log-odds of the last study that counts as present and of the next one; 0 for
        an entity that no report or every report asserts.
    """
    ranked, counts = odds.double().sort(dim=0, descending=True).values, asserted.sum(dim=0)
    between = counts.clamp(1, max(1, len(odds) - 1))[None]
    middle = (ranked.gather(0, between - 1) + ranked.gather(0, between.clamp_max(len(odds) - 1)))[0] / 2
    return middle.where((counts > 0) & (counts < len(odds)), 0).float()


_PLACE_TEXTS = tuple(place_text(place) for place in PLACES)


def _prompts(triplets: tuple[Triplet, ...]) -> list[str]:
    certain = [triplet for triplet in triplets if triplet.status != "uncertain"]
    said = [triplet_text(each.entity, place, each.status == "positive") for each in certain for place in each.places]
    return list(dict.fromkeys(said))  # no set: its order differs between processes, and with it every sum's rounding
