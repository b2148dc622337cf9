"""REVTAF: learnable retrieval enhanced visual-text alignment and fusion (Zhou et al. 2025, arXiv 2507.07568).

PromptMRG with the features of a knowledge encoder and the additions of the paper. `REVTAF.encode` and
`REVTAF.losses_of` follow the order of the paper:

* section 3.2: entities and places that MedKLIP sees (F_logit; `pretraining/knowledge_encoder.py`)
* section 3.3, `LRE` (eq. 3-7; `retrieval/retrieving.py`): the report of a similar study, found in hyperbolic space
* `GRP`: its sentences, the global reference prompts; `LRP` (eq. 8-9): entity, place and presence, the local ones
* section 3.4, `FVTAF`: `MPSA` (eq. 10-11) lets image positions read both; `FCC` (eq. 12-14) compares where they look
  (these in `retrieval/fusion.py`)
* PromptMRG: `DiagnosisBranch`, `DiagnosisPrompts` and `ALA` (`layers/diagnosis.py`), then the decoder (eq. 1-2)
* eq. 15, the total loss: the weights of the losses in the stages of the recipe

The public code cannot be run; `docs/models/revtaf.md` says what differs, and why.

Shapes: B studies, V views, n views that exist, S tokens of a view, C backbone channels, E entities, N sentences, K
observations, D text width, W fusion width, R reports of the database.
"""

import dataclasses
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from crossray.data.batches.batch import Batch, Guide, Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.layers.cache import Cache
from crossray.layers.diagnosis import (
    ALA,
    POSITIVE,
    DiagnosisBranch,
    DiagnosisPrompts,
    base_probabilities,
    called,
    status_shares,
)
from crossray.layers.transformer import prepend_prompt
from crossray.models.base import Encoded, Event, PaperModule, Step, language_loss, register
from crossray.models.parts.backbones import join_views
from crossray.models.parts.bert_decoder import BertDecoder, BertDecoderConfig
from crossray.models.parts.standardization import Moments, Standardization
from crossray.models.retrieval.fusion import FCC, FVTAF, GRP, LRP, FusionConfig
from crossray.models.retrieval.retrieving import RetrievalConfig, RetrievingModel, auxiliary
from crossray.text.observations import STATUSES


@dataclass(frozen=True, kw_only=True)
class REVTAFConfig(RetrievalConfig, FusionConfig):
    """Configuration of `REVTAF`. The weights of its losses (eq. 15) are set in the stages.

    Attributes:
        status_ids: tokens of the four statuses, set from the tokenizer; if empty, the last four of the vocabulary.
        neighbours: number of reports that the diagnosis branch reads, nearest by the cosine of the entities' log-odds.
        diagnosis_width: width of the diagnosis branch.
        diagnosis_layers: number of layers of its encoder, and of its decoder.
        diagnosis_heads: number of its attention heads; a divisor of `diagnosis_width`.
        diagnosis_image_dropout: probability with which a study is diagnosed from its neighbors' reports alone in
            training.
        decoder: released BERT with the initial weights of the decoder, as a name on the Hugging Face hub or a folder;
            its sizes then replace `layers` to `positions`. Empty for new weights.
        layers: number of decoder layers.
        width: width of the decoder.
        heads: number of its attention heads; a divisor of `width`.
        feedforward: width of the hidden layer of its feed-forward blocks.
        dropout: dropout in the decoder and the diagnosis branch.
        positions: maximum number of decoder positions, including the prompt.
        label_smoothing: label smoothing of the language loss in training.
    """

    status_ids: tuple[int, ...] = ()
    neighbours: int = 21
    diagnosis_width: int = 512
    diagnosis_layers: int = 2
    diagnosis_heads: int = 8
    diagnosis_image_dropout: float = 0.0
    decoder: str = ""
    layers: int = 12
    width: int = 768
    heads: int = 12
    feedforward: int = 3072
    dropout: float = 0.1
    positions: int = 512
    label_smoothing: float = 0.1


