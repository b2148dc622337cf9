"""Small instances of every registered system, and batches for them.

`tiny(system)` works for every system whose configuration uses the field names below; values of fields that only a new
system has stand in its configuration (`TrainableConfig.small`). Whatever is named in neither keeps its default.
"""

import dataclasses
import math
import typing
import zlib
from collections.abc import Collection
from typing import Any, Literal

import torch
from torch import nn

from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.data.batches.transform import ImageTransform
from crossray.models.base import Encoded, ReportModel, system_class
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig
from crossray.models.retrieval.retrieving import RetrievingModel
from crossray.retrieval.database import ReportDatabase
from crossray.text.tokenizer import Tokenizer

VOCABULARY, LENGTH, SIZE, VIEWS = 40, 12, 64, 2
PAD, BOS, EOS = 0, 1, 2

#: Field of a configuration -> value that makes the system small.
SMALL: dict[str, Any] = {
    "vocabulary_size": VOCABULARY,
    "max_length": LENGTH,
    "observations": ("cardiomegaly", "effusion", "edema"),
    "views": VIEWS,
    "backbone": BackboneConfig(name="random:resnet_tiny"),
    "layers": 2,
    "width": 32,
    "heads": 4,
    "feedforward": 48,
    "memory_slots": 48,
    "memory_heads": 4,
    "memory_top": 6,
    "contrast_hidden": 16,
    "contrast_width": 8,
    "image_tokenizer": ImageTokenizerConfig(name="random:tiny"),
    "image_size": SIZE,
    "basis_size": 48,
    "knowledge": KnowledgeEncoderConfig(name="random:tiny"),
    "retrieval_width": 16,
    "fusion_width": 16,
    "neighbours": 3,
    "diagnosis_width": 16,
    "diagnosis_layers": 1,
    "diagnosis_heads": 2,
    "decoder": "",
    "positions": 32,
}


def tiny_writer(*reports: str, **overrides: Any) -> ReportModel:
    """A small baseline with the words of these reports, ready to be saved."""
    tokenizer = Tokenizer.train(list(reports), min_count=1)
    model = tiny("baseline", vocabulary_size=tokenizer.vocabulary_size, **overrides)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=32, resize=40)
    return model


def small(fields: Collection[str]) -> dict[str, Any]:
    """Values of these fields that make a system small."""
    values = {name: value for name, value in SMALL.items() if name in fields}
    if "auxiliary" in fields:  # one of the three is none of CheXpert's
        values["observations"] = ("cardiomegaly", "edema", "aorta_abnormal")
    return values


def tiny(system: str, **overrides: Any) -> ReportModel:
    """A small model with seeded weights, in eval mode."""
    config_class = system_class(system).config_class
    known = {field.name for field in dataclasses.fields(config_class)}
    values = small(known) | dict(config_class.small) | overrides
    torch.manual_seed(1)
    return furnished(system_class(system)(config_class(**values))).eval()


def furnished(model: Any) -> Any:
    """The same model, with a report database where it keeps one."""
    if isinstance(model, RetrievingModel):
        model.database = example_database(model)
        if model.lre is not None:
            model.lre.standardize(model.database.entities)
        if standardize := getattr(model, "standardize_prompts", None):
            standardize()
    return model


def example_database(model: RetrievingModel, reports: int = 7, sentences: int = 3) -> ReportDatabase:
    """A small report database that fits a model, of other studies than those of `make_batch`."""
    entities, places, _, width = model.database.phrases.shape
    generator = torch.Generator().manual_seed(11)
    rows = torch.randint(0, 9, (reports, sentences), generator=generator, dtype=torch.int32)
    rows[::2, -1] = -1  # some reports are shorter
    return ReportDatabase(
        entities=torch.randn(reports, entities, generator=generator),
        labels=torch.randint(0, 4, (reports, len(model.config.observations)), generator=generator).to(torch.int8),
        groups=torch.arange(reports) // 2,
        reports=torch.randn(reports, width, generator=generator).half(),
        sentences=torch.randn(9, width, generator=generator).half(),
        sentence_rows=rows,
        phrases=torch.randn(entities, places, 2, width, generator=generator).half(),
        studies=[f"other{row}" for row in range(reports)],
        encoder=model.knowledge.fingerprint(),
    )


