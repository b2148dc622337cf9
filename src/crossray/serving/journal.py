r"""The journal: a database of accepted studies and their reports. It survives `kill -9` at any moment.

    journal = Journal("sqlite:///crossray.db")      # or postgresql+psycopg://...
    journal.recover()                               # after a restart: unfinished work waits again
    entry, new = journal.accept([File("a.dcm", content)], model="rcan", owner="key-1", origin="http")
    ...                                             # confirm the study to its sender only now
    for entry in journal.claim(16):
        files = journal.files(entry.id)
        journal.complete(entry, report)             # or journal.fail(entry, "one sentence")

States of a study:

    collecting --release--> waiting --claim--> working --complete--> done --delivered--> (done)
                               ^                  |   \--fail--> failed
                               \----- recover ----/

* `accept` returns once the study is on disk. `collect` does the same for one object of a study that arrives in parts,
  as in DICOM, where nothing marks the last object: answer the C-STORE with success afterwards. `release(quiet)`
  completes the studies that have received nothing for `quiet` seconds and whose sender has left.
* **Exactly once**: `complete` stores the report and ends the claim in one transaction. The primary key of a report is
  its study, and a revoked claim (`recover`) completes nothing and returns False. A second `accept` with the same `key`,
  owner and origin returns the first study, unless the service itself failed to report it.
* A study that was claimed `MOST_ATTEMPTS` times without ending has probably crashed its process each time: it fails.
* Reports for an archive are sent after `complete`: `undelivered(origin)` lists those still to be sent, and
  `delivered(id)` records that the receiver has confirmed one, `undeliverable(id, reason)` that it cannot be sent. A
  report may be sent twice, so derive its UIDs from `entry.id`.
* `sweep(days)` deletes old finished studies with their files and reports; `delete(id)` deletes one immediately. `note`
  writes the audit trail: who, what, which study, and the outcome. It has no content of studies and is never deleted.

A report is any text (the service stores JSON). Times are in seconds since 1970. All methods are thread-safe.
"""

import json
import logging
import platform
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from crossray.errors import UserError
from crossray.serving.commits import Commits
from crossray.serving.entries import SERVICE_FAILED, Entry, File, StudyFullError
from crossray.serving.tables import READS, audit, files, open_engine, reports, studies

_LOGGER = logging.getLogger(__name__)

#: Maximum number of claims of a study. The limit is high because images are decoded in other processes: restarts of the
#: machine are a likelier cause of many attempts than a study that crashes the service.
MOST_ATTEMPTS = 100

#: With `sweep(0)`: seconds after which a finished study is deleted even if its report was not delivered.
UNDELIVERED = 3600.0


