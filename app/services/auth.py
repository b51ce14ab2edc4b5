"""Identity: who is calling and what they may do. One mechanism, bearer tokens.

The operator's token opens every door. All others are random, stored as hashes with scope, session and expiry, and can
be revoked. Scopes come from the stored row, never from what the caller says.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import gevent

from app.clock import monotonic_s, now_ms
from app.errors import NotFound, StartRefused, TooMany, Unauthorized
from app.settings import Settings
from app.store import tokens
from app.store.database import Store

TICKET_S, SOCKET_TICKET_S, PAGE_S = 600, 60, 30 * 86400
MAX_SOCKET_TICKETS, MAX_TICKETS_OF_ONE = 1000, 100  # open at a time: of all, and of one token
CACHE_S = 1.0  # how long a revoked token may still be believed


@dataclass(frozen=True)
class Principal:
    """Who is calling. `name` owns sessions; `token_id` is None for the operator's own token."""

    name: str
    scope: str  # operator, page
    token_id: str | None = None
    expires_at_ms: int | None = None


OPERATOR = Principal("operator", "operator")


def bearer(header: str | None, query: str | None) -> str:
    """The token of a request: an Authorization header wins, even an empty one; else the query's (contract 2)."""
    if header is None:
        return query or ""
    scheme, _, rest = header.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else header.strip()


def master_token(settings: Settings) -> str:
    """The operator's token: ARGUS_TOKEN, or a random one made once and kept 0600."""
    if settings.token:
        return settings.token
    path = settings.gateway_dir / "token"
    try:
        if not path.exists():
            _create_private(path, secrets.token_urlsafe(32) + "\n")
        path.chmod(0o600)
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartRefused(f"The token file {path} can't be used: {error}.") from None
    if len(token) < 16:
        raise StartRefused(f"The token in {path} is too short; remove the file and a new one is made.")
    return token


