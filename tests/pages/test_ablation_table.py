"""The table of an ablation: numbers against NumPy, read back from all three formats, and what it refuses to show."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.analysis.cells import Cells, markdown_cells

from crossray.ablation import comparison as ablation
from crossray.ablation.comparison import ComparedRow, Comparison
from crossray.ablation.rows import ablations
from crossray.errors import UserError
from crossray.evaluation import published
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import Prediction, Provenance, write_predictions
from crossray.pages.ablation_table import html, latex, markdown, read_table, write_table
from crossray.training.recipe import list_recipes

COMPARISON = Comparison(
    recipe="baseline/phantom", options={}, table="parts", title="Parts & pieces", published="uar/table2", split="test",
    data_sha256="0" * 64, data_source={"kind": "phantom", "synthetic_images": True}, epochs=3,
    rows=(
        ComparedRow(name="whole", folder="whole", published="base", recipe_sha256="a"),
        ComparedRow(name="50% of <x>_y", folder="half", published=None, recipe_sha256="b"),
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A file of scores as `crossray evaluate` writes it, of three made-up studies."""
    folder = tmp_path_factory.mktemp("scores")
    rows = [
        Prediction(f"study {number}", text, {"r2gen": text, "full": text})
        for number, text in enumerate(("the heart is normal .", "no effusion .", "the lungs are clear ."))
    ]
    write_predictions(folder / "predictions.jsonl", Provenance(max_length=60, tokenizer="t", split="test"), rows)
    evaluate(folder / "predictions.jsonl", meteor="no", resamples=2).save(folder / "scores.json")
    values: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return values


@pytest.fixture
def finish(tmp_path: Path, scores: dict[str, Any]) -> Callable[..., None]:
    """Makes a finished run of the ablation in tmp_path, with these scores and changes of its protocol `r2gen`."""
    ablation.claim(tmp_path, COMPARISON)

    def make(row: str, seed: int, values: dict[str, float], ignores: bool = False, **protocol: Any) -> None:
        made = json.loads(json.dumps(scores))
        for name, part in made["protocols"].items():
            some = next(iter(part["result"]["scores"].values()))
            part["result"]["scores"] = {metric: {**some, "value": value} for metric, value in values.items()}
            part["result"]["ignores_image"] = ignores
            if name == "r2gen":
                part["result"]["protocol"].update(protocol)
        path = ablation.run_folder(tmp_path, row, seed) / ablation.SCORES
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(made))

    return make


def test_mean_and_deviation_stand_beside_the_published_value(finish: Callable[..., None], tmp_path: Path) -> None:
    bleu4, cider = [0.11, 0.14, 0.125], [0.3, 0.52, 0.41]
    for seed in range(3):
        finish("whole", seed, {"bleu4": bleu4[seed], "cider": cider[seed]})
    finish("half", 7, {"bleu4": 0.2})
    whole = [f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" for values in (bleu4, cider)]
    first, second = markdown_cells(markdown(write_table(tmp_path)))
    # UAR, Table 2, row base: BLEU-4 0.144, CIDEr 0.271
    assert first == [
        ["row", "seeds", "BLEU-4", "CIDEr"],
        ["whole", "3", f"{whole[0]} | 0.144", f"{whole[1]} | 0.271"],
        ["50% of <x>_y", "1", "0.200 ± - | -", "- | -"],
    ]
    assert second == [first[0], ["whole", "3", *whole], ["50% of <x>_y", "1", "0.200 ± -", "-"]]  # protocol full

    page = Cells()
    page.feed((tmp_path / "table.html").read_text())
    assert page.tables == [first, second]
    assert page.loads == []

    printed = re.findall(r"^(.*) \\\\$", (tmp_path / "table.tex").read_text(), flags=re.MULTILINE)
    lines = [line.replace(r"$\pm$", "±").split(" & ") for line in printed]
    assert lines == [
        first[0], ["whole", "3", *whole], ["  published", "", "0.144", "0.271"],
        [r"50\% of \textless{}x\textgreater{}\_y", "1", "0.200 ± -", "-"],
        second[0], ["whole", "3", *whole], [r"50\% of \textless{}x\textgreater{}\_y", "1", "0.200 ± -", "-"],
    ]  # fmt: skip


def test_the_note_comes_before_the_first_number(finish: Callable[..., None], tmp_path: Path) -> None:
    finish("whole", 0, {"bleu4": 0.1})
    table = read_table(tmp_path)
    for words in ("drawn", "baseline/phantom", "at most 3", "test split", "validation"):
        assert words in table.note
    for text in (markdown(table), html(table)):
        assert text.index("Not comparable with published numbers") < text.index("0.100")
    assert r"\caption{Parts \& pieces" in latex(table)
    assert any("drawn" in sentence for sentence in table.parts[0].sentences)
    assert table.parts[1].sentences == ()  # nothing published has the protocol `full`


def test_runs_that_ignore_the_image_are_named(finish: Callable[..., None], tmp_path: Path) -> None:
    finish("whole", 0, {"bleu4": 0.1}, ignores=True)
    finish("whole", 1, {"bleu4": 0.1})
    assert "| whole (1 of 2 ignore the image) |" in markdown(read_table(tmp_path))


def test_protocols_are_not_mixed(finish: Callable[..., None], tmp_path: Path) -> None:
    finish("whole", 0, {"bleu4": 0.1})
    finish("half", 0, {"bleu4": 0.1}, tokenizer="another")
    with pytest.raises(UserError, match="tokenizer"):
        write_table(tmp_path)
    assert not (tmp_path / "table.md").exists()


def test_an_empty_ablation_has_a_table(tmp_path: Path) -> None:
    ablation.claim(tmp_path, COMPARISON)
    assert "no run is finished" in markdown(write_table(tmp_path))


def test_a_doubtful_published_value_is_marked(finish: Callable[..., None], tmp_path: Path) -> None:
    doubtful = next(
        (name, row, metric) for name, table in published.load_tables().items() for row in table.rows
        for metric in row.flags if metric.startswith("bleu")
    )  # fmt: skip
    name, row, metric = doubtful
    rows = (replace(COMPARISON.rows[0], published=row.name),)
    ablation.claim(tmp_path, replace(COMPARISON, published=name, rows=rows))
    finish("whole", 0, {metric: 0.1})
    assert f"0.100 ± - \\| {row.values[metric]:.3f}? |" in markdown(read_table(tmp_path))


def test_a_row_that_was_never_published_is_named(tmp_path: Path) -> None:
    ablation.claim(tmp_path, replace(COMPARISON, rows=(replace(COMPARISON.rows[0], published="nowhere"),)))
    with pytest.raises(UserError, match="nowhere"):
        read_table(tmp_path)


def test_every_published_row_of_the_recipes_exists() -> None:
    for recipe in list_recipes():
        for table in ablations(recipe).values():
            named = [row.published for row in table.rows if row.published is not None]
            assert table.published is not None or not named, (recipe, table.name)
            for row in named:
                assert published.table(table.published).row(row).values, (recipe, table.name, row)
