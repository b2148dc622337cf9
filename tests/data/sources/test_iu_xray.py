"""IU X-Ray in the layouts in which it is published, with invented reports; then the round trip of the true ones."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from tests.data.sources.openi import png, tgz, xml

from crossray import cli
from crossray.data.sources import iu_reports
from crossray.data.sources.iu_reports import image_key, parse_report, read_reports
from crossray.data.sources.iu_xray import IuStudies, read_iu_xray
from crossray.data.sources.r2gen import read_annotation
from crossray.data.store import Dataset
from crossray.errors import UserError

#: uid -> images as Open-i names them, and sections.
INVENTED: dict[str, tuple[list[str], dict[str, str]]] = {
    "1": (["CXR1_1_IM-0001-4001", "CXR1_1_IM-0001-3001"], {"findings": "Lungs are clear.", "impression": "Normal."}),
    "2": (["CXR2_IM-0002-1001", "CXR2_IM-0002-2001", "CXR2_IM-0002-3001"], {"findings": "A & B <tall> XXXX."}),
    "3": (["CXR3_IM-0003-1001"], {"findings": "One view."}),
    "4": (["CXR4_IM-0004-1001", "CXR4_IM-0004-2001"], {"findings": " ", "impression": "No findings section."}),
    "5": ([], {"findings": "No image."}),
    "6": (["CXR6_IM-0006-1001", "CXR6_IM-0006-1001", "CXR6_IM-0006-2001"], {"findings": "One image is missing."}),
    "7": (["CXR7_IM-0007-1001"], {"findings": "All images are missing."}),
    "8": (["CXR8_IM-0008-0001-0002", "CXR8_IM-0008-0001-0001"], {"indication": "Pain.", "findings": "Clear."}),
}
MISSING = {"CXR6_IM-0006-2001", "CXR7_IM-0007-1001"}
LATERAL = {"CXR1_1_IM-0001-3001", "CXR2_IM-0002-1001", "CXR2_IM-0002-2001"}
STEPS = [
    ("in the source", 8, 13),
    ("with an image listed", 7, 13),
    ("with an image in --images", 6, 11),
    ("with findings", 5, 9),
    ("with two views or more", 3, 7),
    ("two views of each", 3, 6),
]


def openi(folder: Path, *, archives: bool) -> tuple[Path, Path]:
    """The invented reports and images as Open-i gives them."""
    texts = {f"ecgen-radiology/{uid}.xml": xml(uid, images, **texts) for uid, (images, texts) in INVENTED.items()}
    names = {image for images, _ in INVENTED.values() for image in images} - MISSING
    pictures = {f"{name}.png": png(i) for i, name in enumerate(sorted(names))}
    if archives:
        return tgz(folder / "NLMCXR_reports.tgz", texts), tgz(folder / "NLMCXR_png.tgz", pictures)
    for kind, files in (("reports", texts), ("png", pictures)):
        for name, content in files.items():
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / kind / name).write_bytes(content)
    return folder / "reports", folder / "png"


def kaggle(folder: Path) -> tuple[Path, Path]:
    """The two tables of Kaggle's copy."""
    with (folder / "indiana_reports.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["uid", "MeSH", "Problems", "image", "indication", "findings", "impression"], "")
        writer.writeheader()
        writer.writerows({"uid": uid, "MeSH": "normal", **texts} for uid, (_, texts) in INVENTED.items())
    with (folder / "indiana_projections.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uid", "filename", "projection"])
        for uid, (images, _) in INVENTED.items():
            for name in images:
                number = name[name.index("IM-") :]
                rows.writerow([uid, f"{uid}_{number}.dcm.png", "Lateral" if name in LATERAL else "Frontal"])
    return folder / "indiana_reports.csv", folder / "indiana_projections.csv"


def steps(studies: IuStudies) -> list[tuple[str, int, int]]:
    return [(step.step, step.reports, step.images) for step in studies.steps]


@pytest.mark.parametrize("archives", [True, False])
def test_open_i_in_archives_and_in_folders(tmp_path: Path, archives: bool) -> None:
    studies = read_iu_xray(*openi(tmp_path, archives=archives), tmp_path / "unpacked")
    assert steps(studies) == STEPS
    assert not (tmp_path / "unpacked").exists()  # nothing is unpacked before it is needed
    first, second, third = studies
    assert (first.id, second.id, third.id) == ("CXR1_1_IM-0001", "CXR2_IM-0002", "CXR8_IM-0008-0001")
    assert [Path(image.name).stem for image in first.images] == ["CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001"]
    assert {image.position for study in studies for image in study.images} == {"unknown"}
    assert (first.patient, first.impression, second.findings) == ("CXR1", "Normal.", "A & B <tall> XXXX.")
    assert (third.indication, third.extra) == ("Pain.", {"tags": ["normal"]})
    assert all(min(image.read(32).pixels.shape) == 32 for study in studies for image in study.images)
    notes = studies.notes()
    assert notes["reports_with_xxxx"] == 1
    assert (notes["images_listed_twice"], notes["images_listed_but_missing"], notes["images_of_no_report"]) == (1, 2, 0)


