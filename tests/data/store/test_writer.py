import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crossray.data.store import Dataset, layout, write_dataset
from crossray.errors import UserError

SCRIPT = Path(__file__).parents[1] / "noise_studies.py"
SOURCE = {"name": "noise"}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*arguments: object, **options: object) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def whole(noise, tmp_path_factory) -> dict[str, str]:
    """Digests of an uninterrupted run in one process."""
    out = tmp_path_factory.mktemp("whole") / "set"
    write_dataset(out, noise.noise_studies(200), size=16, source=SOURCE, workers=0)
    return digests(out)


def test_what_is_read_is_what_was_written(noise, tmp_path):
    studies = noise.noise_studies(70)
    dataset = write_dataset(tmp_path / "set", studies, size=16, source=SOURCE, workers=0, notes={"undrawn": 3})
    assert dataset.studies == len(studies)
    assert dataset.info.notes == {"undrawn": 3}
    assert dataset.info.observations == ("cardiomegaly", "edema")
    for row, study in enumerate(studies):
        record = dataset.record(row)
        assert (record.id, record.patient, record.split) == (study.id, study.patient, study.split)
        assert (record.findings, record.impression, record.indication) == (
            study.findings,
            study.impression,
            study.indication,
        )
        assert record.extra == study.extra
        assert record.positions == tuple(image.position for image in study.images)
        assert (record.labels is None) if study.labels is None else (record.labels.tolist() == [3, 1])
        for image_row, image in zip(dataset.views(row), study.images, strict=True):
            np.testing.assert_array_equal(dataset.image(image_row), image.read(16).pixels)


def test_masks_are_kept_with_their_study_and_view(noise, tmp_path):
    studies = noise.noise_studies(70)
    table = write_dataset(tmp_path / "set", studies, size=16, source=SOURCE, workers=0).findings().to_pylist()
    expected = [
        (number, view, mask.finding, mask.height, mask.width, list(mask.runs))
        for number, study in enumerate(studies)
        for view, image in enumerate(study.images)
        for mask in image.read(16).findings
    ]
    found = [tuple(row[key] for key in ("study", "view", "finding", "height", "width", "runs")) for row in table]
    assert found == expected and len(found) > 5


def test_counts(noise, tmp_path):
    studies = noise.noise_studies(10)
    info = write_dataset(tmp_path / "set", studies, size=8, source=SOURCE, workers=0).info
    assert info.counts["read"] == 10 and info.counts["rejected"] == {}
    assert info.counts["studies"] == {"all": 10, "train": 6, "val": 2, "test": 2}
    assert info.counts["images"]["all"] == sum(len(study.images) for study in studies)
    assert info.patients["all"] == 5
    # "the heart is normal . finding N is seen ." is ten words, said once to three times
    assert info.average_length["all"] == pytest.approx(np.mean([10 * (1 + n % 3) for n in range(10)]), abs=1e-4)


def test_unusable_studies_are_quarantined_with_their_reason(noise, tmp_path):
    studies = noise.noise_studies(6)
    studies[1] = noise.noise_study(1, images=(noise.NoiseImage(1, "frontal", broken=True),))
    studies[2] = noise.noise_study(2, findings=" . .. ")
    studies[3] = noise.noise_study(3, images=())
    studies[4] = noise.noise_study(4, labels={"gout": "positive"})
    studies.append(noise.noise_study(0))
    dataset = write_dataset(tmp_path / "set", studies, size=8, source=SOURCE, workers=0)
    assert [dataset.record(row).id for row in range(dataset.studies)] == ["study-0", "study-5"]
    np.testing.assert_array_equal(dataset.image(dataset.views(1)[0]), studies[5].images[0].read(8).pixels)
    lines = [json.loads(line) for line in (dataset.path / "rejected.jsonl").read_text().splitlines()]
    assert [(line["study"], line["step"]) for line in lines] == [
        ("study-1", "broken_image"),
        ("study-2", "empty_report"),
        ("study-3", "no_image"),
        ("study-4", "label"),
        ("study-0", "repeated"),
    ]
    assert "noise-1: cut off" in lines[0]["reason"]
    assert "heart" not in (dataset.path / "rejected.jsonl").read_text()
    assert dataset.info.counts["rejected"]["broken_image"] == 1


def test_all_rejected_is_an_error_that_leaves_nothing(noise, tmp_path):
    studies = [noise.noise_study(number, findings="") for number in range(3)]
    with pytest.raises(UserError, match=r"3 studies read and none accepted \(empty_report: 3"):
        write_dataset(tmp_path / "set", studies, size=8, source=SOURCE, workers=0)
    with pytest.raises(UserError, match="no study"):
        write_dataset(tmp_path / "set", [], size=8, source=SOURCE, workers=0)
    assert not (tmp_path / "set").exists()


