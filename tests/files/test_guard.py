"""No output destroys an input."""

from pathlib import Path

import pytest

from crossray.commands import COMMANDS
from crossray.errors import UserError
from crossray.files.guard import check_outputs


def check(out: Path, *inputs: Path, kind: str = "file") -> None:
    check_outputs({"--out": (out, kind)}, {"predictions": inputs})  # type: ignore[dict-item]


def test_an_output_that_is_an_input_is_refused_by_any_of_its_names(tmp_path: Path) -> None:
    source = tmp_path / "p.jsonl"
    source.write_text("rows")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for out in (source, tmp_path / "x" / ".." / "p.jsonl", tmp_path / "link", tmp_path / "hard"):
        with pytest.raises(UserError, match=r"--out .*is read by predictions"):
            check(out, source)
    check(tmp_path / "q.jsonl", source)


def test_an_image_in_the_folder_of_a_study_is_kept(tmp_path: Path) -> None:
    for name in ("a.png", "1.2.840", "predictions.jsonl"):
        (tmp_path / name).touch()
    for name in ("a.png", "1.2.840"):
        with pytest.raises(UserError, match=r"--out .*is in a folder that is read by images"):
            check_outputs({"--out": (tmp_path / name, "file")}, {"images": [tmp_path]})
    for name in ("predictions.jsonl", "new.png"):
        check_outputs({"--out": (tmp_path / name, "file")}, {"images": [tmp_path]})


@pytest.mark.parametrize("views", ["a,b.png", "a,b.png;c.png", "c.png , d.png"])
def test_every_view_of_a_list_is_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.png", "c.png", "d.png"):
        Path(name).touch()
    with pytest.raises(UserError, match="is read by images"):
        COMMANDS["generate"](images=[views], out=Path("a,b.png" if views == "a,b.png" else "c.png"), model="none")


def test_nothing_is_written_into_a_dataset_or_a_model(tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "run" / "best"
    for folder, files in ((data, ["dataset.json"]), (model, ["config.json", "model.safetensors"])):
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).touch()
        for name in ("new", "deep/new", files[-1]):
            with pytest.raises(UserError, match="is inside the"):
                check(folder / name)
    check(data, kind="folder")  # a dataset that is prepared already is opened


def test_reports_lie_beside_a_run_but_replace_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    check(tmp_path / "predictions.jsonl")
    for name in ("recipe.yaml", "last.ckpt", "metrics.jsonl", "best/new"):
        with pytest.raises(UserError, match="belongs to the training run"):
            check(tmp_path / name)


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the same file as --out"):
        check_outputs({"--out": (tmp_path / "a", "file"), "--markdown": (tmp_path / "a", "file")}, {})


@pytest.mark.parametrize(
    ("out", "kind"), [("folder", "file"), ("file", "folder"), ("file/x", "file"), ("file/x/y", "folder")]
)
def test_what_cannot_be_written_is_found_before_the_work(tmp_path: Path, out: str, kind: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*cannot be written \(.+\); (choose|name)"):
        check(tmp_path / out, kind=kind)


def test_trying_leaves_nothing(tmp_path: Path) -> None:
    check(tmp_path / "new" / "deep" / "a.json")
    check(tmp_path / "new", kind="folder")
    assert not list(tmp_path.iterdir())


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="a link that leads to itself"):
        check(tmp_path / "loop")
