"""The Transformer that the systems of the R2Gen family share: backbone, encoder and decoder."""

from dataclasses import dataclass

from torch import Tensor

from crossray.data.batches.batch import Guide, Inputs
from crossray.layers.cache import Cache
from crossray.models.base import Encoded, PaperModule, Step, register
from crossray.models.parts.backbones import join_views
from crossray.models.parts.encoder_decoder import EncoderDecoder, EncoderDecoderConfig


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(EncoderDecoderConfig):
    """Configuration of `Baseline`, with the common fields only."""


@register("baseline", BaselineConfig)
class Baseline(EncoderDecoder):
    """Backbone, visual embedding, encoder, decoder."""

    config: BaselineConfig

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views -> tokens of all views side by side -> encoder."""
        tokens, pooled = self.backbone.views(inputs)
        visual, mask = join_views(self.visual_embedding(tokens), inputs.view_mask)
        return self.encode_visual(visual, mask, pooled)

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Embedding + position codes -> decoder -> vocabulary."""
        text = self.embed_text(tokens, encoded, cache)
        return self.decode(text, encoded, cache, positions=tokens.shape[1], need_attention=need_attention)

    def paper_modules(self) -> dict[str, PaperModule]:
        """The encoder and the first cross-attention, because no paper names modules of the baseline."""
        return {
            "encoder": PaperModule(path="encoder"),
            "attention to the image": PaperModule(path="decoder.layers.0.cross"),
        }