def test_a_failing_source_leaves_nothing(noise, tmp_path):
    def studies():
        yield noise.noise_study(0)
        raise UserError("annotation.json: entry 1 has no field 'report'; add it.")

    with pytest.raises(UserError, match="entry 1"):
        write_dataset(tmp_path / "set", studies(), size=8, source=SOURCE, workers=0)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_bytes_do_not_depend_on_the_number_of_workers(whole, tmp_path, workers):
    process = run(tmp_path / "set", "--workers", workers)
    assert process.wait(60) == 0, process.stderr.read()
    assert digests(tmp_path / "set") == whole


def test_killed_before_each_write_to_disk_and_continued(whole, tmp_path):
    """From the 10th fsync (the first shard is whole) each run is killed one fsync later than the one before."""
    process = run(tmp_path / "set", "--kill-every", 10)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 0, errors
    assert int(output) >= 3
    assert digests(tmp_path / "set") == whole


@pytest.mark.parametrize("operation", [*range(0, 12, 3), *range(22, 46)])
def test_killed_at_one_point(noise, whole, tmp_path, operation):
    """In the first shard, and at every write of the last shard, the merge and the end."""
    child = os.fork()
    if child == 0:
        noise.kill_at(operation)
        write_dataset(tmp_path / "set", noise.noise_studies(200), size=16, source=SOURCE, workers=0)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and not (tmp_path / "set" / layout.DESCRIPTION).exists():
        with pytest.raises(UserError):
            Dataset.open(tmp_path / "set")
    write_dataset(tmp_path / "set", noise.noise_studies(200), size=16, source=SOURCE, workers=0)
    assert digests(tmp_path / "set") == whole


@pytest.mark.parametrize("seconds", [0.7, 1.0, 1.3])
def test_killed_at_some_time_with_workers(whole, tmp_path, seconds):
    process = run(tmp_path / "set", "--workers", 2, start_new_session=True)
    time.sleep(seconds)
    process.kill()
    process.wait(20)
    process = run(tmp_path / "set", "--workers", 2)
    assert process.wait(60) == 0, process.stderr.read()
    assert digests(tmp_path / "set") == whole


def test_killed_after_two_shards_continues_with_the_missing_ones(whole, tmp_path):
    process = run(tmp_path / "set", "--workers", 2, "--kill-after", 2)
    assert process.wait(60) == -signal.SIGKILL
    # a folder with a suffix was still being written, and may go
    found = (tmp_path / "set" / layout.UNFINISHED).glob("*/shard.json")
    kept = {path: path.stat().st_ino for path in found if not path.parent.suffix}
    assert len(kept) >= 2
    with pytest.raises(UserError, match="unfinished; run the same prepare command again"):
        Dataset.open(tmp_path / "set")
    process = run(tmp_path / "set", "--workers", 2, "--kill-after", 4)
    assert process.wait(60) == -signal.SIGKILL
    assert all(path.stat().st_ino == node for path, node in kept.items())
    process = run(tmp_path / "set")
    assert process.wait(60) == 0, process.stderr.read()
    assert digests(tmp_path / "set") == whole


