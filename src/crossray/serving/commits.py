"""Writes to the journal's database; concurrent writes share a transaction, and so wait for the disk only once.

A commit to SQLite waits for the disk for a millisecond to a few tenths of a second, and commits wait for each other.
Here, one thread leads: while it commits, the others queue their work, and the next leader commits the whole queue in
one transaction. A server such as PostgreSQL does this itself.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

T = TypeVar("T")


class Commits:
    """The transactions of an engine."""

    def __init__(self, engine: Engine) -> None:
        """Group the writes to a SQLite engine; pass on those to others."""
        self._engine, self._grouped = engine, engine.dialect.name == "sqlite"
        self._leading = threading.Lock()
        self._queue: deque[tuple[Callable[[Connection], Any], Future[Any]]] = deque()

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and return its result once the writes are on disk; roll back if it fails.

        Args:
            work: function that reads and writes on the given connection; it may run again after a rollback.
        """
        if not self._grouped:
            with self._engine.begin() as connection:
                return work(connection)
        done: Future[T] = Future()
        self._queue.append((work, done))
        with self._leading:
            if not done.done():
                self._commit([self._queue.popleft() for _ in range(len(self._queue))])
        return done.result()

    def _commit(self, group: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        try:
            with self._engine.begin() as connection:
                results = [work(connection) for work, _ in group]
        except Exception as error:
            if len(group) == 1:
                group[0][1].set_exception(error)
            else:  # so that an error in one does not affect the others
                for one in group:
                    self._commit([one])
            return
        for (_, done), result in zip(group, results, strict=True):
            done.set_result(result)
