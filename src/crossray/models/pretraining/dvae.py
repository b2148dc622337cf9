"""A discrete variational autoencoder (dVAE), which maps images to a grid of tokens and back.

The networks and the names of their weights are those of DALL-E (Ramesh et al., 2021, arXiv:2102.12092), in any width.
UAR's authors use the released encoder; smaller networks are trained here on radiographs. `image_tokenizer.py` wraps
either encoder for UAR.

Shapes: N images, C channels, H x W pixels, K codes, and a grid of h x w = H/8 x W/8 cells.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Batch
from crossray.errors import UserError
from crossray.layers.contrastive import gather_ranks
from crossray.models.base import Event, Trainable, TrainableConfig, register

#: Side length of a grid cell in pixels.
DOWNSAMPLING = 8

#: Pixels are mapped to [margin, 1 - margin], where their logit is finite.
_MARGIN = 0.1

#: Scale of the initial logits (`DVAE.start`); with a lower one, sampling often selects a neighboring code.
_SHARPNESS = 20.0

#: Noise added to a copied code, as a share of the standard deviation of its weights.
_SPLIT_NOISE = 0.01


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(TrainableConfig):
    """Size of the two networks.

    Attributes:
        channels: number of color channels; 1 is enough for grayscale images, DALL-E's encoder uses 3.
        width: number of channels of the first group of blocks, a multiple of 4; it doubles with every halving of the
            resolution.
        blocks: number of residual blocks per group.
        codes: number K of entries in the codebook.
        patch: side length of the square of pixels that the first convolution combines and the last one restores: 1 (as
            in DALL-E), 2, 4 or 8. With 4, there are no slow layers at full resolution.
    """

    channels: int = 1
    width: int = 64
    blocks: int = 2
    codes: int = 1024
    patch: int = 4

    def __post_init__(self) -> None:
        """Reject invalid sizes."""
        if self.patch not in (1, 2, 4, 8):
            raise UserError(f"field 'patch' is {self.patch}; choose 1, 2, 4 or 8.")
        if self.channels not in (1, 3):
            raise UserError(f"field 'channels' is {self.channels}; choose 1 (gray) or 3.")
        if self.width < 4 or self.width % 4:
            raise UserError(f"field 'width' is {self.width}; give a multiple of 4.")
        if self.blocks < 1 or self.codes < 2:
            raise UserError("fields 'blocks' and 'codes' need at least 1 block and 2 codes.")

    @property
    def groups(self) -> int:
        """Number of groups of blocks; the resolution is halved between groups."""
        return 1 + int(math.log2(DOWNSAMPLING // self.patch))


#: The size of the released encoder.
DALLE = NetworkConfig(channels=3, width=256, blocks=2, codes=8192, patch=1)


class Conv(nn.Module):
    """A convolution with DALL-E's padding, parameter names and initialization.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        side: side length of the kernel; odd with a stride of 1.
        stride: 1, or `side` for a kernel that covers each pixel once.
    """

    def __init__(self, inputs: int, outputs: int, side: int, stride: int = 1) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(outputs, inputs, side, side) / math.sqrt(inputs * side**2))
        self.b = nn.Parameter(torch.zeros(outputs))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        padding = 0 if self.stride > 1 else self.w.shape[-1] // 2
        return F.conv2d(x, self.w, self.b, stride=self.stride, padding=padding)


class Block(nn.Module):
    """A residual block, x + gain * f(x), in which f is four ReLUs and convolutions, a quarter as wide inside.

    Args:
        inputs: number of input channels.
        outputs: number of output channels, a multiple of 4.
        sides: side lengths of the four kernels.
        layers: number of blocks in the network; the gain is 1 / layers^2.
    """

    def __init__(self, inputs: int, outputs: int, sides: tuple[int, int, int, int], layers: int) -> None:
        super().__init__()
        hidden = outputs // 4
        widths = (inputs, hidden, hidden, hidden, outputs)
        self.gain = 1 / layers**2
        self.id_path = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        parts: list[tuple[str, nn.Module]] = []
        for place, side in enumerate(sides):
            conv = Conv(widths[place], widths[place + 1], side)
            parts += [(f"relu_{place + 1}", nn.ReLU()), (f"conv_{place + 1}", conv)]
        self.res_path = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W)."""
        return self.id_path(x) + self.gain * self.res_path(x)


