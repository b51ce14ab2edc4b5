"""Signing in: one-time links, page tokens, tickets for sockets."""

from __future__ import annotations

import json
from typing import Any

import gevent
from flask import Blueprint, g, jsonify, request

from app.errors import BadRequest, Forbidden, Unauthorized
from app.routes.policy import public, services

bp = Blueprint("auth", __name__, url_prefix="/auth")


BODY_S = 10  # how long a body may take to come


def json_body(**kinds: type) -> dict[str, Any]:
    """The request's JSON object, with only these fields, each absent or of its type. Raises BadRequest."""
    try:
        with gevent.Timeout(BODY_S, BadRequest(f"the body did not come within {BODY_S} s")):
            data = request.get_data()
        body = json.loads(data) if data else {}
        json.dumps(body, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON in UTF-8") from None
    if request.content_length is not None and len(data) != request.content_length:
        raise BadRequest("the body is shorter than its Content-Length")
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    for name, value in body.items():
        if name not in kinds:
            raise BadRequest(f"unknown field {name[:50]!r}; there are {', '.join(kinds) or 'none'}")
        if not isinstance(value, kinds[name]):
            raise BadRequest(f"{name} must be a {kinds[name].__name__}")
    return body


@bp.post("/exchange")
@public
def exchange() -> Any:
    """`{"ticket", "label"?}` of a sign-in link → `{"token", "expiresAtMs"}`. 401 if it was used or is too old."""
    body, auth = json_body(ticket=str, label=str), services().auth
    if not body.get("ticket"):
        raise BadRequest("ticket is missing")
    try:
        token, expires = auth.exchange(body["ticket"], body.get("label", "page"))
    except Unauthorized:
        auth.failures.slow_down(request.remote_addr or "unix")
        raise
    return jsonify(token=token, expiresAtMs=expires)


@bp.get("/me")
def me() -> Any:
    """`{"name", "scope", "expiresAtMs"}`: who the token says you are."""
    p = g.principal
    return jsonify(name=p.name, scope=p.scope, expiresAtMs=p.expires_at_ms)


@bp.post("/ticket")
def ticket() -> Any:
    """`{"ticket", "expiresInS"}`: opens one WebSocket within a minute as `?ticket=`."""
    return jsonify(ticket=services().auth.make_socket_ticket(g.principal), expiresInS=60)


@bp.post("/link")
def link() -> Any:
    """`{"url"}`: a sign-in link for a browser, good once for ten minutes. Operator's token only."""
    _operator()
    ticket = services().auth.make_ticket()
    return jsonify(url=f"{request.host_url}#ticket={ticket}")


@bp.get("/tokens")
def list_tokens() -> Any:
    """`{"tokens": [{"id", "scope", "label", "createdAtMs", "expiresAtMs"}]}`. Operator's token only."""
    _operator()
    found = [
        {"id": t.id, "scope": t.scope, "label": t.label, "createdAtMs": t.created_at_ms, "expiresAtMs": t.expires_at_ms}
        for t in services().auth.list_tokens()
    ]
    return jsonify(tokens=found)


@bp.delete("/tokens/<id>")
def revoke(id: str) -> Any:
    """Revoke a token and cut its sockets. `me` is the one the request came with."""
    if id == "me":
        if g.principal.token_id is None:
            raise BadRequest("the operator's token is not revoked here: change ARGUS_TOKEN or <home>/gateway/token")
        id = g.principal.token_id
    elif g.principal.token_id != id:
        _operator()
    services().auth.revoke(id)
    return jsonify(ok=True)


def _operator() -> None:
    if g.principal.scope != "operator":
        raise Forbidden("this needs the operator's token")
