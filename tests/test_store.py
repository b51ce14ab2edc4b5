"""The database: made, stamped, migrated, one door, nothing taken back."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from sqlalchemy import Connection, create_engine, inspect
from support import ROOT

from app.errors import StartRefused, TooMany, Unavailable
from app.store import approvals, database, schema, sessions, tokens
from app.store.database import Store, open_store
from app.store.sessions import SessionRow
from app.store.tokens import TokenRow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "argus.db"


@pytest.fixture
def store(path: Path):
    opened = open_store(f"sqlite:///{path}")
    yield opened
    opened.close()


def row(id: str = "s1", **values) -> SessionRow:
    given = {
        "id": id, "agent": "demo", "title": "", "owner": "operator", "provisioner": "process", "upstream": "",
        "handle": None, "secret": "x", "state": "created", "reason": "", "initialize": None, "created_at_ms": 1,
        "active_at_ms": 1,
    }  # fmt: skip
    return SessionRow(**{**given, **values})


def tables(path: Path) -> dict[str, set[str]]:
    engine = create_engine(f"sqlite:///{path}")
    found = inspect(engine)
    columns = {
        t: {f"{c['name']} {c['type']} {c['nullable']}" for c in found.get_columns(t)} for t in found.get_table_names()
    }
    engine.dispose()
    return columns


def migrate(path: Path, revision: str = "head") -> None:
    command = [sys.executable, "-m", "app.store.migrations", f"sqlite:///{path}", revision]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def test_a_new_database_is_stamped_and_private(store: Store, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [(schema.HEAD,)]
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_migrations_make_what_the_metadata_makes(store: Store, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "migrated.db"
    migrate(other)
    assert tables(other) == tables(path)


def test_head_is_the_newest_migration() -> None:
    scripts = sorted(p.stem.split("_")[0] for p in (ROOT / "app/store/migrations/versions").glob("[0-9]*.py"))
    assert scripts[-1] == schema.HEAD


def test_an_older_database_is_migrated_after_a_copy(path: Path) -> None:
    migrate(path)
    migrate(path, "base")
    store = open_store(f"sqlite:///{path}")
    assert store.run(sessions.next_term) == 1
    store.close()
    assert path.with_name(f"argus.db.before-{schema.HEAD}").exists()


def test_a_migration_that_fails_half_way_changes_nothing(path: Path) -> None:
    migrate(path)
    migrate(path, "0004")
    with sqlite3.connect(path) as db:  # the second step of 0005 has no place for its index
        db.execute("CREATE INDEX approvals_request ON tokens (scope)")
    before = tables(path)
    with pytest.raises(StartRefused, match="already exists"):
        open_store(f"sqlite:///{path}")
    assert tables(path) == before
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchall() == [("0004",)]
        assert "approvals_request" in db.execute("SELECT sql FROM sqlite_master WHERE name='approvals'").fetchone()[0]
        db.execute("DROP INDEX approvals_request")
    db.close()
    open_store(f"sqlite:///{path}").close()


def test_a_copy_that_cannot_be_written_stops_the_start_in_words(path: Path) -> None:
    migrate(path)
    migrate(path, "0004")
    path.with_name(f"{path.name}.before-{schema.HEAD}").mkdir()
    with pytest.raises(StartRefused, match="can't be used: unable to open"):
        open_store(f"sqlite:///{path}")


def asked(**values: Any) -> dict[str, Any]:
    """A question as stored."""
    same = {"session_id": "a", "thread_id": "t", "turn_id": "", "request": "0", "method": "m", "params": "{}"}
    return {**same, "state": "open", "asked_at_ms": 1, "expires_at_ms": 9, **values}


def test_a_question_keeps_its_row_while_it_is_open_and_the_next_under_its_id_has_its_own(store: Store) -> None:
    store.run(lambda db: sessions.add(db, row("a")))

    def add(**values: Any) -> str:
        return store.run(lambda db: approvals.add(db, **asked(**values))).id

    assert [add(id="1"), add(id="2"), add(id="3", params="[]"), add(id="4", params="[]")] == ["1", "1", "3", "3"]
    assert store.run(lambda db: approvals.close(db, "3", "answered"))
    assert add(id="5", params="[]") == "5"
    listed = store.run(lambda db: approvals.listed(db, "a", None, 9))
    assert {each.id: each.state for each in listed} == {"1": "settled", "3": "answered", "5": "open"}


def test_a_database_of_a_newer_version_stops_the_start(store: Store, path: Path) -> None:
    store.run(lambda db: db.execute(schema.alembic_version.update().values(version_num="9999")))
    with pytest.raises(StartRefused) as refused:
        open_store(f"sqlite:///{path}")
    assert "9999" in refused.value.text and "run the gateway version that made it" in refused.value.text


def test_a_file_that_is_no_database_stops_the_start(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StartRefused) as refused:
        open_store(f"sqlite:///{path}")
    assert str(path) in refused.value.text


def test_terms_grow(store: Store) -> None:
    assert [store.run(sessions.next_term) for _ in range(3)] == [1, 2, 3]


def test_a_transaction_is_whole_or_nothing(store: Store) -> None:
    def half(db) -> None:
        sessions.add(db, row())
        raise KeyError

    with pytest.raises(KeyError):
        store.run(half)
    assert store.run(sessions.all_rows) == []


def test_what_a_transaction_raises_is_its_callers_and_writes_no_traceback(
    store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(db: Connection) -> None:
        raise TooMany("enough")

    with pytest.raises(TooMany, match="enough"):
        store.run(refuse)
    with pytest.raises(Unavailable):
        store.run(lambda db: db.exec_driver_sql("select * from nowhere"))
    said = capfd.readouterr().err
    assert "Traceback" not in said and "TooMany" not in said


def test_sessions_are_stored_changed_counted_and_removed(store: Store) -> None:
    store.run(lambda db: sessions.add(db, row("a", active_at_ms=1)))
    store.run(lambda db: sessions.add(db, row("b", active_at_ms=2, owner="other")))
    assert [r.id for r in store.run(sessions.all_rows)] == ["b", "a"]
    assert store.run(lambda db: sessions.count_of(db, "operator")) == 1
    assert store.run(lambda db: sessions.change(db, "a", state="running"))
    assert not store.run(lambda db: sessions.change(db, "none", state="running"))
    assert store.run(lambda db: sessions.get(db, "a")).state == "running"
    store.run(lambda db: sessions.know_threads(db, {("a", "t"): "key"}, set(), 1))
    assert store.run(lambda db: sessions.remove(db, "a")) and not store.run(lambda db: sessions.remove(db, "a"))
    assert store.run(lambda db: sessions.known_threads(db, "a")) == {}


def test_threads_are_remembered_with_their_owner_the_newest_last(store: Store) -> None:
    store.run(lambda db: sessions.add(db, row("a")))

    def know(at: int, **known: str | None) -> None:
        named = {("a", thread): owner for thread, owner in known.items()}
        store.run(lambda db: sessions.know_threads(db, named, set(), at))

    for n in range(sessions.MAX_THREADS + 5):
        know(n, **{f"t{n}": f"k{n}"})
    know(10_000, t10=None)
    known = store.run(lambda db: sessions.known_threads(db, "a"))
    assert len(known) == sessions.MAX_THREADS and list(known)[-1] == "t10" and known["t10"] == "k10"
    know(10_001, t10="other", new=None)
    known = store.run(lambda db: sessions.known_threads(db, "a"))
    assert known["t10"] == "other" and known["new"] is None
    store.run(lambda db: sessions.know_threads(db, {("gone", "t"): None}, {("a", "t10")}, 1))
    assert "t10" not in store.run(lambda db: sessions.known_threads(db, "a"))


def test_a_one_time_token_is_taken_once_even_by_many_at_once(store: Store) -> None:
    store.run(lambda db: tokens.add(db, TokenRow("1", "hash", "ticket", None, "", 1, 100)))
    jobs = [gevent.spawn(store.run, lambda db: tokens.take(db, "hash", "ticket", 50)) for _ in range(20)]
    gevent.joinall(jobs, timeout=10)
    assert sorted(job.value for job in jobs) == [False] * 19 + [True]


def test_expired_tokens_are_nobodys_and_swept(store: Store) -> None:
    store.run(lambda db: tokens.add(db, TokenRow("1", "old", "page", None, "", 1, 100)))
    assert store.run(lambda db: tokens.find(db, "old", 99)).id == "1"
    assert store.run(lambda db: tokens.find(db, "old", 100)) is None
    store.run(lambda db: tokens.add(db, TokenRow("2", "new", "page", None, "", 200, 300)))
    assert [r.id for r in store.run(lambda db: tokens.all_rows(db, 0))] == ["2"]


def test_a_locked_database_is_unavailable_with_a_reason(store: Store, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable) as refused:
        store.run(lambda db: sessions.add(db, row()))
    assert "locked" in refused.value.text
    other.execute("ROLLBACK")
    other.close()
    store.run(lambda db: sessions.add(db, row()))


def test_those_who_stand_in_line_for_a_locked_database_do_not_each_wait_for_the_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "QUEUE_S", 0.2)
    ran: list[int] = []
    slow = gevent.spawn(store.run, lambda db: time.sleep(0.5))  # as one that waits for a lock
    late = [gevent.spawn(store.run, lambda db, n=n: ran.append(n)) for n in range(50)]
    gevent.joinall([slow, *late])
    assert all(isinstance(job.exception, Unavailable) for job in late) and not ran
    store.run(lambda db: ran.append(50))
    assert ran == [50]


def test_nothing_is_written_into_a_database_that_was_removed(store: Store, path: Path) -> None:
    away = path.with_name("away.db")
    path.rename(away)
    with pytest.raises(Unavailable, match="removed or replaced"):
        store.run(lambda db: sessions.add(db, row()))
    path.touch()
    with pytest.raises(Unavailable, match="removed or replaced"):
        store.check()
    away.rename(path)
    assert store.run(sessions.all_rows) == []
    store.run(lambda db: sessions.add(db, row()))


def test_what_was_committed_is_in_a_copy_of_the_files(store: Store, path: Path, tmp_path: Path) -> None:
    for n in range(50):
        store.run(lambda db, n=n: sessions.add(db, row(f"s{n}")))
        copy = tmp_path / f"copy{n}.db"
        for suffix in ("", "-wal"):
            copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
        with sqlite3.connect(copy) as db:
            assert db.execute("SELECT count(*) FROM sessions").fetchone() == (n + 1,)
        db.close()
