"""A tiny recurrent report writer and slow searches in plain Python: the oracles of the decoding tests."""

import itertools
import math

import torch
from torch import Tensor, nn

from crossray.data.batches.batch import Inputs
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import SpecialIds
from crossray.layers.cache import Cache
from crossray.models.base import Encoded, Guide, ModelConfig, ReportModel, Step

IDS = SpecialIds(pad=0, bos=1, eos=2, unk=3)


class Toy(ReportModel):
    """h <- tanh(W h + E[word] + what it sees of the image); its only state is h.

    Args:
        vocabulary: number of ids, four special ones included.
        sharpness: scale of the logits.
        ending: added to the logit of `eos`, so that reports differ in length.
    """

    def __init__(self, vocabulary: int, sharpness: float = 3.0, ending: float = 0.0, eos: int = 2) -> None:
        super().__init__()
        self.config = ModelConfig(vocabulary_size=vocabulary)
        generator = torch.Generator().manual_seed(0)
        self.sharpness, self.ending, self.eos, width = sharpness, ending, eos, 8

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.embedding, self.recurrent = weight(vocabulary, width), weight(width, width)
        self.output = weight(width, vocabulary)
        self.rows: list[int] = []

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        memory = inputs.features["memory"][:, 0]
        mask = torch.ones(memory.shape[:2], dtype=torch.bool)
        return Encoded(memory, mask, pooled=memory.mean(1, keepdim=True))

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        rows, width = encoded.memory.shape[0] * beams, encoded.memory.shape[2]
        return Cache(beams, 0, [encoded.memory], [], None, state={"hidden": encoded.memory.new_zeros(rows, width)})

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        self.rows.append(tokens.shape[0])
        memory = encoded.memory if cache is None else cache.memory_keys[0]
        memory = memory.repeat_interleave(tokens.shape[0] // memory.shape[0], dim=0)
        hidden = memory.new_zeros(memory.shape[0], memory.shape[2]) if cache is None else cache.state["hidden"]
        logits, maps = [], []
        for word in tokens.unbind(1):
            weights = torch.einsum("nd,nsd->ns", hidden + self.embedding[word], memory).softmax(-1)
            hidden = torch.tanh(
                hidden @ self.recurrent + self.embedding[word] + torch.einsum("ns,nsd->nd", weights, memory)
            )
            logits.append(self.sharpness * hidden @ self.output)
            logits[-1][:, self.eos] += self.ending
            maps.append(weights)
        if cache is not None:
            cache.state["hidden"] = hidden
            cache.length += tokens.shape[1]
        attention = torch.stack(maps, dim=1)[:, None, None] if need_attention else None
        return Step(torch.stack(logits, dim=1), cache, attention)

    def losses(self, batch: object) -> dict[str, Tensor]:
        return {}


def encoded(studies: int, width: int = 8, seed: int = 0) -> Encoded:
    """Random images of three positions."""
    memory = torch.randn(studies, 3, width, generator=torch.Generator().manual_seed(seed))
    return Encoded(memory, torch.ones(studies, 3, dtype=torch.bool), memory[:, :1])


def one(images: Encoded, study: int) -> Encoded:
    """A single study."""
    return images.select(torch.tensor([study]))


@torch.no_grad()
def next_log_probabilities(model: ReportModel, image: Encoded, words: tuple[int, ...]) -> list[float]:
    """Of every token after `words`, by reading all of them anew."""
    logits = model.step(torch.tensor([[IDS.bos, *words]]), image).logits[0, -1]
    return torch.log_softmax(logits, -1).tolist()


@torch.no_grad()
def exhaustive(model: ReportModel, image: Encoded, config: DecodingConfig) -> tuple[float, tuple[int, ...]]:
    """The best of all sequences: ended by eos, or as long as the limit."""
    words = [word for word in range(model.config.vocabulary_size) if word not in (IDS.pad, IDS.bos, IDS.eos)]
    best = (-math.inf, ())
    for length in range(config.max_length + 1):
        for sequence in itertools.product(words, repeat=length):
            emitted = sequence if length == config.max_length else (*sequence, IDS.eos)
            logits = model.step(torch.tensor([[IDS.bos, *emitted[:-1]]]), image).logits[0]
            table = torch.log_softmax(logits, -1)
            total = sum(table[position, token].item() for position, token in enumerate(emitted))
            best = max(best, (total / config.normalizer(len(emitted)), sequence), key=lambda item: item[0])
    return best


def slow_beam(model: ReportModel, image: Encoded, config: DecodingConfig) -> tuple[float, list[int], list[float]]:
    """Beam search as R2Gen's code does it, with lists, one study and one hypothesis at a time, to the last step."""
    running: list[tuple[float, list[int], list[float]]] = [(0.0, [], [])]
    finished: list[tuple[float, list[int], list[float]]] = []
    for position in range(config.max_length):
        continued = []
        for total, words, history in running:
            table = next_log_probabilities(model, image, tuple(words))
            for token, value in enumerate(table):
                if token in (IDS.pad, IDS.bos) or (config.suppress_unk and token == IDS.unk):
                    continue
                if token == IDS.eos and (position < config.min_length or config.force_length):
                    continue
                size = config.no_repeat_ngram
                grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)] if size else []
                if size and tuple([*words, token][-size:]) in grams:
                    continue
                continued.append((total + value, [*words, token], [*history, value]))
        continued.sort(key=lambda item: -item[0])
        running = []
        for total, words, history in continued[: config.rows]:
            if words[-1] == IDS.eos or position == config.max_length - 1:
                finished.append((total / config.normalizer(position + 1), words, history))
            else:
                running.append((total, words, history))
        if not running:
            break
    score, words, history = max(finished, key=lambda item: item[0])
    return score, [word for word in words if word != IDS.eos], history
