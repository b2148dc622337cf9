"""Several samples of a study, and the one on which they agree: against single samples and brute force."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from tests.models.tiny import make_batch, tiny

from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import SpecialIds
from crossray.decoding.risk import Utility, consensus, least_risk
from crossray.decoding.sampling import sample
from crossray.decoding.search import generate
from crossray.errors import UserError
from crossray.evaluation.labelers import RuleLabeler
from crossray.evaluation.metrics.clinical import ClinicalStatistics
from crossray.evaluation.utilities import ClinicalUtility, Findings, bleu_utility, cider_utility
from crossray.models.registry import list_models

IDS = SpecialIds(pad=0, bos=1, eos=2)
CONFIG = DecodingConfig(method="mbr", max_length=6, samples=4, seed=3)
FINDINGS = Findings(RuleLabeler())


@pytest.mark.parametrize("system", list_models())
def test_samples_of_a_study_are_those_of_single_rows_and_of_any_batch(system: str) -> None:
    model, batch = tiny(system).eval(), make_batch()
    with torch.inference_mode():
        encoded = model.encode(batch.inputs)
        seeds = [10 + place for place in range(batch.inputs.size)]
        found = sample(model, encoded, IDS, CONFIG, 4, seeds)
        last = torch.tensor([batch.inputs.size - 1])
        alone = sample(model, encoded.select(last), IDS, CONFIG, 4, seeds[-1:])
    assert torch.equal(found.tokens[-1], alone.tokens[0]) and torch.equal(found.length[-1], alone.length[0])
    torch.testing.assert_close(found.log_probabilities[-1], alone.log_probabilities[0], rtol=0, atol=1e-5)
    single = generate(model, encoded, IDS, DecodingConfig(method="sample", max_length=6), seeds=seeds)
    for study, report in enumerate(single):
        length = int(found.length[study, 0])
        assert found.tokens[study, 0, :length].tolist()[: len(report.tokens)] == report.tokens
        assert found.log_probabilities[study, 0, :length].tolist() == pytest.approx(report.log_probabilities, abs=1e-5)
    # teacher forcing gives the same probabilities
    rows = found.tokens.flatten(0, 1)
    inputs = torch.cat([torch.full_like(rows[:, :1], IDS.bos), rows[:, :-1]], dim=1)
    with torch.inference_mode():
        repeated = encoded.apply(lambda tensor: tensor.repeat_interleave(4, dim=0))
        expected = model.step(inputs, repeated).logits.float().log_softmax(-1).gather(2, rows.unsqueeze(2)).squeeze(2)
    valid = torch.arange(rows.shape[1]) < found.length.flatten()[:, None]
    torch.testing.assert_close(found.log_probabilities.flatten(0, 1)[valid], expected[valid], rtol=0, atol=1e-4)


def test_a_diverged_model_is_named() -> None:
    model, batch = tiny("baseline").eval(), make_batch()
    with torch.inference_mode():
        encoded = model.encode(batch.inputs)
    for parameter in model.decoder.parameters():
        parameter.data.fill_(torch.nan)
    seeds = range(batch.inputs.size)
    with pytest.raises(UserError, match="not numbers"):
        least_risk(model, encoded, IDS, CONFIG, seeds, str, Utility(bleu_utility, FINDINGS))


def test_samples_are_as_frequent_as_they_are_probable() -> None:
    model, batch = tiny("baseline").eval(), make_batch()
    config = DecodingConfig(method="sample", max_length=1, temperature=0.5)
    with torch.inference_mode():
        encoded = model.encode(batch.inputs).select(torch.tensor([0]))
        found = sample(model, encoded, IDS, config, 4000, [7])
        logits = model.step(torch.tensor([[IDS.bos]]), encoded).logits[0, 0].float()
    logits = logits.clone()
    logits[[IDS.pad, IDS.bos]] = -torch.inf
    probabilities = (logits / 0.5).softmax(0)
    counts = torch.bincount(found.tokens.flatten(), minlength=len(logits)).float()
    deviation = (counts - 4000 * probabilities).abs() / (4000 * probabilities * (1 - probabilities)).sqrt().clamp_min(1)
    assert deviation.max() < 4.5


def test_the_consensus_is_what_brute_force_finds() -> None:
    texts = ["a b c", "a b d", "a b c", "e f g", "a b"]
    overlap = lambda one, other: len(set(one.split()) & set(other.split())) / len(set((one + " " + other).split()))  # noqa: E731
    table = lambda reports: np.array([[overlap(one, other) for other in reports] for one in reports])  # noqa: E731
    best = max(range(len(texts)), key=lambda place: (sum(overlap(texts[place], other) for other in texts), -place))
    assert consensus(texts, Utility(table, FINDINGS)) == best
    assert consensus(["x", "y"], Utility(table, FINDINGS)) == 0


def test_least_risk_depends_on_the_study_alone_and_asks_the_utility() -> None:
    model, batch = tiny("baseline").eval(), make_batch()
    with torch.inference_mode():
        encoded = model.encode(batch.inputs)
    seeds = list(range(batch.inputs.size))

    def decode(tokens: list[int]) -> str:
        return " ".join(map(str, tokens))

    asked: list[list[str]] = []

    def longest(texts: list[str]) -> np.ndarray:
        asked.append(list(texts))
        return np.array([[float(len(text.split()))] * len(texts) for text in texts])

    whole = least_risk(model, encoded, IDS, CONFIG, seeds, decode, Utility(longest, FINDINGS))
    for study, report in enumerate(whole):
        assert len(report.tokens) == max(len(text.split()) for text in asked[study])
        single, own = encoded.select(torch.tensor([study])), [seeds[study]]
        (alone,) = least_risk(model, single, IDS, CONFIG, own, decode, Utility(longest, FINDINGS))
        assert alone.tokens == report.tokens


def test_the_diagnosis_moves_the_choice() -> None:
    texts = [
        "the lungs are clear .",
        "the lungs are clear .",
        "there is a large pleural effusion .",
        "the heart is big .",
    ]
    names = ["cardiomegaly", "pleural_effusion", "a name that no rule knows"]
    utility = Utility(bleu_utility, FINDINGS)
    stated = FINDINGS(texts, names)
    assert stated.tolist() == [[False] * 3, [False] * 3, [False, True, False], [True, False, False]]

    def chosen(*called: bool, weight: float) -> int:
        return consensus(texts, utility, names, np.array(called), weight)

    for called, place in (((False, True, False), 2), ((True, False, False), 3), ((False, False, False), 0)):
        assert chosen(*called, weight=0.0) == 0
        assert chosen(*called, weight=10.0) == place
    # mean utility and weighted F1, by hand
    expected = bleu_utility(texts).mean(axis=1) + 0.4 * np.array([0, 0, 2 / 3, 2 / 3])
    assert chosen(True, True, False, weight=0.4) == int(expected.argmax())


@pytest.mark.parametrize("system", list_models())
def test_a_diagnosis_is_asked_of_systems_that_make_one(system: str) -> None:
    model, batch = tiny(system).eval(), make_batch()
    config = dataclasses.replace(CONFIG, diagnosis_weight=0.5)
    with torch.inference_mode():
        encoded = model.encode(batch.inputs)
    seeds = list(range(batch.inputs.size))
    asked: list[tuple[str, ...]] = []

    def findings(reports: list[str], observations: tuple[str, ...]) -> np.ndarray:
        asked.append(observations)
        return np.ones((len(reports), len(observations)), bool)

    def write() -> None:
        least_risk(model, encoded, IDS, config, seeds, str, Utility(bleu_utility, findings))

    if encoded.called is None:
        with pytest.raises(UserError, match=f"'diagnosis_weight' is 0.5, and this {system} makes no"):
            write()
    else:
        assert encoded.called.shape == (batch.inputs.size, len(model.config.observations))
        write()
        assert asked == [model.config.observations] * batch.inputs.size


REPORTS = (
    "the heart is enlarged . no pleural effusion .", "the heart size is normal . no pleural effusion .",
    "large left pleural effusion .", "the lungs are clear .", "",
)  # fmt: skip


def test_utilities_are_the_metrics() -> None:
    pairs = list(itertools.product(REPORTS, REPORTS))
    clinical = ClinicalUtility(RuleLabeler())(REPORTS).flatten()
    labels = [RuleLabeler().label([pair[side] for pair in pairs]) for side in (0, 1)]
    every = ClinicalStatistics.of(*labels, RuleLabeler().observations).weighted_scores(np.eye(len(pairs)))["ce_f1"]
    assert clinical == pytest.approx(every)
    assert 0 < clinical.mean() < 1
    for utility in (bleu_utility, cider_utility):
        table = utility(REPORTS)
        assert (np.diag(table)[:-1] >= table[:-1].max(axis=1) - 1e-9).all()
        assert table[4].tolist() == [0, 0, 0, 0, table[4, 4]]
    assert np.diag(cider_utility(REPORTS))[:3] == pytest.approx(1)
    assert np.diag(bleu_utility(REPORTS))[:4] == pytest.approx(1)


def cosine(one: Counter[str], other: Counter[str]) -> float:
    clipped = sum(min(one[word], other[word]) * other[word] for word in other)
    norms = [sum(count**2 for count in side.values()) ** 0.5 for side in (one, other)]
    return clipped / (norms[0] * norms[1]) if norms[0] * norms[1] else 0.0


def test_cider_utility_by_hand() -> None:
    table = cider_utility(REPORTS)
    for i, j in itertools.product(range(5), range(5)):
        words = REPORTS[i].split(), REPORTS[j].split()
        total = 0.0
        for order in (1, 2, 3, 4):
            grams = [Counter(tuple(side[k : k + order]) for k in range(len(side) - order + 1)) for side in words]
            total += cosine(*grams)
        difference = max(0, len(words[0]) - 1) - max(0, len(words[1]) - 1)
        assert table[i, j] == pytest.approx(total / 4 * np.exp(-(difference**2) / 72))
