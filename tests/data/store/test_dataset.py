import json
import pickle
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from crossray.data.store import Dataset, write_dataset
from crossray.errors import UserError


@pytest.fixture
def copied(noise_dataset, tmp_path):
    """A copy of the dataset that a test may damage."""
    folder = tmp_path / "copy"
    shutil.copytree(noise_dataset.path, folder)
    return folder


def test_rows_of_the_splits_share_all_studies(noise_dataset):
    rows = np.concatenate([noise_dataset.rows(split) for split in ("train", "val", "test")])
    assert sorted(rows.tolist()) == list(range(60))
    assert all(noise_dataset.record(row).split == "val" for row in noise_dataset.rows("val"))


def test_texts_are_those_of_the_rows_asked_for(noise_dataset, noise):
    rows = [7, 3, 3, 59]
    assert noise_dataset.ids(rows) == [f"study-{row}" for row in rows]
    assert noise_dataset.patients(rows) == [f"patient-{row // 2}" for row in rows]
    for section in ("findings", "impression", "indication"):
        expected = [getattr(noise.noise_study(row), section) for row in rows]
        assert noise_dataset.reports(rows, section) == expected
    assert noise_dataset.reports([]) == []


def test_labels_of_all_studies_agree_with_the_records(noise_dataset):
    for row, codes in enumerate(noise_dataset.labels):
        labels = noise_dataset.record(row).labels
        assert (codes == -1).all() if labels is None else codes.tolist() == labels.tolist()


def test_images_are_read_only_windows(noise_dataset):
    with pytest.raises(ValueError, match="read-only"):
        noise_dataset.image(0)[0, 0] = 1


def test_a_pickled_dataset_reads_the_same(noise_dataset):
    noise_dataset.image(5)
    copy = pickle.loads(pickle.dumps(noise_dataset))
    assert len(pickle.dumps(noise_dataset)) < 1000
    np.testing.assert_array_equal(copy.image(5), noise_dataset.image(5))


def test_unknown_names_are_refused(noise_dataset):
    with pytest.raises(UserError, match="split 'dev' does not exist"):
        noise_dataset.rows("dev")
    with pytest.raises(UserError, match="section 'history' does not exist"):
        noise_dataset.reports([0], "history")


def test_an_empty_split_is_refused(noise, tmp_path):
    studies = [noise.noise_study(0)]
    dataset = write_dataset(tmp_path / "set", studies, size=8, source={"name": "noise"}, workers=0)
    with pytest.raises(UserError, match="split 'val' has no studies"):
        dataset.rows("val")


def test_a_folder_that_is_no_dataset(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"dataset\.json is missing"):
            Dataset.open(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "field 'format'"),
        ('{"format": 99}', "'format'"),
        ('{"format": 1}', "'source'"),
    ],
)
def test_a_damaged_description(copied, text, message):
    (copied / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Dataset.open(copied)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"counts": {}}, "counts.read"),
        ({"counts": {"read": 1, "rejected": {}, "studies": {"all": 1}, "images": {"all": "1"}}}, "counts.images.all"),
        ({"observations": 5}, "observations"),
        ({"notes": [1]}, "notes"),
        ({"size": None}, "size"),
    ],
)
def test_a_field_of_the_wrong_type(copied, changed, field):
    description = copied / "dataset.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | changed))
    with pytest.raises(UserError, match=f"field '{field}' of dataset.json is missing or of the wrong type; remove"):
        Dataset.open(copied)


def test_cut_or_missing_pixels(copied):
    pixels = copied / "images-00000.u8"
    size = pixels.stat().st_size
    with pixels.open("rb+") as file:
        file.truncate(size - 1)
    with pytest.raises(UserError, match=f"images-00000.u8 has {size - 1} bytes instead of {size}"):
        Dataset.open(copied)
    pixels.unlink()
    with pytest.raises(UserError, match="has 0 bytes"):
        Dataset.open(copied)


@pytest.mark.parametrize("name", ["images.parquet", "studies.parquet"])
def test_damaged_tables(copied, name):
    (copied / name).write_bytes((copied / name).read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read"):
        Dataset.open(copied)
    (copied / name).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        Dataset.open(copied)


def test_tables_with_other_columns(copied):
    table = pq.read_table(copied / "images.parquet")
    pq.write_table(table.drop_columns(["offset"]), copied / "images.parquet")
    with pytest.raises(UserError, match="other columns"):
        Dataset.open(copied)


def test_the_tables_can_be_read_without_this_package(noise_dataset):
    """What the documentation of the format promises: a view's pixels from the tables alone."""
    images = pq.read_table(noise_dataset.path / "images.parquet").to_pylist()
    assert [image["row"] for image in images] == list(range(noise_dataset.images))
    for image in images[::7]:
        pixels = np.fromfile(
            noise_dataset.path / f"images-{image['shard']:05d}.u8",
            np.uint8,
            count=image["height"] * image["width"],
            offset=image["offset"],
        )
        np.testing.assert_array_equal(
            pixels.reshape(image["height"], image["width"]), noise_dataset.image(image["row"])
        )
    assert json.loads((noise_dataset.path / "dataset.json").read_text())["counts"]["studies"]["all"] == 60
