"""MIMIC-CXR in PhysioNet's layout, with invented reports and drawn images: no line of it is real."""

import gzip
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.data.images.dicom_files import dicom
from tests.data.sources.physionet import CHEXPERT, STUDIES, dicom_id, image_path, reports, tables, tree

from crossray import cli
from crossray.data.sources.mimic_cxr import MimicStudies, read_mimic_cxr
from crossray.data.store import Dataset, layout, write_dataset
from crossray.data.store.estimate import Estimate, estimate
from crossray.data.store.writer import Part, write_part
from crossray.data.study import Study
from crossray.errors import UserError

IDS = [f"s{study}" for _, study, _, _, _ in STUDIES]


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, Path]:
    return tree(tmp_path)


def by_id(studies: MimicStudies) -> dict[str, Study]:
    return {study.id: study for study in studies}


def test_studies_come_in_order_with_their_official_split(source: tuple[Path, Path]) -> None:
    studies = list(read_mimic_cxr(*source))
    assert [study.id for study in studies] == IDS
    assert [study.split for study in studies] == ["train", "train", "val", "test", "test", "train", "train", "train"]
    first = studies[0]
    assert (first.patient, first.findings, first.impression) == ("p10000032", "Lungs clear.", "Normal.")
    assert first.indication == "Cough."
    assert [image.position for image in first.images] == ["pa", "ap"]
    assert first.extra["dicom_ids"] == [dicom_id(50414267, 2), dicom_id(50414267, 1)]
    assert studies[3].extra["addendum"] == "One more."
    assert first.images[0].read(40).pixels.shape == (48, 40)


def test_what_cannot_be_used_says_why(source: tuple[Path, Path]) -> None:
    refusals = {study.id: study.refusal for study in read_mimic_cxr(*source) if study.refusal}
    assert {name: step for name, (step, _) in refusals.items()} == {
        "s53189527": "findings", "s57375967": "findings", "s51029426": "view", "s50578979": "report",
        "s51178377": "findings",
    }  # fmt: skip
    assert refusals["s53189527"][1] == "the findings section is one with the impression"
    assert refusals["s57375967"][1] == "the findings section has no heading"
    assert refusals["s51178377"][1] == "the findings section is missing or empty"


def test_any_findings_and_all_views(source: tuple[Path, Path]) -> None:
    studies = by_id(read_mimic_cxr(*source, findings="any", views="all"))
    assert {name for name, study in studies.items() if study.refusal} == {"s50578979", "s51178377"}
    assert studies["s53189527"].findings == "Effusion."
    assert (studies["s57375967"].findings, studies["s57375967"].extra["findings_from"]) == (
        "Large heart.", "last_paragraph",
    )  # fmt: skip
    assert [image.position for image in studies["s50414267"].images] == ["pa", "ap", "lateral"]
    assert [image.position for image in studies["s51029426"].images] == ["lateral", "unknown"]


def test_one_record_an_image_as_in_r2gens_file(source: tuple[Path, Path]) -> None:
    records = list(read_mimic_cxr(*source, unit="image", views="all"))
    assert len(records) == sum(len(positions) for *_, positions in STUDIES)
    mine = [record for record in records if record.extra["study_id"] == "50414267"]
    assert [record.id for record in mine] == [dicom_id(50414267, view) for view in (2, 1, 0)]
    assert {(record.findings, record.patient, len(record.images)) for record in mine} == {
        ("Lungs clear.", "p10000032", 1)
    }


def test_the_folder_of_reports_gives_the_same(source: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = reports(tmp_path)
    expected = list(read_mimic_cxr(*source))
    assert list(read_mimic_cxr(source[0], folder)) == expected
    assert list(read_mimic_cxr(source[0], folder / "files")) == expected


def test_labels_of_the_table(source: tuple[Path, Path]) -> None:
    studies = by_id(read_mimic_cxr(*source, labels="chexpert"))
    labels = studies["s50414267"].labels
    assert labels is not None
    words = ["blank", "positive", "negative", "uncertain"]
    assert labels == {name.lower().replace(" ", "_"): words[i % 4] for i, name in enumerate(CHEXPERT)}
    assert studies["s55368167"].labels is None  # the table lacks it
    rules = by_id(read_mimic_cxr(*source))["s55368167"].labels
    assert rules is not None and rules["lung_lesion"] == "positive"


def test_dicom_beside_the_tables_of_the_other_collection(tmp_path: Path) -> None:
    jpg, archive = tree(tmp_path)
    root = tmp_path / "mimic-cxr" / "2.1.0"
    pixels = np.tile(np.arange(0, 4096, 32, dtype=np.uint16), (96, 1))
    for patient, study, _, _, positions in STUDIES:
        for view in range(len(positions)):
            path = image_path(root, patient, study, view, ".dcm")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dicom(pixels))
    studies = read_mimic_cxr(root, archive, tables=jpg)
    assert studies.suffix == ".dcm"
    assert next(iter(studies)).images[0].read(48).pixels.shape == (48, 64)
    with pytest.raises(UserError, match=r"split\.csv\.gz: is missing"):
        read_mimic_cxr(root, archive)


