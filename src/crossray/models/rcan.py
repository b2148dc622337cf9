"""RCAN: recalibrated visual extractor, cross-modal gated memory, weakly supervised contrast (Hou et al. 2024).

In the order of the paper: RVE (eq. 3-7), CGM (eq. 8-15), WCL (eq. 16-19), the report generator (eq. 20-24).

Shapes: B studies, N images or rows, V views, S image tokens, T text positions, C channels of the backbone, D width.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.errors import UserError
from crossray.layers.cache import Cache
from crossray.layers.context import Past, running_context
from crossray.layers.contrastive import at_least_float32, gather_ranks, supervised_contrastive, weak_positives
from crossray.layers.dropout import dropout
from crossray.layers.memory import CrossModalMemory, Start
from crossray.models.base import Encoded, PaperModule, Step, register
from crossray.models.parts.backbones import join_views, of_views
from crossray.models.parts.encoder_decoder import EncoderDecoder, EncoderDecoderConfig


@dataclass(frozen=True, kw_only=True)
class RCANConfig(EncoderDecoderConfig):
    """Configuration of `RCAN`. The stages set the weights of eq. 24: lambda for language, 1 - lambda for the rest.

    Attributes:
        rve: recalibrate the image features (Table 4).
        residual: the residual block: "bottleneck" (1x1, 3x3, 1x1 with batch normalization), or "wide" as in the code
            (two 3x3 convolutions over all channels, without normalization).
        residual_width: number of channels in the bottleneck; 0 for a quarter of the backbone's (512 for ResNet-101).
        residual_relu: ReLU after the residual block (eq. 3); the code has none.
        spatial_attention: one map for each channel ("depthwise", eq. 6), or one "shared" map as in the code.
        channel_relu: ReLU between the two linear maps of the channel attention, as in the code; eq. 5 has none.
        attention_fusion: sigmoid of the sum of both maps ("joint"), a second sigmoid on the channel map before that
            ("paper", eq. 5 and 7), or the sigmoid of the channel map plus the raw spatial one ("code").
        recalibration_scale: initial factor of the recalibration; 0 starts as the identity, 1 as in paper and code.
        recalibration_trained: train this factor; paper and code have none.
        cgm: use the cross-modal gated memory (Table 4); without it there is no memory. With `gate_position` "none", it
            is the memory of R2GenCMN.
        memory_slots: number of rows of the memory, which are as wide as the Transformer.
        memory_heads: number of heads that query the memory; a divisor of `width`.
        memory_top: number of rows that each query keeps in each head; `memory_slots` gives the full softmax of the
            paper.
        memory_start: initial keys and values of the memory: with variance 1 ("unit"), or so small that every query gets
            nearly the same response ("code", as in the published code).
        gate_position: where the information gate acts: on each word before the context is formed ("paper", eq. 13-14),
            or on the context ("code"); with "none", the response of the memory is added as in R2GenCMN.
        cgm_visual: also gate the image tokens, as in eq. 20 but not in the code.
        wcl: use the weakly supervised contrastive loss (Table 4).
        contrast: image vector in the contrastive loss: the backbone's "pooled" vector, or the mean of the
            "recalibrated" features, which also trains RVE and works with a frozen backbone.
        contrast_augmentation: which pairs of vectors are augmented: those of studies with a "single" view, which would
            otherwise be equal, "all" (the paper), or "none" (the code).
        contrast_hidden: width of the two hidden layers of the projection head.
        contrast_width: width of the output of the projection head.
        contrast_denominator: the studies in the denominator: all "others", as in the code, or only the "negatives" (eq.
            19).
        temperature: temperature tau, which divides the cosines (Table 5).
        loss_reduction: "mean" averages both losses over words and studies; "sum" sums them over the words of a report
            (eq. 23) and the studies of a batch (eq. 19), which changes the meaning of lambda.
    """

    rve: bool = True
    residual: Literal["bottleneck", "wide"] = "bottleneck"
    residual_width: int = 0
    residual_relu: bool = True
    spatial_attention: Literal["depthwise", "shared"] = "depthwise"
    channel_relu: bool = True
    attention_fusion: Literal["joint", "paper", "code"] = "joint"
    recalibration_scale: float = 0.5
    recalibration_trained: bool = True
    cgm: bool = True
    memory_slots: int = 2048
    memory_heads: int = 8
    memory_top: int = 32
    memory_start: Start = "unit"
    gate_position: Literal["paper", "code", "none"] = "paper"
    cgm_visual: bool = False
    wcl: bool = True
    contrast: Literal["pooled", "recalibrated"] = "pooled"
    contrast_augmentation: Literal["single", "all", "none"] = "single"
    contrast_hidden: int = 512
    contrast_width: int = 128
    contrast_denominator: Literal["others", "negatives"] = "others"
    temperature: float = 0.1
    loss_reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        """Reject invalid values."""
        if self.cgm_visual and self.gate_position == "none":
            raise UserError("model.cgm_visual needs a gate; set model.gate_position to paper or code.")
        if self.temperature <= 0:
            raise UserError(f"model.temperature is {self.temperature}; give a positive number.")


class RVE(nn.Module):
    """Recalibrated visual extractor (eq. 3-7).

    Args:
        channels: C.
        config: its fields from `residual` to `recalibration_trained`.
    """

    def __init__(self, channels: int, config: RCANConfig) -> None:
        super().__init__()
        self.config = config
        squeezed = max(1, channels // 4)
        inner = config.residual_width or squeezed
        self.residual = (
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
            )
            if config.residual == "wide"
            else nn.Sequential(
                nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
                nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
                nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels),
            )
        )  # fmt: skip
        between = nn.ReLU() if config.channel_relu else nn.Identity()
        self.channel_attention = nn.Sequential(nn.Linear(channels, squeezed), between, nn.Linear(squeezed, channels))
        self.spatial_attention = (
            nn.Conv2d(channels, 1, 3, padding=1, bias=False)
            if config.spatial_attention == "shared"
            else nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        )
        scale = torch.tensor(float(config.recalibration_scale))
        self.scale: Tensor
        if config.recalibration_trained:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale, persistent=False)

    def gate(self, residual: Tensor) -> Tensor:
        """The gate of each place and channel for the residual features K (N, C, H, W)."""
        pooled = residual.mean(dim=(2, 3))  # eq. 4
        channel = self.channel_attention(pooled)[:, :, None, None]  # eq. 5, before its sigmoid
        spatial = self.spatial_attention(residual)  # eq. 6
        if self.config.attention_fusion == "code":
            return channel.sigmoid() + spatial
        if self.config.attention_fusion == "paper":
            channel = channel.sigmoid()  # eq. 5
        return (channel + spatial).sigmoid()  # eq. 7, in the brackets

    def recalibration(self, residual: Tensor) -> Tensor:
        """The term that is added to the features: scale * gate(K) * K for K (N, C, H, W)."""
        return self.scale * self.gate(residual) * residual

    def forward(self, maps: Tensor) -> Tensor:
        """V + scale * gate(K) * K for feature maps V (N, C, H, W)."""
        residual = self.residual(maps)
        if self.config.residual_relu:
            residual = residual.relu()  # eq. 3
        return maps + self.recalibration(residual)  # eq. 7

    def tokens(self, tokens: Tensor) -> Tensor:
        """The same for tokens (N, S, C) of square images, row by row; a class token before them is passed on."""
        side = math.isqrt(tokens.shape[1])
        first = tokens.shape[1] - side * side
        maps = tokens[:, first:].transpose(1, 2).unflatten(2, (side, side))
        return torch.cat([tokens[:, :first], self(maps).flatten(2).transpose(1, 2)], dim=1)


class CGM(nn.Module):
    """Cross-modal gated memory (eq. 8-15): the memory's response to a token determines the weight of its context.

    Args:
        config: its fields from `memory_slots` to `cgm_visual`; its width and dropout.
    """

    def __init__(self, config: RCANConfig) -> None:
        super().__init__()
        self.config = config
        self.memory = CrossModalMemory(
            config.memory_slots,
            config.width,
            config.memory_heads,
            config.memory_top,
            config.dropout,
            config.memory_start,
        )
        if config.gate_position != "none":
            # W_1 and W_2 in one matrix: initially, the state gate is rather open and the information gate rather closed
            self.gates = nn.Linear(config.width, 2 * config.width)
            nn.init.constant_(self.gates.bias[: config.width], 1.0)
            nn.init.constant_(self.gates.bias[config.width :], -1.0)
            # W_c; the softmax over positions would make a bias meaningless. A response is a mean of about
            # `memory_top` values of variance 1: so its scores have variance 1 too, and weights differ
            self.score = nn.Linear(config.width, 1, bias=False)
            nn.init.normal_(self.score.weight, std=math.sqrt(self.memory.choice.top / config.width))

    def visual(self, tokens: Tensor, mask: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Image tokens (B, S, D) with their responses; `mask` (B, S) bool, True where a token is valid."""
        response = self.memory(tokens, keys, values)  # eq. 8-10
        if not self.config.cgm_visual:
            return tokens + response
        state, information = self.gates(tokens).sigmoid().chunk(2, dim=-1)
        score = self.score(response).float().masked_fill(~mask.unsqueeze(-1), -torch.inf)
        weights = score.softmax(dim=1)  # eq. 14, its softmax
        if self.config.gate_position == "code":
            return state * tokens + information * (weights * tokens).sum(dim=1, keepdim=True)
        context = (weights * information * tokens).sum(dim=1, keepdim=True)  # eq. 13-14
        return state * tokens + context  # eq. 12, 15

    def text(self, words: Tensor, keys: Tensor, values: Tensor, past: Past | None) -> tuple[Tensor, Past | None]:
        """Words (N, T, D), each with the context of the words up to it, and the state for the following words."""
        response = self.memory(words, keys, values)  # eq. 8-10
        if self.config.gate_position == "none":
            return words + response, None
        state, information = self.gates(words).sigmoid().chunk(2, dim=-1)
        context, following = self.information_gate(words, information, response, past)
        return state * words + context, following  # eq. 12, 15

    def information_gate(
        self, words: Tensor, opened: Tensor, response: Tensor, past: Past | None
    ) -> tuple[Tensor, Past]:
        """G_i of eq. 13-14 for words (N, T, D), over the words up to each one.

        Args:
            words: (N, T, D).
            opened: (N, T, D), how far the gate is open, sigmoid(W_2 y + b_2).
            response: (N, T, D), of the memory: M of eq. 14, the only reading whose shape fits.
            past: state returned by the previous call.
        """
        score = self.score(response).squeeze(-1)  # eq. 14, M W_c
        if self.config.gate_position == "code":
            context, following = running_context(score, words, past)
            return opened * context, following
        return running_context(score, opened * words, past)  # eq. 13, and 14 with its softmax


