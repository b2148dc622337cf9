"""Another package adds a system, a source, a metric, a labeler and a backbone; nothing here names them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crossray.errors import UserError
from crossray.registry import Registry

PACKAGE = Path(__file__).with_name("package")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package is built and installed, as pip does it anywhere."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(PACKAGE)], check=True
    )
    return folder


@pytest.fixture(scope="module")
def crossray(site: Path, tmp_path_factory: pytest.TempPathFactory):
    """Run commands one after the other in one process that finds the package; return what they print."""
    folder = tmp_path_factory.mktemp("work")

    def run(*commands: str) -> str:
        script = "import sys; from crossray.cli import main\nfor line in sys.argv[1:]: main(line.split())"
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", script, *commands], capture_output=True, text=True, cwd=folder, timeout=500,
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder = folder
    return run


@pytest.mark.slow
def test_every_command_knows_what_the_package_adds(crossray) -> None:
    shown = crossray(
        "prepare squares --studies 40 --size 64 --workers 0 --out data",
        "train example/squares --data data --out run",
        "generate --model run --data data --split test --out predictions.jsonl",
        "evaluate predictions.jsonl --labeler bright --meteor no --resamples 50",
        "models",
    )
    assert "squares, short side 64 px" in shown
    assert re.search(r"│ example +│.*│ squares +│ Image tokens times a factor", shown), shown[-3000:]
    assert "Last word" in shown
    assert "labeler bright 3" in shown

    best = crossray.folder / "run" / "best"
    saved = json.loads((best / "config.json").read_text())
    assert (saved["system"], saved["config"]["gain"]) == ("example", 2.0)
    assert saved["config"]["backbone"]["architecture"] == {"model_type": "pixels", "channels": 16}
    validated = [json.loads(line) for line in (crossray.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("last_word" in row for row in validated)  # what the recipe selects by

    scores = json.loads((crossray.folder / "predictions.scores.json").read_text())
    assert scores["implementations"] == {"last_word": "crossray-example 0.1"}
    result = scores["protocols"]["full"]["result"]
    written = [json.loads(line) for line in (crossray.folder / "predictions.jsonl").read_text().splitlines()][1:]
    true = [row["prediction"].split()[-2] == row["references"]["full"].split()[-2] for row in written]
    assert result["scores"]["last_word"]["value"] == pytest.approx(sum(true) / len(true))
    assert result["scores"]["last_word"]["low"] <= result["scores"]["last_word"]["value"]
    assert "last_word" in scores["protocols"]["full"]["shuffle"]["scores"]
    # to that labeler every report that says "left" states an opacity, and what is right of the one is of the other
    assert result["scores"]["ce_micro_f1"]["value"] == pytest.approx(sum(true) / len(true))


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left out of lists with a warning, and whoever asks for it learns why."""
    information = tmp_path / "broken-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (information / "entry_points.txt").write_text(
        "[crossray.things]\nsick = broken_thing\nsilent = empty_thing\ngood = good_thing\n"
    )
    (tmp_path / "broken_thing.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "empty_thing.py").write_text("")
    (tmp_path / "good_thing.py").write_text("from tests.test_package import THINGS\nTHINGS.add('good', dict)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"thing 'sick' of the package broken cannot be .*nowhere_to_be_found"):
        THINGS.get("sick")
    with pytest.raises(UserError, match="empty_thing registers no thing of that name"):
        THINGS.get("silent")
    with pytest.warns(UserWarning, match="uninstall that package|correct its entry point"):
        assert THINGS.names() == ["good"]
    assert THINGS.get("good") is dict
    assert THINGS.implementation("good") == "broken 1"
    with pytest.raises(UserError, match="thing 'none' does not exist; look"):
        THINGS.get("none")


def test_two_of_one_name_are_refused() -> None:
    things: Registry[type] = Registry("thing", "crossray.nothing", [], "look")
    things.add("one", dict)
    things.add("one", list)  # of the same module: a notebook that runs a cell again
    with pytest.raises(UserError, match=r"thing 'one': builtins and pathlib.* both define it"):
        things.add("one", Path)


THINGS: Registry[type] = Registry("thing", "crossray.things", [], "look")