def command(source: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    root, archive = source
    return ["prepare", "mimic-cxr", "--root", str(root), "--reports", str(archive), "--out", str(out), "--size", "32",
            "--workers", "0", *more]  # fmt: skip


def test_the_command_prints_an_estimate_and_counts_every_step(
    source: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(command(source, tmp_path / "set"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "8 studies, up to 8 images: 0.00 GB at 32 px" in printed
    assert "measured on the first 3" in printed
    assert "about 1 min with 1 process " in printed and "with a frontal view" in printed
    dataset = Dataset.open(tmp_path / "set")
    assert dataset.ids(range(dataset.studies)) == ["s50414267", "s50771383"]
    assert dataset.info.counts["rejected"] == {"broken_image": 1, "findings": 3, "report": 1, "view": 1}
    assert dataset.info.notes["filter_steps"][1] == {"step": "with a frontal view", "reports": 7, "images": 8}
    assert dataset.info.notes["positions"] == {"ap": 2, "lateral": 4, "pa": 6, "unknown": 2}
    assert dataset.record(1).positions == ("pa",)
    rejected = [json.loads(line) for line in (tmp_path / "set" / layout.REJECTED).read_text().splitlines()]
    assert len(rejected) == 6 and "Effusion" not in str(rejected)


def digests(folder: Path) -> dict[str, str]:
    """Of every file; without what identifies the images, which parts do not keep: copies have times of their own."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    description = json.loads(found[layout.DESCRIPTION])
    description.pop("images", None)
    found[layout.DESCRIPTION] = json.dumps(description).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "shard_size", lambda shard: 1 + shard % 2)


@pytest.mark.usefixtures("small_shards")
def test_parts_on_a_shared_disk_and_on_disks_of_their_own(source: tuple[Path, Path], tmp_path: Path) -> None:
    cli.main(command(source, tmp_path / "whole"))
    whole = digests(tmp_path / "whole")
    for part in ("2/3", "1/3", "3/3"):
        cli.main(command(source, tmp_path / "shared", "--shard", part))
        cli.main(command(source, tmp_path / part[0], "--shard", part))
        with pytest.raises(UserError, match="unfinished"):
            Dataset.open(tmp_path / "shared")
    for path in (source[0] / "files").rglob("*.jpg"):
        path.write_bytes(b"all is written: no image is read again")
    cli.main(command(source, tmp_path / "shared"))
    assert digests(tmp_path / "shared") == whole
    for number in "23":
        shutil.copytree(tmp_path / number / layout.UNFINISHED, tmp_path / "1" / layout.UNFINISHED, dirs_exist_ok=True)
    cli.main(command(source, tmp_path / "1"))
    assert digests(tmp_path / "1") == whole


@pytest.mark.usefixtures("small_shards")
def test_a_missing_part_is_written_by_the_merge(source: tuple[Path, Path], tmp_path: Path) -> None:
    cli.main(command(source, tmp_path / "whole"))
    cli.main(command(source, tmp_path / "set", "--shard", "2/2"))
    cli.main(command(source, tmp_path / "set"))
    assert digests(tmp_path / "set") == digests(tmp_path / "whole")


@pytest.mark.usefixtures("small_shards")
def test_parts_run_side_by_side_but_not_beside_the_whole(source: tuple[Path, Path], tmp_path: Path) -> None:
    """While part 1 runs, part 2 works, part 1 again and the whole do not, and a stranger's temporary folder stays."""
    studies = read_mimic_cxr(*source)
    options = {"size": 32, "source": {"kind": "test"}, "workers": 0}
    foreign = tmp_path / "set" / layout.UNFINISHED / "00001.other"

    def nested(done: int, total: int) -> None:
        if not foreign.exists():
            foreign.mkdir()
            assert write_part(tmp_path / "set", studies, Part(2, 3), **options) == 2  # type: ignore[arg-type]
            assert not foreign.exists()  # its own rubbish is removed
            foreign.mkdir()
            for again in (
                lambda: write_part(tmp_path / "set", studies, Part(1, 3), **options),  # type: ignore[arg-type]
                lambda: write_dataset(tmp_path / "set", studies, **options),
            ):  # type: ignore[arg-type]
                with pytest.raises(UserError, match="another process"):
                    again()

    assert write_part(tmp_path / "set", studies, Part(1, 3), progress=nested, **options) == 2  # type: ignore[arg-type]
    assert foreign.exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_parts_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--shard"):
        Part.parse(text)


def test_without_ray_the_engine_says_so(
    source: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"crossray\[ray\]"):
        write_dataset(tmp_path / "set", read_mimic_cxr(*source), size=32, source={"kind": "test"}, engine="ray")
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small_shards", "own_ray")
def test_ray_writes_the_same_bytes(source: tuple[Path, Path], tmp_path: Path) -> None:
    cli.main(command(source, tmp_path / "whole"))
    cli.main(command(source, tmp_path / "ray", "--engine", "ray"))
    assert digests(tmp_path / "ray") == digests(tmp_path / "whole")


def test_an_estimate_reads_no_more_than_it_needs(source: tuple[Path, Path]) -> None:
    measured = estimate(read_mimic_cxr(*source), 32, images=2)
    assert (measured.studies, measured.images) == (1, 2)
    assert measured.seconds_an_image > 0
    # 10 s of making against 100 s of reading: together in one process, side by side in several
    known = Estimate(1, 1, seconds_a_study=0.1, seconds_an_image=1.0)
    assert [known.seconds(100, 100, workers) for workers in (0, 1, 4, 100)] == [110, 100, 25, 10]


def changed(root: Path, name: str, old: str, new: str) -> None:
    path = root / f"mimic-cxr-2.0.0-{name}.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("split", "dicom_id", "id", "one of the columns dicom_id, .* is missing"),
        ("split", "validate", "valid", "split: 'valid' is not one of train, validate, test"),
        ("split", "55368167,19999987", "55368167,", "subject_id: is empty"),
        ("split", "55368167,19999987", "x,19999987", "truncated or damaged"),
        ("split", dicom_id(55368167, 0), "../../../../etc/passwd", "row 1: dicom_id: is not an identifier"),
        ("split", dicom_id(55368167, 0), dicom_id(50578979, 0), "dicom_id: an image occurs twice"),
        ("split", "55368167,19999987", "55368167,7", "subject_id: is not an eight-digit number"),
        ("split", "51178377,19000935,train", "51178377,19000935,test", "split: a study has two"),
        ("split", "51178377,19000935", "51178377,19000936", "subject_id: a study has two"),
        ("metadata", dicom_id(55368167, 0), dicom_id(7, 0), "images of the table"),
        ("metadata", dicom_id(55368167, 0), dicom_id(50578979, 0), "an image occurs twice|images of the table"),
        ("metadata", "PA,96,80", "PA,96,", "Columns: a size is missing"),
        ("metadata", "PA,96,80", "PA,0,80", "or their Rows"),
    ],
)
def test_a_broken_table_is_one_sentence(source: tuple[Path, Path], name: str, old: str, new: str, message: str) -> None:
    changed(source[0], name, old, new)
    with pytest.raises(UserError, match=message) as caught:
        read_mimic_cxr(*source)
    assert f"mimic-cxr-2.0.0-{name}.csv.gz: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_table(source: tuple[Path, Path]) -> None:
    path = source[0] / "mimic-cxr-2.0.0-split.csv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="truncated or damaged"):
        read_mimic_cxr(*source)


def test_a_table_that_grows_when_unpacked(source: tuple[Path, Path]) -> None:
    """300 MB of one line in 300 kB."""
    path = source[0] / "mimic-cxr-2.0.0-split.csv.gz"
    header = gzip.decompress(path.read_bytes()).partition(b"\n")[0]
    path.write_bytes(gzip.compress(header + b"\n") + gzip.compress(bytes(10**7)) * 30)
    assert path.stat().st_size < 10**6
    with pytest.raises(UserError, match="larger than 256 MiB when unpacked"):
        read_mimic_cxr(*source)


def test_missing_files_are_named(source: tuple[Path, Path], tmp_path: Path) -> None:
    root, archive = source
    with pytest.raises(UserError, match=r"absent\.zip: cannot be read"):
        read_mimic_cxr(root, tmp_path / "absent.zip")
    (tmp_path / "x.zip").write_bytes(b"hello")
    with pytest.raises(UserError, match="not a zip archive"):
        read_mimic_cxr(root, tmp_path / "x.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="p10 to p19"):
        read_mimic_cxr(root, tmp_path / "empty")
    shutil.rmtree(root / "files")
    with pytest.raises(UserError, match="no folder 'files'"):
        read_mimic_cxr(root, archive)
    os.mkdir(root / "files")  # noqa: PTH102
    with pytest.raises(UserError, match="none of the images in the tables"):
        read_mimic_cxr(root, archive)
    tables(tmp_path / "tables")
    with pytest.raises(UserError, match="none of the images in the tables"):
        read_mimic_cxr(root, archive, tables=tmp_path / "tables")