class HeadNorm(nn.BatchNorm1d):
    """Batch normalization that uses, and does not update, its running statistics for a single row."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, width) -> (N, width)."""
        if len(input) > 1:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class WCL(nn.Module):
    """Weakly supervised contrastive loss over two vectors of each study (eq. 16-19, with the minus sign that 19 lacks).

    Args:
        channels: C.
        config: its fields from `contrast_augmentation` to `loss_reduction`.
    """

    def __init__(self, channels: int, config: RCANConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.contrast_hidden
        self.head = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), HeadNorm(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False), HeadNorm(hidden), nn.ReLU(),
            nn.Linear(hidden, config.contrast_width),
        )  # fmt: skip

    def forward(self, vectors: Tensor, view_mask: Tensor) -> Tensor:
        """The loss, a scalar; 0 for a single study.

        Args:
            vectors: (B, V, C).
            view_mask: (B, V) bool.
        """
        options = self.config.temperature, self.config.contrast_denominator, self.config.loss_reduction
        # in half precision, cosines of neighbors would be equal, and weak labels would depend on rounding
        with torch.autocast(vectors.device.type, enabled=False):
            pairs = self.pair(at_least_float32(vectors), view_mask)  # eq. 16
            # the head's batch statistics are those of one view, as in the code
            projected = torch.stack(
                [F.normalize(self.head(view), dim=1) for view in pairs.unbind(1)], dim=1
            )  # eq. 17-18
            first, second = gather_ranks(projected).unbind(1)
            # eq. 19; each view learns from the neighbors of the other one
            one = supervised_contrastive(first, weak_positives(second), *options)
            other = supervised_contrastive(second, weak_positives(first), *options)
        return (one + other) / 2

    def pair(self, vectors: Tensor, view_mask: Tensor) -> Tensor:
        """Two vectors of each study (B, 2, C) (eq. 16): of its first two views, or of its only view twice.

        In training, they are augmented as set by `contrast_augmentation`: a fifth of the channels is dropped, and noise
        of a twentieth of the vector's standard deviation is added.
        """
        single = view_mask.sum(dim=1) < 2
        views = view_mask.int().argsort(dim=1, descending=True, stable=True)[:, :2]
        chosen = torch.stack([views[:, 0], torch.where(single, views[:, 0], views[:, -1])], dim=1)
        pairs = vectors.gather(1, chosen.unsqueeze(-1).expand(-1, -1, vectors.shape[2]))
        if not self.training or self.config.contrast_augmentation == "none":
            return pairs
        changed = dropout(pairs, 0.2)
        changed = changed + 0.05 * pairs.detach().std(dim=2, keepdim=True) * torch.randn_like(pairs)
        return (
            changed
            if self.config.contrast_augmentation == "all"
            else torch.where(single[:, None, None], changed, pairs)
        )


