"""Rows of `deliveries`: what is to be sent to somebody. Functions of a connection; call them through Store.run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from app.store.schema import deliveries

WAITING = ("pending", "failed", "uncertain")


@dataclass(frozen=True)
class DeliveryRow:
    """A delivery as stored."""

    seq: int
    id: str
    input_id: str
    session_id: str
    key: str
    route: str
    payload: str
    state: str
    sending: bool
    attempts: int
    uncertain: int
    next_at_ms: int
    provider_id: str | None
    error: str
    created_at_ms: int
    sent_at_ms: int | None


def add(db: Connection, **values: Any) -> bool:
    """Store a delivery; nothing happens, and False, if there is one with its key."""
    row = upsert(deliveries).values(**values).on_conflict_do_nothing(index_elements=["key"])
    return db.execute(row).rowcount == 1


def get(db: Connection, id: str) -> DeliveryRow | None:
    """One delivery, or None."""
    found = db.execute(select(deliveries).where(deliveries.c.id == id)).one_or_none()
    return DeliveryRow(**found._mapping) if found else None


def of_input(db: Connection, input_id: str) -> list[DeliveryRow]:
    """An input's deliveries."""
    rows = db.execute(select(deliveries).where(deliveries.c.input_id == input_id).order_by(deliveries.c.seq))
    return [DeliveryRow(**row._mapping) for row in rows]


def _due(now_ms: int, latest_ms: int) -> Any:
    """A time later than `latest_ms` can only come from a clock that was ahead: it counts as now."""
    return (deliveries.c.next_at_ms <= now_ms) | (deliveries.c.next_at_ms > latest_ms)


def _heads() -> Any:
    """Which may go now: the first to each place, so that order is kept. One of unknown outcome holds nobody back."""
    waiting = (deliveries.c.state.in_(("pending", "failed")), deliveries.c.sending.is_(False))
    first = select(func.min(deliveries.c.seq)).where(*waiting).group_by(deliveries.c.route)
    return deliveries.c.seq.in_(first) | ((deliveries.c.state == "uncertain") & deliveries.c.sending.is_(False))


def due_routes(db: Connection, now_ms: int, latest_ms: int, limit: int) -> list[str]:
    """The places that something is to be sent to now."""
    rows = select(deliveries.c.route).where(_heads(), _due(now_ms, latest_ms)).group_by(deliveries.c.route)
    return list(db.scalars(rows.order_by(func.min(deliveries.c.seq)).limit(limit)))


def head(db: Connection, route: str, now_ms: int, latest_ms: int) -> DeliveryRow | None:
    """What is to be sent to a place next, if that is due."""
    here = (deliveries.c.route == route, deliveries.c.sending.is_(False))
    ordered = select(deliveries).where(*here, deliveries.c.state.in_(("pending", "failed")))
    first = db.execute(ordered.order_by(deliveries.c.seq).limit(1)).one_or_none()
    if first is not None and (first.next_at_ms <= now_ms or first.next_at_ms > latest_ms):
        return DeliveryRow(**first._mapping)
    again = select(deliveries).where(*here, deliveries.c.state == "uncertain", _due(now_ms, latest_ms))
    found = db.execute(again.order_by(deliveries.c.seq).limit(1)).one_or_none()
    return DeliveryRow(**found._mapping) if found else None


def next_due(db: Connection, now_ms: int) -> int | None:
    """When the next of those that are not due yet is to be sent, in milliseconds; None if there is none."""
    wanted = (deliveries.c.state.in_(WAITING), deliveries.c.sending.is_(False), deliveries.c.next_at_ms > now_ms)
    return db.scalar(select(func.min(deliveries.c.next_at_ms)).where(*wanted))


def begin(db: Connection, id: str) -> bool:
    """It is being sent from now on: whatever ends the gateway before the outcome is stored leaves this mark."""
    row = update(deliveries).where(deliveries.c.id == id, deliveries.c.state.in_(WAITING), ~deliveries.c.sending)
    return db.execute(row.values(sending=True, attempts=deliveries.c.attempts + 1)).rowcount == 1


def change(db: Connection, id: str, **values: Any) -> bool:
    """Change columns of a delivery; False if it is gone."""
    return db.execute(update(deliveries).where(deliveries.c.id == id).values(**values)).rowcount == 1


def interrupted(db: Connection) -> list[DeliveryRow]:
    """Those that a former gateway had begun to send: their outcome is not known."""
    return [DeliveryRow(**row._mapping) for row in db.execute(select(deliveries).where(deliveries.c.sending))]


def listed(db: Connection, state: str | None, session: str | None, limit: int) -> list[DeliveryRow]:
    """The newest, of one state or session if asked."""
    query = select(deliveries)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if session is not None:
        query = query.where(deliveries.c.session_id == session)
    return [DeliveryRow(**row._mapping) for row in db.execute(query.order_by(deliveries.c.seq.desc()).limit(limit))]


def revive(db: Connection, id: str, now_ms: int) -> bool:
    """A dead one is to be sent again, as if it were new; whether it was dead."""
    row = update(deliveries).where(deliveries.c.id == id, deliveries.c.state == "dead")
    return db.execute(row.values(state="pending", attempts=0, next_at_ms=now_ms, error="")).rowcount == 1
