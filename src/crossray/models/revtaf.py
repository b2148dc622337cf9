"""REVTAF: learnable retrieval enhanced visual-text alignment and fusion (Zhou et al. 2025, arXiv 2507.07568).

PromptMRG with the features of a knowledge encoder, and what the paper adds to it. `REVTAF.encode` and `REVTAF.losses`
are the paper's order:

* section 3.2: entities and places that MedKLIP sees (F_logit; `knowledge_encoder.py`)
* section 3.3, `LRE` (eq. 3-7; `retrieving.py`): the report of a similar study, found in hyperbolic space
* `GRP`: its sentences, the global reference prompts; `LRP` (eq. 8-9): entity, place and presence, the local ones
* section 3.4, `FVTAF`: `MPSA` (eq. 10-11) lets image positions read both; `FCC` (eq. 12-14) compares where they look
* PromptMRG: `DiagnosisBranch`, `DiagnosisPrompts` and `ALA` (`layers/diagnosis.py`), then the decoder (eq. 1-2)
* eq. 15, the total loss: the weights of the named losses, in the recipe's stages

The public code cannot be run; `docs/models/revtaf.md` says what differs, and why.

Shapes: B studies, V views, n views that exist, S tokens of a view, C backbone channels, E entities, N sentences, K
observations, D text width, W fusion width, R reports of the database.
"""

import dataclasses
import math
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
from crossray.layers.diagnosis import ALA, POSITIVE, DiagnosisBranch, DiagnosisPrompts, base_probabilities
from crossray.layers.sinkhorn import SinkhornAttention, hard_iou, soft_iou
from crossray.layers.transformer import FeedForward, prepend_prompt
from crossray.models.base import Encoded, Event, PaperModule, Step, language_loss, register
from crossray.models.parts.backbones import join_views
from crossray.models.parts.bert_decoder import BertDecoder, BertDecoderConfig
from crossray.models.parts.standardization import Moments, Standardization
from crossray.models.retrieval.retrieving import RetrievalConfig, RetrievingModel, auxiliary
from crossray.retrieval.database import ReportDatabase
from crossray.text.observations import STATUSES

