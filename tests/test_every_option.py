"""Every option of every command with bad values of its type: one sentence, exit code 2, and nothing written.

The options come from the parsers, so that a new one is walked too. What else a command needs is valid, and in place.
"""

import argparse
import json
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union

import numpy as np
import pytest
from PIL import Image
from tests.models.tiny import tiny_writer

from crossray import cli
from crossray.commands import COMMANDS, GROUPS
from crossray.commands.command import Command
from crossray.data.images import ImageFile
from crossray.data.store import write_dataset
from crossray.data.study import Study
from crossray.decoding.config import DecodingConfig
from crossray.training.recipe import parse, recipe_parser

ALL: dict[tuple[str, ...], Command] = {
    **{(name,): command for name, command in COMMANDS.items()},
    **{(group, name): command for group in GROUPS for name, command in GROUPS[group].commands.items()},
}

#: Valid values of what each command needs; OUT stands for a place that nothing may be written to. What would serve, or
#: takes any text, is given something bad besides.
NEEDED: dict[tuple[str, ...], list[str]] = {
    ("generate",): ["a.png", "--model", "model", "--out", "OUT.jsonl"],
    ("evaluate",): ["predictions.jsonl", "--out", "OUT.json"],
    ("export",): ["predictions.jsonl", "--out", "OUT.json"],
    ("compare",): ["predictions.jsonl", "others.jsonl", "--out", "OUT.json"],
    ("ablate",): ["cmn/demo", "--data", "data", "--out", "OUT"],
    ("scorecard",): ["predictions.jsonl", "others.jsonl", "--out", "OUT.html"],
    ("explain",): ["a.png", "--model", "model", "--out", "OUT.html"],
    ("inspect",): ["data", "--out", "OUT.html"],
    ("label",): ["reports.csv", "--out", "OUT.csv"],
    ("reconstruct",): ["--model", "model", "--data", "data", "--out", "OUT.png"],
    ("models",): [],
    ("calibrate",): ["--model", "model", "--data", "data", "--out", "OUT.md"],
    ("serve",): ["--model", "no-such-model"],
    ("keys",): ["no-such-scope", "--keys", "OUT.keys"],
    ("demo",): ["--out", "OUT"],
    ("prepare", "iu-xray"): ["--reports", "iu.csv", "--images", "images", "--out", "OUT"],
    ("prepare", "manifest"): ["manifest.csv", "--out", "OUT"],
    ("prepare", "mimic-cxr"): ["--root", "images", "--reports", "images", "--out", "OUT"],
    ("prepare", "phantom"): ["--out", "OUT"],
    ("prepare", "r2gen"): ["--annotation", "annotation.json", "--images", "images", "--out", "OUT"],
    ("convert", "chexbert"): ["reports.csv", "--vocabulary", "reports.csv", "--out", "OUT"],
    ("analyze", "alignment"): ["--model", "model", "--data", "data", "--out", "OUT"],
    ("analyze", "grounding"): ["--model", "model", "--data", "data", "--out", "OUT.json"],
    ("analyze", "retrieval"): ["--model", "model", "--data", "data", "--out", "OUT.json"],
    ("analyze", "liveness"): ["--out", "OUT.md"],
    ("analyze", "long-tail"): ["predictions.jsonl", "--out", "OUT.json"],
    ("index", "build"): ["--model", "model", "--data", "data"],
    ("index", "query"): ["a.png", "--model", "model"],
}

#: Options that name an output: a folder that does not exist is made for it.
OUTPUTS = {"--out", "--markdown", "--evidence", "--template"}

#: Bad values by type; of a text any that names nothing.
BAD: dict[object, list[str]] = {
    int: ["three", "1.5", "-1", "9" * 30],
    float: ["much", "nan"],
    bool: ["perhaps"],
    Path: ["no-such/file.x", "a.png/below"],
    str: ["no-such", ""],
}
REPORTS = ["The heart is normal.", "There is a left effusion. No pneumothorax.", "Lungs are clear, heart is enlarged."]


def kinds(annotation: Any) -> list[Any]:
    """The types of an option, without None."""
    if typing.get_origin(annotation) in (Union, UnionType):
        return [kind for part in typing.get_args(annotation) for kind in kinds(part)]
    if typing.get_origin(annotation) is Literal:
        return [Literal]
    if typing.get_origin(annotation) in (list, tuple):
        return kinds(typing.get_args(annotation)[0])
    return [] if annotation is NoneType else [annotation]


def bad_values(annotation: Any) -> list[str]:
    """Values that no type of an option takes."""
    found = kinds(annotation)
    if found == [Literal]:
        return ["no-such", ""]
    return BAD[found[0]] if len(found) == 1 and found[0] in BAD else ["{", "no-such"]


