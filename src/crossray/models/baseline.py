"""The Transformer that the R2Gen family has in common (SPEC 1.5): backbone, encoder, decoder, nothing else."""

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from crossray.data.batch import Guide, Inputs
from crossray.layers.cache import Cache
from crossray.layers.embedding import PositionalEncoding, TokenEmbedding, VisualEmbedding
from crossray.layers.transformer import Decoder, Encoder, Norm, prepend_prompt
from crossray.models.backbones import BackboneConfig, BackboneReportModel, build_backbone, join_views
from crossray.models.base import Encoded, ModelConfig, Step, register


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(ModelConfig):
    """Configuration of `Baseline`.

    Attributes:
        backbone: the vision backbone.
        layers: layers of the encoder, and as many of the decoder.
        width: width of the Transformer.
        heads: attention heads, a divisor of `width`.
        feedforward: width of the hidden layer of the feed-forward blocks.
        dropout: in attention weights, feed-forward blocks, residual paths and text embeddings.
        visual_relu: ReLU after the linear map of the image features (R2Gen); M2KT and COACL have none.
        visual_dropout: after that map; 0.5 in R2Gen, 0.1 in M2KT and COACL.
        visual_positions: sinusoidal position codes on the image tokens (R2GenCMN); R2Gen and M2KT have none.
        norm: "standard" layer normalisation, or "r2gen" as in R2Gen's code, for weights that come from there.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    layers: int = 3
    width: int = 512
    heads: int = 8
    feedforward: int = 512
    dropout: float = 0.1
    visual_relu: bool = True
    visual_dropout: float = 0.5
    visual_positions: bool = True
    norm: Norm = "standard"


@register("baseline", BaselineConfig)
class Baseline(BackboneReportModel):
    """Backbone, visual embedding, encoder, decoder."""

    config: BaselineConfig

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone)
        self.config = config = replace(config, backbone=self.backbone.config)
        stack = (config.layers, config.width, config.heads, config.feedforward, config.dropout, config.norm)
        self.visual_embedding = VisualEmbedding(
            self.backbone.width, config.width, relu=config.visual_relu, dropout=config.visual_dropout
        )
        self.text_embedding = TokenEmbedding(config.vocabulary_size, config.width)
        self.positions = PositionalEncoding(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = Encoder(*stack)
        self.decoder = Decoder(*stack)
        self.vocabulary = nn.Linear(config.width, config.vocabulary_size)

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views -> tokens of all views side by side -> encoder."""
        tokens, pooled = self.backbone.views(inputs)
        visual, mask = join_views(self.visual_embedding(tokens), inputs.view_mask)
        if self.config.visual_positions:
            visual = self.dropout(self.positions(visual))
        return Encoded(memory=self.encoder(visual, mask), memory_mask=mask, pooled=pooled)

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once a study."""
        return self.decoder.start(encoded.memory, encoded.memory_mask, beams)

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Embedding + position codes -> decoder -> vocabulary."""
        tokens, skip = prepend_prompt(tokens, encoded.prompt, cache)
        first = 0 if cache is None else cache.length
        text = self.dropout(self.positions(self.text_embedding(tokens), first))
        hidden, attention = self.decoder(
            text, encoded.memory, encoded.memory_mask, cache, need_attention=need_attention
        )
        logits = self.vocabulary(hidden[:, skip:])
        return Step(logits, cache, None if attention is None else attention[:, :, :, skip:])
