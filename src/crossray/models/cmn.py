"""R2GenCMN: the baseline Transformer with a cross-modal memory (Chen et al. 2021)."""

from dataclasses import dataclass

from torch import Tensor

from crossray.data.batches.batch import Batch, Guide, Inputs
from crossray.layers.cache import Cache
from crossray.layers.memory import CrossModalMemory, Start
from crossray.models.base import Encoded, PaperModule, Step, register
from crossray.models.parts.backbones import join_views
from crossray.models.parts.encoder_decoder import EncoderDecoder, EncoderDecoderConfig


@dataclass(frozen=True, kw_only=True)
class CMNConfig(EncoderDecoderConfig):
    """Configuration of `CMN`.

    Attributes:
        memory_slots: number of rows of the memory, which are as wide as the Transformer.
        memory_heads: number of heads that query the memory; a divisor of `width`.
        memory_top: number of rows that each query keeps in each head.
        memory_start: initial keys and values of the memory: with variance 1 ("unit"), or so small that every query gets
            nearly the same response ("code", as in the published code).
    """

    memory_slots: int = 2048
    memory_heads: int = 8
    memory_top: int = 32
    memory_start: Start = "unit"


@register("cmn", CMNConfig)
class CMN(EncoderDecoder):
    """The baseline, where image tokens and words each add the response of one shared memory."""

    config: CMNConfig

    def __init__(self, config: CMNConfig) -> None:
        super().__init__(config)
        self.memory = CrossModalMemory(
            config.memory_slots,
            config.width,
            config.memory_heads,
            config.memory_top,
            config.dropout,
            config.memory_start,
        )

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """Views -> tokens + memory responses -> encoder."""
        tokens, pooled = self.backbone.views(inputs)
        visual, mask = join_views(self.visual_embedding(tokens), inputs.view_mask)
        visual = visual + self.memory(visual, *self.memory.keys_values())
        return self.encode_visual(visual, mask, pooled)

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """Keys and values of the encoded image, once per study, and of the memory, once for all studies."""
        cache = super().start(encoded, beams)
        cache.shared["keys"], cache.shared["values"] = self.memory.keys_values()
        return cache

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Embedding + position codes + memory response -> decoder -> vocabulary."""
        text = self.embed_text(tokens, encoded, cache)
        keys, values = self.memory.keys_values() if cache is None else (cache.shared["keys"], cache.shared["values"])
        text = text + self.memory(text, keys, values)
        return self.decode(text, encoded, cache, positions=tokens.shape[1], need_attention=need_attention)

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean responses of the shared memory to the image tokens and to the words of the report."""
        tokens, _ = self.backbone.views(batch.inputs)
        visual, mask = join_views(self.visual_embedding(tokens), batch.inputs.view_mask)
        text, words = self.embed_words(batch.targets)
        return self.memory.mean_response(visual, mask), self.memory.mean_response(text, words)

    def paper_modules(self) -> dict[str, PaperModule]:
        """The memory, whose responses are added to image tokens and words."""
        slots = self.config.memory_slots
        return {"memory": PaperModule(path="memory", attention="memory.choice", slots=slots)}

    def memories(self) -> dict[str, Tensor]:
        """The memory."""
        return {"memory": self.memory.matrix}
