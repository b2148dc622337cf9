"""The Transformer common to the R2Gen family; the additions of each system are in its own file.

Shapes: B studies, N = B x beams rows, V views, S image tokens, T text positions, D width.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from crossray.data.batches.batch import Targets
from crossray.layers.cache import Cache
from crossray.layers.dropout import Dropout
from crossray.layers.embedding import PositionalEncoding, TokenEmbedding, VisualEmbedding
from crossray.layers.transformer import Decoder, Encoder, Norm, prepend_prompt
from crossray.models.base import Encoded, ModelConfig, Step
from crossray.models.parts.backbones import BackboneConfig, BackboneReportModel, build_backbone


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(ModelConfig):
    """The common fields of the family's configurations.

    Attributes:
        backbone: the vision backbone.
        layers: number of layers of the encoder, and of the decoder.
        width: width of the Transformer.
        heads: number of attention heads; a divisor of `width`.
        feedforward: width of the hidden layer of the feed-forward blocks.
        dropout: dropout in attention weights, feed-forward blocks, residual paths and embeddings.
        visual_relu: use a ReLU after the linear map of the image features, as in R2Gen but not in M2KT and COACL.
        visual_dropout: dropout after the linear map of the image features; 0.5 in R2Gen, 0.1 in M2KT and COACL.
        visual_positions: add sinusoidal position codes to the image tokens, as in R2GenCMN but not in R2Gen and M2KT.
        norm: "standard" layer normalization, or "r2gen" for weights from R2Gen's code.
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


class EncoderDecoder(BackboneReportModel):
    """Backbone, embeddings, encoder, decoder and output layer, and the operations that combine them.

    Systems implement `encode` and `step` with `encode_visual`, `embed_text` and `decode`.
    """

    config: EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.backbone = build_backbone(config.backbone)
        self.config = config = replace(config, backbone=self.backbone.config)
        stack = (config.layers, config.width, config.heads, config.feedforward, config.dropout, config.norm)
        self.visual_embedding = VisualEmbedding(
            self.backbone.width, config.width, relu=config.visual_relu, dropout=config.visual_dropout
        )
        self.text_embedding = TokenEmbedding(config.vocabulary_size, config.width)
        self.positions = PositionalEncoding(config.width)
        self.dropout = Dropout(config.dropout)
        self.encoder = Encoder(*stack)
        self.decoder = Decoder(*stack)
        self.vocabulary = nn.Linear(config.width, config.vocabulary_size)

    def encode_visual(self, visual: Tensor, mask: Tensor, pooled: Tensor) -> Encoded:
        """Add position codes and run the encoder.

        Args:
            visual: (B, S, D), embedded tokens of all views.
            mask: (B, S) bool, True where a token is valid.
            pooled: (B, V, C), included in the result.
        """
        if self.config.visual_positions:
            visual = self.dropout(self.positions(visual))
        return Encoded(memory=self.encoder(visual, mask), memory_mask=mask, pooled=pooled)

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once per study."""
        return self.decoder.start(encoded.memory, encoded.memory_mask, beams)

    def embed_text(self, tokens: Tensor, encoded: Encoded, cache: Cache | None, first: int = 0) -> Tensor:
        """Embed `tokens` (N, T), and the prompt on the first step, with position codes: (N, P + T, D).

        `first` is the number of decoder positions that the system inserts before the text.
        """
        tokens, _ = prepend_prompt(tokens, encoded.prompt, cache)
        first = first if cache is None or cache.length == 0 else cache.length
        return self.dropout(self.positions(self.text_embedding(tokens), first))

    def embed_words(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """Embed a report, with position codes, as the decoder input.

        Returns:
            (B, T - 1, D), and the mask of its words (B, T - 1) bool, False for bos, eos (never an input) and padding.
        """
        tokens = targets.tokens[:, :-1]
        words = targets.mask[:, 1:].clone()
        words[:, 0] = False
        return self.dropout(self.positions(self.text_embedding(tokens))), words

    def decode(
        self, text: Tensor, encoded: Encoded, cache: Cache | None, *, positions: int, need_attention: bool
    ) -> Step:
        """Run the decoder and the output layer.

        Args:
            text: (N, P + T, D), result of `embed_text`, possibly modified by the system.
            encoded: result of `encode`.
            cache: as in `step`.
            positions: number T of positions with logits; a prompt before them has none.
            need_attention: as in `step`.
        """
        hidden, attention = self.decoder(
            text, encoded.memory, encoded.memory_mask, cache, need_attention=need_attention
        )
        skip = text.shape[1] - positions
        logits = self.vocabulary(hidden[:, skip:])
        return Step(logits, cache, None if attention is None else attention[:, :, :, skip:])
