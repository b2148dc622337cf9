"""UAR: unify, align and then refine (Li et al., ICCV 2023, arXiv 2303.15932). No code of the authors is public.

In the order of the paper; `UAR.encode`, `UAR.step` and `UAR.losses_of` are its eq. 1-5, 10 and 13:

* section 3.2, `LSU` (eq. 1): image and report become embeddings of tokens
* section 3.3, `CRA` (eq. 6-9; `parts/cra.py`): both are expressed in one orthonormal basis; the triplet loss (eq. 10)
  pulls them together
* section 3.4, `TIR` (eq. 11-12; `parts/tir.py`): a learned mask says where each word looks
* section 3.5, two stages: the recipe has them, and the second switches `refine` on

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
from crossray.layers.cache import Cache
from crossray.layers.contrastive import different_reports, gather_ranks, hardest, triplet
from crossray.layers.dropout import Dropout
from crossray.layers.embedding import PositionalEncoding
from crossray.layers.transformer import Decoder, Encoder, prepend_prompt
from crossray.models.base import Encoded, PaperModule, ReportModel, Step, register
from crossray.models.parts.backbones import BackboneConfig, build_backbone, join_views, joined_cells
from crossray.models.parts.cra import CRA, CRAConfig
from crossray.models.parts.tir import TIR, TIRConfig
from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig, build_image_tokenizer, grid


@dataclass(frozen=True, kw_only=True)
class UARConfig(CRAConfig, TIRConfig):
    """Configuration of `UAR`. The weights lambda of eq. 13 are set in the stages.

    Attributes:
        visual: representation of the image: discrete "tokens" (LSU), or the feature map of a backbone ("resnet"), as in
            the rows of Table 2 without LSU.
        image_tokenizer: image tokenizer of LSU, which requires pixels in [0, 1] (image mean 0, std 1).
        codebook: initialize the token embeddings from the codes of the image tokenizer, so that similar codes have
            similar embeddings; otherwise at random.
        token_codes: number of most probable codes per token, whose embeddings are weighted by their probabilities; 1 in
            the paper.
        token_pool: side length of the square of adjacent tokens whose embeddings are averaged; 1 for no averaging, as
            in the paper.
        backbone: the vision backbone for `visual` "resnet", which may be of any kind.
        image_size: side length of the images in pixels; set from the data.
        layers: number of layers of the encoder, and of the decoder.
        width: width D of embeddings and Transformer.
        heads: number of attention heads of the Transformer and CRA; a divisor of `width`.
        feedforward: width of the hidden layer of the feed-forward blocks.
        dropout: dropout in the Transformer's attention weights, feed-forward blocks and residual paths, and on its
            input.
        cra: use CRA to express image and words in a common basis (Table 2); otherwise their embeddings are used
            directly.
        align: use the triplet loss L_global (Table 2).
        margin: margin alpha of eq. 10.
        negatives: negatives of the triplet loss: the most similar other report (hard); the most similar one that is
            less similar than the own report, or the least similar one if there is none (semi_hard); or every other
            report (all).
        refine: use the mask of TIR; a stage may switch it on and off.
    """

    switchable: ClassVar[tuple[str, ...]] = ("refine",)

    visual: Literal["tokens", "resnet"] = "tokens"
    image_tokenizer: ImageTokenizerConfig = field(default_factory=ImageTokenizerConfig)
    codebook: bool = True
    token_codes: int = 1
    token_pool: int = 1
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    image_size: int = 112
    layers: int = 3
    width: int = 512
    heads: int = 8
    feedforward: int = 2048
    dropout: float = 0.1
    cra: bool = True
    align: bool = True
    margin: float = 0.2
    negatives: Literal["hard", "semi_hard", "all"] = "hard"
    refine: bool = True

    def __post_init__(self) -> None:
        """Reject invalid sizes."""
        super().__post_init__()
        for name in ("token_codes", "token_pool"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name} is {getattr(self, name)}; give at least 1.")


class Embedding(nn.Embedding):
    """An embedding table, W_I or W_R of eq. 1: rows of mean length 1, times the square root of their width.

    The entries of the embeddings have variance 1. With smaller ones, the attention of eq. 7 would be a plain mean.
    """

    def reset_parameters(self) -> None:
        """Random rows."""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.embedding_dim))

    @torch.no_grad()
    def start_from(self, vectors: Tensor) -> None:
        """Initialize with these vectors (entries, C), centered, scaled, and projected at random to the width.

        A random projection approximately preserves distances, whatever the widths (Johnson-Lindenstrauss).
        """
        centred = vectors.float() - vectors.float().mean(dim=0)
        projected = centred @ torch.randn(vectors.shape[1], self.embedding_dim)
        self.weight.copy_(projected / (projected.std() * math.sqrt(self.embedding_dim)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (...) int64 -> embeddings (..., D)."""
        return super().forward(tokens) * math.sqrt(self.embedding_dim)


