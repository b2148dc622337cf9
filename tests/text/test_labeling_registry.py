"""Observations and languages are declared in files; a new file is all that a new observation needs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import crossray
from crossray.text.labeling.registry import languages, observations, phrases
from crossray.text.observations import CHEXPERT, OBSERVATIONS, PROMPTMRG

HERNIA = """
cancels_no_finding: true
findings:
  en: [hiatal|hiatus hernia, hernia]
  de: [hiatushernie]
"""

PROGRAM = """
import json, sys
from pathlib import Path
from crossray.data.sources.r2gen import read_r2gen
from crossray.text.observations import OBSERVATIONS, PROMPTMRG, label_report
label = lambda text: dict(zip(OBSERVATIONS, label_report(text).statuses))
studies = read_r2gen(Path(sys.argv[1]), Path(sys.argv[2]), "annotation")
print(json.dumps({
    "names": OBSERVATIONS, "seen": label("Large hiatal hernia."), "denied": label("No hernia."),
    "german": label("Gro\\u00dfe Hiatushernie. Kein Erguss."), "read": studies[0].labels, "promptmrg": PROMPTMRG,
}))
"""


def test_a_file_adds_an_observation_everywhere(tmp_path: Path) -> None:
    source = Path(crossray.__file__).parent
    shutil.copytree(source, tmp_path / "crossray", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "crossray" / "text" / "labeling" / "observations"
    (folder / "hernia.yaml").write_text(HERNIA, encoding="utf-8")
    codes = [1, *[0] * 17]  # PromptMRG's 18 codes stay readable beside 19 observations
    entry = {"id": "a", "report": "x .", "image_path": ["a.png"], "split": "train", "labels": codes}
    (tmp_path / "annotation.json").write_text(json.dumps({"train": [entry], "val": [], "test": []}))
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "annotation.json", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["names"] == [*OBSERVATIONS, "hernia"]
    assert found["promptmrg"] == list(PROMPTMRG)
    assert (found["seen"]["hernia"], found["seen"]["no_finding"]) == ("positive", "blank")
    assert (found["denied"]["hernia"], found["denied"]["no_finding"]) == ("negative", "positive")
    assert (found["german"]["hernia"], found["german"]["no_finding"]) == ("positive", "blank")
    assert found["read"]["enlarged_cardiomediastinum"] == "positive"
    assert set(found["read"]) == set(PROMPTMRG)


def test_the_order_of_the_columns() -> None:
    assert [observation.order for observation in observations()] == list(range(1, 19))
    assert CHEXPERT[0] == "enlarged_cardiomediastinum"
    assert CHEXPERT[-1] == "no_finding"
    assert PROMPTMRG == OBSERVATIONS
    assert {observation.name for observation in observations() if observation.cancels_no_finding} == set(CHEXPERT) - {
        "support_devices",
        "no_finding",
    }


@pytest.mark.parametrize("language", languages())
def test_a_language_names_the_same_things_as_english(language: str) -> None:
    content, english = phrases(language), phrases()
    assert set(content["structures"]) == set(english["structures"])
    assert set(content["qualities"]) == set(english["qualities"])
    assert set(content["cues"]) <= set(english["cues"])
    assert {name for name, entries in content["findings"].items() if entries} == {
        name for name, entries in english["findings"].items() if entries
    }
    statuses = {name: entry["status"] for name, entry in content["qualities"].items()}
    assert statuses == {name: entry["status"] for name, entry in english["qualities"].items()}
    told = {
        quality for observation in observations() for qualities in observation.told_by.values() for quality in qualities
    }
    assert told <= set(content["qualities"])
