"""A discrete variational autoencoder: images to a grid of tokens, and back (Ramesh et al. 2021).

The networks are those of DALL-E, with the names of its weights, in any width. In its own size the encoder is the one
that UAR's authors use; smaller ones are trained here on radiographs. What UAR takes of either is `image_tokenizer.py`.

Shapes: N images, C channels, H x W pixels, K codes, h x w = H/8 x W/8 places of the grid.
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

#: Pixels a place, in each direction.
DOWNSAMPLING = 8

#: Pixels are squeezed into [margin, 1 - margin], where their logit is finite.
_MARGIN = 0.1

#: How clearly the first codes are told apart, see `DVAE.start`; with less, sampling confuses neighbours.
_SHARPNESS = 20.0

#: Noise on a code that was split off another, as a share of its weights' standard deviation.
_SPLIT_NOISE = 0.01


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(TrainableConfig):
    """Size of the two networks.

    Attributes:
        channels: number of color channels; 1 is enough for grey-scale images, DALL-E's encoder uses 3.
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
            raise UserError(f"field 'channels' is {self.channels}; choose 1 (grey) or 3.")
        if self.width < 4 or self.width % 4:
            raise UserError(f"field 'width' is {self.width}; give a multiple of 4.")
        if self.blocks < 1 or self.codes < 2:
            raise UserError("fields 'blocks' and 'codes' need at least 1 block and 2 codes.")

    @property
    def groups(self) -> int:
        """Groups of blocks; the resolution is halved between two of them."""
        return 1 + int(math.log2(DOWNSAMPLING // self.patch))


#: The network of the released weights.
DALLE = NetworkConfig(channels=3, width=256, blocks=2, codes=8192, patch=1)


class Conv(nn.Module):
    """A convolution that keeps the size, with the names and the initial weights of DALL-E's.

    Args:
        inputs: channels; `outputs`: channels; `side`: of the kernel, odd.
        stride: `side` for a kernel that takes every pixel once; otherwise 1.
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
    """x + gain * four convolutions of relu(x), the middle ones a quarter as wide.

    Args:
        inputs: channels; `outputs`: channels, a multiple of 4.
        sides: of the four kernels.
        layers: blocks of the whole network; the gain is 1 / layers^2.
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
    """Images to the logits of the codes at every place."""

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
        """What the last convolution makes the logits of, (N, F, h, w)."""
        return self._hidden(images).relu()

    def _hidden(self, images: Tensor) -> Tensor:
        x = squeeze(images[:, : self.config.channels])
        for name, part in self.blocks.named_children():
            x = part(x) if name != "output" else x
        return x


class Decoder(nn.Module):
    """Codes, or weights of the codes, to images.

    Args:
        config: the size.
        outputs: channels that it gives a pixel.
        begin: channels of the vector that it looks a code up as; 128 in DALL-E.
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
        """Weights of the codes (N, K, h, w), which sum to 1 at every place -> (N, outputs, H, W)."""
        return self.shuffle(self.blocks(weights))

    def look_up(self, codes: Tensor) -> Tensor:
        """The same for one code (N, h, w) int64 at every place, without K channels."""
        first: Conv = self.blocks.input  # type: ignore[assignment]
        x = (F.embedding(codes, first.w[:, :, 0, 0].T) + first.b).permute(0, 3, 1, 2)
        for part in list(self.blocks)[1:]:
            x = part(x)
        return self.shuffle(x)


def squeeze(pixels: Tensor) -> Tensor:
    """[0, 1] -> [0.1, 0.9], DALL-E's `map_pixels`."""
    return (1 - 2 * _MARGIN) * pixels + _MARGIN


def unsqueeze(pixels: Tensor) -> Tensor:
    """[0.1, 0.9] -> [0, 1]; what lies outside is cut off."""
    return ((pixels - _MARGIN) / (1 - 2 * _MARGIN)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(NetworkConfig):
    """Configuration of `DVAE`. The weights of the losses "kl" and "usage" are set in the stage; 0 disables a loss.

    Attributes:
        reconstruction: reconstruction loss: mse, or logit_laplace, DALL-E's pixel distribution, which also learns its
            scale.
        temperature: initial temperature of the Gumbel-softmax.
        temperature_end: final temperature of the Gumbel-softmax; at 0, it would select the most probable code.
        anneal: share of the training in which the temperature falls, geometrically.
        decoder_begin: width of the decoder's code embeddings, 128 in DALL-E; 0 for half the width of its widest blocks,
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
        """Refuse what cannot be trained."""
        super().__post_init__()
        if not 0 < self.temperature_end <= self.temperature or not 0 < self.anneal <= 1:
            raise UserError(
                "fields 'temperature', 'temperature_end' and 'anneal': the temperature falls, above 0, in a share of "
                "the training in (0, 1]; correct them."
            )


@register("dvae", DVAEConfig)
class DVAE(Trainable):
    """The image tokenizer in training: encoder, Gumbel-softmax, decoder. Images are in [0, 1] (mean 0, std 1)."""

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
        """Reconstruction (of a sample in training, otherwise of the most probable codes), and two in nats.

        "kl" is how far the codes of a place are from the uniform prior, "usage" how far those of the whole batch are: 0
        when all are chosen equally often, however sure each place is.
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
        usage = share.mean(dim=(0, 2, 3)).clamp_min(1e-9)  # the entropy has no slope at 0
        return {
            "reconstruction": self._error(drawn.float(), images[:, : self.config.channels]),
            "kl": math.log(self.config.codes) + (share * log_share).sum(dim=1).mean(),
            "usage": math.log(self.config.codes) - torch.special.entr(usage).sum(),
        }

    def advance(self, event: Event) -> None:
        """After a step: the temperature falls, and codes that no place chooses are revived."""
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
        """Codes that mean something before the first step: k-means over the features of the first batch.

        The logits of a place become its squared distances to the centres, as in a mixture of Gaussians, and the decoder
        begins with a random projection of the centres, so that codes alike are alike to it. From random weights, which
        say nothing about the image, thousands of steps pass before any code does.
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
        """Split each code that was never chosen since the last call off one that was: equal up to a little noise.

        Encoder and decoder both learn the copy, so that from then on places are shared between the two. All processes
        hold the same counts and draw the same numbers.
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
        """The most probable code at every place, (N, h, w) int64, of images (N, 3, H, W) in [0, 1]."""
        return self.encoder(images).argmax(dim=1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the codes of images (N, 3, H, W) keep of them: (N, C, H, W) in [0, 1]."""
        drawn = self.decoder.look_up(self.codes(images)).float()[:, : self.config.channels]
        return drawn.clamp(0, 1) if self.config.reconstruction == "mse" else unsqueeze(drawn.sigmoid())

    def observe(self, batch: Batch) -> None:
        """Keep PSNR and codes of a validation batch."""
        images = batch.inputs.images[batch.inputs.view_mask]
        self._errors.append(psnr(self.reconstruct(images), images[:, : self.config.channels]))
        self._counts.append(_counted(self.codes(images), self.config.codes)[None])

    def summary(self) -> dict[str, float]:
        """`psnr` in dB, mean over images; `perplexity` of the codes; `used`, the share of codes that occur."""
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
        # DALL-E, appendix A.3: logit(pixel) follows a Laplace distribution with mean `mean` and scale exp(log_scale)
        mean, log_scale = drawn.chunk(2, dim=1)
        pixels = squeeze(images)
        surprise = (pixels.logit() - mean).abs() * (-log_scale).exp() + log_scale + math.log(2)
        return (surprise + (pixels * (1 - pixels)).log()).mean()


def psnr(found: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (N,), of images (N, C, H, W) in [0, 1]."""
    return -10 * (found - truth).square().flatten(1).mean(dim=1).clamp_min(1e-10).log10()


def k_means(points: Tensor, count: int, turns: int = 5) -> tuple[Tensor, Tensor]:
    """Centres (count, F) of points (N, F), and the mean squared distance of a point to its centre.

    It begins with random points, the same in every process; a centre without points stays where it is.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(points), generator=generator).to(points.device)
    centres = points[order[torch.arange(count, device=points.device) % len(points)]].clone()
    for _ in range(turns):
        parts = [torch.cdist(some, centres).min(dim=1) for some in points.split(4096)]  # all at once would be gigabytes
        nearest, place = (torch.cat(values) for values in zip(*parts, strict=True))
        total = torch.zeros_like(centres).index_add_(0, place, points)
        members = torch.bincount(place, minlength=count).unsqueeze(1)
        centres = torch.where(members > 0, total / members.clamp_min(1), centres)
    return centres, nearest.square().mean().clamp_min(1e-6)


def _counted(codes: Tensor, count: int) -> Tensor:
    return torch.bincount(codes.flatten(), minlength=count).float()
