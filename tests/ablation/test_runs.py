"""Ablations on disk: runs that survive a kill and a failing neighbor, and folders that are not mixed up."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.analysis.cells import markdown_cells

from crossray import cli
from crossray.ablation import comparison as ablation
from crossray.ablation import runs as ablation_runs
from crossray.ablation.comparison import ComparedRow, Comparison
from crossray.ablation.rows import find_ablation
from crossray.data.store import Dataset, write_dataset
from crossray.errors import UserError
from crossray.pages.ablation_table import read_table
from crossray.phantom.source import phantom_studies
from crossray.training.config import Recipe
from crossray.training.recipe import load

RECIPE = """
system: baseline
model:
  backbone: {name: "random:resnet_tiny"}
  layers: 1
  width: 16
  heads: 2
  feedforward: 16
data:
  batch_size: 8
  min_count: 1
  image: {size: 32, resize: 36}
stages: [{epochs: 1}]
trainer: {accelerator: cpu, threads: 1, checkpoint_steps: 1, monitor: loss, mode: min}
decoding: {method: greedy, max_length: 12}
ablations:
  parts:
    title: "Parts"
    published: uar/table2
    rows:
      - {name: "whole", published: "base"}
      - {name: "no ReLU", overrides: {model.visual_relu: false}}
      - {name: "broken", overrides: {model.backbone.name: "random:nothing"}}
"""

COMPARISON = Comparison(
    recipe="baseline/phantom", options={}, table="parts", title="Parts", published=None, split="test",
    data_sha256="0" * 64, data_source={}, epochs=3,
    rows=(ComparedRow(name="whole", folder="whole", published=None, recipe_sha256="a"),),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty drawn studies of 40 pixels."""
    folder = tmp_path_factory.mktemp("phantom") / "data"
    source = {"kind": "phantom", "synthetic_images": True}
    write_dataset(folder, phantom_studies(60, 0, "easy"), size=40, source=source, workers=1)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return str(tmp_path / "tiny.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_sha256": "1" * 64}, "dataset"),
        ({"split": "val"}, "split"),
        ({"rows": (replace(COMPARISON.rows[0], recipe_sha256="c"),)}, r"recipe or options.*'whole'"),
    ],
)
def test_the_folder_of_another_ablation_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    ablation.claim(tmp_path, COMPARISON)
    before = (tmp_path / ablation.DESCRIPTION).read_bytes()
    with pytest.raises(UserError, match=message):
        ablation.claim(tmp_path, replace(COMPARISON, **change))
    assert (tmp_path / ablation.DESCRIPTION).read_bytes() == before


def test_a_row_can_be_added_later(tmp_path: Path) -> None:
    ablation.claim(tmp_path, COMPARISON)
    more = replace(
        COMPARISON, rows=(*COMPARISON.rows, ComparedRow(name="n", folder="n", published=None, recipe_sha256=""))
    )
    ablation.claim(tmp_path, more)
    assert ablation.read_comparison(tmp_path) == more


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="is not an ablation"):
        ablation.claim(tmp_path, COMPARISON)
    with pytest.raises(UserError, match=r"ablation\.json"):
        read_table(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_only_one_process_works_in_a_folder(tmp_path: Path) -> None:
    with (
        ablation_runs.locked(tmp_path),
        pytest.raises(UserError, match="another process"),
        ablation_runs.locked(tmp_path),
    ):
        pass


def test_killed_between_the_first_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """provenance.json is written before recipe.yaml, without which there is nothing to resume."""
    run = ablation_runs.Run("whole", tmp_path / "run", load("baseline/phantom"))
    run.folder.mkdir()
    (run.folder / "provenance.json").write_text("{}")
    task = ablation_runs.Task(tmp_path, "test", lambda *_: None)

    def train(recipe: Recipe, data: Path, folder: Path) -> None:
        assert (recipe, data) == (run.recipe, tmp_path) and not folder.exists()
        raise UserError("trained anew")

    monkeypatch.setattr(ablation_runs, "train", train)
    with pytest.raises(UserError, match="trained anew"):
        ablation_runs.perform(run, task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainer.seed": 3}, "--seeds"),
        ({"trainer.devices": 2}, "--jobs"),
        ({"model.colour": 3}, r"row 'whole'.*colour"),
    ],
)
def test_options_that_fit_no_ablation_are_refused(
    options: dict[str, Any], message: str, data: Path, recipe: str
) -> None:
    with pytest.raises(UserError, match=message):
        ablation.describe(find_ablation(recipe), Dataset.open(data), "test", options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cmn/phantom"], "--data and --out"),
        (["cmn/phantom", "--data", "d", "--out", "o", "--seeds", "-1"], "--seeds"),
        (["cmn/phantom", "--data", "d", "--out", "o", "--rows", "none"], "no row 'none'"),
        (["cmn/phantom", "--data", "d", "--out", "o", "--trainer.max_epoch", "3"], "max_epoch"),
        (["cmn/phantom", "--data", "d", "--out", "o", "--jobs", "0"], "--jobs"),
        (["vision/phantom", "--data", "d", "--out", "o"], "ablations"),
    ],
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["ablate", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def command(recipe: str, data: Path, out: Path, *more: str) -> list[str]:
    return ["ablate", recipe, "--data", str(data), "--out", str(out), "--meteor", "no", *more]


def steps(run: Path) -> list[int]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["split"] == "train"]


