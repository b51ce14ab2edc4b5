"""Rows of `usage`: tokens of a turn. Functions of a connection; call them through Store.run."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert as upsert

from app.store.schema import sessions, usage

COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "total_tokens")


def note(db: Connection, rows: list[dict[str, Any]]) -> None:
    """Store what turns have used; idempotent: a part of it that is folded once more takes nothing back."""
    there = set(db.scalars(select(sessions.c.id).where(sessions.c.id.in_({row["session_id"] for row in rows}))))
    rows = [row for row in rows if row["session_id"] in there]
    if rows:
        row = upsert(usage)
        most = {name: func.max(usage.c[name], row.excluded[name]) for name in COUNTS}
        db.execute(row.on_conflict_do_update(index_elements=["session_id", "turn_id"], set_=most), rows)


def listed(db: Connection, session: str | None, since_ms: int, limit: int) -> list[dict[str, Any]]:
    """Turns, the newest first."""
    query = select(usage).where(usage.c.at_ms >= since_ms)
    if session is not None:
        query = query.where(usage.c.session_id == session)
    return [dict(row._mapping) for row in db.execute(query.order_by(usage.c.at_ms.desc()).limit(limit))]


def sums(db: Connection, session: str | None, since_ms: int) -> list[dict[str, Any]]:
    """Tokens and turns of each session."""
    columns = [func.sum(usage.c[name]).label(name) for name in COUNTS]
    query = select(usage.c.session_id, func.count().label("turns"), *columns).where(usage.c.at_ms >= since_ms)
    if session is not None:
        query = query.where(usage.c.session_id == session)
    return [dict(row._mapping) for row in db.execute(query.group_by(usage.c.session_id))]
