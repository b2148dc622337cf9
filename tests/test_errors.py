"""Parts of messages: plurals, and the name that was probably meant."""

import pytest

from crossray.errors import choose, counted, did_you_mean


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [(1, "study", "1 study"), (0, "study", "0 studies"), (2, "process", "2 processes"), (3, "image", "3 images"),
     (1, "image", "1 image")],
)  # fmt: skip
def test_a_number_agrees_with_its_noun(number: int, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected


def test_an_irregular_plural_is_given() -> None:
    assert [counted(number, "study was", "studies were") for number in (1, 2)] == ["1 study was", "2 studies were"]


def test_the_closest_name_is_suggested_whatever_its_case() -> None:
    assert did_you_mean("BEM", ["Greedy", "beam"]) == " (did you mean 'beam'?)"
    assert did_you_mean("xyz", ["greedy", "beam"]) == ""
    assert choose("bem", ["beam", "greedy"]) == "choose one of beam, greedy (did you mean 'beam'?)"