def variants(system: str) -> list[dict[str, Any]]:
    """Overrides of one field each, for every yes-or-no and every listed choice that differs from its default."""
    config_class = system_class(system).config_class
    default = config_class()
    found: list[dict[str, Any]] = [{}]
    for name, hint in typing.get_type_hints(config_class).items():
        choices = (True, False) if hint is bool else typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
        found += [{name: choice} for choice in choices if choice != getattr(default, name)]
    return found


def without_dropout(system: str) -> dict[str, float]:
    """Overrides that switch off every dropout, and label smoothing: without them a model can become certain."""
    fields = dataclasses.fields(system_class(system).config_class)
    return {field.name: 0.0 for field in fields if field.name.endswith(("dropout", "smoothing"))}


def make_inputs(studies: int = 4, views: int = VIEWS, seed: int = 0, size: int = SIZE) -> Inputs:
    """Normalized random images; the second study lacks its last view."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(studies, views, dtype=torch.bool)
    if studies > 1 and views > 1:
        mask[1, -1] = False
    images = torch.randn(studies, views, 3, size, size, generator=generator)
    position = torch.zeros(studies, views, dtype=torch.long)
    position[:, -1] = 4
    return Inputs(
        images=images * mask[:, :, None, None, None],
        image_size=torch.full((studies, views, 2), size),
        view_mask=mask,
        view_position=position,
    )


def make_batch(studies: int = 4, views: int = VIEWS, seed: int = 0, length: int = LENGTH) -> Batch:
    """Random studies with random reports of different lengths; the last report is the longest."""
    generator = torch.Generator().manual_seed(seed + 1)
    tokens = torch.full((studies, length), PAD)
    mask = torch.zeros(studies, length, dtype=torch.bool)
    for row in range(studies):
        end = length - (studies - 1 - row) % (length - 3)
        tokens[row, :end] = torch.randint(4, VOCABULARY, (end,), generator=generator)
        tokens[row, 0], tokens[row, end - 1] = BOS, EOS
        mask[row, :end] = True
    labels = torch.nn.functional.one_hot(torch.randint(0, 4, (studies, 3), generator=generator), 4).float()
    names = tuple(f"study{row}" for row in range(studies))
    return Batch(
        inputs=make_inputs(studies, views, seed),
        guide=Guide(labels=labels, study=names, patient=names),
        targets=Targets(tokens=tokens, mask=mask, report_key=torch.arange(studies)),
    )


def take(record: Any, rows: list[int]) -> Any:
    """Some studies of a batch or a part of it, in this order."""
    if isinstance(record, Batch):
        guide = record.guide
        names = {name: tuple(getattr(guide, name)[row] for row in rows) for name in ("study", "patient")}
        labels = None if guide.labels is None else guide.labels[rows]
        return Batch(take(record.inputs, rows), Guide(labels=labels, **names), take(record.targets, rows))
    return record.apply(lambda tensor: tensor[rows])


def with_prompt(model: ReportModel, encoded: Encoded, length: int = 5) -> Encoded:
    """The same with a random prompt; as it is when the system has a prompt of its own."""
    if encoded.prompt is not None:
        return encoded
    generator = torch.Generator().manual_seed(7)
    prompt = torch.randint(4, model.config.vocabulary_size, (encoded.memory.shape[0], length), generator=generator)
    return dataclasses.replace(encoded, prompt=prompt)


def repeated(encoded: Encoded, times: int) -> Encoded:
    """Every study `times` times, one copy beside the other."""
    return encoded.apply(lambda tensor: tensor.repeat_interleave(times, dim=0))


def set_weights(model: nn.Module) -> None:
    """Weights that depend on their names and shapes alone, not on a generator of random numbers."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.arange(parameter.numel(), dtype=torch.float64) * 1.618 + zlib.crc32(name.encode()) % 1000
            fan = parameter[0].numel() if parameter.dim() > 1 else 1
            wave = (values.sin() * math.sqrt(2.0 / fan)).reshape(parameter.shape)
            is_gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(1.0 + 0.1 * wave if is_gain else wave if parameter.dim() > 1 else 0.1 * wave)