def test_interrupted_and_continued(noise, whole, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 128:
            raise KeyboardInterrupt

    arguments = {"size": 16, "source": SOURCE, "workers": 0}
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", noise.noise_studies(200), progress=stop, **arguments)
    assert len(list((tmp_path / "set" / layout.UNFINISHED).glob("*/shard.json"))) == 2
    write_dataset(tmp_path / "set", noise.noise_studies(200), **arguments)
    assert digests(tmp_path / "set") == whole


def test_workers_end_with_a_killed_parent(tmp_path):
    process = run(tmp_path / "set", "--workers", 2, "--kill-after", 1, start_new_session=True)
    process.wait(60)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and members_of(process.pid):
        time.sleep(0.1)
    assert not members_of(process.pid)


def members_of(session: int) -> list[str]:
    """Living processes of a session."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(status.parent.name)
    return found


def test_files_are_durable_before_they_get_their_name(noise, tmp_path, monkeypatch):
    """Whatever is renamed was synced before, and the description comes last."""
    synced, renamed = set(), []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def note_sync(handle):
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    def note(path, target, move):
        inside = [path, *path.rglob("*")] if path.is_dir() else [path]
        assert all(entry.stat().st_ino in synced for entry in inside), path
        renamed.append(Path(target).name)
        return move(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", lambda path, target: note(path, target, replace))
    monkeypatch.setattr(Path, "rename", lambda path, target: note(path, target, rename))
    write_dataset(tmp_path / "set", noise.noise_studies(70), size=8, source=SOURCE, workers=0)
    assert renamed[-1] == layout.DESCRIPTION
    assert {"images-00000.u8", "images-00001.u8", layout.STUDIES, layout.IMAGES, layout.REJECTED} <= set(renamed)


def test_same_command_again_returns_what_is_there(noise, tmp_path):
    write_dataset(tmp_path / "set", noise.noise_studies(5), size=8, source={"files": ("a", "b")}, workers=0)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}

    def studies():
        raise AssertionError("the source is not read again")
        yield

    again = write_dataset(tmp_path / "set", studies(), size=8, source={"files": ("a", "b")}, workers=0)
    assert again.studies == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()} == before


@pytest.mark.parametrize("changed", [{"size": 9}, {"source": {"name": "other"}}, {"cleaner": "fixed"}])
def test_another_command_into_the_same_folder_is_refused(noise, tmp_path, changed):
    arguments = {"size": 8, "source": SOURCE, "cleaner": "legacy", "workers": 0}
    write_dataset(tmp_path / "set", noise.noise_studies(5), **arguments)
    with pytest.raises(UserError, match="another '"):
        write_dataset(tmp_path / "set", noise.noise_studies(5), **(arguments | changed))


def test_another_command_into_an_unfinished_folder_is_refused(noise, tmp_path):
    assert run(tmp_path / "set", "--kill-after", 2).wait(60) == -signal.SIGKILL
    with pytest.raises(UserError, match="unfinished dataset of another"):
        write_dataset(tmp_path / "set", noise.noise_studies(200), size=8, source=SOURCE, workers=0)
    changed = noise.noise_studies(200)
    changed[3] = noise.noise_study(3, findings="Rewritten.")
    with pytest.raises(UserError, match="source has changed"):
        write_dataset(tmp_path / "set", changed, size=16, source=SOURCE, workers=0)


def test_a_folder_with_something_else_is_refused(noise, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not a dataset"):
        write_dataset(tmp_path, noise.noise_studies(5), size=8, source=SOURCE, workers=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_writers_at_once_are_refused(noise, tmp_path):
    def studies():
        yield noise.noise_study(0)
        with pytest.raises(UserError, match="another process is writing"):
            write_dataset(tmp_path / "set", noise.noise_studies(3), size=8, source=SOURCE, workers=0)

    assert write_dataset(tmp_path / "set", studies(), size=8, source=SOURCE, workers=0).studies == 1


def test_a_full_disk_is_said_and_the_run_can_continue(noise, tmp_path, monkeypatch, whole):
    fsync, count = os.fsync, 0

    def full(handle):
        nonlocal count
        count += 1
        if count > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left on device"):
            write_dataset(tmp_path / "set", noise.noise_studies(200), size=16, source=SOURCE, workers=0)
    write_dataset(tmp_path / "set", noise.noise_studies(200), size=16, source=SOURCE, workers=0)
    assert digests(tmp_path / "set") == whole


def test_a_disk_too_full_for_a_folder_is_said(noise, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); free space"):
        write_dataset(tmp_path / "set", noise.noise_studies(2), size=8, source=SOURCE, workers=0)


def test_too_small_a_disk_is_said_before_the_work(noise, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="GB are needed"):
        write_dataset(tmp_path / "set", noise.noise_studies(5), size=100, source=SOURCE, workers=0)
    assert not (tmp_path / "set").exists()


def test_the_digest_sees_every_kind_of_content(noise, tmp_path):
    base = noise.noise_studies(4)
    variants = {
        "same": base,
        "text": [*base[:3], noise.noise_study(3, impression="Other.")],
        "pixels": [*base[:3], noise.noise_study(3, images=(noise.NoiseImage(99, "frontal"),))],
        "position": [*base[:3], noise.noise_study(3, images=(noise.NoiseImage(6, "lateral"),))],
        "label": [*base[:3], noise.noise_study(3, labels={"edema": "negative"})],
    }
    found = {
        name: write_dataset(tmp_path / name, studies, size=8, source=SOURCE, workers=0).info.sha256
        for name, studies in variants.items()
    }
    assert len(set(found.values())) == len(variants)
    again = write_dataset(tmp_path / "again", base, size=8, source=SOURCE, workers=0).info.sha256
    assert again == found["same"]


def test_progress_counts_up_to_all_studies(noise, tmp_path):
    seen = []
    write_dataset(
        tmp_path / "set",
        noise.noise_studies(130),
        size=8,
        source=SOURCE,
        workers=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(64, 130), (128, 130), (130, 130)]
