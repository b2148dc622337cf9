"""Checks whether the minimum report length of a recipe fits the training reports."""

from statistics import median

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.text.tokenizer import Tokenizer
from crossray.training.config import Recipe

#: Maximum number of reports whose length is measured, evenly spaced; enough for a median.
_REPORTS = 5000


def check_lengths(recipe: Recipe, dataset: Dataset, tokenizer: Tokenizer) -> None:
    """Reject a minimum length above the median length of the training reports.

    A model that must write longer reports than the true ones pads most of them with invented sentences, and validation
    then measures this padding.

    Args:
        recipe: recipe; its `decoding.min_length` does not count prompt, begin and end tokens.
        dataset: dataset whose training split is read.
        tokenizer: tokenizer that counts the tokens.

    Raises:
        UserError: the minimum length is above the median.
    """
    least, data = recipe.decoding.min_length, recipe.data
    if least == 0:
        return
    rows = dataset.rows("train")
    rows = rows[:: max(1, len(rows) // _REPORTS)]
    lengths = [len(tokenizer.encode(report, data.max_length)) - 2 for report in dataset.reports(rows, data.section)]
    lengths = [length for length in lengths if length > 0]
    if lengths and least > median(lengths):
        raise UserError(
            f"recipe field 'decoding.min_length' is {least}, but half of the training reports have at most "
            f"{int(median(lengths))} tokens; give at most that (--decoding.min_length {int(median(lengths))}), or 0."
        )
