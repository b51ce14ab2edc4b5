"""Which WebSockets and other long connections are open under which token: a revoked or expired one is cut within a
second."""

from __future__ import annotations

from typing import Protocol

from app.services.auth import Auth, Principal


class Closable(Protocol):
    """A connection that lasts."""

    def close(self, code: int, reason: str) -> None:
        """End it; must not wait."""


class OpenSockets:
    """Sockets by token."""

    def __init__(self) -> None:
        self._open: dict[Closable, Principal] = {}

    def add(self, ws: Closable, principal: Principal) -> None:
        """A socket was let in."""
        self._open[ws] = principal

    def discard(self, ws: Closable) -> None:
        """It is over."""
        self._open.pop(ws, None)

    def cut(self, token_id: str, reason: str = "Token revoked") -> None:
        """Close all sockets of a token."""
        for ws, principal in list(self._open.items()):
            if principal.token_id == token_id:
                ws.close(1008, reason)

    def cut_expired(self, auth: Auth) -> None:
        """Called once a second."""
        for ws, principal in list(self._open.items()):
            if not auth.valid(principal):
                ws.close(1008, "Token expired")
