"""Decoding options are checked where they are set."""

import pytest

from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "magic"), ("beam", 0), ("max_length", 0), ("min_length", -1), ("min_length", 61),
        ("length_penalty", "long"), ("length_alpha", -0.1), ("no_repeat_ngram", -1), ("temperature", 0.0),
        ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=f"field '{field}' is {value!r}"):
        DecodingConfig(**{field: value})


def test_normalizers():
    assert DecodingConfig().normalizer(17) == 1.0
    assert DecodingConfig(length_penalty="average").normalizer(17) == 17.0
    assert DecodingConfig(length_penalty="wu", length_alpha=1.0).normalizer(7) == 2.0
    assert DecodingConfig(length_penalty="wu", length_alpha=0.5).normalizer(19) == 2.0