@register("revtaf", REVTAFConfig)
class REVTAF(RetrievingModel):
    """LRE and prompts, FVTAF over the image tokens, a diagnosis that the decoder reads before it writes."""

    loss_weights: ClassVar = {"language": 1.0, "diagnosis": 4.0, "ranking": 2.0, "consistency": 0.5}
    config: REVTAFConfig

    def __init__(self, config: REVTAFConfig) -> None:
        if not config.observations:
            raise UserError(
                "revtaf predicts observations, but the dataset has no labels (field 'observations'); prepare it again."
            )
        super().__init__(config)
        channels, text_width, classes = self.backbone.width, self.knowledge.text_width, self.classes
        self._auxiliary = auxiliary(config.observations) if config.auxiliary else 0
        self.grp, self.lrp = GRP(text_width), LRP(text_width)
        self.fvtaf = FVTAF(channels, text_width, config) if config.attention != "none" else None
        compared = self.fvtaf is not None and config.local_prompts
        self.fcc = FCC(config.consistency) if compared and config.consistency != "none" else None
        self.diagnosis = DiagnosisBranch(
            channels, text_width, classes, config.diagnosis_width, config.diagnosis_layers, config.diagnosis_heads,
            config.dropout, config.diagnosis_image_dropout,
        )  # fmt: skip
        ids = config.status_ids or range(config.vocabulary_size - len(STATUSES), config.vocabulary_size)
        self.neighbours = Standardization(text_width)  # for the reports in the diagnosis, as in GRP
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
        """Build the report database of the training split, or find it in the dataset; initialize from its statuses."""
        super().learn_from(dataset, section, features)
        self.standardize_prompts()
        labelled = self.database.labels[(self.database.labels >= 0).all(1)]
        if labelled.numel():
            priors = base_probabilities(labelled[:, : self.classes])
            priors[len(priors) - self._auxiliary :] = 1
            self.ala.begin(priors)
            self.diagnosis.begin_with(status_shares(labelled[:, : self.classes]).log() - self.ala.offset())

    def standardize_prompts(self) -> None:
        """Compute mean and deviation of the encoded texts in the database, if the configuration needs them."""
        if self.config.prompt_values == "standardized" and len(self.database):
            database = self.database
            for standardization, texts in (
                (self.grp.standardization, database.sentences),
                (self.lrp.standardization, database.phrases),
                (self.neighbours, database.reports),
            ):
                moments = Moments(texts.shape[-1])
                moments.add(texts)
                standardization.learn(moments)

    def frozen(self) -> list[str]:
        """In addition to the retrieval, queries and keys that are unused or receive no gradient."""
        names = super().frozen()
        differentiable = self.fcc is not None and self.fcc.kind != "legacy"
        if self.fvtaf is not None and self.config.attention == "legacy_uniform" and not differentiable:
            unread = (".attention.query.", ".attention.key.")
            fusion = [f"fvtaf.{name}" for name, _ in self.fvtaf.named_parameters()]
            names += [name for name in fusion if any(part in name for part in unread)]
        return names

    # from image to report

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views, retrieved report, entities -> FVTAF; neighbors -> diagnosis -> prompt. Labels guide training only."""
        exclude = None if guide is None else self.database.groups_of(guide.study)  # no study reads its own report
        guide = guide if self.training else None
        tokens, pooled = self.backbone.views(inputs)  # F_v, section 3.1
        entities, places = self.entities(inputs)  # F_logit, section 3.2
        neighbours = self._search(entities, self.config.neighbours, metric="cosine", exclude=exclude)[1]
        statuses = self._diagnose(pooled, inputs.view_mask, neighbours)
        labels, known = self.status_codes(guide)
        aux = {"entities": entities, "statuses": statuses}
        if self.fvtaf is not None:
            reference = self._reference(entities, guide, exclude)  # R_ref, section 3.3
            tokens = self._fuse(self.fvtaf, tokens, inputs.view_mask, reference, entities, places, aux)
        memory, mask = join_views(tokens, inputs.view_mask)
        prompt = self.prompts(statuses, labels, known)
        return Encoded(
            memory=memory,
            memory_mask=mask,
            pooled=pooled,
            prompt=prompt,
            called=called(statuses.argmax(dim=1)),
            aux=aux,
        )

    def _diagnose(self, pooled: Tensor, views: Tensor, neighbours: Tensor) -> Tensor:
        """Logits (B, 4, K) of the statuses, from pooled views (B, V, C) and the reports of neighbors (B, n)."""
        reports, mask = self.database.reports_of(neighbours)
        # a study without neighbors reads one blank report
        mask = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)
        image = pooled.masked_fill(~views.unsqueeze(2), 0).sum(1) / views.sum(1, keepdim=True)
        return self.diagnosis(image, self.neighbours(reports), mask)

    def _fuse(
        self, fvtaf: FVTAF, tokens: Tensor, views: Tensor, reference: Tensor, entities: Tensor, places: Tensor,
        aux: dict[str, Tensor],
    ) -> Tensor:  # fmt: skip
        """Fused tokens (B, V, S, width) of all views; the inputs of FCC are stored in `aux`."""
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
        """Keys and values of the fused image, once per study."""
        return self.decoder.start(encoded.memory, encoded.memory_mask, beams)

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Statuses and report -> decoder; without logits for the statuses."""
        read, skip = prepend_prompt(tokens, encoded.prompt, cache)
        logits, attention = self.decoder(
            read, encoded.memory, encoded.memory_mask, cache, need_attention=need_attention
        )
        return Step(logits[:, skip:], cache, None if attention is None else attention[:, :, :, skip:])

    # training

    def losses_of(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Language, "diagnosis", "ranking" and "consistency" losses (eq. 15); validation uses predicted prompts."""
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
        """LRE, the prompts, FVTAF with MPSA and FCC, and PromptMRG's diagnosis, if the configuration has them."""
        modules = {
            # its features, because its logits are mostly the shares of the statuses, which are the same for all
            "diagnosis": PaperModule(path="diagnosis.norm", varies="study"),
            "diagnosis, attention to reports": PaperModule(
                path="diagnosis.decoder.0.cross", varies="study", attention="diagnosis.decoder.0.cross"
            ),
            # initially, the most frequent statuses for every study
            "diagnosis prompts": PaperModule(path="prompts", method="statuses", starts_closed=True),
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
        """Accumulate the confidence of the diagnosis in the true statuses."""
        labels, known = self.status_codes(batch.guide)
        if labels is not None:
            probabilities = self.encode(batch.inputs).aux["statuses"].float().softmax(dim=1)[:, POSITIVE]
            self.ala.observe(probabilities[known], labels[known])

    def advance(self, event: Event) -> None:
        """After a validation, also update the class priors."""
        super().advance(event)
        if event.kind == "validation":
            self.ala.update()


def _by_view(rows: Tensor, views: Tensor) -> Tensor:
    """Rows (n, ...) of existing views, placed in (B, V, ...); zeros elsewhere."""
    return rows.new_zeros(*views.shape, *rows.shape[1:]).index_put((views,), rows)


_DECODER_SIZES = tuple(
    f.name for f in dataclasses.fields(BertDecoderConfig) if f.name not in ("vocabulary_size", "memory_width", "name")
)
