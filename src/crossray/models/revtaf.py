"""REVTAF: learnable retrieval enhanced visual-text alignment and fusion (SPEC 4; Zhou et al., arXiv 2507.07568).

PromptMRG with the features of a knowledge encoder, and what the paper adds to it. In the order of the paper: LRE (a
report of a similar study is retrieved in hyperbolic space; it stands in `retrieving.py`), prompts (its sentences, GRP;
what the knowledge encoder sees, LRP), FVTAF (MPSA: image positions read both by optimal transport; FCC: prompts that
say the same look at the same place), diagnosis branch, decoder. The public code cannot be run; `docs/models/revtaf.md`
says what differs, and why.

Shapes: B studies, V views, n views that exist, S tokens of a view, C backbone channels, E entities, N sentences, K
observations, D text width, W fusion width, R reports of the database.
"""

import dataclasses
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Guide, Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.layers.cache import Cache
from crossray.layers.diagnosis import POSITIVE, DiagnosisBranch, LogitAdjustment, base_probabilities
from crossray.layers.sinkhorn import SinkhornAttention, soft_iou_consistency
from crossray.layers.transformer import FeedForward, prepend_prompt
from crossray.models.base import Encoded, Event, Step, language_loss, register
from crossray.models.parts.backbones import join_views
from crossray.models.parts.bert_decoder import BertDecoder, BertDecoderConfig
from crossray.models.retrieval.retrieving import RetrievalConfig, RetrievingModel, auxiliary
from crossray.text.observations import STATUSES