def _create_private(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w") as file:
        file.write(text)


class Auth:
    """Checks tokens, makes them, and remembers failures."""

    def __init__(self, settings: Settings, store: Store, on_revoked: Callable[[str], None]) -> None:
        self.required = settings.auth == "on"
        self._master = master_token(settings).encode() if self.required else b""
        self._store, self._on_revoked = store, on_revoked
        self._socket_tickets: OrderedDict[str, tuple[Principal, float]] = OrderedDict()
        self._cache: dict[str, tuple[Principal, float]] = {}
        self.failures = Failures()

    def identify(self, token: str) -> Principal:
        """Whose token it is. Raises Unauthorized."""
        if not self.required:
            return OPERATOR
        given = token.encode("utf-8", "surrogateescape")
        if token and hmac.compare_digest(given, self._master):
            return OPERATOR
        if not token or len(token) > 512:
            raise Unauthorized
        digest = _hash(token)
        cached = self._cache.get(digest)
        if cached and cached[1] > monotonic_s():
            return cached[0]
        row = self._store.run(lambda db: tokens.find(db, digest, now_ms()))
        if row is None or row.scope != "page":
            raise Unauthorized
        principal = Principal("operator", row.scope, row.id, row.expires_at_ms)
        if len(self._cache) > 1000:
            self._cache.clear()
        self._cache[digest] = (principal, monotonic_s() + CACHE_S)
        return principal

    def valid(self, principal: Principal) -> bool:
        """Whether a principal's token has not run out; revocation cuts sockets by itself."""
        return principal.expires_at_ms is None or principal.expires_at_ms > now_ms()

    def stands(self, principal: Principal) -> bool:
        """Whether a principal's token still exists; asks the store."""
        if principal.token_id is None:
            return True
        return any(row.id == principal.token_id for row in self.list_tokens())

    # -- signing in

    def make_ticket(self) -> str:
        """A one-time sign-in ticket, good for ten minutes."""
        token, row = _new("ticket", TICKET_S, "sign-in link")
        self._store.run(lambda db: tokens.add(db, row))
        return token

    def exchange(self, ticket: str, label: str) -> tuple[str, int]:
        """A page token for a ticket, with its expiry (ms). Raises Unauthorized; a ticket is good once."""
        digest = _hash(ticket)
        token, row = _new("page", PAGE_S, label[:80])

        def swap(db: Any) -> bool:  # whole or not at all: a ticket is never spent for nothing
            taken = tokens.take(db, digest, "ticket", now_ms())
            if taken:
                tokens.add(db, row)
            return taken

        if not self._store.run(swap):
            raise Unauthorized("This sign-in link was used already or is too old; `./argus link` makes a new one.")
        return token, row.expires_at_ms

    def make_socket_ticket(self, principal: Principal) -> str:
        """A ticket that opens one WebSocket within a minute, so that no token stands in its URL.

        Over its bound a token loses the oldest of its own, so that none can spoil another's.
        """
        own = [ticket for ticket, (whose, _) in self._socket_tickets.items() if whose.token_id == principal.token_id]
        if len(own) >= MAX_TICKETS_OF_ONE:
            del self._socket_tickets[own[0]]
        ticket = secrets.token_urlsafe(24)
        self._socket_tickets[ticket] = (principal, monotonic_s() + SOCKET_TICKET_S)
        while len(self._socket_tickets) > MAX_SOCKET_TICKETS:
            self._socket_tickets.popitem(last=False)
        return ticket

    def redeem_socket_ticket(self, ticket: str) -> Principal:
        """Whose ticket it is; it is spent now. Raises Unauthorized."""
        principal, until = self._socket_tickets.pop(ticket, (None, 0.0))
        if principal is None or until < monotonic_s() or not self.valid(principal):
            raise Unauthorized
        return principal

    # -- tokens in use

    def list_tokens(self) -> list[tokens.TokenRow]:
        """Page tokens and unused tickets."""
        return self._store.run(lambda db: tokens.all_rows(db, now_ms()))

    def revoke(self, token_id: str) -> None:
        """End a token and cut its sockets. Raises NotFound."""
        if not self._store.run(lambda db: tokens.remove(db, token_id)):
            raise NotFound("there is no such token")
        self._cache.clear()
        self._socket_tickets = OrderedDict((t, p) for t, p in self._socket_tickets.items() if p[0].token_id != token_id)
        self._on_revoked(token_id)


class Failures:
    """Slows down who fails to show a token, by address. A right token is never slowed, so nobody can lock the owner
    out by failing in the owner's name."""

    FREE, STEP_S, MAX_S, FORGET_S = 5, 0.25, 3.0, 60.0
    MAX_WAITING, MAX_ADDRESSES = 16, 4096

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: dict[str, int] = {}

    def note(self, address: str) -> float:
        """Count one failure; the seconds to wait before the answer."""
        count, last = self._seen.pop(address, (0, 0.0))
        now = time.monotonic()
        count = max(0, count - int((now - last) / self.FORGET_S * self.FREE)) + 1
        self._seen[address] = (count, now)
        if len(self._seen) > self.MAX_ADDRESSES:
            self._seen.popitem(last=False)
        return min(self.MAX_S, max(0, count - self.FREE) * self.STEP_S)

    def slow_down(self, address: str) -> None:
        """Wait as long as this address has deserved. Raises TooMany if too many of its requests wait already."""
        delay = self.note(address)
        if not delay:
            return
        if self._waiting.get(address, 0) >= self.MAX_WAITING:
            raise TooMany("too many failed attempts from this address; wait a minute")
        self._waiting[address] = self._waiting.get(address, 0) + 1
        try:
            gevent.sleep(delay)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


def _new(scope: str, lasts_s: int, label: str) -> tuple[str, tokens.TokenRow]:
    """A fresh token and its row."""
    token, now = secrets.token_urlsafe(32), now_ms()
    return token, tokens.TokenRow(secrets.token_hex(6), _hash(token), scope, None, label, now, now + lasts_s * 1000)


def _hash(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
