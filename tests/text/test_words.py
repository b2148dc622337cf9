"""Words as classes."""

from crossray.text.words import frequent_words, words_of


def test_words_are_letters_only_and_have_no_case() -> None:
    assert words_of("No 3 cm T-spine XXXX; no.") == {"no", "cm", "t", "spine", "xxxx"}
    assert words_of("Herz vergrößert, 2 Opacités_basales.") == {"herz", "vergrößert", "opacités", "basales"}


def test_a_word_counts_once_a_report_and_words_of_every_second_report_are_left_out() -> None:
    reports = ["the heart heart heart", "the lungs", "the lungs lungs", "the scar", "a scar"]
    assert frequent_words(reports, 2) == ("lungs", "scar")
    assert frequent_words(reports, 3) == ()
    assert frequent_words([], 1) == ()
