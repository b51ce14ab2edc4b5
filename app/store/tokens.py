"""Rows of `tokens`: hashes only. Functions of a connection; call them through Store.run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from app.store.schema import tokens


@dataclass(frozen=True)
class TokenRow:
    """A token as stored; the token itself is nowhere."""

    id: str
    hash: str
    scope: str
    session_id: str | None
    label: str
    created_at_ms: int
    expires_at_ms: int


def add(db: Connection, row: TokenRow) -> None:
    """Store a token's hash; expired ones are swept on the way."""
    db.execute(delete(tokens).where(tokens.c.expires_at_ms < row.created_at_ms))
    db.execute(insert(tokens).values(**row.__dict__))


def find(db: Connection, hash: str, now_ms: int) -> TokenRow | None:
    """The valid token with this hash, or None."""
    query = select(tokens).where(tokens.c.hash == hash, tokens.c.expires_at_ms > now_ms)
    found = db.execute(query).one_or_none()
    return TokenRow(**found._mapping) if found else None


def take(db: Connection, hash: str, scope: str, now_ms: int) -> bool:
    """Use a one-time token up; True for exactly one caller."""
    spent = delete(tokens).where(tokens.c.hash == hash, tokens.c.scope == scope, tokens.c.expires_at_ms > now_ms)
    return db.execute(spent).rowcount == 1


def all_rows(db: Connection, now_ms: int) -> list[TokenRow]:
    """Valid tokens, the newest first."""
    query = select(tokens).where(tokens.c.expires_at_ms > now_ms).order_by(tokens.c.created_at_ms.desc())
    return [TokenRow(**row._mapping) for row in db.execute(query)]


def remove(db: Connection, id: str) -> bool:
    """Revoke; whether there was one."""
    return db.execute(delete(tokens).where(tokens.c.id == id)).rowcount == 1