def test_parts_that_unpack_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = openi(tmp_path, archives=True)
    parts = [read_iu_xray(*files, tmp_path / name) for name in ("both", "both", "alone")]
    replace, others = os.replace, parts[1:2]

    def interrupted(partial: Path, target: Path) -> None:
        if others:  # the other part unpacks everything before the first one names its first file
            list(others.pop())
        replace(partial, target)

    monkeypatch.setattr("os.replace", interrupted)
    list(parts[0])
    list(parts[2])
    unpacked = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("both", "alone")]
    assert unpacked[0] == unpacked[1]


def test_kaggles_tables_give_the_same_studies_and_their_projections(tmp_path: Path) -> None:
    reports, images = openi(tmp_path, archives=True)
    table, projections = kaggle(tmp_path)
    ours = list(read_iu_xray(table, images, tmp_path / "a", projections=projections))
    theirs = list(read_iu_xray(reports, images, tmp_path / "b", projections=projections))
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.id, mine.findings, mine.split, mine.labels) == (
            other.id,
            other.findings,
            other.split,
            other.labels,
        )
        assert [image.position for image in mine.images] == [image.position for image in other.images]
    assert [image.position for image in ours[0].images] == ["frontal", "lateral"]
    # of three views the frontal one comes first although its name is the last
    assert [Path(image.name).stem for image in ours[1].images] == ["CXR2_IM-0002-3001", "CXR2_IM-0002-1001"]
    with pytest.raises(UserError, match="--projections"):
        read_iu_xray(table, images, tmp_path / "c")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    """A number of thousands of digits is one that Python does not convert."""
    reports, images = openi(tmp_path, archives=False)
    table, projections = kaggle(tmp_path)
    entry = {"id": "CXR" + "1" * 5000, "report": "Clear.", "image_path": ["a/0.png"], "split": "train"}
    (tmp_path / "annotation.json").write_text(json.dumps({"train": [entry]}))
    with pytest.raises(UserError, match=r"train\[0\]\.id: is not CXR<number>"):
        read_iu_xray(reports, images, tmp_path / "a", annotation=tmp_path / "annotation.json")
    for number in ("1" * 5000, "one", "\u00b9"):
        table.write_text(f"uid,MeSH,indication,findings,impression\n{number},normal,,Clear.,\n")
        with pytest.raises(UserError, match="line 2: uid is not a number; use the unchanged"):
            read_iu_xray(table, images, tmp_path / "b", projections=projections)


@pytest.mark.parametrize("archives", [True, False])
def test_jpeg_copies_are_taken_as_the_png_images_are(tmp_path: Path, archives: bool) -> None:
    _, images = openi(tmp_path / "openi", archives=False)
    table, projections = kaggle(tmp_path)
    copies = {}
    for path in images.iterdir():
        number, _, rest = path.stem.removeprefix("CXR").partition("_")
        buffer = io.BytesIO()
        Image.open(path).convert("RGB").save(buffer, "JPEG", quality=95)
        copies[f"{number}_{rest[rest.index('IM-') :]}.dcm.jpg"] = buffer.getvalue()
    (tmp_path / "jpeg").mkdir()
    for name, content in copies.items():
        (tmp_path / "jpeg" / name).write_bytes(content)
    jpeg = tgz(tmp_path / "jpeg.tgz", copies) if archives else tmp_path / "jpeg"
    expected = list(read_iu_xray(table, images, tmp_path / "a", projections=projections))
    found = list(read_iu_xray(table, jpeg, tmp_path / "b", projections=projections))
    assert [study.id for study in found] == [study.id for study in expected]
    for mine, other in zip(found, expected, strict=True):
        for copy, original in zip(mine.images, other.images, strict=True):
            assert (copy.position, image_key(copy.name)) == (original.position, image_key(original.name))
            difference = copy.read(32).pixels.astype(int) - original.read(32).pixels.astype(int)
            assert abs(difference).mean() < 8


def test_all_views(tmp_path: Path) -> None:
    studies = read_iu_xray(*openi(tmp_path, archives=False), tmp_path, views="all")
    assert steps(studies) == STEPS[:4]
    assert [len(study.images) for study in studies] == [2, 3, 1, 1, 2]


def test_names_of_images_agree() -> None:
    for name in (
        "CXR1_1_IM-0001-3001.png",
        "1_IM-0001-3001.dcm.png",
        "1_IM-0001-3001.dcm.jpg",
        "x/y/CXR1_1_IM-0001-3001",
    ):
        assert image_key(name) == "CXR1_1_IM-0001-3001"
    assert image_key("2_IM-0652-1001.dcm.png") == image_key("CXR2_IM-0652-1001.png") == "CXR2_IM-0652-1001"


