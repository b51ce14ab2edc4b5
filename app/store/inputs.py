"""Rows of `inputs`: what was said to an agent. Functions of a connection; call them through Store.run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from app.store.schema import inputs, threads

OPEN = ("queued", "started")
IN_ONE = 500  # values of one `IN (…)`

# Between what is said and the agent: built once, for building a statement costs more than running it.
_INSERT = insert(inputs)
_NEXT = (
    select(inputs)
    .where(inputs.c.session_id == bindparam("session"), inputs.c.lane == bindparam("lane"), inputs.c.state == "queued")
    .order_by(inputs.c.ahead.desc(), inputs.c.seq)
    .limit(bindparam("most"))
)
_GET = select(inputs).where(inputs.c.id == bindparam("id"))


@dataclass(frozen=True)
class InputRow:
    """An input as stored."""

    seq: int
    id: str
    session_id: str
    lane: str
    thread_id: str | None
    kind: str
    owner: str
    text: str
    source: str | None
    route: str | None
    attachments: str | None
    mode: str
    ahead: int
    dedupe: str | None
    depth: int
    state: str
    message_id: str
    turn_id: str | None
    error: str
    answer: str | None
    retry_of: str | None
    accepted_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None


_OPTIONAL = ("thread_id", "source", "route", "attachments", "dedupe", "turn_id", "answer", "retry_of")
BLANK = {**dict.fromkeys((*_OPTIONAL, "started_at_ms", "ended_at_ms")), "ahead": 0, "depth": 0, "error": ""}


def _row(found: Any) -> InputRow | None:
    return InputRow(**found._mapping) if found else None


def add(db: Connection, values: dict[str, Any]) -> InputRow:
    """Store an input, or give back the one of the same session with the same dedupe key."""
    if values.get("dedupe") is not None:
        same = (inputs.c.session_id == values["session_id"]) & (inputs.c.dedupe == values["dedupe"])
        known = _row(db.execute(select(inputs).where(same)).one_or_none())
        if known is not None:
            return known
    values = BLANK | values
    return InputRow(seq=db.execute(_INSERT, values).inserted_primary_key[0], **values)


def get(db: Connection, id: str) -> InputRow | None:
    """One input, or None."""
    return _row(db.execute(_GET, {"id": id}).one_or_none())


def move(db: Connection, id: str, before: Collection[str], state: str, **values: Any) -> bool:
    """Change an input's state if it is in one of `before`; whether it was."""
    row = update(inputs).where(inputs.c.id == id, inputs.c.state.in_(before))
    return db.execute(row.values(state=state, **values)).rowcount == 1


def next_queued(db: Connection, session: str, lane: str, limit: int) -> list[InputRow]:
    """The first that wait in a lane, in the order in which they are to run."""
    rows = db.execute(_NEXT, {"session": session, "lane": lane, "most": limit})
    return [InputRow(**row._mapping) for row in rows]


def unsettled(db: Connection, session: str, lane: str, messages: Collection[str]) -> list[InputRow]:
    """What of a lane the agent may have: all that started, and what waits though its message is among these."""
    wanted = (inputs.c.session_id == session, inputs.c.lane == lane, inputs.c.state.in_(OPEN))
    known = set(messages)  # a history may have more of them than a statement may have parameters
    found = db.execute(select(inputs.c.seq, inputs.c.state, inputs.c.message_id).where(*wanted).order_by(inputs.c.seq))
    begun = [row.seq for row in found if row.state == "started" or row.message_id in known]
    parts = (begun[at : at + IN_ONE] for at in range(0, len(begun), IN_ONE))
    rows = (
        row for part in parts for row in db.execute(select(inputs).where(inputs.c.seq.in_(part)).order_by(inputs.c.seq))
    )
    return [InputRow(**row._mapping) for row in rows]


def merge(db: Connection, ids: list[str], leader: str) -> None:
    """These inputs are one message from now on: that of the leader."""
    db.execute(update(inputs).where(inputs.c.id.in_(ids)).values(message_id=leader))


def open_lanes(db: Connection) -> list[tuple[str, str, int]]:
    """(session, lane, how many) of all that is not over."""
    counted = select(inputs.c.session_id, inputs.c.lane, func.count()).where(inputs.c.state.in_(OPEN))
    return [tuple(row) for row in db.execute(counted.group_by(inputs.c.session_id, inputs.c.lane))]


def listed(db: Connection, session: str, lane: str | None, only_open: bool, limit: int) -> list[InputRow]:
    """A session's inputs, the newest first; of one lane, or only what is not over, if asked."""
    query = select(inputs).where(inputs.c.session_id == session)
    if lane is not None:
        query = query.where(inputs.c.lane == lane)
    if only_open:
        query = query.where(inputs.c.state.in_(OPEN))
    return [InputRow(**row._mapping) for row in db.execute(query.order_by(inputs.c.seq.desc()).limit(limit))]


def main_thread(db: Connection, session: str) -> str | None:
    """The session's main thread, if there is one."""
    wanted = select(threads.c.thread_id).where(threads.c.session_id == session, threads.c.main)
    return db.scalar(wanted.order_by(threads.c.seen_at_ms.desc()).limit(1))


def session_of_thread(db: Connection, thread: str) -> list[str]:
    """The sessions that know a thread; more than one only if they share a home."""
    return list(db.scalars(select(threads.c.session_id).where(threads.c.thread_id == thread)))


def retried_as(db: Connection, id: str) -> str | None:
    """The input that says this one again, if there is one."""
    return db.scalar(select(inputs.c.id).where(inputs.c.retry_of == id).limit(1))
