"""Signing in: one-time links, page tokens, tickets for sockets."""

from __future__ import annotations

from typing import Any

from flask import g, request
from pydantic import Field

from app.errors import BadRequest, Forbidden, Unauthorized
from app.routes.api import TOKEN, Body, Done, IdPath, Model, answer, blueprint
from app.routes.policy import public, services
from app.services.auth import SOCKET_TICKET_S

bp = blueprint("auth", "/auth", public=True)


class Exchange(Body):
    """The ticket of a sign-in link, and a name for the token made from it."""

    ticket: str = Field(min_length=1)
    label: str = "page"


class PageToken(Model):
    """A token for a browser."""

    token: str
    expires_at_ms: int


class Me(Model):
    """Who a token says you are."""

    name: str
    scope: str
    expires_at_ms: int | None


class SocketTicket(Model):
    """Opens one WebSocket as `?ticket=`."""

    ticket: str
    expires_in_s: int


class SignInLink(Model):
    """For a browser: good once, ten minutes."""

    url: str


class StoredToken(Model):
    """A token or an unused link; itself it is nowhere."""

    id: str
    scope: str
    label: str
    created_at_ms: int
    expires_at_ms: int


class Tokens(Model):
    """All that can be revoked."""

    tokens: list[StoredToken]


@bp.post("/exchange", responses={200: PageToken})
@public
def exchange(body: Exchange) -> Any:
    """A sign-in link's ticket becomes a page's token. 401 if it was used or is too old."""
    auth = services().auth
    try:
        token, expires = auth.exchange(body.ticket, body.label)
    except Unauthorized:
        auth.failures.slow_down(request.remote_addr or "unix")
        raise
    return answer(PageToken(token=token, expires_at_ms=expires))


@bp.get("/me", security=[TOKEN], responses={200: Me})
def me() -> Any:
    """Who the token says you are."""
    p = g.principal
    return answer(Me(name=p.name, scope=p.scope, expires_at_ms=p.expires_at_ms))


@bp.post("/ticket", security=[TOKEN], responses={200: SocketTicket})
def ticket() -> Any:
    """A ticket that opens one WebSocket within a minute, so that no token stands in its URL."""
    made = services().auth.make_socket_ticket(g.principal)
    return answer(SocketTicket(ticket=made, expires_in_s=SOCKET_TICKET_S))


@bp.post("/link", security=[TOKEN], responses={200: SignInLink})
def link() -> Any:
    """A sign-in link for a browser, good once for ten minutes. Operator's token only."""
    _operator()
    ticket = services().auth.make_ticket()
    return answer(SignInLink(url=f"{request.host_url}#ticket={ticket}"))


@bp.get("/tokens", security=[TOKEN], responses={200: Tokens})
def list_tokens() -> Any:
    """Page tokens and unused links. Operator's token only."""
    _operator()
    names = StoredToken.model_fields
    found = [StoredToken(**{name: getattr(row, name) for name in names}) for row in services().auth.list_tokens()]
    return answer(Tokens(tokens=found))


@bp.delete("/tokens/<id>", security=[TOKEN], responses={200: Done})
def revoke(path: IdPath) -> Any:
    """Revoke a token and cut its sockets. `me` is the one the request came with."""
    id = path.id
    if id == "me":
        if g.principal.token_id is None:
            raise BadRequest("the operator's token is not revoked here: change ARGUS_TOKEN or <home>/gateway/token")
        id = g.principal.token_id
    elif g.principal.token_id != id:
        _operator()
    services().auth.revoke(id)
    return answer(Done())


def _operator() -> None:
    if g.principal.scope != "operator":
        raise Forbidden("this needs the operator's token")
