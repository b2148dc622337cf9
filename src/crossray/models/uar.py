"""UAR: unify, align and then refine (SPEC 5; Li et al., ICCV 2023). No code of the authors is public.

In the order of the paper: LSU (image and report become tokens), CRA (both are written in one orthonormal basis, and
pulled together by a triplet loss), TIR (a learned mask says where each word looks), two stages (they stand in the
recipe: the second switches `refine` on).

Shapes: B studies, N rows, V views, L tokens of a view, S = V * L, T words, D width, K vectors of the basis.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.data.batches.features import FeatureCache
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.layers.attention import CrossAttention
from crossray.layers.cache import Cache
from crossray.layers.contrastive import different_reports, gather_ranks, hardest, triplet
from crossray.layers.embedding import PositionalEncoding
from crossray.layers.gates import Fusion, GuidedFusion
from crossray.layers.lookup import TokenFeatures
from crossray.layers.orthogonal import Basis, make_basis
from crossray.layers.transformer import Decoder, Encoder, prepend_prompt
from crossray.models.base import Encoded, ModelConfig, ReportModel, Step, language_loss, register
from crossray.models.parts.backbones import BackboneConfig, build_backbone, join_views, joined_cells
from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig, build_image_tokenizer, grid


@dataclass(frozen=True, kw_only=True)
class UARConfig(ModelConfig):
    """Configuration of `UAR`. The weights lambda of eq. 13 stand in the stages.

    Attributes:
        visual: what the image becomes: discrete "tokens" (LSU), or the feature map of a backbone, "resnet", as in the
            rows of Table 2 without LSU.
        image_tokenizer: of LSU; images must then have mean 0 and standard deviation 1, pixels in [0, 1].
        backbone: in its place; any backbone, not only a ResNet.
        image_size: side of the images in pixels; filled in from the data.
        layers: layers of the encoder, and as many of the decoder.
        width: width D of embeddings and Transformer.
        heads: attention heads of Transformer and CRA, a divisor of `width`.
        feedforward: width of the hidden layer of the feed-forward blocks.
        dropout: in the Transformer's attention weights, feed-forward blocks and residual paths, and on what enters it.
        embedding_scale: multiply the features by the square root of the width before the position codes are added,
            which otherwise are ten times as large.
        cra: write image and words in the basis (Table 2); otherwise their embeddings go on as they are.
        basis: of CRA: orthonormal columns ("semi"), square blocks with orthonormal rows, or random numbers (Table 3).
        basis_size: vectors of the basis.
        fusion: how an embedding and what it found in the basis become one (Table 4): gate, addition, or no_gate.
        align: the triplet loss L_global (Table 2).
        margin: alpha of eq. 10.
        negatives: the most similar other report (hard); the most similar one of those that are less similar than the
            own report, or the least similar one where all are more similar (semi_hard); or every one (all).
        mask: TIR's mask: one trained number for each position and image token (static), computed from both (dynamic),
            or none (Table 2).
        mask_scale: k of eq. 11.
        mask_loss: "sparse" keeps few places open, "literal" is eq. 12, which opens all of them.
        mask_reduction: mean or sum over words and image tokens.
        refine: use the mask; a stage may switch it off and on.
    """

    switchable: ClassVar[tuple[str, ...]] = ("refine",)

    visual: Literal["tokens", "resnet"] = "tokens"
    image_tokenizer: ImageTokenizerConfig = field(default_factory=ImageTokenizerConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    image_size: int = 112
    layers: int = 3
    width: int = 512
    heads: int = 8
    feedforward: int = 2048
    dropout: float = 0.1
    embedding_scale: bool = True
    cra: bool = True
    basis: Basis = "semi"
    basis_size: int = 2048
    fusion: Fusion = "gate"
    align: bool = True
    margin: float = 0.2
    negatives: Literal["hard", "semi_hard", "all"] = "hard"
    mask: Literal["static", "dynamic", "none"] = "static"
    mask_scale: float = 1000.0
    mask_loss: Literal["sparse", "literal"] = "sparse"
    mask_reduction: Literal["mean", "sum"] = "mean"
    refine: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.basis == "semi" and self.basis_size < self.width:
            raise UserError(f"model.basis_size is {self.basis_size}: {self.width} orthonormal columns (model.width) "
                            "need as many rows; give more.")  # fmt: skip


class LSU(nn.Module):
    """Latent space unifier: an image as discrete tokens, whose embeddings are trained like those of words (eq. 1).

    Args:
        config: its image tokenizer, image size and width.
    """

    def __init__(self, config: UARConfig) -> None:
        super().__init__()
        self.tokenizer = build_image_tokenizer(config.image_tokenizer)
        self.table = embedding(self.tokenizer.codes, config.width)
        self.features = TokenFeatures(self.table)
        self.length = grid(config.image_size)
        self.config = replace(config, image_tokenizer=self.tokenizer.config)

    def prepare(self, images: Tensor) -> dict[str, Tensor]:
        """What may be cached of images (N, 3, H, W): "tokens" (N, L)."""
        return {"tokens": self.tokenizer(images)}

    def fingerprint(self) -> str:
        """Hash of the tokenizer; the embeddings, which are trained, do not count."""
        return self.tokenizer.fingerprint()

    def frozen(self, prefix: str) -> list[str]:
        """Names of the tokenizer's parameters with `prefix` before them."""
        return [f"{prefix}.tokenizer.{name}" for name, _ in self.tokenizer.named_parameters()]

    def forward(self, inputs: Inputs, cra: nn.Module) -> Tensor:
        """Features F of all views (B, V, L, D): tokens -> embeddings E -> CRA."""
        return self.features(self.tokens(inputs), cra)

    def tokens(self, inputs: Inputs) -> Tensor:
        """(B, V, L) int64, cached or computed, 0 where a view is missing."""
        if "tokens" in inputs.features:
            return inputs.features["tokens"].long()
        mask = inputs.view_mask
        tokens = torch.zeros(*mask.shape, self.length, dtype=torch.long, device=mask.device)
        return tokens.index_put((mask,), self.tokenizer(inputs.images[mask]).long())


