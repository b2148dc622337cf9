"""The search against exhaustive enumeration, a plain-Python beam, and itself without a cache."""

import itertools
import math

import pytest
import torch
from tests.decoding.toy import IDS, Toy, encoded, exhaustive, next_log_probabilities, one, slow_beam

from crossray.decoding.search import DecodingConfig, SpecialIds, generate
from crossray.decoding.uncached import Uncached
from crossray.errors import UserError

PENALTIES = ["none", "average", "wu"]


def _same(first, second, tolerance=1e-4):
    assert [report.tokens for report in first] == [report.tokens for report in second]
    for one_report, other in zip(first, second, strict=True):
        assert one_report.score == pytest.approx(other.score, abs=tolerance)
        assert one_report.log_probabilities == pytest.approx(other.log_probabilities, abs=tolerance)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("max_length", [1, 4])
def test_a_wide_beam_finds_the_best_of_all_sequences(penalty, max_length):
    model, images = Toy(vocabulary=8, sharpness=1.0), encoded(2)  # five words
    config = DecodingConfig(beam=5**3 * 6, max_length=max_length, length_penalty=penalty, length_alpha=0.9)
    for study, report in enumerate(generate(model, images, IDS, config)):
        score, words = exhaustive(model, one(images, study), config)
        assert report.score == pytest.approx(score, abs=1e-5)
        assert tuple(report.tokens) == words


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length_penalty": "average"},
        {"length_penalty": "wu", "length_alpha": 1.5},
        {"min_length": 5},
        {"no_repeat_ngram": 1, "min_length": 3},
        {"no_repeat_ngram": 2},
        {"no_repeat_ngram": 3},
        {"suppress_unk": True},
        {"force_length": True},
        {"beam": 1},
        {"beam": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("sharpness", [0.5, 3.0])
def test_equals_a_beam_search_in_plain_python(options, sharpness):
    model, images = Toy(vocabulary=12, sharpness=sharpness), encoded(8)
    config = DecodingConfig(max_length=9, **options)
    for study, report in enumerate(generate(model, images, IDS, config)):
        score, words, history = slow_beam(model, one(images, study), config)
        assert report.tokens == words
        assert report.score == pytest.approx(score, abs=1e-4)
        assert report.log_probabilities == pytest.approx(history, abs=1e-4)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_stopping_early_changes_nothing_and_saves_steps(penalty):
    model, images = Toy(vocabulary=10, ending=4.0), encoded(24)
    config = {"max_length": 30, "length_penalty": penalty}
    early = generate(model, images, IDS, DecodingConfig(**config))
    rows, model.rows = model.rows, []
    late = generate(model, images, IDS, DecodingConfig(**config, early_stop=False))
    _same(early, late, tolerance=1e-5)
    assert sum(rows) < sum(model.rows)
    assert rows[0] == 24, "before the beams part, one row of each study reads"
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < rows[1], "ended studies should have left the batch"


def test_the_search_needs_no_cache():
    model, images = Toy(vocabulary=12), encoded(8)
    config = DecodingConfig(max_length=12, beam=4)
    _same(generate(model, images, IDS, config), generate(Uncached(model), images, IDS, config))


def test_greedy_takes_the_best_word_and_is_beam_one():
    model, images = Toy(vocabulary=12), encoded(8)
    reports = generate(model, images, IDS, DecodingConfig(method="greedy", max_length=12))
    for study, report in enumerate(reports):
        words = []
        while len(words) < 12:
            table = next_log_probabilities(model, one(images, study), tuple(words))
            table[IDS.pad] = table[IDS.bos] = -math.inf
            word = table.index(max(table))
            if word == IDS.eos:
                break
            words.append(word)
        assert report.tokens == words
    _same(reports, generate(model, images, IDS, DecodingConfig(beam=1, max_length=12)), tolerance=0)


def test_a_beam_scores_at_least_what_greedy_does():
    # no theorem for a narrow beam: the greedy path may fall out of it; on the whole the beam must win
    model, images = Toy(vocabulary=12, sharpness=1.5), encoded(64)
    greedy = generate(model, images, IDS, DecodingConfig(method="greedy", max_length=12))
    gains = []
    for width in (3, 12):
        beam = generate(model, images, IDS, DecodingConfig(beam=width, max_length=12))
        gains.append([found.score - best.score for found, best in zip(beam, greedy, strict=True)])
    assert sum(gain >= -1e-5 for gain in gains[0]) >= 60
    assert sum(gains[0]) > 1.0
    assert min(gains[1]) >= -1e-5


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_a_report_depends_on_its_own_study_alone(method):
    model, images = Toy(vocabulary=12), encoded(9)
    config = DecodingConfig(method=method, max_length=15)
    seeds = list(range(100, 109))
    together = generate(model, images, IDS, config, seeds=seeds)
    order = [4, 0, 8, 3]
    apart = generate(model, images.select(torch.tensor(order)), IDS, config, seeds=[seeds[study] for study in order])
    _same(apart, [together[study] for study in order], tolerance=1e-5)


def test_log_probabilities_are_the_models_own():
    model, images = Toy(vocabulary=12), encoded(8)
    for options in ({}, {"method": "sample", "temperature": 2.0, "top_k": 5}, {"length_penalty": "average"}):
        config = DecodingConfig(max_length=10, **options)
        for study, report in enumerate(generate(model, images, IDS, config)):
            emitted = [*report.tokens, IDS.eos][: len(report.log_probabilities)]
            assert len(emitted) == len(report.log_probabilities)
            for position, token in enumerate(emitted):
                table = next_log_probabilities(model, one(images, study), tuple(emitted[:position]))
                assert report.log_probabilities[position] == pytest.approx(table[token], abs=1e-4)
            assert report.score == pytest.approx(report.log_probability / config.normalizer(len(emitted)), abs=1e-4)


def test_attention_belongs_to_the_chosen_words():
    model, images = Toy(vocabulary=12, ending=4.0), encoded(8)
    reports = generate(model, images, IDS, DecodingConfig(max_length=10), need_attention=True)
    assert len({len(report.tokens) for report in reports}) > 1
    for study, report in enumerate(reports):
        words = torch.tensor([[IDS.bos, *report.tokens, IDS.eos][: len(report.log_probabilities)]])
        expected = model.step(words, one(images, study), need_attention=True).cross_attention[0]
        assert report.cross_attention.shape == expected.shape
        torch.testing.assert_close(report.cross_attention, expected)
    assert generate(model, images, IDS, DecodingConfig())[0].cross_attention is None


def test_special_and_forbidden_tokens_are_never_written():
    model, images = Toy(vocabulary=8, sharpness=0.3), encoded(32)
    free = generate(model, images, IDS, DecodingConfig(method="sample", max_length=30))
    assert {3, 5} <= set(itertools.chain.from_iterable(report.tokens for report in free))
    ids = SpecialIds(pad=0, bos=1, eos=2, unk=3, forbidden=(5,))
    for method in ("beam", "sample"):
        config = DecodingConfig(method=method, max_length=30, suppress_unk=True)
        reports = generate(model, images, ids, config)
        assert not {0, 1, 2, 3, 5} & set(itertools.chain.from_iterable(report.tokens for report in reports))


def test_one_id_may_be_pad_bos_and_eos():
    ids = SpecialIds(pad=0, bos=0, eos=0, unk=3)
    reports = generate(Toy(vocabulary=8, ending=4.0, eos=0), encoded(16), ids, DecodingConfig(max_length=20))
    assert any(len(report.tokens) < 20 for report in reports)
    assert not any(0 in report.tokens for report in reports)


def test_a_report_that_cannot_go_on_ends():
    # two words besides the special tokens, no word twice, at least four words: only the end is left
    model = Toy(vocabulary=5)
    reports = generate(model, encoded(4), IDS, DecodingConfig(max_length=8, min_length=4, no_repeat_ngram=1))
    assert all(sorted(report.tokens) == [3, 4] for report in reports)


def test_equal_scores_are_resolved_by_the_lowest_token():
    model = Toy(vocabulary=12, sharpness=0.0)
    for method in ("greedy", "beam"):
        config = DecodingConfig(method=method, max_length=4, min_length=4)
        assert [report.tokens for report in generate(model, encoded(2), IDS, config)] == [[3, 3, 3, 3]] * 2


def test_a_diverged_model_is_named():
    model = Toy(vocabulary=12)
    model.output.data.fill_(math.nan)
    with pytest.raises(UserError, match="not numbers"):
        generate(model, encoded(2), IDS, DecodingConfig(max_length=4))


def test_mode_is_restored_and_no_study_is_no_report():
    model = Toy(vocabulary=6).train()
    assert generate(model, encoded(3).select(torch.tensor([], dtype=torch.long)), IDS, DecodingConfig()) == []
    assert model.training


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
def test_a_watcher_sees_every_token_of_every_study(method):
    model, images = Toy(vocabulary=12, sharpness=1.0), encoded(5)
    seen: dict[int, list[list[int]]] = {}
    config = DecodingConfig(method=method, max_length=9)
    watched = generate(model, images, IDS, config, watch=lambda study, words: seen.setdefault(study, []).append(words))
    assert watched == generate(model, images, IDS, config)
    assert sorted(seen) == list(range(5))
    if method != "beam":  # a beam may prefer another hypothesis later on
        for study, report in enumerate(watched):
            told = seen[study]
            assert told[-1] == report.tokens
            assert all(report.tokens[: len(words)] == words for words in told)
            assert len(told) >= len(report.tokens)
