"""`crossray calibrate` on a small model: what it writes, and what reports become by it."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from tests.confidence.conftest import TRAIN, VAL

import crossray
from crossray.cli import main
from crossray.confidence.calibration import FILE, Calibration
from crossray.confidence.check import FLAGS
from crossray.confidence.features import pooled_of_images, pooled_of_studies
from crossray.confidence.fitting import LEAST_AREA, good_scores, learn, limit
from crossray.confidence.folder import ARRAYS, DESCRIPTION, load_check, save_check
from crossray.confidence.measuring import calibrate
from crossray.confidence.poses import MISTAKES, Pose, draw_poses
from crossray.confidence.statements import presence
from crossray.data.store import Dataset
from crossray.decoding.config import DecodingConfig
from crossray.decoding.reports import WrittenReport
from crossray.errors import UserError
from crossray.files.digest import sha256
from crossray.models.base import ReportModel


@pytest.fixture(scope="module")
def image(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "frontal.png"
    Image.fromarray(phantom.image(0)).save(path)
    return path


def test_confidence_is_what_the_stored_calibrator_says(calibrated: Path, bare: Path, image: Path) -> None:
    report = crossray.load(calibrated, device="cpu").report(image)
    raw = crossray.load(bare, device="cpu").report(image)
    assert report.raw == raw.raw
    assert report.calibrated
    assert not raw.calibrated
    stored = json.loads((calibrated / FILE).read_text())["sampled"]["sentences"]
    assert set(stored["weights"]) == {"probability", "base_rate", "agreement"}
    told = [one for one in report.sentences if one.calibrated]
    assert [one.text for one in report.sentences] == [one.text for one in raw.sentences]
    assert all(0 < one.confidence < 1 for one in told)
    assert not any(one.calibrated for one in raw.sentences)
    assert report.observation_confidence.keys() == report.observations.keys()


def test_a_report_without_the_section_is_no_report_of_nothing(
    bare: Path, phantom: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = ReportModel.from_pretrained(bare), Dataset.open(phantom.path)
    assert model.tokenizer is not None
    whole = phantom.reports(np.arange(phantom.studies))
    monkeypatch.setattr(data, "reports", lambda rows, section: ["" if row % 4 == 3 else whole[row] for row in rows])
    tokens = model.tokenizer.encode(max(whole, key=len), 60)[1:-1]
    report = WrittenReport(model.tokenizer.decode(tokens), tuple(tokens), (-0.1,) * len(tokens), samples=("",))
    read: list[int] = []

    def written(*arguments: Any) -> list[WrittenReport]:
        read.extend(arguments[3].tolist())
        return [report] * len(arguments[3])

    monkeypatch.setattr("crossray.confidence.measuring.written_reports", written)
    found = calibrate(model, DecodingConfig(), data, section="impression")
    assert read == [row for row in range(TRAIN, TRAIN + VAL) if row % 4 < 3]
    known = presence([model.tokenizer.clean(text) for row, text in enumerate(whole[:TRAIN]) if row % 4 < 3])
    assert list(found.rates.values()) == pytest.approx(known.mean(axis=0).tolist())


def test_another_search_is_not_calibrated(calibrated: Path, image: Path) -> None:
    report = crossray.load(calibrated, device="cpu", decoding={"method": "greedy"}).report(image)
    assert not report.calibrated
    assert not any(one.calibrated for one in report.sentences)


def test_a_calibration_comes_back_from_its_file(calibrated: Path, tmp_path: Path) -> None:
    found = Calibration.load(calibrated, sha256(calibrated / "model.safetensors"))
    assert found is not None
    found.save(tmp_path)
    assert Calibration.load(tmp_path, found.weights) == found
    earlier = replace(found, decoding={k: v for k, v in found.decoding.items() if k != "bf16"})
    decoding = DecodingConfig(**{**found.decoding, "forbidden": tuple(found.decoding["forbidden"])})
    assert earlier.fits(decoding) and not earlier.fits(replace(decoding, bf16=True))
    assert found.measured["sentences"]["statements"] > 0
    assert {"as the model gives it", "Platt", "isotonic", "with drawn reports"} <= set(
        found.measured["sentences"]["ways"]
    )


@pytest.mark.parametrize("name", [FILE, DESCRIPTION])
def test_a_damaged_file_or_one_of_other_weights_is_named(calibrated: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(calibrated, folder)
    whole = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**whole, "weights": "other"}))
    with pytest.raises(UserError, match=rf"{name}: field 'weights'"):
        crossray.load(folder, device="cpu")
    (folder / name).write_text("{}")
    with pytest.raises(UserError, match=rf"{name}: cannot be read"):
        crossray.load(folder, device="cpu")


def test_a_check_that_is_read_back_gives_the_same_scores(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors, positions = random.normal(size=(90, 5)).astype(np.float32), np.arange(90) % 2 * 4 + (np.arange(90) + 1) % 2
    poses = draw_poses(90, random)
    checker = replace(
        learn(vectors, positions, vectors[::-1], positions[::-1], poses), weights="w", limits={"view": 0.5}
    )
    save_check(checker, tmp_path)
    found = load_check(tmp_path, "w")
    assert found is not None
    assert found.limits == checker.limits
    expected = checker.scores(vectors)
    assert {name: values.tolist() for name, values in found.scores(vectors).items()} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_arrays_that_were_cut_off_are_noticed(calibrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(calibrated, folder)
    (folder / ARRAYS).write_bytes((folder / ARRAYS).read_bytes()[:-8])
    with pytest.raises(UserError, match="cannot be read"):
        load_check(folder, sha256(folder / "model.safetensors"))


def test_a_vector_does_not_depend_on_the_company_of_its_image(bare: Path, phantom: Dataset) -> None:
    model = crossray.load(bare, device="cpu").model
    rows = phantom.rows("val")[:3]
    ((together, positions),) = pooled_of_studies(model, phantom, rows)
    images = [view for row in rows for view in phantom.views(row)[:2]]
    (alone,) = pooled_of_images(model, [phantom.image(view) for view in images])
    assert np.abs(together - alone).max() < 1e-5
    assert positions.tolist() == phantom.image_positions[images].tolist()


def test_false_alarms_stay_within_what_was_allowed(calibrated: Path) -> None:
    described = json.loads((calibrated / DESCRIPTION).read_text())
    mistakes = described["measured"]["mistakes"]
    trusted = {"inverted": mistakes["inverted"]["auroc"], "mirrored": mistakes["mirrored"]["auroc"]}
    trusted["rotated"] = min(mistakes[f"turned by {degrees} degrees"]["auroc"] for degrees in (90, 180, 270))
    assert set(described["limits"]) == {flag for flag in FLAGS if trusted.get(flag, 1.0) >= LEAST_AREA}
    assert "inverted" in described["limits"]
    assert "mirrored" not in described["limits"]
    assert all(share <= 0.1 for share in described["measured"]["false_alarms"].values())


def test_the_area_that_is_printed_is_that_of_scikit_learn(calibrated: Path, phantom: Dataset) -> None:
    loaded = crossray.load(calibrated, device="cpu")
    checker = loaded.generator.checker
    assert checker is not None
    rows = [view for row in phantom.rows("val") for view in phantom.views(row)[:2]]
    scores = []
    for pose in (Pose(), MISTAKES["inverted"]):
        vectors = np.concatenate(list(pooled_of_images(loaded.model, [pose(phantom.image(row)) for row in rows])))
        scores.append(checker.scores(vectors)["inverted"])
    expected = roc_auc_score(np.repeat([0, 1], len(rows)), np.concatenate(scores))
    assert checker.measured["mistakes"]["inverted"]["auroc"] == pytest.approx(expected, abs=1e-6)


def test_an_inverted_film_is_flagged_with_a_reason_and_refused(
    calibrated: Path,
    phantom: Dataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    model = crossray.load(calibrated, device="cpu")
    rows = [int(phantom.views(row)[0]) for row in phantom.rows("train")]
    plain = next(row for row in rows if _flags(model, phantom.image(row), good) == [])
    Image.fromarray(phantom.image(plain)).save(good)
    assert "inverted" in _flags(model, 255 - phantom.image(plain), bad)
    assert model.check(good).ok
    assert model.check(good).views == ("frontal",)
    (flag,) = [one for one in model.check(bad).flags if one.name == "inverted"]
    assert flag.score > flag.limit
    assert "looks inverted" in flag.reason
    out = tmp_path / "reports.jsonl"
    main(["generate", str(bad), "--model", str(calibrated), "--out", str(out), "--device", "cpu"])
    assert "looks inverted" in caplog.text
    out.unlink()
    with pytest.raises(SystemExit) as ended:
        main(["generate", str(good), str(bad), "--model", str(calibrated), "--out", str(out), "--strict"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "bad: refused: " in said
    assert "View 1 looks inverted" in said
    assert not out.exists()


def _flags(model: crossray.Reporter, pixels: np.ndarray, path: Path) -> list[str]:
    Image.fromarray(pixels).save(path)
    return [flag.name for flag in model.check(path).flags]


def test_a_colour_photograph_is_flagged_before_anything_is_computed(calibrated: Path, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3)).astype(np.uint8)).save(path)
    (flag,) = crossray.load(calibrated, device="cpu").check(path).flags
    assert flag.name == "not_a_radiograph"
    assert "color picture" in flag.reason


def test_a_folder_without_the_files_still_writes_but_cannot_check(bare: Path, image: Path) -> None:
    model = crossray.load(bare, device="cpu")
    assert model.report(image).check is None
    with pytest.raises(UserError, match="crossray calibrate"):
        model.check(image)
    with pytest.raises(UserError, match="crossray calibrate"):
        next(model.reports([image], strict=True))


def test_the_page_says_what_it_is_not(calibrated: Path) -> None:
    text = calibrated.with_name("page.html").read_text()
    assert "not a medical device" in text
    assert text.count("<svg") >= 4
    assert "http" not in text.replace("http-equiv", "")


def test_a_share_that_cannot_be_measured_is_refused_before_reports_are_written(bare: Path, phantom: Dataset) -> None:
    before = sorted(bare.iterdir())
    with pytest.raises(SystemExit):
        main(["calibrate", "--model", str(bare), "--data", str(phantom.path), "--false-alarms", "0.0001"])
    assert sorted(bare.iterdir()) == before


def test_a_missing_package_is_named_before_reports_are_written(
    bare: Path, phantom: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    model = ReportModel.from_pretrained(bare)
    finished: list[int] = []
    with pytest.raises(UserError, match="needs scikit-learn"):
        calibrate(model, DecodingConfig(max_length=5), phantom, progress=lambda done, _: finished.append(done))
    assert not finished


def test_a_split_without_known_positions_gives_no_limit_on_the_view() -> None:
    random = np.random.default_rng(0)
    vectors, positions = random.normal(size=(120, 6)).astype(np.float32), np.arange(120) % 2 * 3 + 1
    checker = learn(vectors, positions, vectors, positions, draw_poses(120, random))
    good = good_scores(checker, vectors[:9], np.zeros(9, np.int64), np.arange(9))
    assert {name: limit(name, scores, 0.2) for name, scores in good.items()}.keys() == {*FLAGS} - {"view"}


def test_a_channel_that_training_never_moved_does_not_decide_alone() -> None:
    random = np.random.default_rng(0)
    vectors, positions = random.normal(size=(120, 6)).astype(np.float32), np.arange(120) % 2 * 3 + 1
    vectors[:, 0] = 0
    checker = learn(vectors, positions, vectors, positions, draw_poses(120, random))
    moved = vectors[:1].copy()
    moved[0, 0] = 0.3  # a third of what the other channels vary by
    before, after = (checker.scores(one)["unfamiliar"][0] for one in (vectors[:1], moved))
    assert after < before + 10
