"""A system: the decoder reads what a linear map makes of the image tokens; there is no encoder."""

from dataclasses import dataclass

from torch import Tensor

from crossray.data.batches.batch import Guide, Inputs
from crossray.layers.cache import Cache
from crossray.models.base import Encoded, Step, register
from crossray.models.parts.backbones import join_views
from crossray.models.parts.encoder_decoder import EncoderDecoder, EncoderDecoderConfig


@dataclass(frozen=True, kw_only=True)
class ExampleConfig(EncoderDecoderConfig):
    """Configuration of `Example`.

    Attributes:
        gain: factor of the image tokens.
    """

    gain: float = 1.0


@register("example", ExampleConfig)
class Example(EncoderDecoder):
    """Image tokens times a factor, encoder, decoder."""

    config: ExampleConfig

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        tokens, pooled = self.backbone.views(inputs)
        visual, mask = join_views(self.visual_embedding(tokens) * self.config.gain, inputs.view_mask)
        return self.encode_visual(visual, mask, pooled)

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        text = self.embed_text(tokens, encoded, cache)
        return self.decode(text, encoded, cache, positions=tokens.shape[1], need_attention=need_attention)
