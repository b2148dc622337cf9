r"""The journal: what the service has accepted, and what became of it. It survives `kill -9` at any moment.

    journal = Journal("sqlite:///crossray.db")      # or postgresql+psycopg://...
    journal.recover()                               # after a restart: what was being worked on waits again
    entry, new = journal.accept([File("a.dcm", content)], model="rcan", owner="key-1", origin="http")
    ...                                             # only now is the sender told that the study was accepted
    for entry in journal.claim(16):
        files = journal.files(entry.id)
        journal.complete(entry, report)             # or journal.fail(entry, "one sentence")

States of a study:

    collecting --release--> waiting --claim--> working --complete--> done --delivered--> (done)
                               ^                  |   \--fail--> failed
                               \----- recover ----/

* `accept` returns after the study is on disk. `collect` does so for one object of a study whose end is not told, as in
  DICOM: answer a C-STORE with success after it. `release(quiet)` lets those wait that got nothing new for that long.
* **Exactly once**: `complete` stores the report and ends the claim in one transaction; the report's primary key is the
  study, and a claim that was taken away (`recover`) completes nothing and returns False. A second `accept` with the
  same `key` of the same owner and origin returns the first study.
* A study that was claimed `MOST_ATTEMPTS` times without an end has probably killed its process: it becomes failed.
* What is sent elsewhere (an SR to an archive) is sent after `complete`: `undelivered(origin)` names what is not there
  yet, `delivered(id)` notes that the receiver has confirmed. A receiver must take a repeated object for the same one:
  derive its UIDs from `entry.id`.
* `sweep(days)` deletes finished studies, their files and reports. `delete(id)` does so at once. `note` writes the audit
  trail: who, what, which study, how it ended. Nothing of it is content, and it stays.

A report is any text (the service stores JSON). Times are seconds since 1970. Every method may be called from any
thread.
"""

import json
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from crossray.errors import UserError
from crossray.serving.commits import Commits
from crossray.serving.entries import Entry, File
from crossray.serving.tables import READS, audit, files, open_engine, reports, studies

#: Times that a study is begun before it is given up. Images are decoded elsewhere, a model sees arrays alone: a study
#: hardly ever ends the process, a machine that is restarted again and again does.
MOST_ATTEMPTS = 100

#: With `sweep(0)`: seconds that a finished report waits for its delivery.
UNDELIVERED = 3600.0


