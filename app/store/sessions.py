"""Rows of `sessions` and `threads`, and the gateway's term. Functions of a connection; call them through Store.run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from app.store.schema import gateway, sessions, threads

MAX_THREADS = 200  # remembered per session: the newest


@dataclass(frozen=True)
class SessionRow:
    """A session as stored."""

    id: str
    agent: str
    title: str
    owner: str
    provisioner: str
    upstream: str
    handle: str | None
    secret: str
    state: str
    reason: str
    initialize: str | None
    created_at_ms: int
    active_at_ms: int


def next_term(db: Connection) -> int:
    """The term of this gateway life: one more than the last."""
    term = (db.scalar(select(gateway.c.term)) or 0) + 1
    db.execute(
        upsert(gateway).values(id=1, term=term).on_conflict_do_update(index_elements=["id"], set_={"term": term})
    )
    return term


def add(db: Connection, row: SessionRow) -> None:
    """Store a new session."""
    db.execute(insert(sessions).values(**row.__dict__))


def get(db: Connection, id: str) -> SessionRow | None:
    """One session, or None."""
    found = db.execute(select(sessions).where(sessions.c.id == id)).one_or_none()
    return SessionRow(**found._mapping) if found else None


def all_rows(db: Connection) -> list[SessionRow]:
    """Every session, the latest active first."""
    rows = db.execute(select(sessions).order_by(sessions.c.active_at_ms.desc(), sessions.c.id))
    return [SessionRow(**row._mapping) for row in rows]


def count_of(db: Connection, owner: str) -> int:
    """How many sessions a principal has."""
    return db.scalar(select(func.count()).select_from(sessions).where(sessions.c.owner == owner)) or 0


def change(db: Connection, id: str, **values: Any) -> bool:
    """Change columns of a session; False if it is gone."""
    return db.execute(update(sessions).where(sessions.c.id == id).values(**values)).rowcount == 1


def remove(db: Connection, id: str) -> bool:
    """Delete a session with its threads; whether there was one."""
    return db.execute(delete(sessions).where(sessions.c.id == id)).rowcount == 1


def know_thread(db: Connection, session_id: str, thread_id: str, now_ms: int, owner: str | None = None) -> None:
    """Remember a thread, and who ran a turn on it last; idempotent."""
    if get(db, session_id) is None:
        return
    values = {"seen_at_ms": now_ms} | ({"owner": owner} if owner else {})
    row = upsert(threads).values(session_id=session_id, thread_id=thread_id, **values)
    db.execute(row.on_conflict_do_update(index_elements=["session_id", "thread_id"], set_=values))
    newest = select(threads.c.thread_id).where(threads.c.session_id == session_id)
    newest = newest.order_by(threads.c.seen_at_ms.desc()).limit(MAX_THREADS)
    db.execute(delete(threads).where(threads.c.session_id == session_id, threads.c.thread_id.not_in(newest)))


def forget_thread(db: Connection, session_id: str, thread_id: str) -> None:
    """The thread was archived or deleted."""
    db.execute(delete(threads).where(threads.c.session_id == session_id, threads.c.thread_id == thread_id))


def known_threads(db: Connection, session_id: str) -> dict[str, str | None]:
    """Thread ids with their last owner, the newest last."""
    rows = select(threads.c.thread_id, threads.c.owner).where(threads.c.session_id == session_id)
    return {thread: owner for thread, owner in db.execute(rows.order_by(threads.c.seen_at_ms))}
