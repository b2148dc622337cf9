"""R2GenCMN: the baseline Transformer with a cross-modal memory (SPEC 1.6; Chen et al. 2021)."""

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from crossray.data.batch import Guide, Inputs
from crossray.layers.cache import Cache
from crossray.layers.embedding import PositionalEncoding, TokenEmbedding, VisualEmbedding
from crossray.layers.memory import CrossModalMemory
from crossray.layers.transformer import Decoder, Encoder, Norm, prepend_prompt
from crossray.models.backbones import BackboneConfig, BackboneReportModel, build_backbone, join_views
from crossray.models.base import Encoded, ModelConfig, Step, register


@dataclass(frozen=True, kw_only=True)
class CMNConfig(ModelConfig):
    """Configuration of `CMN`.

    Attributes:
        backbone: the vision backbone.
        layers: layers of the encoder, and as many of the decoder.
        width: width of the Transformer and of the memory.
        heads: attention heads, a divisor of `width`.
        feedforward: width of the hidden layer of the feed-forward blocks.
        dropout: in attention and memory weights, feed-forward blocks, residual paths and embeddings.
        visual_relu: ReLU after the linear map of the image features.
        visual_dropout: after that map.
        visual_positions: sinusoidal position codes on the image tokens.
        memory_slots: rows of the memory.
        memory_heads: heads that query it, a divisor of `width`.
        memory_top: rows that each query keeps in each head.
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
    memory_slots: int = 2048
    memory_heads: int = 8
    memory_top: int = 32
    norm: Norm = "standard"


@register("cmn", CMNConfig)
class CMN(BackboneReportModel):
    """The baseline, where image tokens and words each add the response of one shared memory."""

    config: CMNConfig

    def __init__(self, config: CMNConfig) -> None:
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
        self.memory = CrossModalMemory(
            config.memory_slots, config.width, config.memory_heads, config.memory_top, config.dropout
        )
        self.encoder = Encoder(*stack)
        self.decoder = Decoder(*stack)
        self.vocabulary = nn.Linear(config.width, config.vocabulary_size)

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views -> tokens + memory responses -> encoder."""
        tokens, pooled = self.backbone.views(inputs)
        visual, mask = join_views(self.visual_embedding(tokens), inputs.view_mask)
        visual = visual + self.memory(visual, *self.memory.keys_values())
        if self.config.visual_positions:
            visual = self.dropout(self.positions(visual))
        return Encoded(memory=self.encoder(visual, mask), memory_mask=mask, pooled=pooled)

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once a study, and of the memory, once for all."""
        cache = self.decoder.start(encoded.memory, encoded.memory_mask, beams)
        cache.shared["keys"], cache.shared["values"] = self.memory.keys_values()
        return cache

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Embedding + position codes + memory response -> decoder -> vocabulary."""
        tokens, skip = prepend_prompt(tokens, encoded.prompt, cache)
        first = 0 if cache is None else cache.length
        text = self.dropout(self.positions(self.text_embedding(tokens), first))
        keys, values = self.memory.keys_values() if cache is None else (cache.shared["keys"], cache.shared["values"])
        text = text + self.memory(text, keys, values)
        hidden, attention = self.decoder(
            text, encoded.memory, encoded.memory_mask, cache, need_attention=need_attention
        )
        logits = self.vocabulary(hidden[:, skip:])
        return Step(logits, cache, None if attention is None else attention[:, :, :, skip:])
