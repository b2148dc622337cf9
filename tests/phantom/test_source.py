import csv
import json
import pickle

import numpy as np
import pytest

from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError
from crossray.phantom.labels import labels_of
from crossray.phantom.sample import sample_scene
from crossray.phantom.source import DrawnImage, like_studies, phantom_studies, tag_notes

TAGS = {"7": "Cardiomegaly/mild; Stents ", "12": "normal", "31": "Opacity/lung/base/left;Stents", "40": "No Indexing"}


@pytest.fixture
def annotation(tmp_path):
    def entry(uid, split):
        return {
            "id": f"CXR{uid}_IM-1",
            "report": f"Report of study {uid}.",
            "image_path": [f"CXR{uid}_IM-1/0.png", f"CXR{uid}_IM-1/1.png"],
            "split": split,
        }

    path = tmp_path / "annotation.json"
    content = {"train": [entry(12, "train"), entry(7, "train")], "val": [entry(31, "val")], "test": []}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def tags_csv(tmp_path):
    return write_csv(tmp_path, TAGS)


def write_csv(folder, tags, columns=("uid", "MeSH", "Problems", "indication", "findings", "impression")):
    path = folder / "reports.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        for uid, mesh in tags.items():
            writer.writerow({"uid": uid, "MeSH": mesh, "impression": f"Impression, of {uid}.", "indication": "Cough."})
    return path


def test_phantom_studies_have_reports_labels_and_views():
    studies = phantom_studies(60, seed=4)
    assert len(studies) == 60
    assert [studies[0].id, studies[-1].id] == ["phantom-4-000000", "phantom-4-000059"]
    assert len({study.id for study in studies}) == len({study.patient for study in studies}) == 60
    assert {study.split for study in studies} == {"train", "val", "test"}
    for index, study in enumerate(studies):
        scene = sample_scene(4, index, "realistic")
        assert study.findings
        assert study.impression
        assert study.labels == labels_of(scene)
        positions = [image.position for image in study.images]
        assert positions == (["pa", "lateral"] if scene.exposure.position == "pa" else ["ap"])
        assert set(positions) <= set(VIEW_POSITIONS)


def test_a_longer_set_begins_with_the_shorter_one():
    assert list(phantom_studies(15, 1)) == list(phantom_studies(40, 1))[:15]
    assert phantom_studies(40, 1)[10:12] == [phantom_studies(40, 1)[10], phantom_studies(40, 1)[11]]
    assert phantom_studies(15, 1)[3] != phantom_studies(15, 2)[3]
    with pytest.raises(IndexError):
        phantom_studies(15, 1)[15]


def test_studies_travel_to_another_process():
    studies = phantom_studies(5000, 2, "easy")
    assert len(pickle.dumps(studies)) < 500
    assert pickle.loads(pickle.dumps(studies))[4999] == studies[4999]
    assert pickle.loads(pickle.dumps(studies[7])) == studies[7]


def test_negative_numbers_are_a_user_s_error():
    with pytest.raises(UserError, match="seed -1"):
        phantom_studies(10, -1)


def test_a_drawn_image_reads_as_pixels_with_masks():
    scene = next(s for s in (sample_scene(0, i, "easy") for i in range(50)) if s.findings)
    for view in ("frontal", "lateral"):
        image = DrawnImage(scene, view)
        drawn = image.read(64)
        assert drawn.pixels.dtype == np.uint8
        assert min(drawn.pixels.shape) == 64
        assert {mask.finding for mask in drawn.findings} <= {finding.name for finding in scene.findings}
        assert view in image.name
    assert DrawnImage(scene, "frontal").read(64).findings


