"""The journal: nothing lost, nothing twice, nothing kept longer than it was told."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from crossray.errors import UserError
from crossray.serving.entries import SERVICE_FAILED, File, StudyFullError
from crossray.serving.journal import UNDELIVERED, Journal

FILES = [File("a.png", b"first"), File("b.png", b"second")]
FROM = {"model": "m", "owner": "key-1", "origin": "http"}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that is empty; of PostgreSQL the one in CROSSRAY_TEST_POSTGRES, where there is one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'j.db'}"
    given = os.environ.get("CROSSRAY_TEST_POSTGRES", "")
    if not given:
        pytest.skip("CROSSRAY_TEST_POSTGRES names no server, such as postgresql+psycopg://user@host/name")
    import sqlalchemy

    schema = os.environ.get("PYTEST_XDIST_WORKER", "main")  # each of pytest's workers has tables of its own
    engine = sqlalchemy.create_engine(given)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
        connection.execute(sqlalchemy.text(f"CREATE SCHEMA {schema}"))
    engine.dispose()
    query = {"options": f"-csearch_path={schema}"}
    return sqlalchemy.make_url(given).update_query_dict(query).render_as_string(hide_password=False)


@pytest.fixture
def journal(url: str, clock: Clock) -> Iterator[Journal]:
    opened = Journal(url, worker="w", clock=clock)
    yield opened
    opened.close()


def test_a_study_goes_from_acceptance_to_report(journal: Journal) -> None:
    entry, new = journal.accept(FILES, **FROM, options={"strict": True})
    assert (new, entry.state, entry.attempts, entry.options) == (True, "waiting", 0, {"strict": True})
    assert journal.files(entry.id) == FILES
    (claimed,) = journal.claim(5)
    assert (claimed.id, claimed.state, claimed.attempts) == (entry.id, "working", 1)
    assert journal.claim(5) == []
    assert journal.complete(claimed, "no effusion .")
    assert journal.report(entry.id) == "no effusion ."
    assert journal.counts() == {"done": 1}


def test_a_study_has_one_report(journal: Journal) -> None:
    entry, _ = journal.accept(FILES, **FROM, claim=True)
    assert journal.complete(entry, "first")
    assert not journal.complete(entry, "second")
    assert not journal.fail(entry, "late")
    assert journal.report(entry.id) == "first"


def test_a_claim_that_was_taken_away_completes_nothing(journal: Journal) -> None:
    old, _ = journal.accept(FILES, **FROM, claim=True)
    assert journal.recover() == 1
    (new,) = journal.claim()
    assert not journal.complete(old, "of the old process")
    assert journal.complete(new, "of the new one")
    assert journal.report(new.id) == "of the new one"


def test_another_services_work_is_not_recovered(url: str) -> None:
    """Of a server that several share; a file is that of one, which may have got another name."""
    one, other = Journal(url, worker="one"), Journal(url, worker="other")
    entry, _ = one.accept(FILES, **FROM, claim=True)
    taken = url.startswith("sqlite")
    assert other.recover() == taken
    assert one.complete(entry, "x") is not taken
    assert len(other.claim()) == taken


def test_a_study_that_ends_the_process_is_given_up(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("crossray.serving.journal.MOST_ATTEMPTS", 3)
    entry, _ = journal.accept(FILES, **FROM)
    for _ in range(3):
        assert len(journal.claim()) == 1
        journal.recover()
    found = journal.entry(entry.id)
    assert found is not None
    assert (found.state, journal.claim()) == ("failed", [])
    assert found.error
    assert f"study {entry.id}: not reported; the journal says why" in caplog.text
    (note,) = journal.notes()
    assert (note["who"], note["study"], note["outcome"]) == ("key-1", entry.id, "failed")


def test_a_key_names_one_study_of_its_owner(journal: Journal) -> None:
    first, _ = journal.accept(FILES, **FROM, key="k")
    again, new = journal.accept(FILES, **FROM, key="k")
    assert (again.id, new) == (first.id, False)
    _, new = journal.accept(FILES, model="m", owner="key-2", origin="http", key="k")
    assert new


def test_a_key_is_free_again_after_a_failure_of_the_service(journal: Journal) -> None:
    first, _ = journal.accept(FILES, **FROM, key="k", claim=True)
    assert journal.fail(first, "images: there are none.")
    assert journal.accept(FILES, **FROM, key="k")[1] is False
    other, _ = journal.accept(FILES, **FROM, key="l", claim=True)
    assert journal.fail(other, f"{SERVICE_FAILED} (OSError).")
    again, new = journal.accept(FILES, **FROM, key="l")
    assert (new, again.id == other.id) == (True, False)
    failed = [journal.entry(entry.id) for entry in (first, other)]
    assert [entry is not None and entry.service_failed for entry in failed] == [False, True]


def test_owners_do_not_see_each_other(journal: Journal) -> None:
    entry, _ = journal.accept(FILES, **FROM)
    assert journal.entry(entry.id, owner="key-2") is None
    assert journal.entry(entry.id, owner="key-1") == entry


def test_objects_are_collected_until_it_is_quiet(journal: Journal, clock: Clock) -> None:
    given = {"model": "m", "owner": "MODALITY", "origin": "dicom"}
    study = journal.collect("1.2.3", FILES[0], **given)
    clock.now += 5
    assert journal.collect("1.2.3", FILES[1], **given) == study
    assert journal.collect("1.2.3", FILES[1], **given) == study
    assert journal.collect("1.2.4", FILES[1], **given) != study
    clock.now += 9
    assert journal.release(10) == []
    assert journal.claim() == []
    clock.now += 1
    assert study in journal.release(10)
    assert journal.files(study) == FILES
    assert journal.collect("1.2.3", FILES[0], **given) != study


def test_a_study_whose_sender_is_connected_is_not_complete(journal: Journal, clock: Clock, url: str) -> None:
    given = {"model": "m", "owner": "MODALITY", "origin": "dicom"}
    study, other = (str(journal.collect(key, FILES[0], **given)) for key in ("1.2.3", "1.2.4"))
    neighbour = Journal(url, worker="other", clock=clock)
    clock.now += 6
    assert journal.release(10, [study]) == []
    clock.now += 4
    assert neighbour.release(10) == [other]
    clock.now += 60
    assert journal.release(10, [study]) == []
    clock.now += 10
    assert journal.release(10) == [study]
    neighbour.close()


def test_a_clock_that_is_set_back_delays_no_study(journal: Journal, clock: Clock) -> None:
    study = journal.collect("1.2.3", FILES[0], model="m", owner="MODALITY", origin="dicom")
    clock.now -= 3600
    assert journal.release(10) == []
    clock.now += 9
    assert journal.release(10) == []
    clock.now += 1
    assert journal.release(10) == [study]


def test_a_full_journal_begins_no_study_and_ends_those_that_were_begun(journal: Journal) -> None:
    given = {"model": "m", "owner": "MODALITY", "origin": "dicom", "most": 1}
    study = journal.collect("1.2.3", FILES[0], **given)
    assert journal.collect("1.2.4", FILES[0], **given) is None
    assert journal.collect("1.2.3", FILES[1], **given) == study
    assert (journal.files(str(study)), journal.unfinished()) == (FILES, 1)


def test_a_study_in_parts_has_limits(journal: Journal) -> None:
    given = {"model": "m", "owner": "MODALITY", "origin": "dicom", "most_files": 2, "most_bytes": 11}

    def refused(file: File) -> str | None:
        with pytest.raises(StudyFullError) as full:
            journal.collect("1.2.3", file, **given)
        return full.value.study

    assert refused(File("long", b"x" * 12)) is None
    assert journal.counts() == {}
    study = journal.collect("1.2.3", FILES[0], **given)
    assert refused(File("c", b"seventh")) == study
    assert journal.collect("1.2.3", FILES[1], **given) == study
    assert refused(File("c", b"")) == study
    assert journal.collect("1.2.3", FILES[1], **given) == study
    assert journal.files(str(study)) == FILES


def test_what_was_not_delivered_is_listed(journal: Journal) -> None:
    entry, _ = journal.accept(FILES, model="m", owner="a", origin="dicom", claim=True)
    journal.complete(entry, "x")
    assert journal.undelivered("dicom") == [entry.id]
    journal.delivered(entry.id)
    assert journal.undelivered("dicom") == []


def test_what_is_old_goes(journal: Journal, clock: Clock) -> None:
    entry, _ = journal.accept(FILES, **FROM, claim=True)
    journal.complete(entry, "x")
    waiting, _ = journal.accept(FILES, **FROM)
    clock.now += 86400 * 7 - 1
    assert journal.sweep(7) == 0
    clock.now += 2
    assert journal.sweep(7) == 1
    assert (journal.entry(entry.id), journal.report(entry.id), journal.files(entry.id)) == (None, None, [])
    assert journal.entry(waiting.id) is not None


def test_keeping_nothing_waits_for_the_delivery_alone(journal: Journal, clock: Clock) -> None:
    sent, _ = journal.accept(FILES, **FROM, claim=True)
    unsent, _ = journal.accept(FILES, **FROM, claim=True)
    journal.complete(sent, "x", delivered=True)
    journal.complete(unsent, "y")
    assert journal.sweep(0) == 1
    assert journal.report(unsent.id) == "y"
    clock.now += UNDELIVERED + 1
    assert journal.sweep(0) == 1


@pytest.mark.parametrize("days", [0, 7])
def test_what_is_owed_to_an_archive_stays(journal: Journal, clock: Clock, days: int) -> None:
    owed, _ = journal.accept(FILES, model="m", owner="WARD", origin="dicom", claim=True)
    failed, _ = journal.accept(FILES, model="m", owner="WARD", origin="dicom", claim=True)
    http, _ = journal.accept(FILES, **FROM, claim=True)
    journal.fail(failed, "no radiograph.")
    for entry in (owed, http):
        journal.complete(entry, "x")
    clock.now += 86400 * 30
    assert journal.sweep(days, owed="dicom") == 2
    assert journal.report(owed.id) == "x"
    journal.delivered(owed.id)
    assert journal.sweep(days, owed="dicom") == 1


def test_what_was_deleted_is_not_in_the_file(tmp_path: Path) -> None:
    journal = Journal(f"sqlite:///{tmp_path / 'j.db'}")
    mark = b"a mark that stands for pixels" * 100
    entry, _ = journal.accept([File("a.png", mark)], **FROM, claim=True)
    assert any(mark in path.read_bytes() for path in tmp_path.iterdir())
    journal.delete(entry.id)
    journal.close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert not any(mark[:29] in path.read_bytes() for path in tmp_path.iterdir())


def test_the_audit_trail_outlives_the_study(journal: Journal) -> None:
    entry, _ = journal.accept(FILES, **FROM)
    journal.note("key-1", "POST /v1/reports", "200", entry.id)
    journal.delete(entry.id)
    (row,) = journal.notes()
    assert (row["who"], row["action"], row["outcome"], row["study"]) == ("key-1", "POST /v1/reports", "200", entry.id)


def test_threads_share_the_work(journal: Journal) -> None:
    ids = {journal.accept(FILES, **FROM)[0].id for _ in range(20)}
    done: list[str] = []

    def work() -> None:
        while claimed := journal.claim(3):
            for entry in claimed:
                assert journal.complete(entry, entry.id)
                done.append(entry.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(ids)


@pytest.mark.parametrize("wrong", ["nonsense", "sqlite://", "sqlite:////no/such/folder/j.db", "oracle+none://x/y"])
def test_a_wrong_url_is_a_sentence(wrong: str) -> None:
    with pytest.raises(UserError, match="--store"):
        Journal(wrong)


def test_two_files_of_a_name_are_refused(journal: Journal) -> None:
    with pytest.raises(UserError, match="same name"):
        journal.accept([FILES[0], FILES[0]], **FROM)


#: Accepts and reports without end; prints the id of each study after it was accepted.
_WORK = """
import sys
from crossray.serving.entries import File
from crossray.serving.journal import Journal
journal = Journal(sys.argv[1], worker="w")
journal.recover()
while True:
    entry, _ = journal.accept([File("a", b"x" * 5000)], model="m", owner="o", origin="http")
    print(entry.id, flush=True)
    for claimed in journal.claim(2):
        journal.complete(claimed, "report of " + claimed.id)
"""


def test_a_kill_loses_and_doubles_nothing(url: str) -> None:
    chance, accepted = random.Random(0), set()
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", _WORK, url], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        accepted.add(process.stdout.readline().strip())
        time.sleep(chance.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        accepted |= {line.strip() for line in process.stdout if len(line) == 33}
        process.wait()
    journal = Journal(url, worker="w")
    journal.recover()
    while claimed := journal.claim(16):
        for entry in claimed:
            assert journal.complete(entry, "report of " + entry.id)
    assert len(accepted) >= 4
    assert all(journal.report(study) == f"report of {study}" for study in accepted)
    assert set(journal.counts()) <= {"done", "failed"}
