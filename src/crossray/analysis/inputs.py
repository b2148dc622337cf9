"""Prepares studies of a dataset as inputs of a model."""

from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.models.base import ReportModel
from crossray.text.tokenizer import Tokenizer


def collator_of(
    model: ReportModel, dataset: Dataset, tokenizer: Tokenizer | None = None, section: str = "findings"
) -> Collator:
    """Create a collator for a model, which uses cached features if they match.

    Args:
        model: model with image transform.
        dataset: dataset with the studies.
        tokenizer: tokenizer of the reports; None for batches without reports.
        section: section of the reports.

    Raises:
        UserError: the model has no transform.
    """
    transform_of(model)
    return Collator(
        dataset,
        tokenizer,
        section=section,
        max_length=model.config.max_length,
        views=model.config.views,
        features=model.cached_features(dataset),
    )


def transform_of(model: ReportModel) -> ImageTransform:
    """The model's image transform.

    Raises:
        UserError: it has none.
    """
    if model.transform is None:
        raise UserError("model: preprocess.json is missing; copy the whole model folder.")
    return model.transform


def tokenizer_of(model: ReportModel) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        UserError: it has none.
    """
    if model.tokenizer is None:
        raise UserError("model: tokenizer.json is missing; copy the whole model folder.")
    return model.tokenizer
