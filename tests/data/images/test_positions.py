"""Words for view positions."""

import pytest

from crossray.data.images import view_position
from crossray.data.study import VIEW_POSITIONS


@pytest.mark.parametrize(
    ("position", "words"),
    [
        ("pa", "PA|pa|P.A.|PA erect|Postero-anterior|posterior anterior|PA chest|chest PA|PA LLD|Frontal (PA)|P-A"),
        ("ap", "AP|AP supine|AP Supine|AP_horizontal|ap portable|portable AP|portable|supine|AP semi erect|AP sitting"),
        ("ap", "anteroposterior|Antero-Posterior view|A.P. bedside|mobile|AP AXIAL|frontal portable"),
        ("lateral", "LL|RL|L|LAT|lat|Lateral|left lateral|LT LAT|XTABLE LATERAL|lateral (erect)|cross-table lateral"),
        ("frontal", "frontal|Frontal|front|LLD|left lateral decubitus|decubitus"),
        ("unknown", "unknown|n/a|none|other|N/A"),
        (None, "|oblique|LAO|Axial|Coronal|PA and lateral|AP/PA|swimmer|erect|left|R|smith|?"),
    ],
)
def test_words(position: str | None, words: str) -> None:
    found = {word: view_position(word) for word in words.split("|")}
    assert found == dict.fromkeys(found, position)


def test_our_own_words_mean_themselves() -> None:
    assert [view_position(position) for position in VIEW_POSITIONS] == list(VIEW_POSITIONS)