def walk(names: Iterable[tuple[str, ...]] = tuple(ALL)) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Command, option ("" for what stands without one) and bad value."""
    for name in names:
        for action in cli._command_parser(ALL[name])._actions:
            if isinstance(action, argparse._HelpAction) or action.dest == "config":
                continue
            annotation = getattr(action, "_typehint", None) or action.type or str
            option = action.option_strings[0] if action.option_strings else ""
            for value in bad_values(annotation):
                if option in OUTPUTS and value == BAD[Path][0]:
                    continue
                yield name, option, value


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50), dtype=np.uint8)).save(path)
    return path


def predictions(path: Path, shift: int) -> None:
    rows = [
        {"id": f"study{n}", "prediction": REPORTS[(n + shift) % 3].lower(), "reference": REPORTS[n % 3].lower()}
        for n in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a valid input of each kind."""
    folder = tmp_path_factory.mktemp("place")
    model = tiny_writer(*REPORTS, max_length=8)
    model.save_pretrained(folder / "model", {"recipe": {"decoding": {"beam": 1, "max_length": 6}}})
    image(folder / "a.png", 0)
    splits = ("train", "train", "val", "test")
    studies = [
        Study(
            id=f"study{n}", patient=f"study{n}", split=splits[n], findings=REPORTS[n % 3],
            images=(ImageFile(image(folder / "images" / f"{n}.png", n), "frontal"),),
        )
        for n in range(4)
    ]  # fmt: skip
    write_dataset(folder / "data", studies, size=40, source={"kind": "test"}, workers=0)
    predictions(folder / "predictions.jsonl", 0)
    predictions(folder / "others.jsonl", 1)
    entries = [
        {"id": s.id, "report": s.findings, "image_path": [f"{n}.png"], "split": s.split} for n, s in enumerate(studies)
    ]
    annotation = {split: [entry for entry in entries if entry["split"] == split] for split in ("train", "val", "test")}
    (folder / "annotation.json").write_text(json.dumps(annotation), encoding="utf-8")
    (folder / "reports.csv").write_text("study_id,report\na,The heart is normal.\n", encoding="utf-8")
    (folder / "manifest.csv").write_text("images,findings\na.png,The heart is normal.\n", encoding="utf-8")
    (folder / "iu.csv").write_text(
        "uid,MeSH,Problems,image,indication,comparison,findings,impression\n1,,,,,,Clear.,\n", encoding="utf-8"
    )
    return folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns if path.is_file() else 0)
        for path in folder.rglob("*")
    }


def typed(name: tuple[str, ...], option: str, value: str) -> list[str]:
    """A whole command line in which only one value is bad."""
    needed = list(NEEDED[name])
    if not option:
        first = next((place for place, word in enumerate(needed) if word.startswith("--")), len(needed))
        return [*name, *([value] if first else []), *needed[first:]] if first else [*name, value, *needed]
    if option in needed:
        at = needed.index(option)
        needed[at : at + 2] = []
    return [*name, *needed, f"{option}={value}"] if not value else [*name, *needed, option, value]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, id=" ".join(name)) for name in ALL])
def test_bad_values_end_in_one_sentence(
    name: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = listing(place)
    faults = []
    for _, option, value in walk([name]):
        arguments = typed(name, option, value)
        code: object = None
        try:
            cli.main(arguments)
        except SystemExit as stop:
            code = stop.code
        except Exception as error:
            code = type(error).__name__
        said = capsys.readouterr().err.strip()  # a progress bar leaves an empty line
        after = listing(place)
        is_sentence = said.startswith("crossray") and said.count("\n") == 0 and "<class" not in said
        if code != 2 or not is_sentence or after != before:
            faults.append((arguments, code, said[-300:], sorted(after.items() ^ before.items())))
            before = after
    assert not faults, "\n".join(map(str, faults))


def test_every_command_is_walked() -> None:
    assert set(NEEDED) == set(ALL)
    assert {name for name, *_ in walk()} == set(ALL) - {("models",)}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["baseline/demo", "vision/demo"])
def test_bad_fields_of_a_recipe_end_in_one_sentence(recipe: str) -> None:
    from crossray.errors import UserError

    parser = recipe_parser(recipe)
    for action in parser._actions:
        annotation = getattr(action, "_typehint", None)
        if annotation is None or not action.option_strings or str in kinds(annotation):
            continue
        for value in bad_values(annotation)[:1]:
            with pytest.raises(UserError) as caught:
                parse(recipe, [f"{action.option_strings[0]}={value}"])
            assert "\n" not in str(caught.value)


def test_bad_fields_of_decoding_end_in_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    before = listing(place)
    for field, annotation in typing.get_type_hints(DecodingConfig).items():
        for value in bad_values(annotation)[:1]:
            with pytest.raises(SystemExit) as stop:
                cli.main([*typed(("generate",), "--device", "cpu"), f"--decoding.{field}", value])
            said = capsys.readouterr().err.strip()
            assert stop.value.code == 2 and said.count("\n") == 0 and field in said, (field, value, said)
            assert listing(place) == before, (field, value)
