"""The tables of the journal, and the settings that make SQLite durable."""

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from crossray.errors import UserError, quoted

metadata = MetaData()

#: One row per study. Every claim gets a new `token`, so a revoked claim cannot complete a study.
studies = Table(
    "crossray_studies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("state", String(10), nullable=False),
    Column("origin", String(16), nullable=False),
    Column("owner", String(128), nullable=False),
    Column("key", String(256)),
    Column("model", String(256), nullable=False),
    Column("options", Text, nullable=False),
    Column("received", Float, nullable=False),
    Column("changed", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", String(128)),
    Column("token", String(32)),
    Column("delivered", Float),
    Column("error", Text),
    UniqueConstraint("origin", "owner", "key", name="crossray_studies_key"),
    Index("crossray_studies_state", "state", "received"),
    Index("crossray_studies_owed", "origin", "delivered", "state", "changed"),
)

files = Table(
    "crossray_files",
    metadata,
    Column("study", ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("name", String(256), nullable=False),
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("study", "name", name="crossray_files_name"),
)

#: The primary key ensures a single report per study.
reports = Table(
    "crossray_reports",
    metadata,
    Column("study", ForeignKey(studies.c.id, ondelete="CASCADE"), primary_key=True),
    Column("content", Text, nullable=False),
    Column("made", Float, nullable=False),
)

#: The audit trail: who requested what, and the outcome, without content. Its rows remain when a study is deleted.
audit = Table(
    "crossray_audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("who", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("study", String(32)),
    Column("outcome", String(64), nullable=False),
)

#: Execution option for read-only connections, which do not wait for writers.
READS = {"crossray_reads": True}


def open_engine(url: str) -> Engine:
    """Connect to the database and create missing tables.

    Args:
        url: SQLAlchemy URL, such as sqlite:///crossray.db or postgresql+psycopg://host/name.

    Raises:
        UserError: the URL is invalid or names no file, its driver is not installed, or the database rejects the
            connection.
    """
    try:
        parsed = make_url(url)
        # statements in errors and logs contain no values, because these may be patient data
        engine = create_engine(parsed, hide_parameters=True, pool_pre_ping=True)
    except (ArgumentError, ModuleNotFoundError, SQLAlchemyError) as error:
        reason = "its driver is not installed" if isinstance(error, ModuleNotFoundError) else "it is not a database URL"
        raise UserError(f"--store {quoted(url)}: {reason}; give one such as sqlite:///crossray.db.") from None
    if engine.dialect.name == "sqlite":
        if parsed.database in (None, "", ":memory:"):  # in memory, each connection would have its own database
            raise UserError(f"--store {quoted(url)}: names no file; give one such as sqlite:///crossray.db.")
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        metadata.create_all(engine)
        for index in studies.indexes:  # stores of earlier versions lack one
            index.create(engine, checkfirst=True)
    except SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())[:120]
        shown = parsed.render_as_string(hide_password=True)
        raise UserError(f"--store {shown}: cannot be opened ({reason}); check the path or the server.") from None
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # transactions are begun by `_begin_sqlite`, not by the driver at the first write
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # writers lock the file immediately: after a read, upgrading to a write could fail because the file has changed
    reads = connection.get_execution_options().get("crossray_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
