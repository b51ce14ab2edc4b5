"""Rows of `approvals`: questions of gateway-owned turns. Functions of a connection; call them through Store.run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from app.store.schema import approvals


@dataclass(frozen=True)
class ApprovalRow:
    """An approval as stored."""

    id: str
    session_id: str
    thread_id: str
    turn_id: str
    request: str
    input_id: str | None
    method: str
    params: str
    state: str
    decision: str
    answered_by: str
    asked_at_ms: int
    expires_at_ms: int
    ended_at_ms: int | None

    @property
    def asked(self) -> Any:
        """Its params as values; None if they can't be read (a number of thousands of digits)."""
        try:
            return json.loads(self.params)
        except (ValueError, RecursionError):
            return None


def add(db: Connection, **values: Any) -> ApprovalRow:
    """Store a question; one that is open and asked again keeps its row. Another one under the same id ends that."""
    same = find(db, values["session_id"], values["turn_id"], values["request"])
    if same is not None:
        if (same.method, same.params) == (values["method"], values["params"]):
            return same
        close(db, same.id, "settled", ended_at_ms=values["asked_at_ms"])
    db.execute(insert(approvals).values(**values))
    return ApprovalRow(**db.execute(select(approvals).where(approvals.c.id == values["id"])).one()._mapping)


def answered(db: Connection, session: str, turn: str, request: str, method: str, params: str) -> ApprovalRow | None:
    """The newest that asked just this and was decided here, or None."""
    same = {"session_id": session, "turn_id": turn, "request": request, "method": method, "params": params}
    query = select(approvals).where(*(approvals.c[name] == value for name, value in same.items()))
    query = query.where(approvals.c.state != "open", approvals.c.decision != "")
    found = db.execute(query.order_by(approvals.c.ended_at_ms.desc()).limit(1)).one_or_none()
    return ApprovalRow(**found._mapping) if found else None


def close(db: Connection, id: str, state: str, **values: Any) -> bool:
    """A question is over; False if it was already."""
    row = update(approvals).where(approvals.c.id == id, approvals.c.state == "open")
    return db.execute(row.values(state=state, **values)).rowcount == 1


def listed(db: Connection, session: str | None, state: str | None, limit: int) -> list[ApprovalRow]:
    """The newest, of one session or state if asked."""
    query = select(approvals)
    if session is not None:
        query = query.where(approvals.c.session_id == session)
    if state is not None:
        query = query.where(approvals.c.state == state)
    rows = db.execute(query.order_by(approvals.c.asked_at_ms.desc(), approvals.c.id).limit(limit))
    return [ApprovalRow(**row._mapping) for row in rows]


def get(db: Connection, id: str) -> ApprovalRow | None:
    """One approval, or None."""
    found = db.execute(select(approvals).where(approvals.c.id == id)).one_or_none()
    return ApprovalRow(**found._mapping) if found else None


def find(db: Connection, session: str, turn: str, request: str) -> ApprovalRow | None:
    """The open approval of this question, or None."""
    same = (approvals.c.session_id == session, approvals.c.turn_id == turn, approvals.c.request == request)
    found = db.execute(select(approvals).where(*same, approvals.c.state == "open")).one_or_none()
    return ApprovalRow(**found._mapping) if found else None


def of_turn(db: Connection, session: str, turn: str) -> list[ApprovalRow]:
    """All that was asked in a turn."""
    asked = (approvals.c.session_id == session, approvals.c.turn_id == turn)
    return [ApprovalRow(**row._mapping) for row in db.execute(select(approvals).where(*asked))]