def test_like_studies_pair_true_reports_with_drawn_tags(annotation, tags_csv):
    studies = like_studies(annotation, tags_csv, seed=3)
    assert [(study.id, study.split) for study in studies] == [
        ("CXR12_IM-1", "train"),
        ("CXR7_IM-1", "train"),
        ("CXR31_IM-1", "val"),
    ]
    normal, enlarged, opacity = studies
    assert enlarged.findings == "Report of study 7."
    assert (enlarged.impression, enlarged.indication) == ("Impression, of 7.", "Cough.")
    assert enlarged.extra == {"tags": ["Cardiomegaly/mild", "Stents"], "undrawn_tags": ["Stents"]}
    assert enlarged.labels["cardiomegaly"] == "positive"
    assert normal.labels["no_finding"] == "positive"
    assert opacity.labels["lung_opacity"] == "positive"
    for study in studies:
        assert [image.position for image in study.images] == ["pa", "lateral"]
        assert study.images[0].scene == study.images[1].scene
    assert like_studies(annotation, tags_csv, seed=3) == studies
    assert like_studies(annotation, tags_csv, seed=4)[0].images != studies[0].images


def test_equal_tags_are_different_patients(annotation, tmp_path):
    studies = like_studies(annotation, write_csv(tmp_path, dict.fromkeys(TAGS, "normal")))
    assert len({study.images[0].scene.patient for study in studies}) == 3


def test_tag_notes_count_what_was_drawn(annotation, tags_csv):
    assert tag_notes(like_studies(annotation, tags_csv)) == {
        "abnormal_tags": 4,
        "drawn_tags": 2,
        "drawn_share": 0.5,
        "undrawn_tags": {"Stents": 2},
    }


def test_a_study_without_tags_is_a_user_s_error(annotation, tmp_path):
    with pytest.raises(UserError, match=r"reports\.csv: uid 31.*complete file"):
        like_studies(annotation, write_csv(tmp_path, {"7": "normal", "12": "normal"}))


def test_a_foreign_annotation_is_a_user_s_error(tmp_path, tags_csv):
    path = tmp_path / "mimic.json"
    path.write_text(
        json.dumps({"train": [{"id": "s5", "report": "Clear.", "image_path": ["a.jpg"], "split": "train"}]})
    )
    with pytest.raises(UserError, match=r"mimic\.json: id 's5'.*annotation\.json"):
        like_studies(path, tags_csv)


@pytest.mark.parametrize("column", ["uid", "MeSH", "impression"])
def test_a_missing_column_is_named(annotation, tmp_path, column):
    columns = [name for name in ("uid", "MeSH", "indication", "impression") if name != column]
    with pytest.raises(UserError, match=rf"column {column} is missing"):
        like_studies(annotation, write_csv(tmp_path, TAGS, columns))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "column uid is missing"),
        (b"uid,MeSH,indication,impression\n7,normal,,\n7,normal,,\n", "line 3: uid 7 occurs twice"),
        (b"uid,MeSH,indication,impression\n7,normal\n", "line 2: not as many fields"),
        (b"uid,MeSH,indication,impression\n7,normal,,,,extra\n", "line 2: not as many fields"),
        (b"uid,MeSH,indication,impression\n7,\xff\xfe,,\n", "not UTF-8"),
        (b'uid,MeSH,indication,impression\n7,"normal,,\n', "not a CSV"),
    ],
)
def test_broken_csv_files_are_a_user_s_error(annotation, tmp_path, content, message):
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        like_studies(annotation, path)
    assert "broken.csv" in str(caught.value)


def test_a_missing_file_is_a_user_s_error(annotation, tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: cannot be read"):
        like_studies(annotation, tmp_path / "absent.csv")
    with pytest.raises(UserError):
        like_studies(annotation, tmp_path)


@pytest.mark.real_data
def test_the_whole_of_iu_xray_gets_drawings(real_data):
    folder = real_data / "iu_xray"
    studies = like_studies(folder / "annotation.json", folder / "indiana_reports.csv")
    assert [sum(study.split == split for study in studies) for split in ("train", "val", "test")] == [2069, 296, 590]
    assert len({study.id for study in studies}) == 2955
    notes = tag_notes(studies)
    assert notes["drawn_share"] >= 0.75
    assert sum(notes["undrawn_tags"].values()) == notes["abnormal_tags"] - notes["drawn_tags"]
    assert sum(notes["undrawn_tags"].values()) == sum(len(study.extra["undrawn_tags"]) for study in studies)
