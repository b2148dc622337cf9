"""COACL: cross-modal orthogonal adaptive contrastive learning over M2KT's network.

Only a README, one figure and partly broken code are public. The network follows the code; MOM, GFM and ACLM
(`models.parts.adaptive_contrast`) are our reconstruction from the figure. `docs/models/coacl.md` says which is which.

Shapes: B studies, N studies of all processes, V views, S image tokens, C backbone channels, T words, D width, L = 14
labels, M memory slots.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Guide, Inputs
from crossray.layers.attention import CrossAttention
from crossray.layers.cache import Cache
from crossray.layers.contrastive import at_least_float32, gather_ranks
from crossray.layers.dropout import Dropout
from crossray.layers.embedding import PositionalEncoding, TokenEmbedding
from crossray.layers.gates import Fusion
from crossray.layers.knowledge_memory import KnowledgeMemory, look_up
from crossray.layers.transformer import Encoder, FeedForward
from crossray.models.base import Encoded, Event, PaperModule, Step, register
from crossray.models.parts.adaptive_contrast import ACLM, GFM, MOM
from crossray.models.parts.backbones import BackboneConfig, square_cells
from crossray.models.parts.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from crossray.text.observations import CHEXPERT, STATUSES

_POSITIVE = STATUSES.index("positive")


@dataclass(frozen=True, kw_only=True)
class COACLConfig(EncoderDecoderConfig):
    """Configuration of `COACL`.

    Attributes:
        backbone: the vision backbone; in the publication, a ViT-B/16 with its class token.
        visual_relu: ReLU after the linear map of the image features.
        visual_dropout: dropout after the linear map of the image features.
        visual_positions: sinusoidal position codes on the image tokens.
        denoising_dropout: dropout in the attention between image tokens and priors.
        denoising_norm: normalize the priors that this attention reads, and what it adds. Without it, as in the code,
            training makes the addition hundreds of times as large as the image tokens (docs/models/coacl.md).
        memory: how the labels query the knowledge memory: learned (multi-head attention), parameter_free (M2KT's
            "vRebuttal"), or none (without a memory, the label embedding is the prior).
        memory_slots: number of rows of the knowledge memory.
        memory_heads: number of heads that query the memory; a divisor of `width`.
        memory_trained: train the rows of the memory; otherwise they remain unit vectors, as in the code, and only their
            linear map is trained.
        memory_norm: normalize each row of the memory before the look-up; the code does not, so its labels attend to all
            rows equally.
        memory_momentum: share of the memory content that is kept in each update from the reports; 1 for no updates.
        orthogonal: use MOM, the attention of image and text vectors to their common basis.
        basis: basis of MOM: orthonormal rows, orthonormal columns, or none (the vectors themselves, as in the code).
        fusion: fusion in GFM: gate, addition (of the vector and its attention output), or no_gate (the attention output
            alone).
        label_tokens: input of the priors: the probability of a label and a vector of its own (identified), or only its
            logit, as in the code (logit).
        gate_swapped: exchange the two inputs of the gate, as in the code.
        gate_shared: use one pair of weights for both gates, as the figure may suggest.
        contrast: contrastive loss: ACLM (adaptive), the next study as the only negative as in M2KT (neighbour), or none
            (without a text branch).
        contrast_loss: triplet with M2KT's label margin, or infonce.
        contrast_temperature: temperature of the infonce loss.
        contrast_estimated: input of ACLM's estimators UE and HNE: the "raw" vectors of image and report, as in the
            figure, or the "fused" ones that the loss compares.
        text_labels: also predict the labels from the report, with the loss "text_label".
        decoder_prefix: use the priors as decoder positions before the report.
    """

    backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="random:vit_b16", cls_token=True))
    visual_relu: bool = False
    visual_dropout: float = 0.1
    visual_positions: bool = False
    denoising_dropout: float = 0.5
    denoising_norm: bool = False
    memory: Literal["learned", "parameter_free", "none"] = "learned"
    memory_slots: int = 90
    memory_heads: int = 8
    memory_trained: bool = True
    memory_norm: bool = True
    memory_momentum: float = 0.99
    orthogonal: bool = True
    basis: Literal["rows", "cols", "none"] = "rows"
    fusion: Fusion = "gate"
    label_tokens: Literal["identified", "logit"] = "identified"
    gate_swapped: bool = False
    gate_shared: bool = False
    contrast: Literal["adaptive", "neighbour", "none"] = "adaptive"
    contrast_loss: Literal["triplet", "infonce"] = "triplet"
    contrast_temperature: float = 0.07
    contrast_estimated: Literal["raw", "fused"] = "raw"
    text_labels: bool = False
    decoder_prefix: bool = False


@register("coacl", COACLConfig)
class COACL(EncoderDecoder):
    """M2KT: image tokens joined by priors from a knowledge memory; MOM, GFM and ACLM beside the language loss."""

    loss_weights: ClassVar = {"language": 1.0, "label": 0.1, "contrastive": 0.1, "text_label": 0.1}
    config: COACLConfig

    def __init__(self, config: COACLConfig) -> None:
        super().__init__(config)
        config, width, channels = self.config, self.config.width, self.backbone.width
        self.join = nn.Linear(config.views * channels, channels) if config.views > 1 else nn.Identity()
        self.image_vector = kaiming(nn.Linear(channels, width))
        self.image_labels = kaiming(nn.Linear(width, len(CHEXPERT)))
        self.label_embedding = kaiming(nn.Linear(1, width))
        identified = config.label_tokens == "identified"
        self.label_identity = nn.Parameter(torch.randn(len(CHEXPERT), width)) if identified else None
        self.memory: KnowledgeMemory | None = None
        self.prior_selection: PriorSelection | None = None
        if config.memory != "none":
            slots = (config.memory_slots, width)
            self.memory = KnowledgeMemory(*slots, trained=config.memory_trained, momentum=config.memory_momentum)
            self.prior_selection = PriorSelection(config)
        self.prior_map = kaiming(nn.Linear(width, channels))
        self.denoising = Denoising(channels, config.denoising_dropout, normalize=config.denoising_norm)
        self.prefix = FeedForward(width, config.feedforward, config.dropout) if config.decoder_prefix else None
        self.report_encoder = ReportEncoder(config) if config.contrast != "none" or config.text_labels else None
        self.report_labels = kaiming(nn.Linear(width, len(CHEXPERT))) if config.text_labels else None
        self.alignment = Alignment(config) if config.contrast != "none" else None
        known = [name for name in CHEXPERT if name in config.observations]
        self.labelled = len(known)
        places = torch.tensor([[CHEXPERT.index(name), config.observations.index(name)] for name in known])
        self._places: Tensor
        self.register_buffer("_places", places.view(-1, 2).long(), persistent=False)

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views -> joined tokens + priors -> denoising -> encoder."""
        tokens, pooled = self.backbone.views(inputs)
        image = self.image_vector(self._joined(pooled))
        labels = self.image_labels(image)
        prior = self._label_vectors(labels)
        if self.memory is not None and self.prior_selection is not None:
            prior = self.prior_selection(prior, self.memory())
        visual = self.visual_embedding(self.denoising(self._joined(tokens), self.prior_map(prior)))
        everywhere = torch.ones(visual.shape[:2], dtype=torch.bool, device=visual.device)
        encoded = self.encode_visual(visual, everywhere, pooled)
        encoded.aux.update(image=image, labels=labels)
        if self.prefix is not None:
            encoded.aux["prefix"] = self.prefix(prior)
        return encoded

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """(Prefix +) embedding + position codes -> decoder -> vocabulary."""
        prefix = encoded.aux.get("prefix")
        text = self.embed_text(tokens, encoded, cache, first=0 if prefix is None else prefix.shape[1])
        if prefix is not None and (cache is None or cache.length == 0):
            repeated = prefix.repeat_interleave(text.shape[0] // prefix.shape[0], dim=0)
            text = torch.cat([repeated.to(text.dtype), text], dim=1)
        return self.decode(text, encoded, cache, positions=tokens.shape[1], need_attention=need_attention)

    def memory_cells(self, views: int, positions: int) -> Tensor:
        """Tokens represent the same place of all views, which were joined along the channels; priors have no place."""
        cells = torch.full((views, positions), -1)
        tokens = positions - 2 * len(CHEXPERT)
        cells[:, :tokens] = square_cells(tokens)
        return cells

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """The vectors before MOM and GFM, whose output depends on the batch."""
        if self.report_encoder is None:
            return None
        _, pooled = self.backbone.views(batch.inputs)
        words = self.report_encoder(batch.targets.tokens, batch.targets.mask)
        return self.image_vector(self._joined(pooled)), words[:, 0]

    def paper_modules(self) -> dict[str, PaperModule]:
        """MOM, GFM and ACLM, and M2KT's knowledge memory, its update and denoising attention."""
        modules = {"denoising attention": PaperModule(path="denoising.attention", attention="denoising.attention")}
        if self.memory is not None and self.prior_selection is not None:
            learned = self.prior_selection.attention is not None
            path = "prior_selection.attention" if learned else "prior_selection"
            modules["knowledge memory"] = PaperModule(path=path, attention=path if learned else "")
            if self.memory.momentum < 1:
                modules["memory update"] = PaperModule(
                    path="memory", method="update", varies="slot", starts_closed=True
                )
        if self.alignment is not None:
            if self.alignment.mom is not None:
                modules["MOM"] = PaperModule(path="alignment.mom", varies="study", attention="alignment.mom.attention")
            modules["GFM"] = PaperModule(path="alignment.gfm", varies="study")
            modules["ACLM"] = PaperModule(path="alignment.aclm")
        return modules

    def memories(self) -> dict[str, Tensor]:
        """The knowledge memory, if there is one."""
        return {} if self.memory is None else {"knowledge memory": self.memory()}

    def losses_of(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Language, label (with CheXpert labels), contrastive and text_label (if configured) losses."""
        losses = {"language": self.language_loss(encoded, batch.targets)}
        truth, known = self.truth(batch)
        if self.labelled:
            losses["label"] = self._label_loss(encoded.aux["labels"], truth, known)
        if self.report_encoder is not None:
            words = self.report_encoder(batch.targets.tokens, batch.targets.mask)
            report = words[:, 0]
            if self.training and self.memory is not None:
                self.memory.read(words.detach(), batch.targets.mask)
            if self.alignment is not None:
                image, keys = encoded.aux["image"], batch.targets.report_key
                losses["contrastive"] = self.alignment(image, report, keys, truth, known)
            if self.report_labels is not None and self.labelled:
                losses["text_label"] = self._label_loss(self.report_labels(report), truth, known)
        return losses

    def advance(self, event: Event) -> None:
        """After a step, update the memory with the content from its reports."""
        if event.kind == "step" and self.memory is not None:
            self.memory.write()

    def truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Which CheXpert observations are positive, (B, L) bool, and which studies have labels at all, (B,) bool.

        An observation that the dataset lacks is never positive.
        """
        device = batch.inputs.view_mask.device
        positive = torch.zeros(batch.inputs.size, len(CHEXPERT), dtype=torch.bool, device=device)
        labels = batch.guide.labels
        if labels is None or not self.labelled:
            return positive, positive[:, 0]
        labels = labels[:, self._places[:, 1]]
        positive[:, self._places[:, 0]] = labels[..., _POSITIVE] > 0
        return positive, labels.flatten(1).sum(dim=1) > 0

    def _label_vectors(self, labels: Tensor) -> Tensor:
        """The input of the priors, (B, L, D), from logits (B, L).

        A logit alone does not identify its label, and its magnitude of about 10 dominates the image tokens that are
        denoised with it. It is therefore replaced by a probability and a vector of the label.
        """
        if self.label_identity is None:
            return self.label_embedding(labels.unsqueeze(-1))
        return self.label_embedding(labels.sigmoid().unsqueeze(-1)) + self.label_identity

    def _joined(self, views: Tensor) -> Tensor:
        """(B, V, ..., C), zero where a view is missing, joined along the channels: (B, ..., C)."""
        channels = torch.cat(views.unbind(1), dim=-1)
        missing = self.config.views * views.shape[-1] - channels.shape[-1]
        return self.join(F.pad(channels, (0, missing)))

    def _label_loss(self, logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        """Binary cross-entropy, the mean over studies with labels and observations that the dataset has."""
        places = self._places[:, 0]
        each = F.binary_cross_entropy_with_logits(logits.float()[:, places], truth[:, places].float(), reduction="none")
        return (each * known[:, None]).sum() / (known.sum() * self.labelled).clamp_min(1)


class PriorSelection(nn.Module):
    """prior = e + dropout(attention(norm(e), norm(memory), norm(memory))) for embedded labels e.

    Rows of the memory are short, with entries of initial variance 2 / D. Without normalization, as in the code, all
    scores are nearly 0, and every label of every study gets the mean of all rows (`memory_norm`).
    """

    def __init__(self, config: COACLConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.memory_norm = nn.LayerNorm(config.width, elementwise_affine=False) if config.memory_norm else nn.Identity()
        self.attention: CrossAttention | None = None
        if config.memory == "learned":
            self.attention = CrossAttention(config.width, config.memory_heads, config.dropout)
            if config.memory_norm:
                # scores have a standard deviation of about 1.5, so a label reads about a third of the rows
                nn.init.xavier_uniform_(self.attention.query.weight, gain=1.5)
        self.dropout = Dropout(config.dropout)

    def forward(self, labels: Tensor, memory: Tensor) -> Tensor:
        """Labels (B, L, D) and memory (M, D) -> (B, L, D)."""
        query, memory = self.norm(labels), self.memory_norm(memory)
        if self.attention is None:
            everyone = memory.expand(len(query), -1, -1)
            return labels + self.dropout(look_up(query, everyone, everyone))
        # all studies query the same memory, whose keys and values are computed once
        found, _ = self.attention(query, *self.attention.keys_values(memory[None]))
        return labels + self.dropout(found)


class Denoising(nn.Module):
    """Image tokens attend to the priors, and the priors to the tokens and themselves, with one set of weights.

    A = [tokens; prior]; v1 = A + f(A, prior); v2 = prior + f(prior, A); [v1; v2].

    Args:
        channels: C, with one head for every 64 of them: 12 in a ViT-B/16, as published.
        dropout: dropout in the attention weights and after the attention.
        normalize: f reads normalized keys and values, and what it finds is normalized before it is added.
    """

    def __init__(self, channels: int, dropout: float, *, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        self.norm = nn.LayerNorm(channels)
        self.attention = CrossAttention(channels, max(1, channels // 64), dropout)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, prior: Tensor) -> Tensor:
        """Tokens (B, S, C) and priors (B, L, C) -> (B, S + 2 L, C)."""
        everything = torch.cat([tokens, prior], dim=1)
        return torch.cat([self._attended(everything, prior), self._attended(prior, everything)], dim=1)

    def _attended(self, x: Tensor, memory: Tensor) -> Tensor:
        read = self.norm(memory) if self.normalize else memory
        found, _ = self.attention(self.norm(x), *self.attention.keys_values(read))
        return x + self.dropout(F.layer_norm(found, found.shape[-1:]) if self.normalize else found)


class ReportEncoder(nn.Module):
    """The text branch for training: turns words into vectors, the first of which represents the text."""

    def __init__(self, config: COACLConfig) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(config.vocabulary_size, config.width)
        self.positions = PositionalEncoding(config.width)
        self.dropout = Dropout(config.dropout)
        self.encoder = Encoder(
            config.layers, config.width, config.heads, config.feedforward, config.dropout, config.norm
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T) int64 and the mask of its words -> (B, T, D)."""
        return self.encoder(self.dropout(self.positions(self.embedding(tokens))), mask)


class Alignment(nn.Module):
    """MOM, GFM and ACLM: pulls the vectors of an image and its report together and pushes others apart.

    All of this couples the studies of a batch, over all processes. It only contributes to the loss and never reaches
    the decoder.
    """

    def __init__(self, config: COACLConfig) -> None:
        super().__init__()
        assert config.contrast != "none"
        self.mom = MOM(config.width, config.heads, config.basis) if config.orthogonal else None
        self.gfm = GFM(config.width, config.fusion, share_gates=config.gate_shared, swapped=config.gate_swapped)
        self.aclm = ACLM(config.contrast, config.contrast_loss, config.contrast_temperature, config.contrast_estimated)

    def forward(self, image: Tensor, report: Tensor, keys: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        """The contrastive loss, float32; 0 for a single study.

        Args:
            image: (B, D), vectors of the images.
            report: (B, D), vectors of their reports.
            keys: (B,) int64, equal for equal reports.
            truth: (B, L) bool, positive labels.
            known: (B,) bool, True for a study that has labels.
        """
        image, report, keys, truth, known = (gather_ranks(x) for x in (image, report, keys, truth, known))
        with torch.autocast(image.device.type, enabled=False):
            image, report = at_least_float32(image), at_least_float32(report)
            if len(image) == 1:
                return 0 * (image.sum() + report.sum())
            basis = None if self.mom is None else self.mom.basis(image, report)
            fused = self._fused(image, basis), self._fused(report, basis)
            loss: Tensor = self.aclm((image, report), fused, keys, truth, known)
            return loss

    def _fused(self, raw: Tensor, basis: Tensor | None) -> Tensor:
        # without MOM, a vector attends only to itself
        attended = raw if self.mom is None or basis is None else self.mom(raw, basis)
        fused: Tensor = self.gfm(raw, attended)
        return fused


def kaiming(layer: nn.Linear) -> nn.Linear:
    """M2KT's initialization of its own linear maps: Kaiming-normal weights, zero bias."""
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
