"""Words as classes."""

import unicodedata

from crossray.text.words import frequent_words, words_of


def test_words_are_letters_only_and_have_no_case() -> None:
    assert words_of("No 3 cm T-spine XXXX; no.") == {"no", "cm", "t", "spine", "xxxx"}
    german = "Herz vergrößert, 2 Opacités_basales."
    assert words_of(german) == {"herz", "vergrößert", "opacités", "basales"}
    assert words_of(unicodedata.normalize("NFD", german)) == words_of(german)


def test_a_word_counts_once_a_report_and_words_of_every_second_report_are_left_out() -> None:
    reports = ["the heart heart heart", "the lungs", "the lungs lungs", "the scar", "a scar"]
    assert frequent_words(reports, 2) == ("lungs", "scar")
    assert frequent_words(reports, 3) == ()
    assert frequent_words([], 1) == ()