def test_splits_are_seeded_and_cover_every_study(tmp_path: Path) -> None:
    sources = openi(tmp_path, archives=False)
    drawn = [[study.split for study in read_iu_xray(*sources, tmp_path, views="all", seed=s)] for s in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({tuple(splits) for splits in drawn}) > 1


def test_the_command_writes_a_dataset_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports, images = openi(tmp_path, archives=True)
    entries = [{"id": f"CXR{uid}", "report": "", "image_path": "x"} for uid in ("1_1_IM-0001", "8_IM-0008-0001")]
    (tmp_path / "annotation.json").write_text(json.dumps({"train": entries[:1], "test": entries[1:]}))
    arguments = [
        "prepare", "iu-xray", "--reports", str(reports), "--images", str(images), "--out", str(tmp_path / "iu"),
        "--split", f"r2gen:{tmp_path / 'annotation.json'}", "--size", "32", "--workers", "0",
    ]  # fmt: skip
    cli.main(arguments)
    printed = capsys.readouterr().out
    assert "in the annotation" in printed and "5226" in printed
    dataset = Dataset.open(tmp_path / "iu")
    assert dataset.info.notes["filter_steps"][-1] == {"step": "in the annotation", "reports": 2, "images": 4}
    assert [dataset.record(row).split for row in range(2)] == ["train", "test"]
    assert not (tmp_path / "iu" / ".unfinished").exists()
    cli.main(arguments)  # the same again changes nothing
    assert Dataset.open(tmp_path / "iu").info.sha256 == dataset.info.sha256


ENTITY = b'<!DOCTYPE a [<!ENTITY x "y">]><eCitation><uId id="CXR1"/>&x;</eCitation>'
BILLION = (
    b"<!DOCTYPE l [<!ENTITY a0 'x'>" + b"".join(b"<!ENTITY a%d '&a%d;&a%d;'>" % (i, i - 1, i - 1) for i in range(1, 60))
    + b"]><l>&a59;</l>"
)  # fmt: skip
EXTERNAL = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'
PARAMETER = b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://example.org/p.dtd"> %p;]><a/>'
DEFAULT = b'<!DOCTYPE a [<!ATTLIST uId id CDATA "CXR5">]><a><uId/></a>'
DTD = b'<!DOCTYPE eCitation SYSTEM "http://example.org/a.dtd">'
REPORT = b'<eCitation><uId id="CXR1"/><AbstractText Label="FINDINGS">A &lt; B%b.</AbstractText></eCitation>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ENTITY, "document type"),
        (BILLION, "document type"),
        (EXTERNAL, "document type"),
        (PARAMETER, "document type"),
        (DEFAULT, "document type"),
        (DTD + REPORT % b"&unknown;", "refers to an entity"),
        (b"<eCitation>&undefined;</eCitation>", "not well-formed XML"),
        (b"", "not well-formed XML"),
        (b"<a>" * 10_000, "not well-formed XML"),
        (b"\x89PNG\r\n", "not well-formed XML"),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', "not well-formed XML"),
        (b'<eCitation><uId id="../CXR1"/></eCitation>', "uId"),
        (b'<eCitation><uId id="CXR' + b"1" * 5000 + b'"/></eCitation>', "uId"),
        (b"<eCitation/>", "uId"),
    ],
)
def test_hostile_and_broken_xml_ends_in_a_sentence(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_report(content, "x.tgz: 1.xml")
    assert str(caught.value).startswith("x.tgz: 1.xml: ")


@pytest.mark.parametrize("doctype", [b"", b"<!DOCTYPE eCitation>", DTD, DTD.replace(b"SYSTEM", b'PUBLIC "-//x"')])
def test_a_document_type_that_declares_nothing_passes_and_is_not_fetched(
    doctype: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr("socket.socket.connect", connect)
    report = parse_report(b'<?xml version="1.0" encoding="utf-8"?>\n' + doctype + REPORT % b"", "1.xml")
    assert (report.uid, report.findings) == (1, "A < B.")


def test_a_report_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    twice = {"a/1.xml": xml("1", []), "b/1.xml": xml("1", [])}
    with pytest.raises(UserError, match="CXR1 occurs twice"):
        read_reports(tgz(tmp_path / "x.tgz", twice))


def test_what_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports, _ = openi(tmp_path, archives=True)
    table, projections = kaggle(tmp_path)
    monkeypatch.setattr(iu_reports, "MAX_REPORTS_BYTES", 1000)
    with pytest.raises(UserError, match="more than 0 MiB of reports"):
        read_reports(reports)
    monkeypatch.setattr(iu_reports, "MAX_TABLE_BYTES", 100)
    with pytest.raises(UserError, match=r"indiana_projections\.csv: larger than 0 MiB"):
        read_reports(table, projections)


def test_files_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    reports, _ = openi(tmp_path, archives=True)
    with pytest.raises(UserError, match="with an image in --images"):
        read_iu_xray(reports, tgz(tmp_path / "other.tgz", {"CXR99_IM-0001-1001.png": png()}), tmp_path)
    with pytest.raises(UserError, match="no PNG or JPEG image"):
        read_iu_xray(reports, reports, tmp_path)


@pytest.mark.slow
@pytest.mark.real_data
def test_the_true_reports_come_back_as_r2gens_studies(real_data: Path, tmp_path: Path) -> None:
    """3,851 true reports, 7,466 images of which 8 are true ones: the result is the annotation's 2,955 studies."""
    folder = real_data / "iu_xray"
    with (folder / "indiana_reports.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / "indiana_projections.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file))
    names: dict[str, list[str]] = {}
    for row in listed:
        names.setdefault(row["uid"], []).append(image_key(row["filename"]))
    texts = {
        f"ecgen-radiology/{row['uid']}.xml": xml(
            row["uid"], names[row["uid"]], tags=row["MeSH"].split(";"),
            **{section: row[section] for section in ("comparison", "indication", "findings", "impression")},
        )
        for row in rows
    }  # fmt: skip
    made_up = png()
    pictures = {f"{image_key(row['filename'])}.png": made_up for row in listed}
    annotation = read_annotation(folder / "annotation.json")
    true_images = {}
    for study in sorted(path.name for path in (folder / "images").iterdir()):
        for i, kind in enumerate(("Frontal", "Lateral")):
            key = next(
                image_key(row["filename"]) for row in listed
                if row["projection"] == kind and image_key(row["filename"]).startswith(f"{study}-")
            )  # fmt: skip
            true_images[study, i] = (folder / "images" / study / f"{i}.png").read_bytes()
            pictures[f"{key}.png"] = true_images[study, i]
    studies = read_iu_xray(
        tgz(tmp_path / "NLMCXR_reports.tgz", texts), tgz(tmp_path / "NLMCXR_png.tgz", pictures), tmp_path / "unpacked",
        projections=folder / "indiana_projections.csv",
    )  # fmt: skip
    assert [(step.reports, step.images) for step in studies.steps] == [
        (3851, 7466), (3851, 7466), (3851, 7466), (3337, 6469), (2955, 6087), (2955, 5910),
    ]  # fmt: skip
    notes = studies.notes()
    assert [notes[f"images_{what}"] for what in ("listed_twice", "listed_but_missing", "of_no_report")] == [0, 0, 0]
    expected = {entry["id"]: entry["report"] for entries in annotation.values() for entry in entries}
    read = list(studies)
    assert {study.id: study.findings for study in read} == expected
    pairs = [tuple(image.position for image in study.images) for study in read]
    assert {pair: pairs.count(pair) for pair in set(pairs)} == {
        ("frontal", "lateral"): 2943, ("frontal", "frontal"): 4, ("lateral", "lateral"): 8,
    }  # fmt: skip
    by_id = {study.id: study for study in read}
    for (study, i), content in true_images.items():
        assert Path(by_id[study].images[i].name).read_bytes() == content

    split = read_iu_xray(
        tmp_path / "NLMCXR_reports.tgz", tmp_path / "NLMCXR_png.tgz", tmp_path / "unpacked",
        projections=folder / "indiana_projections.csv", annotation=folder / "annotation.json",
    )  # fmt: skip
    assert {name: list(split.splits.values()).count(name) for name in annotation} == {
        "train": 2069, "val": 296, "test": 590,
    }  # fmt: skip
    assert len(split) == 2955


@pytest.mark.real_data
def test_pairs_of_views_against_r2gens_files(real_data: Path, tmp_path: Path) -> None:
    """The figures of docs/data/iu-xray.md: which studies have R2Gen's two files, and the order of R2Gen's views."""
    folder = real_data / "iu_xray"
    with (folder / "r2gen_map.csv").open(encoding="utf-8", newline="") as file:
        theirs = {row["study"]: row for row in csv.DictReader(file)}
    read = read_iu_xray(
        folder / "indiana_reports.csv", folder / "images_256", tmp_path,
        projections=folder / "indiana_projections.csv", annotation=folder / "annotation.json",
    )  # fmt: skip
    same = [
        {Path(image.name).name for image in study.images} == {theirs[study.id]["image0"], theirs[study.id]["image1"]}
        for study in read
    ]
    assert (sum(same), len(same)) == (2329, 2365)
    order = [(row["projection0"], row["projection1"]) for row in theirs.values()]
    assert (order.count(("Frontal", "Lateral")), order.count(("Lateral", "Frontal"))) == (2058, 259)
