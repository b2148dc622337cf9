"""The long tail on a hand-made case: the oracle counts by hand, the labeler reads one word an observation."""

from pathlib import Path

import pytest

from crossray import cli
from crossray.analysis.long_tail import PARTS, long_tail
from crossray.errors import UserError
from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance, write_predictions
from crossray.pages.long_tail_page import grids, write_page

#: One sentence an observation; the true reports hold them 4, 3, 2 and 1 times.
SAID = {
    "pleural_effusion": "there is a pleural effusion .",
    "edema": "there is pulmonary edema .",
    "fracture": "there is a rib fracture .",
    "pneumothorax": "there is a pneumothorax .",
}
TRUE = [
    ("pleural_effusion", "edema", "fracture", "pneumothorax"),
    ("pleural_effusion", "edema", "fracture"),
    ("pleural_effusion", "edema"),
    ("pleural_effusion",),
]
#: Finds what is frequent, calls one pneumothorax where there is none.
FREQUENT = [("pleural_effusion", "edema"), ("pleural_effusion", "edema"), ("pleural_effusion",), ("pneumothorax",)]


def text(observations: tuple[str, ...]) -> str:
    return " ".join(SAID[name] for name in observations)


def file(path: Path, written: list[tuple[str, ...]], true: list[tuple[str, ...]] | None = None) -> Path:
    rows = [
        Prediction(id=str(number), prediction=text(ours), references={"full": text(theirs)})
        for number, (ours, theirs) in enumerate(zip(written, true or TRUE, strict=True))
    ]
    write_predictions(path, Provenance(model=path.stem), rows)
    return path


def test_hand_made_case(tmp_path: Path) -> None:
    paths = [file(tmp_path / "frequent.jsonl", FREQUENT), file(tmp_path / "perfect.jsonl", TRUE)]
    found = long_tail([[PredictionFile.load(path)] for path in paths], resamples=50)
    assert found.support == {"edema": 3, "fracture": 2, "pleural_effusion": 4, "pneumothorax": 1}
    assert found.parts == {
        "head": ("pleural_effusion", "edema"), "middle": ("fracture",), "tail": ("pneumothorax",)
    }  # fmt: skip
    scores = {name: score.value for name, score in found.scores["frequent"].items()}
    effusion, edema = 2 * 3 / (3 + 4), 2 * 2 / (2 + 3)
    assert scores == pytest.approx(
        {
            "pleural_effusion": effusion, "edema": edema, "fracture": 0, "pneumothorax": 0,
            "head": (effusion + edema) / 2, "middle": 0, "tail": 0,
        }
    )  # fmt: skip
    assert {score.value for score in found.scores["perfect"].values()} == {1.0}
    assert list(found.differences) == ["perfect"]
    assert found.differences["perfect"]["tail"].value == 1
    assert found.differences["perfect"]["head"].value == pytest.approx(1 - (effusion + edema) / 2)
    means, single, intervals, differences = grids(found)
    assert means.header == ["", "head (2)", "middle (1)", "tail (1)"]
    assert [line[0] for line in means.lines] == [*found.scores, f"perfect minus {next(iter(found.scores))}"]
    assert all(cell.startswith("1.000 [") for cell in means.lines[1][1:])
    assert means.lines[2][3].startswith("+1.000 [")
    perfect = [found.scores["perfect"][name] for names in found.parts.values() for name in names]
    assert [line[2] for line in intervals.lines] == [f"{score.low:.3f}-{score.high:.3f}" for score in perfect]
    assert differences.header == ["", "perfect"] and differences.lines[3][1].startswith("+1.000 [")
    assert [line[:3] for line in single.lines] == [
        ["Pleural effusion", "head", "4"], ["Edema", "head", "3"], ["Fracture", "middle", "2"],
        ["Pneumothorax", "tail", "1"],
    ]  # fmt: skip


def test_command_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [file(tmp_path / "frequent.jsonl", FREQUENT), file(tmp_path / "perfect.jsonl", TRUE)]
    out = tmp_path / "tail.html"
    cli.main(["analyze", "long-tail", *map(str, paths), "--resamples", "20", "--out", str(out)])
    printed = capsys.readouterr().out
    assert all(part in printed for part in PARTS)
    page = out.read_text()
    # a bar of each system for every observation and part
    assert page.count('class="whisker"') == 2 * (len(SAID) + len(PARTS))
    assert "in 4 of 4" in page and "Tail" in page


def test_runs_of_one_system_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for row, runs in (("with", (FREQUENT, TRUE)), ("without", (FREQUENT, FREQUENT))):
        for seed, written in enumerate(runs):
            folder = tmp_path / row / f"seed-{seed}"
            folder.mkdir(parents=True)
            paths.append(file(folder / "predictions.jsonl", written))
    one, two, three, four = map(PredictionFile.load, paths)
    found = long_tail([[one, two], [three, four]], resamples=20)
    assert list(found.scores) == ["with", "without"]
    alone = {name: long_tail([[run]], resamples=20).scores for name, run in (("one", one), ("two", two))}
    for key, score in found.scores["with"].items():
        first, second = (next(iter(scores.values()))[key].value for scores in alone.values())
        assert score.value == pytest.approx((first + second) / 2)
        assert found.deviations["with"][key] == pytest.approx(abs(first - second) / 2**0.5)
        assert found.deviations["without"][key] == 0
    assert found.differences["without"]["tail"].value == pytest.approx(-0.5)
    cli.main(["analyze", "long-tail", f"{paths[0]},{paths[1]}", f"{paths[2]},{paths[3]}", "--resamples", "20"])
    assert "± 0.707" in capsys.readouterr().out
    with pytest.raises(UserError, match="given twice"):
        long_tail([[one, one]])


def test_mistakes_are_said(tmp_path: Path) -> None:
    one = PredictionFile.load(file(tmp_path / "one.jsonl", FREQUENT))
    with pytest.raises(UserError, match="needs three"):
        long_tail([[PredictionFile.load(file(tmp_path / "few.jsonl", FREQUENT, [("edema",)] * 4))]])
    with pytest.raises(UserError, match="references"):
        long_tail([[one], [PredictionFile.load(file(tmp_path / "other.jsonl", FREQUENT, TRUE[::-1]))]])
    with pytest.raises(UserError, match="cannot be written"):
        write_page(long_tail([[one]], resamples=5), tmp_path / "one.jsonl" / "page.html")


def test_languages_that_are_not_read_are_refused(tmp_path: Path) -> None:
    dutch = [Prediction(str(i), "Geen pneumothorax.", {"full": "Hart niet vergroot, geen oedeem."}) for i in range(4)]
    write_predictions(tmp_path / "dutch.jsonl", Provenance(), dutch)
    with pytest.raises(UserError, match=r"dutch\.jsonl: references: most are in a language that the labeler does not"):
        long_tail([[PredictionFile.load(tmp_path / "dutch.jsonl")]])
