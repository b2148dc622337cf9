"""A least report length that most training reports do not have is refused."""

from collections.abc import Callable
from statistics import median

import pytest

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.training.config import Recipe
from crossray.training.recipe import load
from crossray.training.run import build_model


def test_a_minimum_above_the_median_is_refused(tiny: Callable[..., Recipe], blob_dataset: Dataset) -> None:
    tokenizer = build_model(tiny(data__max_length=60), blob_dataset).tokenizer
    reports = blob_dataset.reports(blob_dataset.rows("train"), "findings")
    middle = int(median(len(tokenizer.encode(report, 60)) - 2 for report in reports))
    fits = {"data__max_length": 60, "decoding__max_length": 60, "decoding__min_length": middle}
    build_model(tiny(**fits), blob_dataset)
    with pytest.raises(UserError, match=rf"'decoding.min_length' is {middle + 1}.* at most {middle} tokens"):
        build_model(tiny(**{**fits, "decoding__min_length": middle + 1}), blob_dataset)


def test_a_forbidden_word_that_no_report_has_is_found_before_training(
    tiny: Callable[..., Recipe], blob_dataset: Dataset
) -> None:
    with pytest.raises(UserError, match="'forbidden' contains 'xyzzy'"):
        build_model(tiny(decoding__forbidden=["opacity", "xyzzy"]), blob_dataset)


@pytest.mark.parametrize(("name", "words"), [("mimic_cxr", 100), ("iu_xray", 60)])
def test_the_released_lengths_of_revtaf_count_its_prompt(name: str, words: int) -> None:
    """`min_length` of the released code counts the begin token and 18 statuses, which stand before the report."""
    assert load(f"revtaf/{name}").decoding.min_length == words - 19
