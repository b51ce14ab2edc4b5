"""Which WebSockets are open under which token, so that a revoked or expired one is cut within a second."""

from __future__ import annotations

from app.relay.websocket import WebSocket
from app.services.auth import Auth, Principal


class OpenSockets:
    """Sockets by token."""

    def __init__(self) -> None:
        self._open: dict[WebSocket, Principal] = {}

    def add(self, ws: WebSocket, principal: Principal) -> None:
        """A socket was let in."""
        self._open[ws] = principal

    def discard(self, ws: WebSocket) -> None:
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
