"""The code blocks of README and docs, executed beside one small drawn dataset and one small model of random weights.

Python blocks run, a page's in one namespace, unless the line before the block is `<!-- not run: REASON -->`. Commands
run when `RUN` has them and the files that they name are in the workplace. Those of `NOT_RUN` are parsed with every
option by tests/test_the_way.py, as all others are, and what they do has tests of its own.
"""

import itertools
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.models.tiny import tiny

from crossray import cli
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.decoding.config import DecodingConfig
from crossray.decoding.settings import GenerationSettings
from crossray.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]

#: Commands that run, and the options that keep them small.
RUN = {
    "generate": ["--decoding.max-length", "12"],
    "evaluate": ["--meteor", "no", "--resamples", "20"],
    "compare": ["--meteor", "no", "--resamples", "20"],
    "scorecard": [],
    "explain": [],
    "inspect": [],
    "label": [],
    "export": [],
    "models": [],
}

#: Commands that do not, and why.
NOT_RUN = {
    "train": "trains for minutes to days",
    "pretrain": "trains for minutes to days",
    "ablate": "trains for hours",
    "demo": "trains for minutes; runs in tests/test_demo.py",
    "reconstruct": "needs a trained image tokenizer",
    "index": "needs a trained retrieving model",
    "analyze": "needs trained models",
    "calibrate": "needs a trained model; runs in tests/confidence",
    "convert": "needs published weights",
    "keys": "writes a file of keys; runs in tests/serving",
    "serve": "runs until it is stopped; tests/serving",
    "prepare": "reads archives that are not distributed, or draws hundreds of studies",
}


#: Lines that have run: a command that two pages show runs once.
DONE: set[str] = set()


def pages() -> list[Path]:
    """Pages that people write; those of `tutorials` run by `make notebooks`."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    generated = ("docs/_build/", "docs/tutorials/", "docs/reference/api/", "docs/reference/recipes/")
    return [page for page in found if not page.relative_to(ROOT).as_posix().startswith(generated)]


def python_blocks(text: str) -> list[tuple[str, str | None]]:
    """Code, and the reason why it is not run."""
    pattern = r"(?:<!-- not run: (.+?) -->\n+)?^```python\n(.*?)^```"
    return [(code, reason or None) for reason, code in re.findall(pattern, text, re.DOTALL | re.MULTILINE)]


def shell_lines(text: str) -> list[str]:
    """`crossray ...` lines of fenced and of indented blocks, in their order."""
    lines = re.findall(r"^(?:\s{4,}|\$ |)(crossray [a-z].*?)(?:\s+#.*)?$", text.replace("\\\n", " "), re.MULTILINE)
    return [line for line in lines if not re.search(r"\b[A-Z]{3,}\b|<", line.replace("AND", ""))]


PYTHON = [page for page in pages() if python_blocks(page.read_text(encoding="utf-8"))]
SHELL = [page for page in pages() if shell_lines(page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/phantom, runs/a, images, and predictions, by the names that the pages use."""
    folder = tmp_path_factory.mktemp("pages")
    cli.main(["prepare", "phantom", "--out", str(folder / "data/phantom"), "--studies", "40", "--size", "64",
              "--workers", "0"])  # fmt: skip
    dataset = Dataset.open(folder / "data/phantom")
    tokenizer = Tokenizer.train(dataset.reports(dataset.rows("train")), min_count=1)
    model = tiny("baseline", vocabulary_size=tokenizer.vocabulary_size)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=32, resize=40)
    model.save_pretrained(folder / "runs/a")
    GenerationSettings(DecodingConfig(method="greedy", max_length=12), "findings", 2).save(folder / "runs/a")
    for name, index in (("frontal.png", 0), ("lateral.png", 1), ("other.jpg", 2)):
        Image.fromarray(np.asarray(dataset.image(index))).save(folder / name)
    (folder / "list.csv").write_text('study_id,images\n1,"frontal.png,lateral.png"\n', encoding="utf-8")
    (folder / "reports.csv").write_text("study_id,report\n1,The heart is enlarged.\n", encoding="utf-8")
    predictions = folder / "predictions.jsonl"
    cli.main(["generate", "--model", str(folder / "runs/a"), "--data", str(folder / "data/phantom"), "--split", "test",
              "--out", str(predictions)])  # fmt: skip
    for name in ("a.jsonl", "b.jsonl", "answers.jsonl", "runs/a/predictions.jsonl"):
        shutil.copy(predictions, folder / name)
    return folder


def _named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PYTHON, ids=_named)
def test_python_blocks_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    names: dict[str, Any] = {}
    for code, reason in python_blocks(page.read_text(encoding="utf-8")):
        if reason is None:
            exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page.name == "README.md" else [pytest.mark.slow], id=_named(page))
        for page in SHELL
    ],
)
def test_commands_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    for line in shell_lines(page.read_text(encoding="utf-8")):
        _, command, *rest = shlex.split(line)
        if command not in RUN:
            assert command in NOT_RUN, f"{command}: run it, or say why not"
            continue
        again = "--out predictions.jsonl" in line  # another page may have written others since
        if (again or line not in DONE) and _inputs_are_there(rest):
            _discard_outputs(rest)
            cli.main([command, *rest, *([] if set(RUN[command]) & set(rest) else RUN[command])])
            DONE.add(line)


def _inputs_are_there(words: list[str]) -> bool:
    paths, output = [], False
    for word in words:
        if not output and re.search(r"[\w-]/[\w-]|\.(?:jsonl?|csv|png|jpe?g|dcm|txt|html|md)\b", word):
            paths += word.split(",")
        output = word in ("--out", "--markdown", "--evidence")
    return all(Path(path).exists() for path in paths)


def _discard_outputs(words: list[str]) -> None:
    for option, value in itertools.pairwise(words):
        if option == "--out" and Path(value).is_file() and Path(value).name not in ("predictions.jsonl", "a.jsonl"):
            Path(value).unlink()
