"""Union: combines modules of two of the papers in one system; `docs/results/aims.md` contains its results.

* CRA (UAR, eq. 6-9; `parts/cra.py`): image tokens and words attend to one basis before encoder and decoder
* diagnosis prompts (PromptMRG, REVTAF): the decoder attends to tokens for the statuses of the observations, in addition
  to the image. With a diagnosis of union's own they are soft: each token is the mean of the statuses' embeddings,
  weighted by the predicted probabilities, in training and generation alike, so the decoder learns how far to trust
  them. With the classifier of the encoder (`pretraining/encoder_diagnosis.py`) they are the statuses that it predicts,
  or the true ones under the language loss
* ALA (PromptMRG; `layers/diagnosis.py`): a margin for rare findings, for a diagnosis of union's own

`docs/models/union.md` describes what else was tried. The reward stage is part of the recipe, not of the system.

Shapes: B studies, V views, C backbone channels, K observations, D width.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Guide, Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.layers.cache import Cache
from crossray.layers.diagnosis import ALA, POSITIVE, called
from crossray.layers.dropout import Dropout
from crossray.models.base import Encoded, Event, PaperModule, Step, register
from crossray.models.parts.backbones import join_views
from crossray.models.parts.cra import CRA, CRAConfig
from crossray.models.parts.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from crossray.models.pretraining.encoder_diagnosis import EncoderDiagnosis, read_encoder, shares_called
from crossray.text.observations import STATUSES

#: Studies that are diagnosed at once to set thresholds.
_CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class UnionConfig(EncoderDecoderConfig, CRAConfig):
    """Configuration of `Union`.

    Attributes:
        cra: use CRA, by which image tokens and words attend to a common basis.
        diagnosis: use diagnosis prompts in the decoder.
        diagnosis_dropout: dropout on the pooled image before the diagnosis.
        encoder_diagnosis: use the classifier of the frozen encoder (`crossray pretrain vision`) as the diagnosis, and
            let the decoder read the true statuses under the language loss, as PromptMRG and REVTAF do. There is then no
            loss "diagnosis", and `diagnosis_dropout` has no effect.
    """

    cra: bool = True
    diagnosis: bool = True
    diagnosis_dropout: float = 0.5
    encoder_diagnosis: bool = False


class Diagnosis(nn.Module):
    """Predicts the statuses of the observations from the pooled image, and embeds them for the decoder.

    Args:
        channels: number C of backbone channels.
        width: width D of the prompts.
        classes: number K of observations.
        dropout: dropout on the pooled image.
    """

    def __init__(self, channels: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.classify = nn.Linear(channels, len(STATUSES) * classes)
        self.classes = classes
        self.statuses = nn.Parameter(torch.randn(classes, len(STATUSES), width))

    def forward(self, pooled: Tensor, views: Tensor) -> Tensor:
        """Logits (B, 4, K) of the statuses, from pooled views (B, V, C), zero where `views` (B, V) is False."""
        image = pooled.sum(dim=1) / views.sum(dim=1, keepdim=True)
        return self.classify(self.dropout(image)).unflatten(1, (len(STATUSES), self.classes))

    def prompts(self, logits: Tensor) -> Tensor:
        """Soft prompts (B, K, D): the embeddings of each observation's statuses, weighted by their probabilities."""
        return torch.einsum("bsk,ksd->bkd", logits.float().softmax(dim=1).to(logits.dtype), self.statuses)


