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
    return _read(db, _summed(session, since_ms, usage.c.session_id).group_by(usage.c.session_id))


def threads(db: Connection, session: str | None, since_ms: int, limit: int) -> list[dict[str, Any]]:
    """Tokens and turns of each thread, the latest used first."""
    latest = func.max(usage.c.at_ms).label("at_ms")
    query = _summed(session, since_ms, usage.c.session_id, usage.c.thread_id, latest)
    return _read(db, query.group_by(usage.c.session_id, usage.c.thread_id).order_by(latest.desc()).limit(limit))


def days(db: Connection, session: str | None, since_ms: int, zone_minutes: int, limit: int) -> list[dict[str, Any]]:
    """Tokens and turns of each day (`YYYY-MM-DD` of a zone so many minutes east of Greenwich), the newest first."""
    day = func.date(usage.c.at_ms // 1000 + zone_minutes * 60, "unixepoch").label("day")
    return _read(db, _summed(session, since_ms, day).group_by(day).order_by(day.desc()).limit(limit))


def _summed(session: str | None, since_ms: int, *columns: Any) -> Any:
    counted = [func.sum(usage.c[name]).label(name) for name in COUNTS]
    query = select(*columns, func.count().label("turns"), *counted).where(usage.c.at_ms >= since_ms)
    return query if session is None else query.where(usage.c.session_id == session)


def _read(db: Connection, query: Any) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in db.execute(query)]
