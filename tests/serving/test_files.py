"""Names of studies that are given as files."""

from pathlib import Path

import pytest

from crossray.serving.files import study_ids


@pytest.mark.parametrize(
    ("studies", "names"),
    [
        (["a.png", "b.jpg"], ["a", "b"]),
        (["frontal.png,lateral.png"], ["frontal+lateral"]),
        (["x/0.png,x/1.png", "y/0.png,y/1.png"], ["x/0+x/1", "y/0+y/1"]),
        (["a.png", "a.jpg"], ["a", "a#2"]),
        (["r/x/0.png", "s/x/0.png"], ["r/x/0", "s/x/0"]),
        (["a.png", "b.png", "a.png", "a.png"], ["a", "b", "a#2", "a#3"]),
        ([], []),
    ],
)
def test_names_are_short_and_unique(studies, names):
    assert study_ids([[Path(name) for name in study.split(",")] for study in studies]) == names