@dataclass(frozen=True, kw_only=True)
class REVTAFConfig(RetrievalConfig):
    """Configuration of `REVTAF`. The weights of its losses (eq. 15) stand in the stages.

    Attributes:
        status_ids: tokens of the four statuses, filled in from the tokenizer; the vocabulary's last four when empty.
        attention: of image positions to prompts: sinkhorn; softmax; legacy_uniform, which is what the released code
            computes; none: the decoder reads the image tokens alone, as in PromptMRG.
        fusion_width: channels W of the fusion, for each of global and local prompts.
        fusion_heads: transport problems a view, a divisor of `fusion_width`.
        fusion_dropout: in the fusion.
        epsilon: weight of the plan's entropy.
        iterations: most Sinkhorn iterations.
        share_branches: one set of fusion weights for global and local prompts.
        consistency: FCC: soft, legacy (as released, without gradient for the plans), or none.
        similarity: what FCC compares: raw prompts, or their trained projections (as released).
        neighbours: reports that the diagnosis branch reads, the nearest by the cosine of the entities' log-odds.
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
    """

    status_ids: tuple[int, ...] = ()
    attention: Literal["sinkhorn", "softmax", "legacy_uniform", "none"] = "sinkhorn"
    fusion_width: int = 1024
    fusion_heads: int = 1
    fusion_dropout: float = 0.1
    epsilon: float = 0.05
    iterations: int = 50
    share_branches: bool = True
    consistency: Literal["soft", "legacy", "none"] = "soft"
    similarity: Literal["raw", "projected"] = "raw"
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
        config: its fields from `attention` to `similarity`.
    """

    def __init__(self, channels: int, text_width: int, config: REVTAFConfig) -> None:
        super().__init__()
        width = config.fusion_width
        self.config = config
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

    def similarity(self, sentences: Tensor, phrases: Tensor) -> Tensor:
        """How alike prompts (B, N, D) and (B, E, D) are, (B, N, E) from 0 to 1 (eq. 12)."""
        if self.config.similarity == "projected":
            sentences, phrases = self.sentences(sentences), self.phrases(phrases)
        return (F.normalize(sentences.float(), dim=2) @ F.normalize(phrases.float(), dim=2).mT).sigmoid()


@register("revtaf", REVTAFConfig)
class REVTAF(RetrievingModel):
    """LRE and prompts, FVTAF over the image tokens, a diagnosis that the decoder reads before it writes."""

    loss_weights: ClassVar = {"language": 1.0, "diagnosis": 4.0, "ranking": 2.0, "consistency": 0.5}
    config: REVTAFConfig

    def __init__(self, config: REVTAFConfig) -> None:
        if not config.observations:
            raise UserError("revtaf diagnoses, and the dataset has no labels (field 'observations'); prepare it again.")
        super().__init__(config)
        channels, text_width, classes = self.backbone.width, self.knowledge.text_width, self.classes
        self._auxiliary = auxiliary(config.observations) if config.auxiliary else 0
        self.fvtaf = FVTAF(channels, text_width, config) if config.attention != "none" else None
        self.diagnosis = DiagnosisBranch(
            channels, text_width, classes, config.diagnosis_width, config.diagnosis_layers, config.diagnosis_heads,
            config.dropout,
        )  # fmt: skip
        self.adjustment = LogitAdjustment(classes, auxiliary=self._auxiliary)
        sizes = {name: getattr(config, name) for name in _DECODER_SIZES}
        memory = channels if self.fvtaf is None else 2 * config.fusion_width
        self.decoder = BertDecoder(
            BertDecoderConfig(vocabulary_size=config.vocabulary_size, memory_width=memory, name=config.decoder, **sizes)
        )
        built = {name: getattr(self.decoder.config, name) for name in _DECODER_SIZES}
        self.config = replace(self.config, decoder="", **built)
        ids = config.status_ids or range(config.vocabulary_size - len(STATUSES), config.vocabulary_size)
        self._status_ids: Tensor
        self.register_buffer("_status_ids", torch.tensor(list(ids)), persistent=False)

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """Build the report database of the training split, or find it in the dataset; begin with its class priors."""
        super().learn_from(dataset, section, features)
        labelled = self.database.labels[(self.database.labels >= 0).all(1)]
        if len(labelled):
            priors = base_probabilities(labelled[:, : self.classes])
            priors[len(priors) - self._auxiliary :] = 1
            self.adjustment.priors.copy_(LogitAdjustment(len(priors), priors).priors)

    def frozen(self) -> list[str]:
        """Besides what retrieves, queries and keys that nothing reads."""
        names = super().frozen()
        if self.fvtaf is not None and self.config.attention == "legacy_uniform":
            unread = (".attention.query.", ".attention.key.")
            fusion = [f"fvtaf.{name}" for name, _ in self.fvtaf.named_parameters()]
            names += [name for name in fusion if any(part in name for part in unread)]
        return names

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
        labels, known = self.status_codes(guide)
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
            aux["similarity"] = fvtaf.similarity(sentences, phrases)
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
        labels, known = self.status_codes(batch.guide)
        if labels is not None:
            statuses = self.adjustment.adjust(encoded.aux["statuses"].float())
            each = F.cross_entropy(statuses, labels, reduction="none").mean(dim=1)
            losses["diagnosis"] = (each * known).sum() / known.sum().clamp_min(1)
            if self.lre is not None:
                losses["ranking"] = self.lre.loss(encoded.aux["entities"], labels, known)
        if "similarity" in encoded.aux and self.config.consistency != "none":
            views, study = batch.inputs.view_mask, batch.inputs.view_mask.nonzero()[:, 0]
            losses["consistency"] = soft_iou_consistency(
                encoded.aux["sentence_plan"][views].mean(dim=1), encoded.aux["phrase_plan"][views].mean(dim=1),
                encoded.aux["similarity"][study], encoded.aux["sentences"][study], self.config.consistency,
            )  # fmt: skip
        return losses

    def observe(self, batch: Batch) -> None:
        """How sure the diagnosis is of what the validation studies have."""
        labels, known = self.status_codes(batch.guide)
        if labels is not None:
            probabilities = self.encode(batch.inputs).aux["statuses"].float().softmax(dim=1)[:, POSITIVE]
            self.adjustment.observe(probabilities[known], labels[known])

    def advance(self, event: Event) -> None:
        """After a validation the class priors are renewed, too."""
        super().advance(event)
        if event.kind == "validation":
            self.adjustment.update()


_DECODER_SIZES = tuple(
    f.name for f in dataclasses.fields(BertDecoderConfig) if f.name not in ("vocabulary_size", "memory_width", "name")
)
