"""Writes that share a transaction: each is on disk, alone in what goes wrong with it, when it returns."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy import Connection, event, insert

from crossray.serving.commits import Commits
from crossray.serving.tables import audit, open_engine

ROW = {"time": 0.0, "who": "w", "action": "a", "outcome": "o"}


def test_what_comes_together_is_committed_together(tmp_path: Path) -> None:
    """Ten threads, the first of which is held up: the others share the second commit."""
    engine = open_engine(f"sqlite:///{tmp_path / 'j.db'}")
    commits, ended, go = [], [], threading.Event()
    event.listen(engine, "commit", commits.append)
    writes = Commits(engine)

    def work(number: int, connection: Connection) -> int:
        if number == 0:
            go.wait(30)
        if number == 5:
            connection.execute(insert(audit), {**ROW, "who": None})  # a column that must not be empty
        connection.execute(insert(audit), {**ROW, "study": str(number)})
        return number

    def run(number: int) -> None:
        try:
            answer: Any = writes.write(lambda connection: work(number, connection))
            with sqlite3.connect(tmp_path / "j.db") as other:
                assert other.execute("SELECT 1 FROM crossray_audit WHERE study = ?", (str(number),)).fetchone()
        except Exception as error:
            answer = type(error).__name__
        ended.append((number, answer))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
        while not writes._leading.locked():  # the first leads
            pass
    while len(writes._queue) < 9:
        pass
    go.set()
    for thread in threads:
        thread.join(30)
    assert sorted(ended) == [(number, "IntegrityError" if number == 5 else number) for number in range(10)]
    # the first; the nine that failed together are committed one by one
    assert len(commits) == 9
    for thread in [threading.Thread(target=run, args=(10,)), threading.Thread(target=run, args=(11,))]:
        thread.start()
        thread.join(30)
    with sqlite3.connect(tmp_path / "j.db") as other:
        assert other.execute("SELECT count(*) FROM crossray_audit").fetchone() == (11,)