@pytest.mark.slow
def test_killed_in_the_middle_and_continued(
    recipe: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(recipe, data, tmp_path / "out", "--seeds", "0", "1", "--trainer.log_every", "1")
    arguments += ["--rows", "whole", "no ReLU"]
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from crossray.cli import main\n"
        "from crossray.training.module import TrainingModule\n"
        "plain, steps = TrainingModule.training_step, []\n"
        "def training_step(self, batch, batch_idx):\n"
        "    steps.append(batch_idx)\n"
        "    if len(steps) > 6 and batch_idx == 3:\n"  # the second run
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return plain(self, batch, batch_idx)\n"
        "TrainingModule.training_step = training_step\n"
        "main(sys.argv[1:])\n"
    )
    ended = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    table = tmp_path / "out" / "parts"
    finished = (table / "whole/seed-0/scores.json").stat().st_mtime_ns

    begun: list[str] = []
    train, resume = ablation_runs.train, ablation_runs.resume

    def spied_train(recipe: Any, data: Path, out: Path) -> Path:
        begun.append(f"train {out.relative_to(table)}")
        return train(recipe, data, out)

    def spied_resume(out: Path, data: Path) -> Path:
        begun.append(f"resume {out.relative_to(table)}")
        return resume(out, data)

    monkeypatch.setattr(ablation_runs, "train", spied_train)
    monkeypatch.setattr(ablation_runs, "resume", spied_resume)
    cli.main(arguments)
    assert begun == ["resume no-relu/seed-0", "train whole/seed-1", "train no-relu/seed-1"]
    assert (table / "whole/seed-0/scores.json").stat().st_mtime_ns == finished
    assert steps(table / "no-relu/seed-0") == steps(table / "whole/seed-0") == list(range(1, 7))
    assert "ablations" not in (table / "no-relu/seed-0/recipe.yaml").read_text()

    printed = capsys.readouterr().out
    assert "3 of 3: no ReLU, seed 1 finished" in printed
    first, second = markdown_cells((table / "table.md").read_text())
    assert [line[1] for line in first[1:]] == ["2", "2", "0"]
    results = [json.loads((table / f"whole/seed-{seed}/scores.json").read_text()) for seed in (0, 1)]
    for cells, protocol in ((first, "r2gen"), (second, "full")):
        values = [scored["protocols"][protocol]["result"]["scores"]["bleu1"]["value"] for scored in results]
        cell = cells[1][cells[0].index("BLEU-1")].split(" | ")[0]
        assert cell == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"

    begun.clear()
    cli.main(arguments)  # nothing is left to do
    cli.main(["ablate", str(tmp_path / "out")])  # render alone
    assert begun == []
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--model.width", "32"])
    assert "recipe or options" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_failing_row_does_not_stop_the_others(
    jobs: str, recipe: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(recipe, data, tmp_path / "out", "--seeds", "0", "--jobs", jobs)
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--rows", "broken", "whole"])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    sentence = captured.err.splitlines()[-1]
    assert re.search(r"1 of 2 runs failed \(broken, seed 0: backbone 'random:nothing'.*repeat the command", sentence)
    assert "broken, seed 0 FAILED" in captured.out
    assert (tmp_path / "out/parts/whole/seed-0/scores.json").exists()
    assert "| whole" in (tmp_path / "out/parts/table.md").read_text()
    cli.main([*arguments, "--rows", "whole"])


@pytest.mark.slow
def test_no_run_outlives_its_killed_parent(recipe: str, data: Path, tmp_path: Path) -> None:
    import psutil

    arguments = command(recipe, data, tmp_path / "out", "--seeds", "0", "--jobs", "2", "--rows", "whole")
    arguments += ["--stages", '[{"epochs": 10000}]']
    parent = subprocess.Popen(
        [sys.executable, "-m", "crossray", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "out/parts/whole/seed-0/last.ckpt").exists():
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        children = psutil.Process(parent.pid).children(recursive=True)
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert children
    assert alive == []