#: Product of the deviations of similarity and overlap below which their correlation counts as 0.
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, kw_only=True)
class REVTAFConfig(RetrievalConfig):
    """Configuration of `REVTAF`. The weights of its losses (eq. 15) stand in the stages.

    Attributes:
        status_ids: tokens of the four statuses, filled in from the tokenizer; the vocabulary's last four when empty.
        attention: of image positions to prompts: sinkhorn; softmax; legacy_uniform, which is what the released code
            computes; none: the decoder reads the image tokens alone, as in PromptMRG.
        local_prompts: read local prompts (LRP), too; without them there is no FCC, which compares both.
        prompt_values: of the encoded prompts: raw, as published; or standardized, with mean 0 and deviation 1 in every
            channel over the training reports' sentences, and over all local prompts.
        fusion_width: channels W of the fusion, for each of global and local prompts.
        fusion_heads: transport problems a view, a divisor of `fusion_width`.
        fusion_dropout: in the fusion.
        epsilon: weight of the plan's entropy.
        iterations: most Sinkhorn iterations.
        unbalanced_tau: weight of the rule that all prompts receive alike; with a small one a prompt that fits nowhere
            receives nothing. Empty (null): a strict rule, balanced transport, as published.
        fusion_output: what follows eq. 11's normalisation: feedforward, a feed-forward block (as released), or linear,
            a linear map (as printed).
        share_branches: one set of fusion weights for global and local prompts.
        consistency: FCC: correlation of the overlap of attention maps with the prompts' similarity; soft, eq. 14 as
            printed, whose least value equal maps have for all prompts; legacy, eq. 14 over cosine maps that are cut at
            half of the batch's range, without gradient for them (as released); or none.
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
    local_prompts: bool = True
    prompt_values: Literal["standardized", "raw"] = "standardized"
    fusion_width: int = 1024
    fusion_heads: int = 1
    fusion_dropout: float = 0.1
    epsilon: float = 0.05
    iterations: int = 50
    unbalanced_tau: float | None = None
    fusion_output: Literal["feedforward", "linear"] = "feedforward"
    share_branches: bool = True
    consistency: Literal["correlation", "soft", "legacy", "none"] = "correlation"
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

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if self.unbalanced_tau is not None and self.unbalanced_tau < 0:
            raise UserError(f"field 'unbalanced_tau' is {self.unbalanced_tau}; give a number from 0 on, or null.")


class GRP(nn.Module):
    """Global reference prompts F_t^g (section 3.2): the sentences of the reports that `LRE` has found.

    The frozen text encoder's vectors share a large mean. As they are, the cosines of two prompts are all alike, and so
    are those of a position and all prompts: attention to them is hardly more than an average.

    Args:
        width: D.

    Attributes:
        standardization: takes that mean away; the identity until `REVTAF.learn_from` sets it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.standardization = Standardization(width)

    def forward(self, database: ReportDatabase, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Sentences (B, N, D) and a mask (B, N), True where there is one, of reports given by their rows (B,)."""
        sentences, mask = database.sentences_of(reference)
        return self.standardization(sentences) * mask.unsqueeze(2), mask


class LRP(nn.Module):
    """Local reference prompts F_t^l: for each entity what MedKLIP sees, as an encoded text.

    Entity, place and presence are the triplet of eq. 8. The encoded texts of all triplets (eq. 9) are in the database.

    Args:
        width: D.

    Attributes:
        standardization: as that of `GRP`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.standardization = Standardization(width)

    def forward(self, database: ReportDatabase, places: Tensor, present: Tensor) -> Tensor:
        """Prompts (B, E, D) of the entities' places (B, E) int64 and presence (B, E) bool."""
        prompts: Tensor = self.standardization(database.phrases_of(places, present))
        return prompts


class MPSA(nn.Module):
    """Multi-prompts Sinkhorn attention (eq. 10), and residual fusion (eq. 11).

    Args:
        config: its fields from `attention` to `fusion_output`.
    """

    def __init__(self, config: REVTAFConfig) -> None:
        super().__init__()
        width = config.fusion_width
        assert config.attention != "none"
        self.attention = SinkhornAttention(
            width, width, width, config.fusion_heads, config.attention, config.epsilon, config.iterations,
            dropout=config.fusion_dropout, tau=math.inf if config.unbalanced_tau is None else config.unbalanced_tau,
        )  # fmt: skip
        self.attention_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.fusion_dropout)
        self.project = nn.Linear(width, width) if config.fusion_output == "linear" else None
        self.feedforward = FeedForward(width, 4 * width, config.fusion_dropout) if self.project is None else None
        self.feedforward_norm = nn.LayerNorm(width) if self.project is None else None

    def forward(self, visual: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image positions (n, S, W) with what they read in prompts (n, M, W).

        Returns:
            (n, S, W); the plan and the cosines (n, h, S, M) behind it, as `SinkhornAttention`.
        """
        attended, plan, cosine = self.attention(visual, text, mask)  # eq. 10
        x = self.attention_norm(visual + self.dropout(attended))  # eq. 11, up to f_proj
        if self.project is not None:
            return self.project(x), plan, cosine
        assert self.feedforward is not None and self.feedforward_norm is not None
        return self.feedforward_norm(x + self.dropout(self.feedforward(x))), plan, cosine


class FVTAF(nn.Module):
    """Fine-grained visual-text alignment and fusion: what MPSA makes of global and of local prompts, side by side.

    Args:
        channels: C.
        text_width: D.
        config: its fields from `attention` to `similarity`.

    Attributes:
        width: channels of the fused image.
    """

    def __init__(self, channels: int, text_width: int, config: REVTAFConfig) -> None:
        super().__init__()
        width, local = config.fusion_width, config.local_prompts
        self.width = 2 * width if local else width
        self.visual = nn.Linear(channels, width)
        self.sentences = nn.Linear(text_width, width)
        self.phrases = nn.Linear(text_width, width) if local else None
        own = local and not config.share_branches
        self.branches = nn.ModuleList(MPSA(config) for _ in range(2 if own else 1))
        # the released code's plan says nothing, and its FCC reads the cosines
        self._cosines = config.attention == "legacy_uniform" or config.consistency == "legacy"

    def forward(
        self, visual: Tensor, sentences: Tensor, mask: Tensor, phrases: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Fuse views with the prompts of their studies.

        Args:
            visual: (n, S, C).
            sentences: (n, N, D), global prompts.
            mask: (n, N) bool, True where there is a sentence.
            phrases: (n, E, D), local prompts; they are read where `local_prompts` says so.

        Returns:
            The image F_c (n, S, `width`); where each sentence looks, M_c^g (n, S, N); and where each entity looks,
            M_c^l (n, S, E), or None without local prompts.
        """
        image = self.visual(visual)
        seen, *maps = self.branches[0](image, self.sentences(sentences), mask)
        sentence_maps = maps[self._cosines].mean(dim=1)
        if self.phrases is None or phrases is None:
            return seen, sentence_maps, None
        everywhere = torch.ones(phrases.shape[:2], dtype=torch.bool, device=phrases.device)
        known, *maps = self.branches[-1](image, self.phrases(phrases), everywhere)
        return torch.cat([seen, known], dim=2), sentence_maps, maps[self._cosines].mean(dim=1)


class FCC(nn.Module):
    """Fine-grained cross-modal consistency: prompts that say the same should look at the same place (eq. 12-14).

    Args:
        kind: what becomes of similarity S (eq. 12) and overlap O (eq. 13).
            "soft": the mean of 1 - S * O, eq. 14 as printed, over the soft overlap. It rewards every overlap, and is
            least when all maps are equal: it makes an attention uniform.
            "correlation": 1 minus the correlation of S and O over the pairs of prompts of each view. Equal maps gain
            nothing; prompts must overlap more where they say the same than where they do not.
            "legacy": eq. 14 over `hard_iou`, as released, but for the empty sentences behind a report's end, which the
            released code counts.
    """

    def __init__(self, kind: Literal["correlation", "soft", "legacy"]) -> None:
        super().__init__()
        self.kind = kind

    @staticmethod
    def similarity(sentences: Tensor, phrases: Tensor) -> Tensor:
        """S (B, N, E) of prompts (B, N, D) and (B, E, D): sigmoid of their cosine (eq. 12)."""
        return (F.normalize(sentences.float(), dim=2) @ F.normalize(phrases.float(), dim=2).mT).sigmoid()

    def overlap(self, sentence_maps: Tensor, phrase_maps: Tensor) -> Tensor:
        """O (n, N, E) of maps (n, S, N) and (n, S, E): their intersection over union (eq. 13)."""
        overlap = hard_iou if self.kind == "legacy" else soft_iou
        return overlap(sentence_maps.float().mT, phrase_maps.float().mT)

    def forward(self, sentence_maps: Tensor, phrase_maps: Tensor, similarity: Tensor, mask: Tensor) -> Tensor:
        """The loss in float32, over valid sentences and all entities (eq. 14); 0 without any sentence.

        Args:
            sentence_maps: (n, S, N).
            phrase_maps: (n, S, E).
            similarity: (n, N, E).
            mask: (n, N) bool, True where there is a sentence.
        """
        with torch.autocast(similarity.device.type, enabled=False):
            overlap, similarity = self.overlap(sentence_maps, phrase_maps), similarity.float()
            valid = mask.unsqueeze(-1).to(overlap.dtype).expand_as(overlap)
            if self.kind == "correlation":
                seen = mask.any(dim=1)
                return ((1 - _correlation(similarity, overlap, valid)) * seen).sum() / seen.sum().clamp_min(1)
            return ((1 - similarity * overlap) * valid).sum() / valid.sum().clamp_min(1)


def _correlation(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Pearson correlation (n,) of the entries (n, N, E) that weigh 1; 0 where one of them does not vary."""
    count = weight.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    first, second = (
        (x - (x * weight).sum(dim=(1, 2), keepdim=True) / count) * weight / count.sqrt() for x in (first, second)
    )
    spread = (first.square().sum(dim=(1, 2)) * second.square().sum(dim=(1, 2)) + _LEAST_SPREAD**2).sqrt()
    return (first * second).sum(dim=(1, 2)) / spread


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
        self.grp, self.lrp = GRP(text_width), LRP(text_width)
        self.fvtaf = FVTAF(channels, text_width, config) if config.attention != "none" else None
        compared = self.fvtaf is not None and config.local_prompts
        self.fcc = FCC(config.consistency) if compared and config.consistency != "none" else None
        self.diagnosis = DiagnosisBranch(
            channels, text_width, classes, config.diagnosis_width, config.diagnosis_layers, config.diagnosis_heads,
            config.dropout,
        )  # fmt: skip
        ids = config.status_ids or range(config.vocabulary_size - len(STATUSES), config.vocabulary_size)
        self.prompts = DiagnosisPrompts(ids)
        self.ala = ALA(classes, auxiliary=self._auxiliary)
        sizes = {name: getattr(config, name) for name in _DECODER_SIZES}
        memory = channels if self.fvtaf is None else self.fvtaf.width
        self.decoder = BertDecoder(
            BertDecoderConfig(vocabulary_size=config.vocabulary_size, memory_width=memory, name=config.decoder, **sizes)
        )
        built = {name: getattr(self.decoder.config, name) for name in _DECODER_SIZES}
        self.config = replace(self.config, decoder="", **built)

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """Build the report database of the training split, or find it in the dataset; begin with its class priors."""
        super().learn_from(dataset, section, features)
        if self.config.prompt_values == "standardized" and len(self.database):
            for prompts, texts in ((self.grp, self.database.sentences), (self.lrp, self.database.phrases)):
                moments = Moments(texts.shape[-1])
                moments.add(texts.cpu().float())
                prompts.standardization.learn(moments)
        labelled = self.database.labels[(self.database.labels >= 0).all(1)]
        if len(labelled):
            priors = base_probabilities(labelled[:, : self.classes])
            priors[len(priors) - self._auxiliary :] = 1
            self.ala.begin(priors)

    def frozen(self) -> list[str]:
        """Besides what retrieves, queries and keys that nothing reads, or only what has no gradient."""
        names = super().frozen()
        differentiable = self.fcc is not None and self.fcc.kind != "legacy"
        if self.fvtaf is not None and self.config.attention == "legacy_uniform" and not differentiable:
            unread = (".attention.query.", ".attention.key.")
            fusion = [f"fvtaf.{name}" for name, _ in self.fvtaf.named_parameters()]
            names += [name for name in fusion if any(part in name for part in unread)]
        return names

    # from image to report

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views, retrieved report, entities -> FVTAF; neighbours -> diagnosis -> prompt. Labels guide training."""
        guide = guide if self.training else None
        tokens, pooled = self.backbone.views(inputs)  # F_v, section 3.1
        entities, places = self.entities(inputs)  # F_logit, section 3.2
        exclude = None if guide is None else self.database.groups_of(guide.study)
        neighbours = self._search(entities, self.config.neighbours, metric="cosine", exclude=exclude)[1]
        statuses = self._diagnose(pooled, inputs.view_mask, neighbours)
        labels, known = self.status_codes(guide)
        aux = {"entities": entities, "statuses": statuses}
        if self.fvtaf is not None:
            reference = self._reference(entities, guide, exclude)  # R_ref, section 3.3
            tokens = self._fuse(self.fvtaf, tokens, inputs.view_mask, reference, entities, places, aux)
        memory, mask = join_views(tokens, inputs.view_mask)
        prompt = self.prompts(statuses, labels, known)
        return Encoded(memory=memory, memory_mask=mask, pooled=pooled, prompt=prompt, aux=aux)

    def _diagnose(self, pooled: Tensor, views: Tensor, neighbours: Tensor) -> Tensor:
        """Logits (B, 4, K) of the statuses, from pooled views (B, V, C) and the reports of neighbours (B, n)."""
        reports, mask = self.database.reports_of(neighbours)
        # a study without neighbours reads one blank report
        mask = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)
        image = pooled.masked_fill(~views.unsqueeze(2), 0).sum(1) / views.sum(1, keepdim=True)
        return self.diagnosis(image, reports, mask)

    def _fuse(
        self, fvtaf: FVTAF, tokens: Tensor, views: Tensor, reference: Tensor, entities: Tensor, places: Tensor,
        aux: dict[str, Tensor],
    ) -> Tensor:  # fmt: skip
        """Fused tokens (B, V, S, width) of all views; what FCC compares goes into `aux`."""
        sentences, mask = self.grp(self.database, reference)
        phrases = None
        if self.config.local_prompts:
            phrases = self.lrp(self.database, places, self.knowledge.present(entities))
        study = views.nonzero()[:, 0]
        local = None if phrases is None else phrases[study]
        fused, sentence_maps, phrase_maps = fvtaf(tokens[views], sentences[study], mask[study], local)
        aux["sentence_maps"] = _by_view(sentence_maps, views)
        if phrase_maps is not None:
            aux["phrase_maps"] = _by_view(phrase_maps, views)
        aux["reference"], aux["sentences"] = reference, mask
        if self.fcc is not None and phrases is not None:
            if self.config.similarity == "projected":
                assert fvtaf.phrases is not None
                sentences, phrases = fvtaf.sentences(sentences), fvtaf.phrases(phrases)
            aux["similarity"] = self.fcc.similarity(sentences, phrases)
        return _by_view(fused, views)

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
        language = language_loss(logits, targets.tokens[:, 1:], targets.mask[:, 1:], smoothing)  # L_task, eq. 2
        losses = {"language": language}
        labels, known = self.status_codes(batch.guide)
        if labels is not None:
            losses["diagnosis"] = self.ala(encoded.aux["statuses"], labels, known)
            if self.lre is not None:
                losses["ranking"] = self.lre.loss(encoded.aux["entities"], labels, known)  # L_rank, eq. 7
        if self.fcc is not None:
            views, study = batch.inputs.view_mask, batch.inputs.view_mask.nonzero()[:, 0]
            losses["consistency"] = self.fcc(  # L_fcc, eq. 14
                encoded.aux["sentence_maps"][views], encoded.aux["phrase_maps"][views],
                encoded.aux["similarity"][study], encoded.aux["sentences"][study],
            )  # fmt: skip
        return losses

    def paper_modules(self) -> dict[str, PaperModule]:
        """What the configuration has of LRE, the prompts, FVTAF with MPSA and FCC, and PromptMRG's diagnosis."""
        modules = {
            "diagnosis": PaperModule(path="diagnosis", varies="study"),
            "diagnosis prompts": PaperModule(path="prompts", method="statuses"),
            "ALA": PaperModule(path="ala", method="adjust"),
        }
        if self.lre is not None and self.fvtaf is not None:
            modules["LRE"] = PaperModule(path="lre")
        if self.fvtaf is not None:
            modules["GRP"] = PaperModule(path="grp", varies="study")
            modules["FVTAF"] = PaperModule(path="fvtaf")
            attention = "fvtaf.branches.0.attention"
            modules["MPSA"] = PaperModule(path=f"{attention}.output", attention=attention)
            if self.config.local_prompts:
                modules["LRP"] = PaperModule(path="lrp", varies="study")
        if self.fcc is not None:
            modules["FCC"] = PaperModule(path="fcc", method="overlap")
        return modules

    def observe(self, batch: Batch) -> None:
        """How sure the diagnosis is of what the validation studies have."""
        labels, known = self.status_codes(batch.guide)
        if labels is not None:
            probabilities = self.encode(batch.inputs).aux["statuses"].float().softmax(dim=1)[:, POSITIVE]
            self.ala.observe(probabilities[known], labels[known])

    def advance(self, event: Event) -> None:
        """After a validation the class priors are renewed, too."""
        super().advance(event)
        if event.kind == "validation":
            self.ala.update()


def _by_view(rows: Tensor, views: Tensor) -> Tensor:
    """Rows (n, ...) of the views that exist, put in their places (B, V, ...); zeros elsewhere."""
    return rows.new_zeros(*views.shape, *rows.shape[1:]).index_put((views,), rows)


_DECODER_SIZES = tuple(
    f.name for f in dataclasses.fields(BertDecoderConfig) if f.name not in ("vocabulary_size", "memory_width", "name")
)