class FeatureMap(nn.Module):
    """In place of LSU: what a backbone makes of an image, as wide as the embeddings.

    Args:
        config: its backbone, image size and width.
    """

    def __init__(self, config: UARConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone)
        self.project = nn.Linear(self.backbone.width, config.width)
        self.length = self.backbone.tokens(config.image_size)
        self.config = replace(config, backbone=self.backbone.config)

    def prepare(self, images: Tensor) -> dict[str, Tensor]:
        """What may be cached of images (N, 3, H, W); nothing of a backbone that is trained."""
        return self.backbone.prepare(images)

    def fingerprint(self) -> str | None:
        """Hash of a frozen backbone; None when it is trained."""
        return self.backbone.fingerprint()

    def frozen(self, prefix: str) -> list[str]:
        """Names of a frozen backbone's parameters with `prefix` before them."""
        return self.backbone.frozen(f"{prefix}.backbone")

    def forward(self, inputs: Inputs, cra: nn.Module) -> Tensor:
        """Features F of all views (B, V, L, D): feature map -> linear map E -> CRA."""
        visual = self.project(self.backbone.views(inputs)[0])
        features: Tensor = cra(visual.flatten(1, 2))
        return features.view_as(visual)


class CRA(nn.Module):
    """Cross-modal representation aligner: image tokens and words attend to one basis, through one set of weights.

    What becomes of a token depends on the token alone. Causality is kept, and a table can hold it, see `TokenFeatures`.
    There is no dropout: over 2,048 weights a token it would double the time of CRA.

    Args:
        config: its fields `width`, `heads`, `basis`, `basis_size` and `fusion`.
    """

    def __init__(self, config: UARConfig) -> None:
        super().__init__()
        self.basis: Tensor
        self.register_buffer("basis", make_basis(config.basis, config.basis_size, config.width))
        self.gain = nn.Parameter(torch.ones_like(self.basis))
        self.bias = nn.Parameter(torch.zeros_like(self.basis))
        self.attention = CrossAttention(config.width, config.heads, dropout=0.0)
        self.fusion = GuidedFusion(config.width, config.fusion)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (N, T, D) -> features (N, T, D)."""
        found, _ = self.attention(x, *self.attention.keys_values(self.adjusted()[None]))  # eq. 7
        return self.fusion(x, found)  # eq. 8-9

    def adjusted(self) -> Tensor:
        """The basis with its gain and bias, (K, D) (eq. 6)."""
        return self.gain * self.basis + self.bias


class TIR(nn.Module):
    """Text-to-image refiner: a bias of the decoder's cross-attention, k * sigmoid(M) / sqrt(d) (eq. 11).

    The bias is taken less its value at M = 0. Softmax does not notice, half precision does: numbers near 0 are exact.

    Args:
        config: its fields beginning with `mask`, `width`, `heads`, `max_length` and `views`.
        length: image tokens of a view.
    """

    def __init__(self, config: UARConfig, length: int) -> None:
        super().__init__()
        self.config = config
        if config.mask == "static":
            self.mask = nn.Parameter(torch.zeros(config.max_length, config.views * length))
        else:
            # M = (H W_a)(F W_b)^T / sqrt(D) begins with 0, too
            self.word = nn.Linear(config.width, config.width, bias=False)
            self.image = nn.Linear(config.width, config.width, bias=False)
            nn.init.zeros_(self.word.weight)

    def keys(self, visual: Tensor) -> Tensor:
        """Of a dynamic mask: what image features (B, S, D) bring to it."""
        return self.image(visual) / math.sqrt(self.config.width)

    def forward(self, text: Tensor, encoded: Encoded, first: int) -> Tensor:
        """M for the words (N, T, D), (1 or N, T, S), 0 for positions that have no row.

        Args:
            text: what enters the decoder.
            encoded: result of `UAR.encode`.
            first: place of the first position in the report; below 0 in a prompt.
        """
        if self.config.mask == "dynamic":
            keys = encoded.aux["mask_keys"]
            keys = keys.repeat_interleave(text.shape[0] // keys.shape[0], dim=0)
            return self.word(text) @ keys.transpose(1, 2)
        place = first + torch.arange(text.shape[1], device=text.device)
        known = (place >= 0) & (place < len(self.mask))
        rows = self.mask[place.clamp(0, len(self.mask) - 1), : encoded.memory.shape[1]]
        return (rows * known.unsqueeze(1))[None]

    def bias(self, mask: Tensor) -> Tensor:
        """M (N, T, S) -> what is added to the scaled scores of every head, (N, 1, T, S) (eq. 11)."""
        scale = self.config.mask_scale / math.sqrt(self.config.width // self.config.heads)
        return scale * (mask.float().sigmoid() - 0.5).unsqueeze(1)

    def loss(self, mask: Tensor, words: Tensor, visible: Tensor) -> Tensor:
        """L_mask (eq. 12, or its reading as sparsity) over the words (B, T) and image tokens (B, S) that exist."""
        share = mask.float().sigmoid()
        if self.config.mask_loss == "literal":
            share = 1 - share
        counted = words.float().unsqueeze(2) * visible.float().unsqueeze(1)
        total = (share * counted).sum()
        return total / (counted.sum().clamp_min(1) if self.config.mask_reduction == "mean" else len(words))


@register("uar", UARConfig)
class UAR(ReportModel):
    """LSU and CRA for image and words, an encoder-decoder over what they make, TIR in its cross-attention."""

    loss_weights: ClassVar = {"language": 1.0, "global": 1.0, "mask": 1.0}
    config: UARConfig

    def __init__(self, config: UARConfig) -> None:
        super().__init__()
        self.visual: LSU | FeatureMap = LSU(config) if config.visual == "tokens" else FeatureMap(config)
        self.config = self.visual.config  # with the architecture of its network: a saved folder needs nothing else
        self.words = embedding(config.vocabulary_size, config.width)
        self.cra = CRA(config) if config.cra else nn.Identity()
        self.features = TokenFeatures(self.words)
        self.view = nn.Parameter(torch.zeros(config.views, config.width)) if config.views > 1 else None
        self.positions = PositionalEncoding(config.width)
        self.dropout = nn.Dropout(config.dropout)
        stack = (config.layers, config.width, config.heads, config.feedforward, config.dropout)
        self.encoder, self.decoder = Encoder(*stack), Decoder(*stack)
        self.tir = TIR(config, self.visual.length) if config.mask != "none" else None
        self.vocabulary = nn.Linear(config.width, config.vocabulary_size)

    def prepare_features(self, images: Tensor) -> dict[str, Tensor]:
        """The image's "tokens" (N, L); of a frozen backbone its features."""
        return self.visual.prepare(images)

    def features_fingerprint(self) -> str | None:
        """Hash of the image tokenizer, or of a frozen backbone; None when that is trained."""
        return self.visual.fingerprint()

    def cached_features(self, dataset: Dataset) -> FeatureCache | None:
        """What a backbone reads out of the dataset itself, if anything; otherwise what was cached."""
        found = self.visual.backbone.cached_features(dataset) if isinstance(self.visual, FeatureMap) else None
        return found or super().cached_features(dataset)

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """The statistics by which a frozen backbone's features are standardised."""
        if isinstance(self.visual, FeatureMap):
            self.visual.backbone.learn_from(dataset, features, self.transform)

    def frozen(self) -> list[str]:
        """The image tokenizer, a backbone that is not trainable, and a mask that is built and never used."""
        names = self.visual.frozen("visual")
        if self.tir is not None and not self.config.refine:
            names += [f"tir.{name}" for name, _ in self.tir.named_parameters()]
        return names

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """LSU -> CRA -> position and view codes -> encoder (eq. 1-3)."""
        visual, pooled = self._visual_features(inputs)
        joined, mask = join_views(visual, inputs.view_mask)
        coded = self.positions(self._scaled(joined))
        if self.view is not None:
            coded = coded + self.view[: visual.shape[1]].repeat_interleave(visual.shape[2], dim=0)
        encoded = Encoded(memory=self.encoder(self.dropout(coded), mask), memory_mask=mask, pooled=pooled)
        if self.config.mask == "dynamic" and self.tir is not None:
            encoded.aux["mask_keys"] = self.tir.keys(joined)
        return encoded

    def _visual_features(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Features (B, V, L, D) of the image tokens, and their mean (B, V, D), 0 where a view is missing."""
        visual = self.visual(inputs, self.cra)
        return visual, visual.mean(dim=2).masked_fill(~inputs.view_mask.unsqueeze(2), 0.0)

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once a study."""
        return self.decoder.start(encoded.memory, encoded.memory_mask, beams)

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """LSU -> CRA -> position codes -> decoder with TIR -> vocabulary (eq. 3-4, 11)."""
        return self._step(tokens, encoded, cache, need_attention)[0]

    def _step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, need_attention: bool = False
    ) -> tuple[Step, Tensor | None]:
        """`step`, and the mask M that it used."""
        read, prompt = prepend_prompt(tokens, encoded.prompt, cache)
        first = 0 if cache is None else cache.length
        text = self.dropout(self.positions(self._scaled(self.features(read, self.cra)), first))
        mask = bias = None
        if self.tir is not None and self.config.refine:
            # row t of the mask belongs to word t of the report, whatever prompt stands before it
            before = 0 if encoded.prompt is None else encoded.prompt.shape[1]
            mask = self.tir(text, encoded, first - before)
            bias = self.tir.bias(mask)
        hidden, attention = self.decoder(
            text, encoded.memory, encoded.memory_mask, cache, bias=bias, need_attention=need_attention
        )
        logits = self.vocabulary(hidden[:, prompt:])
        return Step(logits, cache, None if attention is None else attention[:, :, :, prompt:]), mask

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Language (eq. 5), global (eq. 10) and, with the mask in use, mask (eq. 12)."""
        encoded = self.encode(batch.inputs, batch.guide)
        tokens, words = batch.targets.tokens, batch.targets.mask[:, 1:]
        step, mask = self._step(tokens[:, :-1], encoded)
        losses = {"language": language_loss(step.logits, tokens[:, 1:], words)}
        if self.config.align:
            losses["global"] = self.alignment_loss(encoded, batch)
        if self.tir is not None and mask is not None:
            losses["mask"] = self.tir.loss(mask, words, encoded.memory_mask)
        return losses

    def alignment_loss(self, encoded: Encoded, batch: Batch) -> Tensor:
        """The triplet loss of eq. 10 over the studies of all processes, float32; 0 for a single study."""
        image = image_vectors(encoded.pooled, batch.inputs.view_mask)
        report = self.report_vectors(batch.targets)
        image, report, keys = (gather_ranks(x) for x in (image, report, batch.targets.report_key))
        with torch.autocast(image.device.type, enabled=False):
            similarity = F.normalize(image.float(), dim=1) @ F.normalize(report.float(), dim=1).T
            negative = different_reports(keys)
            return self._triplet(similarity, negative) + self._triplet(similarity.T, negative)

    def report_vectors(self, targets: Targets) -> Tensor:
        """Mean of the features of a report's words, (B, D): its end counts, its begin does not."""
        words = self.features(targets.tokens[:, 1:], self.cra)
        weights = targets.mask[:, 1:].to(words.dtype).unsqueeze(2)
        return (words * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)

    def memory_cells(self, views: int, positions: int) -> Tensor | None:
        """The tokens of the views side by side, where they stand for places."""
        placed = not isinstance(self.visual, FeatureMap) or self.visual.backbone.placed
        return joined_cells(views, positions) if placed else None

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The vectors that the triplet loss compares."""
        pooled = self._visual_features(batch.inputs)[1]
        return image_vectors(pooled, batch.inputs.view_mask), self.report_vectors(batch.targets)

    def memories(self) -> dict[str, Tensor]:
        """The basis, and what gain and bias made of it; without CRA there is none."""
        return {"basis": self.cra.basis, "adjusted basis": self.cra.adjusted()} if isinstance(self.cra, CRA) else {}

    def _triplet(self, similarity: Tensor, negative: Tensor) -> Tensor:
        chosen = negative
        if self.config.negatives == "hard":
            chosen = hardest(similarity, negative, 1)
        elif self.config.negatives == "semi_hard":
            below = negative & (similarity < similarity.diagonal()[:, None])
            # a row must not lose its loss by making its own report the least similar one
            last = ~below.any(dim=1, keepdim=True)
            chosen = torch.where(last, hardest(-similarity, negative, 1), hardest(similarity, below, 1))
        return triplet(similarity, chosen, self.config.margin)

    def _scaled(self, features: Tensor) -> Tensor:
        return features * math.sqrt(self.config.width) if self.config.embedding_scale else features


def image_vectors(pooled: Tensor, view_mask: Tensor) -> Tensor:
    """Mean over the views that exist: (B, V, D) and (B, V) -> (B, D)."""
    weights = view_mask.to(pooled.dtype).unsqueeze(2)
    return (pooled * weights).sum(dim=1) / weights.sum(dim=1)


def embedding(entries: int, width: int) -> nn.Embedding:
    """A look-up table whose rows have length 1 on average."""
    table = nn.Embedding(entries, width)
    nn.init.normal_(table.weight, std=1 / math.sqrt(width))
    return table
