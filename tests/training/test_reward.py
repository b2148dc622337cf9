"""Learning from rewards: the gradient against enumeration, the rewards against the evaluation, whole runs."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.test_resume import Killed, assert_same_run, kill_at
from torch import Tensor, nn

from crossray.data.store import Dataset
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import SpecialIds
from crossray.decoding.sampling import Samples
from crossray.errors import UserError
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import PredictionFile
from crossray.generation.generator import Generator
from crossray.models.base import Encoded, ReportModel, Step
from crossray.models.baseline import Baseline
from crossray.training.config import Recipe, RewardConfig
from crossray.training.reward import RewardFunction, RewardObjective, log_policy, policy_loss
from crossray.training.run import resume, train

WORDS, ROOM = 5, 3  # pad, bos, eos and two words; reports of at most three tokens
IDS = SpecialIds(pad=0, bos=1, eos=2)


class Bigrams(ReportModel):
    """The next word depends on the last one and on the study: few parameters, and every report can be listed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(WORDS, WORDS))

    def encode(self, inputs: Any, guide: Any = None) -> Encoded:
        raise NotImplementedError

    def start(self, encoded: Encoded, beams: int = 1) -> Any:
        raise NotImplementedError

    def step(self, tokens: Tensor, encoded: Encoded, cache: Any = None, *, need_attention: bool = False) -> Step:
        return Step(self.table[tokens] + encoded.memory[:, :1])


def all_reports() -> Samples:
    """Every report that can be written, as samples of one study."""
    reports: list[list[int]] = []
    for length in range(1, ROOM + 1):
        reports += [[*words, IDS.eos] for words in itertools.product((3, 4), repeat=length - 1)]
    reports += [list(words) for words in itertools.product((3, 4), repeat=ROOM)]
    tokens = torch.tensor([row + [0] * (ROOM - len(row)) for row in reports])
    length = torch.tensor([len(row) for row in reports])
    return Samples(tokens[None], length[None], torch.zeros(1, *tokens.shape))


