"""The database and the one door to it.

`Store.run(work)` runs `work(connection)` as one transaction, whole, in the store's only thread: a transaction that
spans a greenlet switch, or a statement on the hub beside one in the pool, froze the process when it was tried.
"""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from gevent.threadpool import ThreadPool
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.exc import DatabaseError, IntegrityError  # the second is told to callers

from app.clock import monotonic_s
from app.errors import StartRefused, Unavailable
from app.pool import in_thread
from app.store import schema

log = logging.getLogger("argus.store")
T = TypeVar("T")
MIGRATE_TIMEOUT_S = 600
LOCKED_S = 5.0  # how long another process may lock the file
QUEUE_S = 30.0  # how long a transaction may stand in line; while the file is locked each before it takes LOCKED_S
ROOT = Path(__file__).resolve().parent.parent.parent


class Store:
    """An open database. Every transaction goes through `run`."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._path = Path(url.removeprefix("sqlite:///"))
        self._file = _identity(self._path)
        self._pool = ThreadPool(1)
        self.waiting = self.done = 0  # transactions
        self.seconds = 0.0  # that they took, waiting included

    def run(self, work: Callable[[Connection], T]) -> T:
        """One transaction; commits when `work` returns, rolls back when it raises.

        Raises Unavailable when the database can't be written (a full disk, a lock that stays), in 40 s at most.
        """
        began = monotonic_s()
        self.waiting += 1
        try:
            return in_thread(self._pool, lambda: self._transact(work, began + QUEUE_S))
        except IntegrityError:
            raise
        except DatabaseError as error:
            log.error("the database refused: %s", error.orig)
            raise Unavailable(f"the gateway's database refused: {error.orig}") from None
        finally:
            self.waiting -= 1
            self.done += 1
            self.seconds += monotonic_s() - began

    def check(self) -> None:
        """Whether it answers. Raises Unavailable."""
        self.run(lambda db: db.scalar(select(schema.gateway.c.term)))

    def _transact(self, work: Callable[[Connection], T], until: float) -> T:
        if monotonic_s() > until:
            raise Unavailable("the gateway's database is too busy, or locked by another process; try again later")
        if _identity(self._path) != self._file:  # SQLite would write on into the file that is gone, without a word
            raise Unavailable(
                f"the database {self._path} was removed or replaced while the gateway runs; put it back, or restart it"
            )
        with self._engine.begin() as connection:
            return work(connection)

    def close(self) -> None:
        """Let go of the file."""
        self._pool.apply(self._engine.dispose)
        self._pool.kill()


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is there; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": LOCKED_S})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a power cut must not take back what was acknowledged
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    return engine


def open_store(url: str) -> Store:
    """The database at `url`: a new one is made from the metadata and stamped, an older one is migrated first.

    The caller holds the home's lock. Raises StartRefused with what to do.
    """
    path = Path(url.removeprefix("sqlite:///"))
    try:
        if path.exists():
            path.chmod(0o600)
        else:
            path.touch(mode=0o600)
        found = _version(url)
        if found is None:
            _create(url)
        elif found != schema.HEAD:
            _migrate(url, path, found)
    except DatabaseError as error:
        raise StartRefused(f"The database {path} can't be used: {error.orig}.") from None
    except (OSError, sqlite3.Error) as error:
        raise StartRefused(f"The database {path} can't be used: {error}.") from None
    return Store(url)


def _version(url: str) -> str | None:
    """The migration that the database is at; None for an empty one, '' for one that was never stamped."""
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            names = inspect(connection).get_table_names()
            if not names:
                return None
            if "alembic_version" not in names:
                return ""
            return connection.scalar(select(schema.alembic_version.c.version_num)) or ""
    finally:
        engine.dispose()


def _create(url: str) -> None:
    engine = _engine(url)
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        connection.execute(schema.alembic_version.insert().values(version_num=schema.HEAD))
    engine.dispose()


def _migrate(url: str, path: Path, found: str) -> None:
    """In a child process, so that Alembic's memory is not the gateway's; after a copy of the file."""
    copy = path.with_name(f"{path.name}.before-{schema.HEAD}")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)  # with what is still in the write-ahead log
    copy.chmod(0o600)
    log.warning("migrating the database from %s to %s; a copy is %s", found or "no version", schema.HEAD, copy)
    command = [sys.executable, "-m", "app.store.migrations", url]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MIGRATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise StartRefused(f"Migrating {path} took over {MIGRATE_TIMEOUT_S:g} s; start again.") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise StartRefused(
            f"The database could not be migrated from {found or 'no version'} to {schema.HEAD}: {said[0]} "
            f"It is unchanged in {copy}; run the gateway version that made it, or move {path} away to begin anew."
        )
