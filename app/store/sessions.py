"""Rows of `sessions` and `threads`, and the gateway's term. Functions of a connection; call them through Store.run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert as upsert

from app.store.schema import gateway, sessions, threads

MAX_THREADS = 200  # given back per session: the newest
_SPOKEN_TO = update(sessions).where(sessions.c.id == bindparam("session")).values(active_at_ms=bindparam("at"))


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
    options: str | None = None


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


def spoken_to(db: Connection, times: dict[str, int]) -> None:
    """When each of these sessions was spoken to last."""
    if times:
        db.execute(_SPOKEN_TO, [{"session": id, "at": at} for id, at in times.items()])


def know_threads(
    db: Connection, known: dict[tuple[str, str], str | None], gone: set[tuple[str, str]], now_ms: int
) -> None:
    """Remember threads by (session, thread), with who ran a turn on them last where that is known; forget others.

    Idempotent; threads of sessions that are gone are passed over.
    """
    if gone:
        db.execute(delete(threads).where(tuple_(threads.c.session_id, threads.c.thread_id).in_(gone)))
    there = set(db.scalars(select(sessions.c.id).where(sessions.c.id.in_({session for session, _ in known}))))
    for with_owner in (False, True):
        rows = [
            {"session_id": session, "thread_id": thread, "seen_at_ms": now_ms} | ({"owner": owner} if owner else {})
            for (session, thread), owner in known.items()
            if session in there and bool(owner) is with_owner
        ]
        if rows:
            row = upsert(threads)
            news = {name: row.excluded[name] for name in ("seen_at_ms", *(["owner"] if with_owner else []))}
            db.execute(row.on_conflict_do_update(index_elements=["session_id", "thread_id"], set_=news), rows)


def known_threads(db: Connection, session_id: str) -> dict[str, str | None]:
    """Ids of the newest threads with their last owner, the newest last."""
    rows = select(threads.c.thread_id, threads.c.owner).where(threads.c.session_id == session_id)
    found = db.execute(rows.order_by(threads.c.seen_at_ms.desc(), threads.c.thread_id).limit(MAX_THREADS))
    return dict(reversed([(thread, owner) for thread, owner in found]))


def set_main_thread(db: Connection, session_id: str, thread: str, now_ms: int) -> None:
    """This thread is the session's main one from now on."""
    db.execute(update(threads).where(threads.c.session_id == session_id, threads.c.main).values(main=False))
    row = upsert(threads).values(session_id=session_id, thread_id=thread, seen_at_ms=now_ms, main=True)
    db.execute(row.on_conflict_do_update(index_elements=["session_id", "thread_id"], set_={"main": True}))