class LSU(nn.Module):
    """Latent space unifier: an image as discrete tokens, whose embeddings are trained like those of words (eq. 1).

    Args:
        config: its image tokenizer, fields beginning with `token`, image size and width.
    """

    def __init__(self, config: UARConfig) -> None:
        super().__init__()
        self.tokenizer = build_image_tokenizer(config.image_tokenizer)
        self.table = Embedding(self.tokenizer.codes, config.width)
        if config.codebook:
            self.table.start_from(self.tokenizer.codebook())
        self.side = math.isqrt(grid(config.image_size))
        if self.side % config.token_pool:
            raise UserError(f"model.token_pool is {config.token_pool}: the image has {self.side} x {self.side} tokens; "
                            "give a divisor.")  # fmt: skip
        self.length = (self.side // config.token_pool) ** 2
        self.config = replace(config, image_tokenizer=self.tokenizer.config)

    def prepare(self, images: Tensor) -> dict[str, Tensor]:
        """Features of images (N, 3, H, W) to cache: "tokens" (N, L', C) of L' places, and "shares" if C > 1."""
        tokens, shares = self.tokenizer.most_probable(images, self.config.token_codes)
        return {"tokens": tokens} if self.config.token_codes == 1 else {"tokens": tokens, "shares": shares}

    def fingerprint(self) -> str:
        """Hash of the tokenizer and of the cached values, without the embeddings, which are trained."""
        return f"{self.tokenizer.fingerprint()}-{self.config.token_codes}"

    def frozen(self, prefix: str) -> list[str]:
        """Names of the tokenizer's parameters with `prefix` before them."""
        return [f"{prefix}.tokenizer.{name}" for name, _ in self.tokenizer.named_parameters()]

    def forward(self, inputs: Inputs) -> Tensor:
        """Embeddings E^(I) of all views, (B, V, L, D) (eq. 1)."""
        tokens, shares = self.tokens(inputs)
        embedded = self.table(tokens)
        embedded = embedded.squeeze(3) if shares is None else (embedded * shares.unsqueeze(4)).sum(dim=3)
        pool = self.config.token_pool
        if pool == 1:
            return embedded
        squares = embedded.unflatten(2, (self.side // pool, pool, self.side // pool, pool))
        return squares.mean(dim=(3, 5)).flatten(2, 3)

    def tokens(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, V, L', C) int64, cached or computed, and their shares if C > 1; 0 where a view is missing."""
        mask = inputs.view_mask
        found = inputs.features
        if "tokens" not in found:
            prepared = self.prepare(inputs.images[mask])
            found = {
                name: value.new_zeros(*mask.shape, *value.shape[1:]).index_put((mask,), value)
                for name, value in prepared.items()
            }
        return found["tokens"].long(), found.get("shares")


class FeatureMap(nn.Module):
    """Replaces LSU: the features of a backbone, with the width and scale of the embeddings.

    Args:
        config: its backbone, image size and width.
    """

    def __init__(self, config: UARConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone)
        self.project = nn.Linear(self.backbone.width, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.length = self.backbone.tokens(config.image_size)
        self.config = replace(config, backbone=self.backbone.config)

    def prepare(self, images: Tensor) -> dict[str, Tensor]:
        """Features of images (N, 3, H, W) that may be cached; empty if the backbone is trained."""
        return self.backbone.prepare(images)

    def fingerprint(self) -> str | None:
        """Hash of a frozen backbone; None if it is trained."""
        return self.backbone.fingerprint()

    def frozen(self, prefix: str) -> list[str]:
        """Names of a frozen backbone's parameters with `prefix` before them."""
        return self.backbone.frozen(f"{prefix}.backbone")

    def forward(self, inputs: Inputs) -> Tensor:
        """The features in place of the embeddings E^(I) of all views, (B, V, L, D)."""
        embedded: Tensor = self.norm(self.project(self.backbone.views(inputs)[0]))
        return embedded


@register("uar", UARConfig)
class UAR(ReportModel):
    """LSU and CRA for image and words, an encoder-decoder over what they make, TIR in its cross-attention."""

    loss_weights: ClassVar = {"language": 1.0, "global": 1.0, "mask": 1.0}
    config: UARConfig

    def __init__(self, config: UARConfig) -> None:
        super().__init__()
        self.visual: LSU | FeatureMap = LSU(config) if config.visual == "tokens" else FeatureMap(config)
        self.config = self.visual.config  # with the architecture of its network, so a saved folder is self-contained
        self.words = Embedding(config.vocabulary_size, config.width)
        self.cra = CRA(config) if config.cra else None
        self.view = nn.Parameter(torch.zeros(config.views, config.width)) if config.views > 1 else None
        self.positions = PositionalEncoding(config.width)
        self.dropout = Dropout(config.dropout)
        stack = (config.layers, config.width, config.heads, config.feedforward, config.dropout)
        self.encoder, self.decoder = Encoder(*stack), Decoder(*stack)
        self.tir = TIR(config, self.visual.length) if config.mask != "none" else None
        self.vocabulary = nn.Linear(config.width, config.vocabulary_size)

    def prepare_features(self, images: Tensor) -> dict[str, Tensor]:
        """The "tokens" (N, L) of the image, or the features of a frozen backbone."""
        return self.visual.prepare(images)

    def features_fingerprint(self) -> str | None:
        """Hash of the image tokenizer or of a frozen backbone; None if the backbone is trained."""
        return self.visual.fingerprint()

    def cached_features(self, dataset: Dataset) -> FeatureCache | None:
        """Features that a backbone reads from the dataset itself, if any; otherwise the cached features."""
        found = self.visual.backbone.cached_features(dataset) if isinstance(self.visual, FeatureMap) else None
        return found or super().cached_features(dataset)

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """The statistics that standardize the features of a frozen backbone."""
        if isinstance(self.visual, FeatureMap):
            self.visual.backbone.learn_from(dataset, features, self.transform)

    def frozen(self) -> list[str]:
        """The image tokenizer, a frozen backbone, and a mask that is never used."""
        names = self.visual.frozen("visual")
        if self.tir is not None and not self.config.refine:
            names += [f"tir.{name}" for name, _ in self.tir.named_parameters()]
        return names

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """LSU -> CRA -> position and view codes -> encoder (eq. 1-3)."""
        features = self.aligned(self.visual(inputs))
        joined, mask = join_views(features, inputs.view_mask)
        coded = self.positions(joined)
        if self.view is not None:
            coded = coded + self.view[: features.shape[1]].repeat_interleave(features.shape[2], dim=0)
        pooled = mean_of_views(features, inputs.view_mask)
        encoded = Encoded(memory=self.encoder(self.dropout(coded), mask), memory_mask=mask, pooled=pooled)
        if self.config.mask == "dynamic" and self.tir is not None:
            encoded.aux["mask_keys"] = self.tir.keys(joined)
        return encoded

    def aligned(self, embeddings: Tensor, cache: Cache | None = None) -> Tensor:
        """Embeddings E (..., D) of image tokens or words -> features F (..., D) (eq. 2); unchanged without CRA."""
        if self.cra is None:
            return embeddings
        shared = {} if cache is None else cache.shared
        keys = (shared["basis_keys"], shared["basis_values"]) if shared else None
        features: Tensor = self.cra(embeddings, keys)
        return features

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once per study, and of the basis, once for all studies."""
        cache = self.decoder.start(encoded.memory, encoded.memory_mask, beams)
        if self.cra is not None:
            cache.shared["basis_keys"], cache.shared["basis_values"] = self.cra.keys_values()
        return cache

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
        features = self.aligned(self.words(read), cache)  # F^(R) (eq. 1-2)
        text = self.dropout(self.positions(features, first))
        mask = bias = None
        if self.tir is not None and self.config.refine:
            # row t of the mask belongs to word t of the report, whatever prompt precedes it
            before = 0 if encoded.prompt is None else encoded.prompt.shape[1]
            mask = self.tir(text, encoded, first - before)
            bias = self.tir.bias(mask)
        hidden, attention = self.decoder(
            text, encoded.memory, encoded.memory_mask, cache, bias=bias, need_attention=need_attention
        )
        logits = self.vocabulary(hidden[:, prompt:])
        return Step(logits, cache, None if attention is None else attention[:, :, :, prompt:]), mask

    def losses_of(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Language (eq. 5), global (eq. 10) and, with the mask in use, mask (eq. 12)."""
        tokens, words = batch.targets.tokens, batch.targets.mask[:, 1:]
        step, mask = self._step(tokens[:, :-1], encoded)
        losses = {"language": self.language_loss_of(step.logits, batch.targets)}
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
        """Mean of the features of a report's words, (B, D), with eos but without bos."""
        words = self.aligned(self.words(targets.tokens[:, 1:]))
        weights = targets.mask[:, 1:].to(words.dtype).unsqueeze(2)
        return (words * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)

    def memory_cells(self, views: int, positions: int) -> Tensor | None:
        """The tokens of all views, if they represent places."""
        placed = not isinstance(self.visual, FeatureMap) or self.visual.backbone.placed
        return joined_cells(views, positions) if placed else None

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The vectors that the triplet loss compares."""
        pooled = mean_of_views(self.aligned(self.visual(batch.inputs)), batch.inputs.view_mask)
        return image_vectors(pooled, batch.inputs.view_mask), self.report_vectors(batch.targets)

    def paper_modules(self) -> dict[str, PaperModule]:
        """LSU, CRA and TIR, if the configuration has them."""
        modules = {}
        if isinstance(self.visual, LSU):
            modules["LSU"] = PaperModule(path="visual")
        if self.cra is not None:
            modules["CRA, attention to the basis (eq. 7)"] = PaperModule(
                path="cra.attention", attention="cra.attention"
            )
            modules["CRA"] = PaperModule(path="cra")
        if self.config.align:
            modules["CRA, report vectors (eq. 10)"] = PaperModule(path="", method="report_vectors", varies="study")
        if self.tir is not None and self.config.refine:
            modules["TIR"] = PaperModule(path="tir", starts_closed=True)
        return modules

    def memories(self) -> dict[str, Tensor]:
        """The basis, with and without gain and bias; none without CRA."""
        return {} if self.cra is None else {"basis": self.cra.basis, "adjusted basis": self.cra.adjusted()}

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


def mean_of_views(features: Tensor, view_mask: Tensor) -> Tensor:
    """Mean over the tokens of each view, 0 where it is missing: (B, V, L, D) and (B, V) -> (B, V, D)."""
    return features.mean(dim=2).masked_fill(~view_mask.unsqueeze(2), 0.0)


def image_vectors(pooled: Tensor, view_mask: Tensor) -> Tensor:
    """Mean over the views that exist: (B, V, D) and (B, V) -> (B, D)."""
    weights = view_mask.to(pooled.dtype).unsqueeze(2)
    return (pooled * weights).sum(dim=1) / weights.sum(dim=1)
