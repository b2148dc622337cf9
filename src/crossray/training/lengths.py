"""Whether a recipe's report lengths fit the reports that it trains on."""

from statistics import median

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.text.tokenizer import Tokenizer
from crossray.training.config import Recipe

#: Reports whose length is looked at, evenly spaced: enough for a median.
_REPORTS = 5000


def check_lengths(recipe: Recipe, dataset: Dataset, tokenizer: Tokenizer) -> None:
    """Refuse a least length that is above the median length of the training reports.

    A model that may not end its report where true reports end pads most of them with made-up sentences, and what
    validation measures is the padding.

    Args:
        recipe: its `decoding.min_length` counts the report's tokens alone, without a prompt, begin and end.
        dataset: its training split is read.
        tokenizer: counts the tokens.

    Raises:
        UserError: naming both lengths.
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