class Journal:
    """Accepted studies and their reports in a database."""

    def __init__(self, url: str = "sqlite:///crossray.db", *, worker: str = "", clock: Callable[[], float] = time.time):
        """Open the database; tables that are missing are made.

        Args:
            url: URL of the database for SQLAlchemy. SQLite serves one service; several can share PostgreSQL.
            worker: name of this service among those that share PostgreSQL, the same after a restart; by default the
                machine's.
            clock: seconds since 1970, for tests.

        Raises:
            UserError: the database cannot be opened.
        """
        self._engine = open_engine(url)
        self._shared = self._engine.dialect.name != "sqlite"
        self._write = Commits(self._engine).write
        self.worker = worker or platform.node() or "crossray"
        self._clock = clock

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # -- receiving ---------------------------------------------------------------------------------------------------

    def accept(
        self,
        content: Sequence[File],
        *,
        model: str,
        owner: str,
        origin: str,
        options: Mapping[str, Any] | None = None,
        key: str | None = None,
        claim: bool = False,
    ) -> tuple[Entry, bool]:
        """Store a whole study; it is on disk when this returns.

        Args:
            content: its files, with different names.
            model: that shall report it; `owner`, `origin`, `options`, `key`: see `Entry`.
            owner: who sent it.
            origin: the way it came.
            options: JSON values.
            key: makes a repeated sending the same study.
            claim: whether the caller begins it at once, as `claim` would.

        Returns:
            The study, and whether it is new.

        Raises:
            UserError: two files have the same name.
        """
        if len({file.name for file in content}) != len(content):
            raise UserError("images: two files have the same name; give each its own.")

        def store(connection: Connection) -> Entry:
            study = self._insert(connection, "waiting", origin, owner, key, model, options or {})
            rows = [
                {"study": study, "number": number, "name": file.name, "content": file.content}
                for number, file in enumerate(content)
            ]
            if rows:
                connection.execute(insert(files), rows)
            if claim:
                self._take(connection, [study])
            return self._one(connection, study)

        for _ in range(2):  # the second time around, the same key has come in between
            known = None if key is None else self._keyed(origin, owner, key)
            if known is not None:
                return known, False
            try:
                return self._write(store), True
            except IntegrityError:
                if key is None:
                    raise
        raise UserError("journal: the key is in use, but its study is missing; send the study again.")

    def collect(
        self,
        key: str,
        file: File,
        *,
        model: str,
        owner: str,
        origin: str,
        options: Mapping[str, Any] | None = None,
        most: int | None = None,
    ) -> str | None:
        """Store one object of a study that comes in parts; it is on disk when this returns.

        An object that is there already stays as it is. What comes after the study was released is a new study.

        Args:
            key: the study, such as its study instance UID.
            file: the object; its name is its SOP instance UID.
            model: see `accept`, like the others.
            owner: who sent it.
            origin: the way it came.
            options: JSON values.
            most: unfinished studies beyond which no new one is begun; one that has been begun takes more objects.

        Returns:
            The study's id; None where it would be one too many, and nothing was stored.
        """
        open_one = _where_key(select(studies.c.id), origin, owner, key).where(studies.c.state == "collecting")

        def store(connection: Connection) -> str | None:
            study = connection.execute(open_one.with_for_update()).scalar()
            if study is None:
                if most is not None and _unfinished(connection) >= most:
                    return None
                study = self._insert(connection, "collecting", origin, owner, key, model, options or {})
            named = select(files.c.number).where(files.c.study == study, files.c.name == file.name)
            if connection.execute(named).first() is None:
                number = connection.execute(select(func.count()).where(files.c.study == study)).scalar_one()
                row = {"study": study, "number": number, "name": file.name, "content": file.content}
                connection.execute(insert(files), row)
            connection.execute(update(studies).where(studies.c.id == study).values(changed=self._clock()))
            return str(study)

        try:
            return self._write(store)
        except IntegrityError:  # another service was the first to store an object of this study, or this object
            return self._write(store)

    def release(self, quiet: float) -> list[str]:
        """Let the collected studies wait for a report that got no new object for `quiet` seconds; their ids."""
        ended = (studies.c.state == "collecting", studies.c.changed <= self._clock() - quiet)

        def free(connection: Connection) -> list[str]:
            found = [str(row.id) for row in connection.execute(select(studies.c.id).where(*ended).with_for_update())]
            # the key is free again: more objects of the same DICOM study become another study here
            done = {"state": "waiting", "changed": self._clock(), "key": None}
            for study in found:
                connection.execute(update(studies).where(studies.c.id == study).values(**done))
            return found

        return self._write(free)

    # -- working -----------------------------------------------------------------------------------------------------

    def claim(self, limit: int = 1, *, origin: str | None = None) -> list[Entry]:
        """Begin at most `limit` waiting studies, the oldest first; nobody else gets them."""
        waiting = select(studies.c.id).where(studies.c.state == "waiting").order_by(studies.c.received).limit(limit)
        if origin is not None:
            waiting = waiting.where(studies.c.origin == origin)

        def begin(connection: Connection) -> list[Entry]:
            chosen = [str(row.id) for row in connection.execute(waiting.with_for_update(skip_locked=True))]
            self._take(connection, chosen)
            return [self._one(connection, study) for study in chosen]

        return self._write(begin)

    def complete(self, entry: Entry, report: str, *, delivered: bool = False) -> bool:
        """Store the report of a claimed study, once and for all.

        Args:
            entry: result of `claim` or `accept`.
            report: a text.
            delivered: whether nothing has to be sent elsewhere.

        Returns:
            False: the claim was taken away meanwhile, and nothing was stored.
        """
        now = self._clock()

        def end(connection: Connection) -> bool:
            ended = self._end(connection, entry, "done", None, now if delivered else None)
            if ended:
                connection.execute(insert(reports), {"study": entry.id, "content": report, "made": now})
            return ended

        return self._write(end)

    def fail(self, entry: Entry, reason: str) -> bool:
        """End a claimed study without a report; `reason` is one sentence without anything of the patient."""
        return self._write(lambda connection: self._end(connection, entry, "failed", reason, None))

    def recover(self) -> int:
        """After a restart: let the studies wait again that this service was working on; how many were.

        Call it before the first `claim`, and in one process only. A file of SQLite is one service's, whatever it was
        called before: a container has another name each time it is made.
        """
        mine = [studies.c.state == "working"]
        if self._shared:
            mine.append(studies.c.worker == self.worker)
        given_up = "the service ended each time it began this study; see what is odd about its files."
        now = self._clock()
        often = update(studies).where(*mine, studies.c.attempts >= MOST_ATTEMPTS)
        given = often.values(state="failed", error=given_up, changed=now, token=None)
        again = update(studies).where(*mine).values(state="waiting", changed=now, token=None)
        return self._write(lambda connection: (connection.execute(given), connection.execute(again))[1].rowcount)

    # -- reading -----------------------------------------------------------------------------------------------------

    def entry(self, study: str, *, owner: str | None = None) -> Entry | None:
        """The study with this id; None where there is none, or where it is another owner's."""
        with self._reading() as connection:
            found = connection.execute(select(studies).where(studies.c.id == study)).mappings().first()
        entry = None if found is None else Entry.of(found)
        return entry if entry is not None and owner in (None, entry.owner) else None

    def files(self, study: str) -> list[File]:
        """Its files, in the order in which they came."""
        rows = select(files.c.name, files.c.content).where(files.c.study == study).order_by(files.c.number)
        with self._reading() as connection:
            return [File(row.name, bytes(row.content)) for row in connection.execute(rows)]

    def report(self, study: str) -> str | None:
        """The report, where there is one."""
        with self._reading() as connection:
            return connection.execute(select(reports.c.content).where(reports.c.study == study)).scalar()

    def unfinished(self) -> int:
        """How many studies are not reported yet."""
        with self._reading() as connection:
            return _unfinished(connection)

    def counts(self) -> dict[str, int]:
        """How many studies are in each state; this goes through all of them."""
        with self._reading() as connection:
            rows = connection.execute(select(studies.c.state, func.count()).group_by(studies.c.state))
            return {str(state): int(count) for state, count in rows}

    # -- delivering and forgetting -----------------------------------------------------------------------------------

    def undelivered(self, origin: str) -> list[str]:
        """Ids of the studies that are done and whose report has not reached its receiver, the oldest first."""
        rows = select(studies.c.id).where(
            studies.c.state == "done", studies.c.origin == origin, studies.c.delivered.is_(None)
        )
        with self._reading() as connection:
            return [str(row.id) for row in connection.execute(rows.order_by(studies.c.changed))]

    def delivered(self, study: str) -> None:
        """Note that the receiver has the report."""
        noted = update(studies).where(studies.c.id == study).values(delivered=self._clock())
        self._write(lambda connection: connection.execute(noted))

    def sweep(self, days: float, *, owed: str | None = None) -> int:
        """Delete the studies that ended more than `days` ago; how many.

        With 0 days a finished study goes as soon as its report is delivered, and after `UNDELIVERED` seconds anyway.

        Args:
            days: since the end.
            owed: origin of the studies whose reports stay until they are delivered, however long that takes.
        """
        before = self._clock() - (days * 86400 or UNDELIVERED)
        # what ended before came before: the index knows when studies came
        old = (studies.c.received <= before) & (studies.c.changed <= before)
        gone = old if days else old | studies.c.delivered.is_not(None)
        chosen = select(studies.c.id).where(studies.c.state.in_(("done", "failed")), gone)
        if owed is not None:
            chosen = chosen.where(
                (studies.c.state == "failed") | (studies.c.origin != owed) | studies.c.delivered.is_not(None)
            )
        return self._write(lambda connection: self._erase(connection, [row.id for row in connection.execute(chosen)]))

    def delete(self, study: str) -> bool:
        """Delete a study with files and report, whatever its state; whether it was there."""
        return bool(self._write(lambda connection: self._erase(connection, [study])))

    def note(self, who: str, action: str, outcome: str, study: str | None = None) -> None:
        """Write a row of the audit trail.

        Args:
            who: name of the key, subject of the token, AE title.
            action: requested action, such as "POST /v1/reports"; a route, never a path with values of the request.
            outcome: how it ended, such as "200" or "refused".
            study: id of the study.
        """
        row = {"time": self._clock(), "who": who[:128], "action": action[:64], "outcome": outcome[:64], "study": study}
        self._write(lambda connection: connection.execute(insert(audit), row))

    def notes(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The newest rows of the audit trail, newest first."""
        with self._reading() as connection:
            rows = connection.execute(select(audit).order_by(audit.c.number.desc()).limit(limit)).mappings()
            return [dict(row) for row in rows]

    # -- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(**READS) as connection:
            yield connection

    def _insert(
        self,
        connection: Connection,
        state: str,
        origin: str,
        owner: str,
        key: str | None,
        model: str,
        options: Mapping[str, Any],
    ) -> str:
        study, now = uuid.uuid4().hex, self._clock()
        row: dict[str, Any] = {
            "id": study,
            "state": state,
            "origin": origin,
            "owner": owner,
            "key": key,
            "model": model,
        }
        row |= {"options": json.dumps(dict(options)), "received": now, "changed": now, "attempts": 0}
        connection.execute(insert(studies), row)
        return study

    def _keyed(self, origin: str, owner: str, key: str) -> Entry | None:
        with self._reading() as connection:
            row = connection.execute(_where_key(select(studies), origin, owner, key)).mappings().first()
        return None if row is None else Entry.of(row)

    def _one(self, connection: Connection, study: str) -> Entry:
        return Entry.of(connection.execute(select(studies).where(studies.c.id == study)).mappings().one())

    def _take(self, connection: Connection, chosen: Sequence[str]) -> None:
        for study in chosen:
            taken = {"state": "working", "changed": self._clock(), "worker": self.worker, "token": uuid.uuid4().hex}
            begun = update(studies).where(studies.c.id == study)
            connection.execute(begun.values(**taken, attempts=studies.c.attempts + 1))

    def _end(
        self, connection: Connection, entry: Entry, state: str, error: str | None, delivered: float | None
    ) -> bool:
        claimed = (studies.c.id == entry.id, studies.c.state == "working", studies.c.token == entry.token)
        ended = {"state": state, "changed": self._clock(), "token": None, "error": error, "delivered": delivered}
        return connection.execute(update(studies).where(*claimed).values(**ended)).rowcount == 1

    def _erase(self, connection: Connection, chosen: Sequence[str]) -> int:
        count = 0
        for study in chosen:
            connection.execute(delete(files).where(files.c.study == study))
            connection.execute(delete(reports).where(reports.c.study == study))
            count += connection.execute(delete(studies).where(studies.c.id == study)).rowcount
        return count


def _unfinished(connection: Connection) -> int:
    rows = select(func.count()).where(studies.c.state.in_(("collecting", "waiting", "working")))
    return int(connection.execute(rows).scalar_one())


def _where_key(rows: Select[Any], origin: str, owner: str, key: str) -> Select[Any]:
    return rows.where(studies.c.origin == origin, studies.c.owner == owner, studies.c.key == key)