def likelihoods(model: Bigrams, encoded: Encoded, samples: Samples, config: DecodingConfig) -> Tensor:
    policy, valid = log_policy(model, encoded, samples, IDS, config)
    chosen = policy.gather(3, samples.tokens[..., None]).squeeze(3)
    return torch.where(valid, chosen, 0.0).sum(2)[0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("baseline", ["group", "greedy"])
def test_the_gradient_is_that_of_the_expected_reward(baseline: Any, temperature: float) -> None:
    """The mean of the estimator over all pairs of samples, by their probability, against the derivative of the sum."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(1)
        model, samples = Bigrams(), all_reports()
        encoded = Encoded(torch.randn(1, 1, WORDS), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, 1))
        config = DecodingConfig(method="sample", max_length=ROOM, temperature=temperature)
        rewards = torch.randn(samples.tokens.shape[1])
        log_p = likelihoods(model, encoded, samples, config)
        assert float(log_p.exp().sum()) == pytest.approx(1)
        (exact,) = torch.autograd.grad((log_p.exp() * rewards).sum(), model.table)

        objective = RewardObjective(None, RewardConfig(samples=2, baseline=baseline), config)  # type: ignore[arg-type]
        greedy = rewards[:1] if baseline == "greedy" else None
        log_p = likelihoods(model, encoded, samples, config)
        expected = torch.zeros(())
        for one, other in itertools.product(range(len(rewards)), repeat=2):
            pair = torch.tensor([[one, other]])
            advantages = objective._advantages(rewards[pair], greedy)
            expected = expected + log_p[pair].sum().exp().detach() * policy_loss(log_p[pair], advantages)
        (estimated,) = torch.autograd.grad(expected, model.table)
        torch.testing.assert_close(-estimated, exact, rtol=1e-5, atol=1e-6)  # the policy is float32
        assert exact.abs().max() > 1e-3
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def recipe(tiny: Callable[..., Recipe]) -> Recipe:
    stages = [{"epochs": 6}, {"epochs": 3, "objective": "reward", "loss_weights": {"kl": 0.05}}]
    return tiny(
        stages=stages, trainer__max_epochs=0, trainer__monitor="cider", trainer__checkpoint_steps=2,
        optimizer__learning_rate=3e-3, decoding__max_length=16, trainer__threads=1, reward__samples=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(recipe: Recipe, blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reward") / "run"
    train(recipe, blobs, out)
    return out


def test_rewards_are_what_the_evaluation_computes(run: Path, blobs: Path, tmp_path: Path) -> None:
    Generator.from_pretrained(run).generate_dataset(blobs, "val", tmp_path / "val.jsonl")
    file = PredictionFile.load(tmp_path / "val.jsonl")
    references = file.references("r2gen")
    function = RewardFunction(references, RewardConfig(cider=1, cider_limit=10, clinical=2, length=0, repetition=0))
    rewards = function(file.hypotheses(), references)
    scores = evaluate(file, dataset=blobs, meteor="no", resamples=2).protocols["r2gen"].result.scores
    assert rewards["cider"].mean() == pytest.approx(scores["cider"].value)
    assert rewards["clinical"].mean() == pytest.approx(scores["ce_f1"].value)
    assert rewards["total"] == pytest.approx(rewards["cider"] + 2 * rewards["clinical"])
    assert rewards["cider"].mean() > 0


def test_a_template_that_fits_word_for_word_earns_no_more_than_the_limit() -> None:
    truth = ["no free air beneath the diaphragm .", "the heart is large ."]
    documents = ["the lungs are clear ."] * 8 + truth
    rewards = {
        limit: RewardFunction(documents, RewardConfig(cider=1, cider_limit=limit, clinical=0))(truth, truth)
        for limit in (1.0, 10.0)
    }
    assert rewards[1.0]["cider"] == pytest.approx([10, 10]) and rewards[10.0]["total"] == pytest.approx([10, 10])
    assert rewards[1.0]["total"] == pytest.approx([1, 1])


def test_a_rare_finding_earns_more_than_a_frequent_one() -> None:
    documents = ["the heart is enlarged ."] * 8 + ["there is a pneumothorax ."]
    truth = ["the heart is enlarged . there is a pneumothorax ."] * 2
    written = ["the heart is enlarged .", "there is a pneumothorax ."]
    plain, rare = (
        RewardFunction(documents, RewardConfig(rarity=power))(written, truth)["clinical"] for power in (0.0, 1.0)
    )
    assert plain[0] == plain[1]
    weights = 1 / 9, 1 / 2  # of 8 and of 1 report
    assert rare == pytest.approx([2 * weight / (weight + sum(weights)) for weight in weights])


def test_guards_count_against_a_report() -> None:
    truth = "the heart is normal . no opacity is seen ."
    function = RewardFunction([truth, "a b c d e"], RewardConfig(cider=0, clinical=0, length=1, repetition=1))
    hypotheses = [truth, truth + " " + truth, "the heart", "the heart is normal . the heart is normal ."]
    found = function(hypotheses, [truth] * 4)
    assert found["total"][0] == 0
    assert found["length"][1] == pytest.approx(np.log(2 / 1.25)) and found["repetition"][1] == pytest.approx(7 / 17)
    assert found["length"][2] == pytest.approx(np.log(10 / 2 / 1.25)) and found["repetition"][2] == 0
    assert found["repetition"][3] == pytest.approx(2 / 7)
    assert found["total"] == pytest.approx(-(found["length"] + found["repetition"]))


def test_a_run_with_a_reward_stage(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rewarded = [row for row in rows if row["split"] == "train" and row["stage"] == 1]
    assert len(rewarded) == 15
    names = {"loss_reward", "loss_kl", "loss_language", "reward_total", "reward_cider", "reward_clinical"}
    assert all(names <= row.keys() for row in rewarded)
    # the first pass has moved the batch statistics, no more
    assert rewarded[0]["loss_kl"] < 1e-4 < rewarded[-1]["loss_kl"]
    ReportModel.from_pretrained(run / "best")  # the reference stays with the training


def test_a_reward_stage_continues_bit_for_bit(
    recipe: Recipe, run: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 38, die)
        train(recipe, blobs, tmp_path / "run")
    resume(tmp_path / "run")
    assert_same_run(run, tmp_path / "run")


def test_rewards_are_learned(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    """A reward for short reports, against nothing: reports become shorter."""
    stages = [{"epochs": 20, "objective": "reward", "loss_weights": {"language": 0.0}}]
    recipe = tiny(stages=stages, trainer__max_epochs=0, trainer__monitor="bleu1", trainer__validate_every=20,
                  optimizer__learning_rate=1e-2, reward__samples=8, reward__cider=0.0, reward__clinical=0.0,
                  reward__length=1.0, reward__repetition=0.0)  # fmt: skip
    train(recipe, blobs, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward_total"] for row in rows if row["split"] == "train"]
    assert np.mean(rewards[-10:]) > np.mean(rewards[:10]) / 2  # a penalty, halved
    assert np.mean(rewards[:10]) < 0


def test_supervision_is_learned_by_every_kind_of_system(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    stages = [{"epochs": 12, "loss_weights": {"supervision": 1.0}}]
    recipe = tiny(stages=stages, trainer__max_epochs=0, trainer__validate_every=12, optimizer__learning_rate=3e-3)
    train(recipe, blobs, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss_supervision"] for row in rows if row["split"] == "train"]
    assert np.median(losses[-10:]) < 0.7 * np.median(losses[:10])  # one batch says little
    assert "loss_supervision" in rows[-1]
    ReportModel.from_pretrained(tmp_path / "run" / "best")
    assert Dataset.open(blobs).labels is not None


def test_a_supervised_batch_is_encoded_once(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    plain = Baseline.encode
    monkeypatch.setattr(Baseline, "encode", lambda self, *given: calls.append(self.training) or plain(self, *given))
    recipe = tiny(stages=[{"epochs": 1, "loss_weights": {"supervision": 1.0}}], trainer__max_epochs=0)
    train(recipe, blobs, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert calls.count(True) == rows[-1]["step"]


def test_what_cannot_be_rewarded_is_refused(tiny: Any) -> None:
    with pytest.raises(UserError, match="vision generates no reports"):
        tiny("vision/phantom", stages=[{"objective": "reward"}])
    with pytest.raises(UserError, match=r"reward\.samples"):
        RewardConfig(samples=1)
    with pytest.raises(UserError, match="has no loss 'kl' in this stage"):
        tiny(stages=[{"loss_weights": {"kl": 1.0}}])
