"""R2Gen's layout: what is read from it, and what every broken file says."""

import json
import os
import pickle
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossray import cli
from crossray.data.images import ImageFile
from crossray.data.sources import r2gen
from crossray.data.sources.r2gen import open_annotation, read_annotation, read_r2gen
from crossray.data.store import Dataset, write_dataset
from crossray.errors import UserError
from crossray.evaluation.labelers.tags import normal_studies
from crossray.text.observations import OBSERVATIONS

SECRET = "cardiomegaly of a patient"


def entry(identifier: str, **fields: Any) -> dict[str, Any]:
    return {"id": identifier, "report": SECRET, "image_path": [f"{identifier}/0.png", f"{identifier}/1.png"], **fields}


def write(folder: Path, content: Any) -> Path:
    path = folder / "annotation.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    (folder / "images").mkdir(exist_ok=True)
    return path


def test_reads_the_studies_in_the_order_of_splits_and_entries(tmp_path: Path) -> None:
    path = write(tmp_path, {"test": [entry("d")], "val": [entry("c", split="val")], "train": [entry("b"), entry("a")]})
    studies = read_r2gen(path, tmp_path / "images")
    assert [(study.id, study.split) for study in studies] == [
        ("b", "train"),
        ("a", "train"),
        ("c", "val"),
        ("d", "test"),
    ]
    first = studies[0]
    assert first.findings == SECRET
    assert (first.patient, first.impression, first.indication, first.extra) == ("b", "", "", {})
    assert first.images == tuple(ImageFile(tmp_path / "images" / "b" / f"{i}.png", "unknown") for i in (0, 1))
    assert pickle.loads(pickle.dumps(studies)) == studies