class Journal:
    """Accepted studies and their reports in a database."""

    def __init__(self, url: str = "sqlite:///crossray.db", *, worker: str = "", clock: Callable[[], float] = time.time):
        """Open the database and create missing tables.

        Args:
            url: SQLAlchemy URL of the database. Several services can share PostgreSQL, but not SQLite.
            worker: name of this service among those that share PostgreSQL, stable across restarts; by default, the name
                of the machine.
            clock: function that returns the time in seconds since 1970, for tests.

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
        """Store a complete study; it is on disk when this returns.

        Args:
            content: files of the study, with unique names.
            model: name of the model that reports the study.
            owner: who sent it.
            origin: how it was received.
            options: options of the request, as JSON values.
            key: identifies the request, so that repeating it does not create another study unless the service failed;
                None for no such check.
            claim: whether the caller also claims the study, as with `claim`.

        Returns:
            The study, and whether it is new.

        Raises:
            UserError: two files have the same name.
        """
        if len({file.name for file in content}) != len(content):
            raise UserError("images: two files have the same name; give each a different one.")

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

        for _ in range(2):  # try again if another thread stored the same key in between
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
        most_files: int | None = None,
        most_bytes: int | None = None,
    ) -> str | None:
        """Store one object of a study that arrives in parts; it is on disk when this returns.

        An object that was stored before is not replaced. Objects that arrive after `release` start a new study.

        Args:
            key: identifier of the study, such as its study instance UID.
            file: the object; its name is its SOP instance UID.
            model: name of the model that reports the study.
            owner: who sent it.
            origin: how it was received.
            options: options of the request, as JSON values.
            most: maximum number of unfinished studies; beyond it, objects are stored only for studies that are already
                being collected.
            most_files: maximum number of objects of the study.
            most_bytes: maximum size of the study.

        Returns:
            The id of the study; None if `most` is exceeded and nothing was stored.

        Raises:
            StudyFullError: `most_files` or `most_bytes` is exceeded; nothing was stored.
        """
        open_one = _where_key(select(studies.c.id), origin, owner, key).where(studies.c.state == "collecting")

        def store(connection: Connection) -> str | StudyFullError | None:
            study = connection.execute(open_one.with_for_update()).scalar()
            named = select(files.c.number).where(files.c.study == study, files.c.name == file.name)
            if connection.execute(named).first() is None:
                sizes = select(func.count(), func.coalesce(func.sum(func.length(files.c.content)), 0))
                number, size = connection.execute(sizes.where(files.c.study == study)).one()
                if most_files is not None and number >= most_files:
                    return StudyFullError(study)  # not raised, which would undo the writes of the others
                if most_bytes is not None and size + len(file.content) > most_bytes:
                    return StudyFullError(study)
                if study is None:
                    if most is not None and _unfinished(connection) >= most:
                        return None
                    study = self._insert(connection, "collecting", origin, owner, key, model, options or {})
                row = {"study": study, "number": number, "name": file.name, "content": file.content}
                connection.execute(insert(files), row)
            connection.execute(update(studies).where(studies.c.id == study).values(changed=self._clock()))
            return str(study)

        try:
            taken = self._write(store)
        except IntegrityError:  # another service was first to store this object or another one of the study
            taken = self._write(store)
        if isinstance(taken, StudyFullError):
            raise taken
        return taken

    def release(self, quiet: float, receiving: Collection[str] = ()) -> list[str]:
        """Complete the collected studies without a new object for `quiet` seconds.

        Args:
            quiet: number of seconds.
            receiving: ids of studies whose sender is still connected; these are not completed, nor by another service
                on the same database.

        Returns:
            The ids of the completed studies.
        """
        now = self._clock()
        # half the time is early enough, and spares the disk; a time in the future means that the clock was set back
        alive = studies.c.id.in_(receiving) & (studies.c.changed <= now - quiet / 2)
        ended = (studies.c.state == "collecting", studies.c.changed <= now - quiet, studies.c.id.not_in(receiving))
        later = update(studies).where(studies.c.state == "collecting", alive | (studies.c.changed > now))

        def free(connection: Connection) -> list[str]:
            connection.execute(later.values(changed=now))
            found = [str(row.id) for row in connection.execute(select(studies.c.id).where(*ended).with_for_update())]
            # without a key, so that later objects of the same DICOM study start another study
            done = {"state": "waiting", "changed": now, "key": None}
            for study in found:
                connection.execute(update(studies).where(studies.c.id == study).values(**done))
            return found

        return self._write(free)

    # -- working -----------------------------------------------------------------------------------------------------

    def claim(self, limit: int = 1, *, origin: str | None = None) -> list[Entry]:
        """Claim at most `limit` waiting studies, the oldest first, for this caller alone."""
        waiting = select(studies.c.id).where(studies.c.state == "waiting").order_by(studies.c.received).limit(limit)
        if origin is not None:
            waiting = waiting.where(studies.c.origin == origin)

        def begin(connection: Connection) -> list[Entry]:
            chosen = [str(row.id) for row in connection.execute(waiting.with_for_update(skip_locked=True))]
            self._take(connection, chosen)
            return [self._one(connection, study) for study in chosen]

        return self._write(begin)

    def complete(self, entry: Entry, report: str, *, delivered: bool = False) -> bool:
        """Store the report of a claimed study.

        Args:
            entry: study from `claim` or `accept`.
            report: text of the report, which is final.
            delivered: whether the report does not have to be sent to a receiver.

        Returns:
            Whether the report was stored; False if the claim has been revoked in the meantime.
        """
        now = self._clock()

        def end(connection: Connection) -> bool:
            ended = self._end(connection, entry, "done", None, now if delivered else None)
            if ended:
                connection.execute(insert(reports), {"study": entry.id, "content": report, "made": now})
            return ended

        return self._write(end)

    def fail(self, entry: Entry, reason: str) -> bool:
        """Record that a claimed study failed, and why, in one sentence without patient data; see `complete`.

        If the service is at fault (`SERVICE_FAILED`), the study gives up its key, so that the sender can try again.
        """
        return self._write(lambda connection: self._end(connection, entry, "failed", reason, None))

    def recover(self) -> int:
        """Revoke the claims of this service after a restart, so that its studies wait again; return their number.

        Call it before the first `claim`, and in one process only. In a SQLite file, all claims belong to this service,
        even if its name has changed, as the name of a container does.
        """
        mine = [studies.c.state == "working"]
        if self._shared:
            mine.append(studies.c.worker == self.worker)
        given_up = "the service ended each time it processed this study; check its files."
        now = self._clock()
        often = (*mine, studies.c.attempts >= MOST_ATTEMPTS)
        failed = {"state": "failed", "error": given_up, "changed": now, "token": None}
        again = update(studies).where(*mine).values(state="waiting", changed=now, token=None)

        def revoke(connection: Connection) -> tuple[list[tuple[str, str]], int]:
            rows = connection.execute(select(studies.c.id, studies.c.owner).where(*often))
            lost = [(str(row.id), str(row.owner)) for row in rows]
            connection.execute(update(studies).where(*often).values(**failed))
            return lost, connection.execute(again).rowcount

        lost, count = self._write(revoke)
        for study, owner in lost:
            _LOGGER.warning("study %s: not reported; the journal says why", study)
            self.note(owner, "report", "failed", study)
        return count

    # -- reading -----------------------------------------------------------------------------------------------------

    def entry(self, study: str, *, owner: str | None = None) -> Entry | None:
        """Return the study with this id; None if it does not exist or belongs to another owner."""
        with self._reading() as connection:
            found = connection.execute(select(studies).where(studies.c.id == study)).mappings().first()
        entry = None if found is None else Entry.of(found)
        return entry if entry is not None and owner in (None, entry.owner) else None

    def files(self, study: str) -> list[File]:
        """Return the files of a study in the order of their arrival."""
        rows = select(files.c.name, files.c.content).where(files.c.study == study).order_by(files.c.number)
        with self._reading() as connection:
            return [File(row.name, bytes(row.content)) for row in connection.execute(rows)]

    def report(self, study: str) -> str | None:
        """Return the report of a study; None if there is none."""
        with self._reading() as connection:
            return connection.execute(select(reports.c.content).where(reports.c.study == study)).scalar()

    def unfinished(self) -> int:
        """Return the number of studies that are neither done nor failed."""
        with self._reading() as connection:
            return _unfinished(connection)

    def counts(self) -> dict[str, int]:
        """Return the number of studies by state; slow, because it scans all studies."""
        with self._reading() as connection:
            rows = connection.execute(select(studies.c.state, func.count()).group_by(studies.c.state))
            return {str(state): int(count) for state, count in rows}

    # -- delivering and forgetting -----------------------------------------------------------------------------------

    def undelivered(self, origin: str) -> list[str]:
        """Return the ids of studies whose report is done but not delivered, the oldest first."""
        rows = select(studies.c.id).where(
            studies.c.state == "done", studies.c.origin == origin, studies.c.delivered.is_(None)
        )
        with self._reading() as connection:
            return [str(row.id) for row in connection.execute(rows.order_by(studies.c.changed))]

    def delivered(self, study: str) -> None:
        """Record that the receiver has confirmed the report."""
        noted = update(studies).where(studies.c.id == study).values(delivered=self._clock())
        self._write(lambda connection: connection.execute(noted))

    def undeliverable(self, study: str, reason: str) -> None:
        """Record that a finished report can never be delivered, and why, in one sentence without patient data."""
        given_up = update(studies).where(studies.c.id == study, studies.c.state == "done")
        failed = given_up.values(state="failed", error=reason, changed=self._clock())
        self._write(lambda connection: connection.execute(failed))

    def sweep(self, days: float, *, owed: str | None = None) -> int:
        """Delete the studies that ended more than `days` ago; return their number.

        With 0 days, a finished study is deleted as soon as its report is delivered, and after `UNDELIVERED` seconds in
        any case.

        Args:
            days: number of days since the study ended.
            owed: origin of studies that are not deleted before their report is delivered, however long that takes.
        """
        before = self._clock() - (days * 86400 or UNDELIVERED)
        # implied by the second condition, but with an index
        old = (studies.c.received <= before) & (studies.c.changed <= before)
        gone = old if days else old | studies.c.delivered.is_not(None)
        chosen = select(studies.c.id).where(studies.c.state.in_(("done", "failed")), gone)
        if owed is not None:
            chosen = chosen.where(
                (studies.c.state == "failed") | (studies.c.origin != owed) | studies.c.delivered.is_not(None)
            )
        return self._write(lambda connection: self._erase(connection, [row.id for row in connection.execute(chosen)]))

    def delete(self, study: str) -> bool:
        """Delete a study in any state, with its files and report; return whether it existed."""
        return bool(self._write(lambda connection: self._erase(connection, [study])))

    def note(self, who: str, action: str, outcome: str, study: str | None = None) -> None:
        """Write a row of the audit trail.

        Args:
            who: name of the key, subject of the token, or AE title.
            action: requested action, such as "POST /v1/reports"; a route, never a path with values of the request.
            outcome: outcome, such as "200" or "refused".
            study: id of the study, if the action has one.
        """
        row = {"time": self._clock(), "who": who[:128], "action": action[:64], "outcome": outcome[:64], "study": study}
        self._write(lambda connection: connection.execute(insert(audit), row))

    def notes(self, limit: int = 1000) -> list[dict[str, Any]]:
        """Return the last `limit` rows of the audit trail, newest first."""
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
        if error is not None and error.startswith(SERVICE_FAILED):
            ended["key"] = None
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
