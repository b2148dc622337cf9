"""Writes the reports of studies in memory as one batch, for a service."""

import time
from collections.abc import Callable, Sequence

import torch

from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import transform_inputs
from crossray.decoding.reports import study_seed, write_reports
from crossray.evaluation.utilities import utility_of
from crossray.generation.checks import checks_of
from crossray.generation.files import FileStudy, stack_studies
from crossray.generation.generator import Generator, StudyReport

#: Called with the index of a study and its text so far, in the form of the tokenizer.
WatchText = Callable[[int, str], None]


def write_studies(
    generator: Generator,
    studies: Sequence[FileStudy],
    names: Sequence[str],
    *,
    need_attention: bool = False,
    watch: WatchText | None = None,
) -> list[StudyReport]:
    """Write the reports of B studies as one batch.

    Args:
        generator: generator of the model.
        studies: views of each study, at most `views` of the model's configuration.
        names: names of the studies, which determine their random numbers.
        need_attention: keep the cross-attention of each report.
        watch: called with the text so far, after every token.

    Raises:
        UserError: the model's probabilities are NaN.
    """
    started = time.perf_counter()
    views, decode = generator.model.config.views, generator.tokenizer.decode
    inputs = stack_studies(studies, views).to(generator.device)
    prepared = transform_inputs(inputs, generator.transform, train=False)
    with torch.inference_mode():
        encoded = generator.model.encode(prepared)
    checks = checks_of(generator.checker, encoded.pooled, inputs)
    reports = write_reports(
        generator.model,
        prepared,
        generator.decoding,
        encoded=encoded,
        need_attention=need_attention,
        seeds=[study_seed(generator.decoding.seed, name) for name in names],
        utility=utility_of(generator.decoding),
        watch=None if watch is None else lambda place, tokens: watch(place, decode(tokens)),
    )
    seconds = (time.perf_counter() - started) / max(len(studies), 1)
    return [
        StudyReport(name, report, _one(inputs, row), study.paths, seconds, check)
        for row, (name, report, study, check) in enumerate(zip(names, reports, studies, checks, strict=True))
    ]


def _one(inputs: Inputs, row: int) -> Inputs:
    return inputs.apply(lambda tensor: tensor[row : row + 1])
