"""The command line as a user meets it: help, exit codes, and mistakes said in one sentence."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from crossray import __version__, cli
from crossray.training.recipe import load, parse

COMMANDS = [
    [], ["prepare"], ["prepare", "phantom"], ["prepare", "r2gen"], ["prepare", "iu-xray"], ["prepare", "manifest"],
    ["inspect"], ["train"], ["pretrain"], ["generate"], ["evaluate"],
    ["compare"], ["convert"], ["convert", "chexbert"], ["models"], ["ablate"], ["scorecard"], ["label"], ["export"],
    ["reconstruct"], ["demo"], ["analyze"], ["analyze", "alignment"], ["analyze", "grounding"],
    ["analyze", "long-tail"], ["analyze", "retrieval"], ["index"], ["index", "build"], ["index", "query"], ["explain"],
    ["serve"], ["keys"],
]  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "crossray", *arguments], capture_output=True, text=True, timeout=120)


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a wrong command; return the one line that it must end in."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert captured.out == ""
    assert captured.err.startswith("crossray")
    assert captured.err.count("\n") == 1, captured.err
    assert "Traceback" not in captured.err
    return captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "common"),
    [
        (["a.jsonl", "b.jsonl"], False), (["a.jsonl", "b.jsonl", "--common"], True),
        (["--common", "a.jsonl", "b.jsonl"], True), (["--common", "--seed", "1", "a.jsonl", "b.jsonl"], True),
        (["--common", "false", "a.jsonl", "b.jsonl"], False), (["--common=true", "a.jsonl", "b.jsonl"], True),
    ],
)  # fmt: skip
def test_a_switch_needs_no_value(typed: list[str], common: bool) -> None:
    parsed = cli._build().parse_args(cli._spelled_out(["compare", *typed]))
    assert parsed.compare.common is common
    assert [str(path) for path in parsed.compare.predictions] == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_is_explained(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        cli.main([*command, "--help"])
    except SystemExit as stop:
        assert stop.code == 0
    text = capsys.readouterr().out
    assert "--help" in text
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("  --") and not line.startswith("  --help."):
            explanation = line.split("  ")[2:] or lines[number + 1 : number + 2]
            words = " ".join(explanation).strip()
            assert words, line
            assert not words.startswith("("), f"only a type, no explanation: {line}"


def test_options_take_dashes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """They are parsed like their names with underscores: what fails is the value."""
    options = ("x.png", "--model", "m", "--out", str(tmp_path / "o-o.jsonl"))
    for spelling in ("--batch-size=a-b", "--batch_size=a-b"):
        message = mistake(capsys, "generate", *options, spelling)
        assert "--batch-size is 'a-b'; give a whole number" in message


def test_recipe_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["train", "baseline/phantom", "--help"])
    text = capsys.readouterr().out
    for field in (
        "--model.layers",
        "--data.batch-size",
        "--optimizer.learning-rate",
        "--trainer.max-epochs",
        "--stages",
    ):
        assert field in text


@pytest.mark.parametrize("words", [["train", "baseline/phantom"], ["pretrain", "tokenizer", "iu_xray"]], ids=" ".join)
def test_recipe_help_shows_the_command_as_typed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([*words, "--help"])
    assert f"usage: crossray {' '.join(words)} [--model" in capsys.readouterr().out


def test_a_phrase_in_help_has_no_period(capsys: pytest.CaptureFixture[str]) -> None:
    """An equation's number does not begin a second sentence."""
    cli.main(["train", "rcan/phantom", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "as in the code; eq. 5 has none (default: true)" in text
    assert "of a good report. (default: 1.0)" in text


def test_defaults_in_help_can_be_given_as_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists, groups and stages are JSON; an empty text or list is not shown."""
    cli.main(["pretrain", "tokenizer", "phantom", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    groups = re.search(r"longest matching prefix applies \(default: (.+?)\)", text)
    stages = re.search(r"monitor, mode \(default: (.+?)\)", text)
    betas = re.search(r"moving averages \(default: (.+?)\)", text)
    assert groups and stages and betas
    assert json.loads(groups[1])
    recipe = load("tokenizer/phantom")
    given = ["--optimizer.groups", groups[1], "--stages", stages[1], "--optimizer.betas", betas[1]]
    assert parse("tokenizer/phantom", given) == recipe
    assert "(default: )" not in text


@pytest.mark.parametrize("spelling", ["--data.batch-size", "--data.batch_size"])
def test_recipe_options_take_hyphens_and_underscores(spelling: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = mistake(capsys, "train", "baseline/phantom", "--data", "d", "--out", "o", spelling, "many")
    assert "batch_size" in message and "many" in message and "unrecognized" not in message.lower()


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv=['crossray','--help']\n"
        "from crossray.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy=[m for m in ('torch','lightning','transformers','pyarrow') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prepare", "phantom"], ["--out", "out"]),
        (["prepare", "phantom", "--out", "x", "--studies", "three"], ["studies", "three"]),
        (["prepare", "phantom", "--out", "x", "--colour", "red"], ["--colour"]),
        (["prepare", "phantom", "--out", "x", "--like", "a.json"], ["--tags"]),
        (["prepare", "r2gen", "--annotation", "no.json", "--images", ".", "--out", "x"], ["no.json"]),
        (["prepare", "iu-xray", "--reports", "no.tgz", "--images", ".", "--out", "x"], ["no.tgz"]),
        (["prepare", "iu-xray", "--reports", ".", "--images", ".", "--out", "x", "--split", "mine"], ["--split"]),
        (["prepare", "manifest"], ["--out", "--template"]),
        (["prepare", "manifest", "no.csv", "--out", "x"], ["no.csv"]),
        (["inspect", "no-dataset"], ["no-dataset"]),
        (["train"], ["recipe"]),
        (["train", "baseline/phantom"], ["--data", "--out"]),
        (["train", "baseline/nowhere", "--data", "d", "--out", "o"], ["baseline/nowhere"]),
        (["train", "baseline/phantom", "--data", "d", "--out", "o", "--model.colour", "1"], ["model.colour"]),
        (["train", "baseline/phantom", "--data", "no-dataset", "--out", "o"], ["no-dataset"]),
        (["train", "--resume", "no-run"], ["no-run"]),
        (["generate", "--model", "a", "x.png", "--model", "b"], ["--model is given 2 times"]),
        (["generate", "--model", "a", "x.png", "--decoding.seed", "1", "--decoding.seed=2"], ["--decoding.seed"]),
        (["generate", "--model", "a", "x.png", "--split", "val"], ["--split needs --data"]),
        (["ablate", "runs/nix"], ["neither a recipe nor the folder of an ablation"]),
        (["train", "--resume", "run", "--out", "d"], ["--resume"]),
        (["pretrain", "baseline/phantom", "--data", "d", "--out", "o"], ["use `crossray train baseline/phantom`"]),
        (["pretrain", "vision/phantom", "iu_xray", "--data", "d", "--out", "o"], ["leave out 'iu_xray'"]),
        (["evaluate", "x.jsonl", "--published", "iu_xray"], ["--published is 'iu_xray'", "did you mean 'iu-xray'?"]),
        (["generate", "--model", "m", "--out", "o"], ["--data"]),
        (["generate", "--model", "no-model", "--out", "o", "a.png"], ["no-model"]),
        (["evaluate", "no-predictions.jsonl"], ["no-predictions.jsonl"]),
        (["scorecard", "no-predictions.jsonl", "--out", "page.html"], ["no-predictions.jsonl"]),
        (["scorecard", "a.jsonl", "--out", "page.html", "--studies", "-1"], ["--studies"]),
        (["label", "no-reports.csv", "--out", "labels.csv"], ["no-reports.csv"]),
        (["fly"], ["fly"]),
        (["tran"], ["did you mean 'train'?"]),
        (["prepare", "phanton", "--out", "x"], ["did you mean 'phantom'?"]),
        (["prepare", "phantom", "--out", "x", "--studis", "3"], ["--studis", "did you mean '--studies'?"]),
        (["evaluate", "x.jsonl", "--meteor", "yess"], ["--meteor is 'yess'", "auto, yes, no", "did you mean 'yes'?"]),
        (["evaluate"], ["required: predictions;"]),
        (["train", "baselin/phantom", "--data", "d", "--out", "o"], ["did you mean 'baseline/phantom'?"]),
        (
            ["train", "baseline/phantom", "--data", "d", "--out", "o", "--trainer.precision", "bf61"],
            ["trainer.precision is 'bf61'", "32, bf16", "did you mean 'bf16'?"],
        ),
        (
            ["train", "baseline/phantom", "--data", "d", "--out", "o", "--decoding.method", "bem"],
            ["decoding.method is 'bem'", "beam, greedy, sample, mbr", "did you mean 'beam'?"],
        ),
        (
            ["train", "baseline/phantom", "--data", "d", "--out", "o", "--model.backbone.nme", "x"],
            ["did you mean '--model.backbone.name'?"],
        ),
        (
            ["train", "baseline/phantom", "--data", "d", "--out", "o", "--trainer.mode", "min"],
            ["'trainer.mode' is min"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    line = mistake(capsys, *arguments)
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []  # nothing half-written stays


def test_an_old_name_works_and_says_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["report", "no-predictions.jsonl", "--out", "page.html"])
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("crossray: report is now called scorecard")
    assert "no-predictions.jsonl" in second


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "keys.json")
    cli.main(["keys", "--keys", path, "--name", "reader", "--scopes", "report", "admin"])
    key = capsys.readouterr().out.strip()
    number = key.split("_")[1]
    cli.main(["keys", "--keys", path])
    listed = capsys.readouterr().out
    assert f"{number}  reader  report,admin" in listed
    assert key.split("_", 2)[2] not in listed
    cli.main(["keys", "--keys", path, "--revoke", number])
    cli.main(["keys", "--keys", path])
    assert number not in capsys.readouterr().out.replace(f"{number} is revoked", "")


def test_mistakes_of_serve(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "--keys" in mistake(capsys, "serve", "--model", "x", "--host", "0.0.0.0")
    assert "on --host ::;" in mistake(capsys, "serve", "--model", "x", "--host", "::")
    assert "--model" in mistake(capsys, "serve", "--model", "a=x", "--model", "a=y")
    assert "--in-flight" in mistake(capsys, "serve", "--model", "x", "--in-flight", "0")
    assert "no config.json" in mistake(capsys, "serve", "--model", str(tmp_path), "--store", "sqlite://")
    assert "there is no such file" in mistake(capsys, "keys", "--keys", str(tmp_path / "none.json"))


@pytest.mark.parametrize("option", ["references", "benchmark", "studies"])
def test_an_export_replaces_none_of_its_inputs(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, other = tmp_path / "predictions.jsonl", tmp_path / "other.jsonl"
    predictions.write_text("{}\n")
    other.write_text("kept")
    with pytest.raises(SystemExit) as caught:
        cli.main(["export", str(predictions), "--format", "jsonl", f"--{option}", str(other), "--out", str(other)])
    assert caught.value.code == 2 and "--out" in capsys.readouterr().err
    assert other.read_text() == "kept"


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "{long}"],
        ["label", "reports.csv", "--out", "{long}"],
        ["train", "--resume", "{long}"],
        ["generate", "--model", "{long}", "a.png"],
        ["evaluate", "predictions.jsonl", "--labeler", "{long}"],
    ],
)
def test_a_name_that_no_disk_takes(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = str(tmp_path / ("x" * 300))
    assert "File name too long; give a shorter name" in mistake(capsys, *(a.format(long=long) for a in arguments))


def test_a_folder_of_somebody_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Even `Path.exists` raises an error there, so that any line of any command may."""
    for code, remedy in ((errno.EACCES, "change its permissions"), (errno.ENOSPC, "free some space")):
        error = OSError(code, os.strerror(code), "data")
        monkeypatch.setattr("crossray.cli._run", Mock(side_effect=error))
        assert f"data: {os.strerror(code)}; {remedy}" in mistake(capsys, "models")
    monkeypatch.setattr("crossray.cli._run", Mock(side_effect=OSError(errno.EBADF, "a fault of the program")))
    with pytest.raises(OSError, match="fault of the program"):
        cli.main(["models"])


def test_ctrl_c_says_something(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crossray.cli._run", interrupt)
    with pytest.raises(SystemExit) as caught:
        cli.main(["models"])
    assert caught.value.code == 130 and capsys.readouterr().err == "crossray: interrupted.\n"