def test_labels_are_read_out_of_the_report(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": [entry("a"), entry("b", report="No effusion."), entry("c", report="")]})
    found, normal, empty = (study.labels for study in read_r2gen(path, tmp_path / "images"))
    assert found is not None and normal is not None and empty is not None
    assert (found["cardiomegaly"], found["no_finding"], found["pleural_effusion"]) == ("positive", "blank", "blank")
    assert (normal["pleural_effusion"], normal["no_finding"]) == ("negative", "positive")
    assert empty == dict.fromkeys(OBSERVATIONS, "blank")


def test_labels_part_a_prepared_dataset_into_normal_and_abnormal(tmp_path: Path) -> None:
    entries = [entry(name, image_path=["a.png"]) for name in "abc"]
    entries[1]["report"] = "The lungs are clear."
    entries[2]["report"] = "Possible pneumonia."
    path = write(tmp_path, {"train": entries})
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(tmp_path / "images" / "a.png")
    studies = read_r2gen(path, tmp_path / "images")
    dataset = write_dataset(tmp_path / "set", studies, size=16, source={"kind": "test"}, workers=0)
    assert dataset.info.observations == OBSERVATIONS
    normal = normal_studies(dataset, range(3))
    assert normal is not None
    assert normal.tolist() == [False, True, False]


def test_mimic_entries_know_patient_and_study(tmp_path: Path) -> None:
    mimic = entry("02aa", study_id=50414267, subject_id=10000032, image_path=["p10/p10000032/s50414267/02aa.jpg"])
    study = read_r2gen(write(tmp_path, {"train": [mimic]}), tmp_path / "images")[0]
    assert (study.patient, study.extra) == ("10000032", {"study_id": "50414267"})
    assert [reference.name for reference in study.images] == [
        str(tmp_path / "images/p10/p10000032/s50414267/02aa.jpg"),
    ]


def test_an_empty_patient_is_none(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": [entry("a", subject_id=""), entry("b", subject_id="nan")]})
    assert [study.patient for study in read_r2gen(path, tmp_path / "images")] == ["a", "b"]


def test_a_single_path_and_a_missing_split_are_fine(tmp_path: Path) -> None:
    annotation = read_annotation(write(tmp_path, {"val": [entry("a", image_path="a.png")]}))
    assert annotation.keys() == {"train", "val", "test"}
    assert annotation["train"] == []
    assert annotation["val"][0]["image_path"] == ["a.png"]


def test_an_empty_report_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff" + json.dumps({"train": [entry("a", report="")]}))
    assert read_r2gen(path, tmp_path / "images")[0].findings == ""


def test_images_are_read_later(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": [entry("a")]})
    (tmp_path / "images" / "a").mkdir()
    Image.fromarray(np.full((80, 64), 7, np.uint8)).save(tmp_path / "images" / "a" / "0.png")
    present, missing = read_r2gen(path, tmp_path / "images")[0].images
    assert present.read(32).pixels.shape == (40, 32)
    with pytest.raises(UserError, match=r"1\.png: no such image file"):
        missing.read(32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"not valid JSON \(line 1\)"),
        ("{", r"not valid JSON \(line 1\)"),
        ("[" * 100_000, "not JSON"),
        ([entry("a")], "a JSON object with the keys train, val and test is needed, not a list"),
        ({"train": [entry("a")], "valid": []}, "unknown key 'valid'"),
        ({"train": {}}, "train: a list of entries is needed, not an object"),
        ({"train": [], "test": []}, "no entries"),
        ({"train": [entry("a"), "b"]}, r"train\[1\]: an object with id"),
        ({"test": [{"report": SECRET, "image_path": "a"}]}, r"test\[0\]\.id: a text is needed, not null"),
        ({"train": [entry(7)]}, r"train\[0\]\.id: a text is needed, not a number"),  # type: ignore[arg-type]
        ({"train": [entry(" ")]}, r"train\[0\]\.id: is empty"),
        ({"train": [entry("a", report=None)]}, r"train\[0\]\.report: a text is needed, not null"),
        ({"train": [entry("a", report=[SECRET])]}, r"train\[0\]\.report: a text is needed, not a list"),
        ({"train": [entry("a", report="\ud800")]}, r"train\[0\]\.report: contains an incomplete character"),
        ({"train": [entry("a", image_path=[])]}, r"train\[0\]\.image_path: a path or a list of paths"),
        ({"train": [entry("a", image_path=None)]}, r"train\[0\]\.image_path: a path or a list of paths"),
        ({"train": [entry("a", image_path=["a", 1])]}, r"train\[0\]\.image_path\[1\]: a text is needed, not a number"),
        ({"train": [entry("a", image_path="")]}, r"train\[0\]\.image_path\[0\]: is empty"),
        ({"train": [entry("a", image_path="a\0.png")]}, r"train\[0\]\.image_path\[0\]: contains a zero character"),
        ({"train": [entry("a", split="test")]}, r"train\[0\]\.split: differs"),
        ({"train": [entry("a", subject_id=True)]}, r"train\[0\]\.subject_id: a number or a text"),
        ({"train": [entry("a"), entry("a")]}, r"train\[1\]\.id: the same as train\[0\]\.id"),
        ({"train": [entry("a")], "test": [entry("b"), entry("a")]}, r"test\[1\]\.id: the same as train\[0\]\.id"),
    ],
)
def test_a_broken_annotation_is_one_error_with_place_and_no_report(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        read_r2gen(path, tmp_path / "images")
    assert str(caught.value).startswith(f"{path}: ")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_text_no_file_and_a_huge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"train": "\xe4"}')
    with pytest.raises(UserError, match="UTF-8"):
        read_annotation(tmp_path / "latin.json")
    with pytest.raises(UserError, match=r"absent\.json: cannot be read"):
        read_annotation(tmp_path / "absent.json")
    with pytest.raises(UserError, match=r"train\.json: is missing"):
        read_annotation(tmp_path)
    monkeypatch.setattr(r2gen, "MAX_BYTES", 5)
    with pytest.raises(UserError, match="MiB"):
        read_annotation(tmp_path / "latin.json")


@pytest.mark.parametrize("path", ["/etc/passwd.png", "../outside.png", "a/../../outside.png", "a/.."])
def test_paths_stay_in_the_image_folder(tmp_path: Path, path: str) -> None:
    annotation = write(tmp_path, {"val": [entry("a"), entry("b", image_path=["b.png", path])]})
    with pytest.raises(
        UserError, match=re.escape(f"{annotation}: val[1].image_path[1]: points outside the image folder")
    ):
        read_r2gen(annotation, tmp_path / "images")


def test_links_stay_in_the_image_folder(tmp_path: Path) -> None:
    annotation = write(tmp_path, {"val": [entry("a", image_path=["inside.png", "folder/outside.png"])]})
    (tmp_path / "outside.png").write_bytes(b"")
    (tmp_path / "images" / "true.png").write_bytes(b"")
    (tmp_path / "images" / "inside.png").symlink_to("true.png")
    (tmp_path / "images" / "folder").symlink_to(tmp_path)
    with pytest.raises(UserError, match=re.escape("val[0].image_path[1]: points outside the image folder")):
        read_r2gen(annotation, tmp_path / "images")


def test_the_image_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    annotation = write(tmp_path, {"val": [entry("a", image_path="a.png")]})
    (tmp_path / "link").symlink_to("images")
    assert read_r2gen(annotation, tmp_path / "link")[0].images[0].name == os.fspath(tmp_path / "link" / "a.png")


def test_the_image_folder_must_exist(tmp_path: Path) -> None:
    annotation = write(tmp_path, {"val": [entry("a")]})
    with pytest.raises(UserError, match="absent: no such folder"):
        read_r2gen(annotation, tmp_path / "absent")


CODES = [index % 4 for index in range(18)]
WORDS = ("blank", "positive", "negative", "uncertain")


def test_promptmrg_keeps_its_labels(tmp_path: Path) -> None:
    entries = {"train": [entry("a", labels=CODES, clip_indices=[1, 2])], "test": [entry("b", labels=CODES[:14])]}
    annotation = open_annotation(write(tmp_path, entries))
    assert (annotation.kind, annotation.labelled) == ("promptmrg", True)
    first, second = read_r2gen(annotation, tmp_path / "images")
    assert first.labels == {name: WORDS[code] for name, code in zip(OBSERVATIONS, CODES, strict=True)}
    assert second.labels == {name: WORDS[code] for name, code in zip(OBSERVATIONS[:14], CODES, strict=False)}
    ruled = read_r2gen(annotation, tmp_path / "images", "rules")[0].labels
    assert ruled is not None and ruled["cardiomegaly"] == "positive"


def test_promptmrgs_flat_list_is_all_test_and_one_image_each(tmp_path: Path) -> None:
    path = write(tmp_path, [entry("b", labels=CODES[:14], split="train"), entry("a", labels=CODES[:14])])
    studies = read_r2gen(path, tmp_path / "images")
    assert [(study.id, study.split) for study in studies] == [("b", "test"), ("a", "test")]
    assert studies[0].images == (ImageFile(tmp_path / "images" / "b" / "0.png", "unknown"),)


def coacl(identifier: Any, *names: str, **fields: Any) -> dict[str, Any]:
    return {"rep_id": identifier, "findings": SECRET, "images": [{"img_name": name} for name in names], **fields}


@pytest.mark.parametrize("validation", ["valid.json", "val.json"])
def test_coacls_three_files_and_one_object_are_the_same(tmp_path: Path, validation: str) -> None:
    lists = {"train": [coacl("a", "p10/x", "y.png")], "valid": [coacl(7, "z")], "test": [coacl("c", "w.jpg")]}
    for name, content in zip(("train.json", validation, "test.json"), lists.values(), strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    images = tmp_path / "images"
    images.mkdir()
    studies = read_r2gen(tmp_path, images)
    assert [(study.id, study.split) for study in studies] == [("a", "train"), ("7", "val"), ("c", "test")]
    assert [image.name for image in studies[0].images] == [str(images / "p10/x.jpg"), str(images / "y.png")]
    assert studies[0].findings == SECRET
    (tmp_path / "one.json").write_text(json.dumps(lists))
    assert open_annotation(tmp_path / "one.json").kind == "coacl"
    assert read_r2gen(tmp_path / "one.json", images) == studies


def rexrank(**fields: Any) -> dict[str, Any]:
    return {
        "image_path": ["a/0.png", "a/1.png"], "key_image_path": "a/0.png", "frontal_lateral": ["Frontal", "Lateral"],
        "section_findings": SECRET, "section_impression": "Large.", "context": "Indication: Cough.", "report": "x",
        "split": "valid", **fields,
    }  # fmt: skip


def test_rexranks_studies_know_positions_and_sections(tmp_path: Path) -> None:
    path = write(tmp_path, {"late": rexrank(split="test"), "a": rexrank()})
    studies = read_r2gen(path, tmp_path / "images")
    assert [(study.id, study.split) for study in studies] == [("a", "val"), ("late", "test")]
    assert (studies[0].findings, studies[0].impression, studies[0].indication) == (SECRET, "Large.", "Cough.")
    assert [image.position for image in studies[0].images] == ["frontal", "lateral"]
    plain = write(tmp_path, {"a": {"image_path": "a.png", "section_findings": ""}})
    assert [(study.split, study.images[0].position) for study in read_r2gen(plain, tmp_path / "images")] == [
        ("test", "unknown")
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([entry("a", labels=CODES), entry("b")], r"\[1\]\.labels is missing, but \[0\] has labels"),
        ([entry("a", labels=CODES[:3])], r"\[0\]\.labels: a list of 14 or 18 codes"),
        ([entry("a", labels=[4] * 14)], r"\[0\]\.labels\[0\]: is not one of 0"),
        ([entry("a", labels=[True] * 14)], r"\[0\]\.labels\[0\]: is not one of 0"),
        ([entry("a", labels=CODES), "x"], r"\[1\]: an object with id, report, image_path is needed, not a text"),
        ([entry("a", labels=CODES), entry("a", labels=CODES)], r"\[1\]\.id: the same as \[0\]\.id"),
        ({"train": [coacl("a")]}, r"train\[0\]\.images: a list of objects with img_name"),
        ({"train": [coacl("a", "x"), coacl("b", "")]}, r"train\[1\]\.images\[0\]\.img_name: a text is needed"),
        ({"train": [coacl(None, "x")]}, r"train\[0\]\.rep_id: a text is needed, not null"),
        ({"valid": [coacl("a", "x", findings=1)]}, r"valid\[0\]\.findings: a text is needed, not a number"),
        ({"train": [coacl("a", "x")], "dev": []}, "unknown key 'dev'"),
        ({"train": [coacl("a", "x"), []]}, r"train\[1\]: an object with rep_id, findings, images"),
        ({"a": rexrank(), "b": 1}, "study 'b': an object with image_path"),
        ({"a": rexrank(split="dev")}, r"study 'a'\.split: 'dev' is not train"),
        ({"a": rexrank(section_findings=None)}, r"study 'a'\.section_findings: a text is needed, not null"),
        ({"a": rexrank(section_impression=3)}, r"study 'a'\.section_impression: a text is needed"),
        ({"a": rexrank(context=[])}, r"study 'a'\.context: a text is needed, not a list"),
        ({"a": rexrank(frontal_lateral=["Oblique", "Lateral"])}, r"study 'a'\.frontal_lateral: is not a list of"),
        ({"a": rexrank(frontal_lateral=3)}, r"study 'a'\.frontal_lateral: is not a list of"),
        ({"a": rexrank(image_path=[])}, r"study 'a'"),
        ({"a": rexrank(image_path=None)}, r"study 'a'"),
        ({"a": rexrank(image_path=5)}, r"study 'a'"),
    ],
)
def test_a_broken_relative_is_one_error_with_place_and_no_report(tmp_path: Path, content: Any, message: str) -> None:
    test_a_broken_annotation_is_one_error_with_place_and_no_report(tmp_path, content, message)


def test_positions_that_do_not_fit_the_images_are_unknown(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": rexrank(frontal_lateral=["Frontal"])})
    assert [image.position for image in read_r2gen(path, tmp_path / "images")[0].images] == ["unknown", "unknown"]


@pytest.mark.real_data
def test_rexranks_files_hold_the_studies_of_r2gens_splits(real_data: Path) -> None:
    theirs = read_annotation(real_data / "iu_xray" / "annotation.json")
    for name, split in (("rexrank_valid.json", "val"), ("rexrank_test.json", "test")):
        annotation = open_annotation(real_data / "iu_xray" / name)
        assert annotation.kind == "rexrank"
        reports = {entry["id"]: " ".join(entry["report"].split()) for entry in theirs[split]}
        assert {entry["id"]: " ".join(entry["report"].split()) for entry in annotation.splits[split]} == reports


def test_a_named_kind_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": [coacl("a", "x")]})
    with pytest.raises(UserError, match=r"train\[0\]\.image_path: a path"):
        open_annotation(path, "r2gen")
    with pytest.raises(UserError, match="study 'train': an object"):
        open_annotation(path, "rexrank")


def test_codes_may_be_written_as_decimals(tmp_path: Path) -> None:
    path = write(tmp_path, [entry("a", labels=[float(code) for code in CODES])])
    (study,) = read_r2gen(path, tmp_path / "images")
    assert study.labels == {name: WORDS[code] for name, code in zip(OBSERVATIONS, CODES, strict=True)}


def test_the_command_says_whose_labels_it_took(tmp_path: Path) -> None:
    path = write(tmp_path, [entry("a", image_path=["a.png"], labels=CODES)])
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(tmp_path / "images" / "a.png")
    arguments = ["prepare", "r2gen", "--annotation", str(path), "--images", str(tmp_path / "images"), "--size", "16",
                 "--workers", "0", "--out"]  # fmt: skip
    cli.main([*arguments, str(tmp_path / "own")])
    cli.main([*arguments, str(tmp_path / "rules"), "--labels", "rules"])
    own, rules = (Dataset.open(tmp_path / name) for name in ("own", "rules"))
    assert (own.info.source["kind"], own.info.source["labels"]) == ("promptmrg", "annotation")
    assert rules.info.source["labels"].startswith("crossray-rules")
    assert own.labels is not None and own.labels[0].tolist() == CODES


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    text = json.dumps({"train": [entry("a")]})[:-1] + ', "train": []}'
    with pytest.raises(UserError, match="the key 'train' appears twice"):
        read_annotation(write(tmp_path, text))


def test_names_of_files_in_other_spellings(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"train": [entry("a", image_path=["sub\\0.png", unicodedata.normalize("NFC", "Müller.png")])]}
    )
    stored = unicodedata.normalize("NFD", "Müller.png")
    (tmp_path / "images" / "sub").mkdir()
    (tmp_path / "images" / "sub" / "0.png").touch()
    (tmp_path / "images" / stored).touch()
    (study,) = read_r2gen(path, tmp_path / "images")
    assert [image.name for image in study.images] == [str(tmp_path / "images" / name) for name in ("sub/0.png", stored)]


def test_frontal_views_come_first_where_the_file_says_positions(tmp_path: Path) -> None:
    study = rexrank(image_path=["0.png", "1.png"], frontal_lateral=["Lateral", "Frontal"])
    path = write(tmp_path, {"s1": study})
    (read,) = read_r2gen(path, tmp_path / "images")
    assert [(Path(image.name).name, image.position) for image in read.images] == [
        ("1.png", "frontal"),
        ("0.png", "lateral"),
    ]


@pytest.mark.parametrize(
    ("one", "other"), [(7, 7), ("12", "12.0"), tuple(unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))]
)
def test_a_patient_in_two_splits_is_counted_and_said(
    tmp_path: Path, one: Any, other: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = {
        "train": [entry("a", subject_id=one), entry("b", subject_id="x")],
        "test": [entry("c", subject_id=other)],
    }
    path = write(tmp_path, entries)
    for name in "abc":
        (tmp_path / "images" / name).mkdir()
        for view in (0, 1):
            Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(
                tmp_path / "images" / name / f"{view}.png"
            )
    cli.main(["prepare", "r2gen", "--annotation", str(path), "--images", str(tmp_path / "images"), "--out",
              str(tmp_path / "d"), "--size", "32", "--workers", "0"])  # fmt: skip
    assert Dataset.open(tmp_path / "d").info.counts["patients_in_several_splits"] == 1
    assert "1 patient is in two splits or more" in capsys.readouterr().out


def test_an_image_of_two_studies_causes_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, {"train": [entry("a")], "test": [entry("b")]})
    r2gen.r2gen(path, tmp_path / "images")
    assert not caplog.messages
    path = write(tmp_path, {"train": [entry("a")], "test": [entry("b", image_path=["b/0.png", "a/1.png"])]})
    r2gen.r2gen(path, tmp_path / "images")
    assert "1 images belong to more than one patient" in caplog.text
