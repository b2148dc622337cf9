"""The input check on image files, with or without a report."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from crossray.confidence.check import NOT_A_RADIOGRAPH, Flag, InputCheck, InputChecker
from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import transform_inputs
from crossray.data.images.pixels import ColourPictureError
from crossray.errors import UserError
from crossray.generation.files import read_study, stack_studies

if TYPE_CHECKING:
    from crossray.generation.generator import Generator

_LOGGER = logging.getLogger(__name__)


def check_study(generator: "Generator", views: Sequence[Path]) -> InputCheck:
    """The result of the input check on one study in files, without a report.

    Args:
        generator: generator of the model.
        views: files of its views, or its folder.

    Raises:
        UserError: the model folder has no check, a file cannot be read, or there are more views than the model uses. A
            color image is flagged instead of raising an error.
    """
    if generator.checker is None:
        raise no_check(generator.name)
    most = generator.model.config.views
    try:
        study = read_study(views, most, generator.stored)
    except ColourPictureError as error:
        return InputCheck((Flag(NOT_A_RADIOGRAPH, f"{error}.", 1.0, 0.5),))
    inputs = stack_studies([study], most).to(generator.device)
    with torch.inference_mode():
        pooled = generator.model.encode(transform_inputs(inputs, generator.transform, train=False)).pooled
    (check,) = checks_of(generator.checker, pooled, inputs)
    assert check is not None
    return check


def checks_of(checker: InputChecker | None, pooled: Tensor, inputs: Inputs) -> list[InputCheck | None]:
    """The check of each of B studies.

    Args:
        checker: the input check; None for no check.
        pooled: (B, V, P), encoded vectors of their views.
        inputs: inputs of the studies.
    """
    if checker is None:
        return [None] * len(pooled)
    vectors, mask, positions = pooled.float().cpu().numpy(), inputs.view_mask.cpu(), inputs.view_position.cpu()
    return [
        checker.check(own[there.numpy()], said[there].tolist())
        for own, there, said in zip(vectors, mask, positions, strict=True)
    ]


def heed(study: str, check: InputCheck | None, *, strict: bool) -> None:
    """Log a warning about a flagged study, or raise an error.

    Args:
        study: name of the study.
        check: result of the check; None without one.
        strict: raise an error.

    Raises:
        UserError: the study is flagged and `strict` is set.
    """
    if check is None or check.ok:
        return
    if strict:
        raise UserError(f"{study}: refused: {check} To generate the report nevertheless, leave out strict.")
    _LOGGER.warning("%s: %s", study, check)


def no_check(model: str) -> UserError:
    """The error if a check is required but the model folder has none."""
    return UserError(
        f"{model or 'model'}: it has no input check; make one with `crossray calibrate --model MODEL --data DATASET`."
    )
