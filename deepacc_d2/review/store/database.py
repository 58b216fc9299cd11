"""The database of a review: SQLite in the results' folder, or PostgreSQL by URL."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.review.store.tables import head

BUSY_MS = 10_000
"""How long a writer of SQLite waits for other programs, in milliseconds."""

_WRITERS: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()
"""Of each SQLite: the threads of this program wait here, as long as it takes, for their turn.

SQLite itself only tries again after longer and longer pauses, and gives up after ``BUSY_MS``.
"""


class StoreError(UserError):
    """The store cannot be used at the moment, or at all."""


def open_engine(url: str | Path) -> Engine:
    """Opens a database and brings it to this version.

    Args:
        url: a file of SQLite, or an SQLAlchemy URL such as
            ``postgresql+psycopg://user@host/review``.

    Raises:
        ConfigError: the URL or file cannot be used.
        StoreError: it is damaged, locked, full or of a later version.
    """
    engine = _engine(url)
    with told(engine):
        migrate(engine)
    return engine


def _engine(url: str | Path) -> Engine:
    if isinstance(url, Path):
        try:
            url.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{url.parent} cannot be made ({error.strerror}): choose another place"
            ) from None
        text: Any = f"sqlite:///{url}" if "?" not in str(url) else None
        if text is None:
            raise ConfigError(f"{url}: a path with ? cannot hold a review: rename the folder")
    else:
        text = url
    try:
        parsed = make_url(text)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ConfigError(f"store {parsed.get_backend_name()}: give SQLite or PostgreSQL")
        engine = create_engine(
            parsed,
            pool_pre_ping=parsed.get_backend_name() != "sqlite",
            # Each of the server's threads (40 of requests, some in the background) may need one.
            pool_size=10,
            max_overflow=50,
        )
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"store URL cannot be used ({str(error).splitlines()[0]})") from None
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine)
        _WRITERS[engine] = threading.Lock()
    return engine


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, _: Any) -> None:
        # SQLAlchemy says when a transaction begins, not sqlite3.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        # An acknowledged change outlives a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("deepacc_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Gives a connection that sees one moment's content.

    Raises:
        StoreError: the database cannot be read.
    """
    with told(engine), engine.begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Gives a connection whose changes are all made, and durable, or none; one writer at a time.

    Raises:
        StoreError: the database cannot be written.
    """
    options = engine.execution_options(deepacc_write=True)
    turn = _WRITERS.get(engine) or nullcontext()
    with turn, told(engine), options.begin() as connection:
        # SQLite's BEGIN IMMEDIATE has locked already; on PostgreSQL this row does.
        connection.execute(select(head.c.seq).where(head.c.id == 1).with_for_update())
        yield connection


@contextmanager
def told(engine: Engine) -> Iterator[None]:
    """Turns a database error into one line.

    Raises:
        StoreError: as said.
    """
    try:
        yield
    except PoolTimeout:
        raise StoreError("the store has too many readers at the moment: try again") from None
    except DBAPIError as error:
        place = engine.url.render_as_string(hide_password=True)
        text = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason"
        if "is locked" in text:
            what = "is locked by another program: close it and try again"
        elif "is full" in text or "No space left" in text:
            what = "has no space left on its disk: free some and try again"
        elif "malformed" in text or "not a database" in text:
            what = f"is damaged ({text}): restore a backup"
        elif isinstance(error, OperationalError):
            what = f"cannot be used ({text})"
        else:
            raise
        raise StoreError(f"store {place} {what}") from error


def migrate(engine: Engine) -> None:
    """Brings a database to this version; one that is empty gets all tables.

    Raises:
        StoreError: it is of a later version.
    """
    config = _config()
    script = ScriptDirectory.from_config(config)
    options = engine.execution_options(deepacc_write=True)
    with options.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two servers that start together.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7340312)")
        current = MigrationContext.configure(connection).get_current_revision()
        known = {revision.revision for revision in script.walk_revisions()}
        if current is not None and current not in known:
            raise StoreError(
                f"the review's store is of version {current}, which this program does not know: "
                "update the program"
            )
        if current != script.get_current_head():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def version_of(engine: Engine) -> str | None:
    """Returns the version of a database's tables; None where there are none."""
    with reading(engine) as connection:
        return MigrationContext.configure(connection).get_current_revision()