@register("union", UnionConfig)
class Union(EncoderDecoder):
    """The baseline with CRA before encoder and decoder, and diagnosis prompts in addition to the image."""

    loss_weights: ClassVar = {"language": 1.0, "diagnosis": 1.0}
    config: UnionConfig

    def __init__(self, config: UnionConfig) -> None:
        if config.diagnosis and not config.observations:
            raise UserError("union diagnoses, and the dataset has no labels (field 'observations'); prepare it again.")
        super().__init__(config)
        if config.cra:
            self.cra = CRA(config)
        if config.diagnosis:
            classes = len(config.observations)
            self.diagnosis: Diagnosis | EncoderDiagnosis
            if config.encoder_diagnosis:
                self.diagnosis = EncoderDiagnosis(self.backbone.width, config.width, classes)
            else:
                self.diagnosis = Diagnosis(self.backbone.width, config.width, classes, config.diagnosis_dropout)
                self.ala = ALA(classes)

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views -> CRA -> encoder; pooled views -> statuses -> prompts after the image tokens."""
        tokens, pooled = self.backbone.views(inputs)
        visual, mask = join_views(self.visual_embedding(tokens), inputs.view_mask)
        if self.config.cra:
            visual = self.cra(visual)
        encoded = self.encode_visual(visual, mask, pooled)
        if self.config.diagnosis:
            prompts = self._prompts(pooled, inputs, guide, encoded).to(encoded.memory.dtype)
            encoded.memory = torch.cat([encoded.memory, prompts], dim=1)
            encoded.memory_mask = torch.cat([mask, mask.new_ones(prompts.shape[:2])], dim=1)
            if self.config.encoder_diagnosis:
                encoded.aux["image_mask"] = torch.cat([mask, mask.new_zeros(prompts.shape[:2])], dim=1)
        return encoded

    def _prompts(self, pooled: Tensor, inputs: Inputs, guide: Guide | None, encoded: Encoded) -> Tensor:
        """Prompts (B, K, D) of the predicted statuses, or for training with an `EncoderDiagnosis` of the true ones.

        The diagnosis is stored in `encoded`.
        """
        if isinstance(self.diagnosis, Diagnosis):
            statuses = self.diagnosis(pooled, inputs.view_mask)
            encoded.aux["statuses"], encoded.called = statuses, called(statuses.argmax(dim=1))
            return self.diagnosis.prompts(statuses)
        logits = self._diagnose(pooled, inputs)
        encoded.aux["observations"], encoded.called = logits, logits > 0
        positive = encoded.called
        if self.training and guide is not None and guide.labels is not None:
            known = guide.labels.sum(dim=(1, 2)) > 0
            positive = torch.where(known[:, None], called(guide.labels.argmax(dim=2)), positive)
        return self.diagnosis.prompts(positive)

    def _diagnose(self, pooled: Tensor, inputs: Inputs) -> Tensor:
        """Logits (B, K) of an `EncoderDiagnosis`."""
        if self.backbone.standardized:
            pooled = self.backbone.standardized["pooled"].undo(pooled)  # type: ignore[operator]
        logits: Tensor = self.diagnosis(pooled, inputs.view_mask, inputs.view_position)
        return logits

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once per study, and of CRA's basis, once for all studies."""
        cache = super().start(encoded, beams)
        if self.config.cra:
            cache.shared["keys"], cache.shared["values"] = self.cra.keys_values()
        return cache

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Embedding + position codes -> CRA -> decoder -> vocabulary."""
        text = self.embed_text(tokens, encoded, cache)
        if self.config.cra:
            text = self.cra(text, None if cache is None else (cache.shared["keys"], cache.shared["values"]))
        return self.decode(text, encoded, cache, positions=tokens.shape[1], need_attention=need_attention)

    def memory_cells(self, views: int, positions: int) -> Tensor | None:
        """Cells of the image tokens; the diagnosis prompts after them have no place."""
        prompts = len(self.config.observations) if self.config.diagnosis else 0
        cells = super().memory_cells(views, positions - prompts)
        return None if cells is None else torch.cat([cells, cells.new_full((views, prompts), -1)], dim=1)

    def losses_of(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Language loss and, for a `Diagnosis`, "diagnosis": the cross-entropy of the statuses adjusted by ALA."""
        losses = super().losses_of(encoded, batch)
        labels, known = self._labels(batch.guide)
        if labels is not None:
            losses["diagnosis"] = self.ala(encoded.aux["statuses"], labels, known)
        return losses

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Mean attention outputs of image tokens and words over CRA's common basis; None without CRA."""
        if not self.config.cra:
            return None
        tokens, _ = self.backbone.views(batch.inputs)
        visual, mask = join_views(self.visual_embedding(tokens), batch.inputs.view_mask)
        text, words = self.embed_words(batch.targets)
        return self._mean(self.cra(visual), mask), self._mean(self.cra(text), words)

    def memories(self) -> dict[str, Tensor]:
        """CRA's basis, if there is one."""
        return {"basis": self.cra.adjusted()} if self.config.cra else {}

    def paper_modules(self) -> dict[str, PaperModule]:
        """CRA and the diagnosis prompts, if the configuration has them."""
        modules = {}
        if self.config.cra:
            modules["CRA, attention to the basis"] = PaperModule(path="cra.attention", attention="cra.attention")
            modules["CRA"] = PaperModule(path="cra")
        if self.config.diagnosis:
            modules["diagnosis"] = PaperModule(path="diagnosis", varies="study")
            modules["diagnosis prompts"] = PaperModule(path="diagnosis", method="prompts")
        return modules

    def observe(self, batch: Batch) -> None:
        """Accumulate the probabilities that the diagnosis assigns to the true statuses of a validation batch."""
        labels, known = self._labels(batch.guide)
        if labels is not None:
            probabilities = self.encode(batch.inputs).aux["statuses"].float().softmax(dim=1)[:, POSITIVE]
            self.ala.observe(probabilities[known], labels[known])

    def advance(self, event: Event) -> None:
        """After a validation, update the margins of ALA."""
        if event.kind == "validation" and self.config.diagnosis and not self.config.encoder_diagnosis:
            self.ala.update()

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """Feature statistics, and the encoder's classifier, with thresholds from the images of the validation split."""
        super().learn_from(dataset, section, features)
        if not self.config.diagnosis or isinstance(self.diagnosis, Diagnosis):
            return
        assert self.transform is not None
        if self.config.backbone.trainable:
            raise UserError(
                "recipe field 'model.encoder_diagnosis': the encoder's classifier fits its features as they are; set "
                "'model.backbone.trainable' to false, or the field to false."
            )
        self.diagnosis.learn(read_encoder(self.config.backbone.name, self.config.observations))
        collator = Collator(dataset, None, views=self.config.views, features=features)
        device = self.diagnosis.bias.device
        found = []
        rows = dataset.rows("val")
        with torch.inference_mode():
            for first in range(0, len(rows), _CHUNK):
                inputs = collator.inputs(rows[first : first + _CHUNK]).to(device)
                inputs = transform_inputs(inputs, self.transform, train=False)
                found.append(self._diagnose(self.backbone.views(inputs)[1], inputs))
        self.diagnosis.set_thresholds(torch.cat(found), shares_called(dataset))

    def _labels(self, guide: Guide) -> tuple[Tensor | None, Tensor]:
        """Status codes (B, K) and whether each study has labels (B,) bool; None if there is no `Diagnosis` to train."""
        if guide.labels is None or not self.config.diagnosis or self.config.encoder_diagnosis:
            return None, torch.zeros(0, dtype=torch.bool)
        return guide.labels.argmax(dim=2), guide.labels.sum(dim=(1, 2)) > 0

    @staticmethod
    def _mean(rows: Tensor, mask: Tensor) -> Tensor:
        weights = mask.unsqueeze(2).to(rows.dtype)
        return (rows * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