@register("rcan", RCANConfig)
class RCAN(EncoderDecoder):
    """The baseline with RVE behind the backbone, CGM before encoder and decoder, and WCL beside the language loss.

    Without all three, it is the baseline; with CGM alone and without its gates, it is R2GenCMN.
    """

    #: Eq. 24 with lambda = 0.7.
    loss_weights: ClassVar = {"language": 0.7, "weak_contrastive": 0.3}
    config: RCANConfig

    def __init__(self, config: RCANConfig) -> None:
        super().__init__(config)
        if config.rve:
            self.rve = RVE(self.backbone.width, config)
        if config.cgm:
            self.cgm = CGM(config)
        if config.wcl:
            self.wcl = WCL(self.backbone.width, config)

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views -> RVE -> CGM -> encoder (eq. 1, 7, 20)."""
        tokens, pooled = self._view_tokens(inputs)
        visual, mask = join_views(self.visual_embedding(tokens), inputs.view_mask)
        if self.config.cgm:
            visual = self.cgm.visual(visual, mask, *self.cgm.memory.keys_values())
        encoded = self.encode_visual(visual, mask, pooled)
        if self.config.wcl and self.config.contrast == "recalibrated":
            encoded.aux["recalibrated"] = tokens.mean(dim=2)
        return encoded

    def _view_tokens(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Recalibrated tokens (B, V, S, C) and the backbone's pooled vectors (B, V, C)."""
        tokens, pooled = self.backbone.views(inputs)
        if self.config.rve:
            (tokens,) = of_views(lambda existing: (self.rve.tokens(existing),), tokens, inputs.view_mask)
        return tokens, pooled

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once per study, and of the memory, once for all studies."""
        cache = super().start(encoded, beams)
        if self.config.cgm:
            cache.shared["keys"], cache.shared["values"] = self.cgm.memory.keys_values()
        return cache

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Embedding + position codes -> CGM -> decoder -> vocabulary (eq. 21)."""
        text = self.embed_text(tokens, encoded, cache)
        if self.config.cgm:
            text = self.gate_text(text, cache)
        return self.decode(text, encoded, cache, positions=tokens.shape[1], need_attention=need_attention)

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Mean responses of the memory to image tokens and words, as in R2GenCMN; None without CGM."""
        if not self.config.cgm:
            return None
        visual, mask = join_views(self.visual_embedding(self._view_tokens(batch.inputs)[0]), batch.inputs.view_mask)
        text, words = self.embed_words(batch.targets)
        return self.cgm.memory.mean_response(visual, mask), self.cgm.memory.mean_response(text, words)

    def paper_modules(self) -> dict[str, PaperModule]:
        """RVE, CGM with its memory, scores and information gate, and WCL, if the configuration has them."""
        modules, config = {}, self.config
        if config.rve:
            modules["RVE"] = PaperModule(path="rve", method="recalibration", varies="study")
        if config.cgm:
            modules["CGM"] = PaperModule(path="cgm", method="text")
            modules["CGM memory"] = PaperModule(
                path="cgm.memory", attention="cgm.memory.choice", slots=config.memory_slots
            )
            if config.gate_position != "none":
                # the only way from the memory to the text: the weights of the words' contexts (eq. 14)
                modules["CGM scores"] = PaperModule(path="cgm.score")
                modules["CGM information gate"] = PaperModule(path="cgm", method="information_gate")
        if config.wcl:
            modules["WCL"] = PaperModule(path="wcl.head", varies="study")
        return modules

    def memories(self) -> dict[str, Tensor]:
        """The memory of CGM, if there is one."""
        return {"memory": self.cgm.memory.matrix} if self.config.cgm else {}

    def gate_text(self, text: Tensor, cache: Cache | None) -> Tensor:
        """CGM on words (N, T, D); the cache carries the running context from step to step."""
        if cache is None:
            return self.cgm.text(text, *self.cgm.memory.keys_values(), past=None)[0]
        past = (cache.state["context_score"], cache.state["context"]) if "context" in cache.state else None
        text, past = self.cgm.text(text, cache.shared["keys"], cache.shared["values"], past)
        if past is not None:
            cache.state["context_score"], cache.state["context"] = past
        return text

    @property
    def token_losses(self) -> frozenset[str]:  # type: ignore[override]
        """The language loss, unless it is a mean over studies."""
        return frozenset({"language"} if self.config.loss_reduction == "mean" else ())

    def language_loss(self, encoded: Encoded, targets: Targets) -> Tensor:
        """Eq. 23: the mean over all words of the batch, or the sum over the words of a report, mean over reports."""
        loss = super().language_loss(encoded, targets)
        if self.config.loss_reduction == "mean":
            return loss
        return loss * (targets.mask[:, 1:].sum() / len(targets.mask))

    def losses_of(self, encoded: Encoded, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and WCL (eq. 23, 19); their weights lambda and 1 - lambda (eq. 24) are set in the stage."""
        losses = {"language": self.language_loss(encoded, batch.targets)}
        if self.config.wcl:
            vectors = encoded.aux["recalibrated"] if self.config.contrast == "recalibrated" else encoded.pooled
            losses["weak_contrastive"] = self.wcl(vectors, batch.inputs.view_mask)
        return losses