class Encoder(nn.Module):
    """Maps images to the logits of the codes in each cell."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        layers = config.groups * config.blocks
        side = 7 if config.patch == 1 else config.patch
        parts: list[tuple[str, nn.Module]] = [("input", Conv(config.channels, config.width, side, config.patch))]
        before = config.width
        for group in range(config.groups):
            outputs = config.width * 2**group
            blocks: list[tuple[str, nn.Module]] = []
            for block in range(config.blocks):
                blocks.append((f"block_{block + 1}", Block(before, outputs, (3, 3, 3, 1), layers)))
                before = outputs
            if group < config.groups - 1:
                blocks.append(("pool", nn.MaxPool2d(2)))
            parts.append((f"group_{group + 1}", nn.Sequential(OrderedDict(blocks))))
        output = OrderedDict([("relu", nn.ReLU()), ("conv", Conv(before, config.codes, 1))])
        self.blocks = nn.Sequential(OrderedDict([*parts, ("output", nn.Sequential(output))]))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> logits (N, K, h, w)."""
        logits: Tensor = self.blocks.get_submodule("output")(self._hidden(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """The input of the last convolution, which computes the logits: (N, F, h, w)."""
        return self._hidden(images).relu()

    def _hidden(self, images: Tensor) -> Tensor:
        x = squeeze(images[:, : self.config.channels])
        for name, part in self.blocks.named_children():
            x = part(x) if name != "output" else x
        return x


class Decoder(nn.Module):
    """Maps codes, or weights of the codes, to images.

    Args:
        config: the size of the network.
        outputs: number of output channels.
        begin: width of the code embeddings; 128 in DALL-E.
    """

    def __init__(self, config: NetworkConfig, outputs: int, begin: int) -> None:
        super().__init__()
        layers = config.groups * config.blocks
        before = begin
        parts: list[tuple[str, nn.Module]] = [("input", Conv(config.codes, before, 1))]
        for group in range(config.groups):
            channels = config.width * 2 ** (config.groups - 1 - group)
            blocks: list[tuple[str, nn.Module]] = []
            for block in range(config.blocks):
                blocks.append((f"block_{block + 1}", Block(before, channels, (1, 3, 3, 3), layers)))
                before = channels
            if group < config.groups - 1:
                blocks.append(("upsample", nn.Upsample(scale_factor=2, mode="nearest")))
            parts.append((f"group_{group + 1}", nn.Sequential(OrderedDict(blocks))))
        output = [("relu", nn.ReLU()), ("conv", Conv(before, outputs * config.patch**2, 1))]
        self.blocks = nn.Sequential(OrderedDict([*parts, ("output", nn.Sequential(OrderedDict(output)))]))
        self.shuffle = nn.PixelShuffle(config.patch)

    def forward(self, weights: Tensor) -> Tensor:
        """Weights of the codes (N, K, h, w), which sum to 1 in each cell -> (N, outputs, H, W)."""
        return self.shuffle(self.blocks(weights))

    def look_up(self, codes: Tensor) -> Tensor:
        """The same for one code per cell, (N, h, w) int64, without a one-hot tensor."""
        first: Conv = self.blocks.input  # type: ignore[assignment]
        x = (F.embedding(codes, first.w[:, :, 0, 0].T) + first.b).permute(0, 3, 1, 2)
        for part in list(self.blocks)[1:]:
            x = part(x)
        return self.shuffle(x)


def squeeze(pixels: Tensor) -> Tensor:
    """Map [0, 1] to [0.1, 0.9]: DALL-E's `map_pixels`."""
    return (1 - 2 * _MARGIN) * pixels + _MARGIN


def unsqueeze(pixels: Tensor) -> Tensor:
    """Map [0.1, 0.9] to [0, 1], with clipping: DALL-E's `unmap_pixels`."""
    return ((pixels - _MARGIN) / (1 - 2 * _MARGIN)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(NetworkConfig):
    """Configuration of `DVAE`. The weights of the losses "kl" and "usage" are set in the stage; 0 disables a loss.

    Attributes:
        reconstruction: reconstruction loss: mse, or logit_laplace, DALL-E's pixel distribution, which also learns its
            scale.
        temperature: initial temperature of the Gumbel-softmax.
        temperature_end: final temperature of the Gumbel-softmax; at 0, it would select the most probable code.
        anneal: share of the training over which the temperature decreases, geometrically.
        decoder_begin: width of the decoder's code embeddings, 128 in DALL-E; 0 for half the width of the widest blocks,
            which is 1,024 at DALL-E's size.
        revive_every: number of steps after which unused codes are replaced by copies of frequent ones; 0 for never.
    """

    reconstruction: Literal["mse", "logit_laplace"] = "mse"
    temperature: float = 0.5
    temperature_end: float = 0.0625
    anneal: float = 0.75
    decoder_begin: int = 0
    revive_every: int = 50

    def __post_init__(self) -> None:
        """Reject invalid schedules."""
        super().__post_init__()
        if not 0 < self.temperature_end <= self.temperature or not 0 < self.anneal <= 1:
            raise UserError(
                "fields 'temperature', 'temperature_end' and 'anneal': the temperature falls, above 0, in a share of "
                "the training in (0, 1]; correct them."
            )


@register("dvae", DVAEConfig)
class DVAE(Trainable):
    """The trainable image tokenizer: encoder, Gumbel-softmax, decoder. Images are in [0, 1] (mean 0, std 1)."""

    loss_weights: ClassVar = {"reconstruction": 1.0, "kl": 0.0, "usage": 0.01}
    metrics: ClassVar = ("psnr", "perplexity", "used")
    config: DVAEConfig

    def __init__(self, config: DVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        outputs = config.channels * (2 if config.reconstruction == "logit_laplace" else 1)
        begin = config.decoder_begin or config.width * 2 ** (config.groups - 1) // 2
        self.decoder = Decoder(config, outputs, begin)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.tensor(config.temperature))
        self.started: Tensor
        self.register_buffer("started", torch.tensor(False))
        self.usage: Tensor
        self.register_buffer("usage", torch.zeros(config.codes))
        self._errors: list[Tensor] = []
        self._counts: list[Tensor] = []

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute "reconstruction", "kl" and "usage" (the last two in nats).

        The reconstruction uses sampled codes in training and the most probable ones otherwise. "kl" is the divergence
        of each cell's distribution from the uniform prior; "usage" is that of the batch's mean distribution, which is 0
        if all codes are used equally often, however certain each cell is.
        """
        images = batch.inputs.images[batch.inputs.view_mask]
        if self.training and not self.started:
            self.start(images)
        logits = self.encoder(images).float()
        codes = logits.argmax(dim=1)
        if self.training:
            self.usage += _counted(gather_ranks(codes), self.config.codes)
            drawn = self.decoder(F.gumbel_softmax(logits, float(self.temperature), dim=1))
        else:
            drawn = self.decoder.look_up(codes)
        log_share = logits.log_softmax(dim=1)
        share = log_share.exp()
        usage = share.mean(dim=(0, 2, 3)).clamp_min(1e-9)  # the entropy's derivative is infinite at 0
        return {
            "reconstruction": self._error(drawn.float(), images[:, : self.config.channels]),
            "kl": math.log(self.config.codes) + (share * log_share).sum(dim=1).mean(),
            "usage": math.log(self.config.codes) - torch.special.entr(usage).sum(),
        }

    def advance(self, event: Event) -> None:
        """After each step, update the temperature and revive unused codes."""
        if event.kind != "step":
            return
        config, falling = self.config, self.config.anneal * event.steps
        done = min(1.0, event.step / max(falling, 1.0))
        self.temperature.fill_(config.temperature * (config.temperature_end / config.temperature) ** done)
        if config.revive_every and event.step % config.revive_every == 0:
            if done < 1:
                self.revive(event.step)
            self.usage.zero_()

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Initialize the codes by k-means over the features of the first batch, (N, 3, H, W).

        The logits of a cell become its negative squared distances to the centers, as in a mixture of Gaussians. The
        decoder's embeddings become a random projection of the centers, so that similar codes have similar embeddings.
        With random codes instead, thousands of steps pass before they represent the image.
        """
        features = gather_ranks(self.encoder.features(images)).float()
        points = features.transpose(0, 1).flatten(1).T
        centres, spread = k_means(points, self.config.codes)
        output: Conv = self.encoder.blocks.output.conv  # type: ignore[union-attr, assignment]
        codebook: Conv = self.decoder.blocks.input  # type: ignore[assignment]
        sharpness = _SHARPNESS / spread
        mean = centres.mean(dim=0)
        output.w.copy_((sharpness * (centres - mean))[:, :, None, None])
        output.b.copy_(-sharpness * centres.square().sum(dim=1) / 2)
        centred = centres - mean
        generator = torch.Generator().manual_seed(0)
        projection = torch.randn(centres.shape[1], codebook.w.shape[0], generator=generator).to(centres.device)
        embedded = centred @ projection
        codebook.w.copy_((embedded / embedded.std()).T[:, :, None, None])
        self.started.fill_(True)

    @torch.no_grad()
    def revive(self, seed: int) -> None:
        """Replace each code that was never used since the last call by a noisy copy of a frequent one.

        The copy is made in the encoder and the decoder, so the two codes share the cells of the original. All processes
        have the same counts and draw the same random numbers.
        """
        dead = (self.usage == 0).nonzero().flatten()
        if not len(dead) or not self.usage.any():
            return
        generator = torch.Generator().manual_seed(seed)
        parents = torch.multinomial(self.usage.cpu(), len(dead), replacement=True, generator=generator).to(dead.device)
        output: Conv = self.encoder.blocks.output.conv  # type: ignore[union-attr, assignment]
        codebook: Conv = self.decoder.blocks.input  # type: ignore[assignment]
        for weight, axis in ((output.w, 0), (codebook.w, 1)):
            copies = weight.index_select(axis, parents)
            noise = torch.randn(copies.shape, generator=generator).to(copies.device)
            weight.index_copy_(axis, dead, copies + _SPLIT_NOISE * weight.std() * noise)
        output.b.index_copy_(0, dead, output.b[parents])

    def codes(self, images: Tensor) -> Tensor:
        """The most probable code of each cell, (N, h, w) int64, for images (N, 3, H, W) in [0, 1]."""
        return self.encoder(images).argmax(dim=1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode and decode images (N, 3, H, W) in [0, 1]; returns (N, C, H, W) in [0, 1]."""
        drawn = self.decoder.look_up(self.codes(images)).float()[:, : self.config.channels]
        return drawn.clamp(0, 1) if self.config.reconstruction == "mse" else unsqueeze(drawn.sigmoid())

    def observe(self, batch: Batch) -> None:
        """Record PSNR and codes of a validation batch."""
        images = batch.inputs.images[batch.inputs.view_mask]
        self._errors.append(psnr(self.reconstruct(images), images[:, : self.config.channels]))
        self._counts.append(_counted(self.codes(images), self.config.codes)[None])

    def summary(self) -> dict[str, float]:
        """`psnr`: mean over images in dB; `perplexity` of the codes; `used`: share of the codes that occur."""
        if not self._errors:
            return {}
        errors = gather_ranks(torch.cat(self._errors))
        counts = gather_ranks(torch.cat(self._counts).sum(0, keepdim=True)).sum(0)
        self._errors, self._counts = [], []
        share = counts / counts.sum()
        return {
            "psnr": float(errors.mean()),
            "perplexity": float(torch.special.entr(share).sum().exp()),
            "used": float((counts > 0).float().mean()),
        }

    def _error(self, drawn: Tensor, images: Tensor) -> Tensor:
        if self.config.reconstruction == "mse":
            return F.mse_loss(drawn, images)
        # DALL-E, appendix A.3: logit(pixel) has a Laplace distribution with mean `mean` and scale exp(log_scale).
        mean, log_scale = drawn.chunk(2, dim=1)
        pixels = squeeze(images)
        surprise = (pixels.logit() - mean).abs() * (-log_scale).exp() + log_scale + math.log(2)
        return (surprise + (pixels * (1 - pixels)).log()).mean()


def psnr(found: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (N,), in dB, of images (N, C, H, W) in [0, 1]."""
    return -10 * (found - truth).square().flatten(1).mean(dim=1).clamp_min(1e-10).log10()


def k_means(points: Tensor, count: int, turns: int = 5) -> tuple[Tensor, Tensor]:
    """Centers (count, F) of points (N, F), and the mean squared distance between a point and its center.

    The initial centers are random points, the same in every process; a center without points does not move.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(points), generator=generator).to(points.device)
    centres = points[order[torch.arange(count, device=points.device) % len(points)]].clone()
    for _ in range(turns):
        parts = [torch.cdist(some, centres).min(dim=1) for some in points.split(4096)]  # in parts, to save memory
        nearest, place = (torch.cat(values) for values in zip(*parts, strict=True))
        total = torch.zeros_like(centres).index_add_(0, place, points)
        members = torch.bincount(place, minlength=count).unsqueeze(1)
        centres = torch.where(members > 0, total / members.clamp_min(1), centres)
    return centres, nearest.square().mean().clamp_min(1e-6)


def _counted(codes: Tensor, count: int) -> Tensor:
    return torch.bincount(codes.flatten(), minlength=count).float()
