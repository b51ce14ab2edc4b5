"""`/ws`: a client of a session. contracts in docs/protocol.md."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from flask import Flask, request
from gevent.pool import Pool

from app import rpc
from app.clock import monotonic_s
from app.errors import RPC_UNAVAILABLE, ArgusError, Unavailable
from app.relay.inbound import BadFrame, parse
from app.relay.live import Live
from app.relay.messages import error_frame
from app.relay.websocket import WebSocket
from app.routes.policy import services, socket_principal
from app.routes.sock import Sock
from app.services.auth import Principal
from app.services.keeper import Keeper

log = logging.getLogger("argus.ws")

SLOW_AT_ONCE = 64  # methods of one socket that wait for something
CLIENT_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def install(app: Flask) -> None:
    """Put the WebSocket route into the application."""
    sock = Sock(app)
    settings = app.extensions["argus"].settings
    sock.route("/ws", options=lambda: {"buffer_limit": settings.client_buffer_bytes})(client)


def client(ws: WebSocket) -> None:
    """One client, from its token to its end."""
    principal = socket_principal(ws)
    if principal is None:
        return
    services().sockets.add(ws, principal)  # before anything waits: a token may be revoked meanwhile
    try:
        joined = _join(ws, principal)
        if joined is not None:
            _stay(ws, *joined, principal)
    finally:
        services().sockets.discard(ws)


def _stay(ws: WebSocket, live: Live, key: str, principal: Principal) -> None:
    began = monotonic_s()
    log.info("session %s: client %s attached (%s)", live.id, key, principal.scope)
    try:
        _relay(ws, live, key, rpc.Call(principal, live, key, services().conversation))
    finally:
        live.detach(key, ws)
        services().sessions.counters.overflows += ws.close_code == 1013
        lasted, end = monotonic_s() - began, f"{ws.close_code} {ws.close_reason}".strip()
        log.info("session %s: client %s left after %.1f s (%s)", live.id, key, lasted, end)


def _join(ws: WebSocket, principal: Principal) -> tuple[Live, str] | None:
    """Let the client in: its session and its key. None after its socket was closed with why not."""
    opened = _open(ws, principal)
    if opened is None:
        return None
    if not services().auth.stands(principal):
        ws.close(1008, "Token revoked")
        return None
    keeper, hello = opened
    if keeper.ended:  # deleted while this client waited; from here on nothing waits
        ws.close(*keeper.ended)
        return None
    args = request.args
    key = args.get("client", "")
    with_seq, cursor = args.get("seq") == "1", args.get("after") or None
    key = keeper.live.attach(ws, hello, with_seq, cursor, key if CLIENT_KEY.fullmatch(key) else None)
    request.environ.clear()  # a socket may stay for days: what the upgrade brought is not needed any more
    request.__dict__.pop("args", None)
    return keeper.live, key


def _open(ws: WebSocket, principal: Principal) -> tuple[Keeper, dict[str, Any]] | None:
    """The session that the client wants; None after its socket was closed with why not."""
    args = request.args
    wanted = (args.get("session") or "").strip() or None
    try:
        keeper, created = services().sessions.open(principal, wanted, args.get("id"))
    except Unavailable as error:
        ws.close(error.close, f"Failed to provision upstream container: {error.text}")
        return None
    except ArgusError as error:
        ws.close(error.close, error.text)
        return None
    mode = services().settings.provision_mode
    return keeper, {"id": keeper.row.id, "mode": mode, "attached": wanted is not None, "created": created}


def _answer_later(live: Live, key: str, work: Callable[[], bytes | None]) -> None:
    try:
        answer = work()
    except Exception:  # a bug in one method: the socket goes on, and the asker is not left waiting in silence
        log.exception("session %s: a method failed", live.id)
        answer = error_frame(b"null", RPC_UNAVAILABLE, "internal error")
    if answer:
        live.answer(key, answer)


def _relay(ws: WebSocket, live: Live, key: str, call: rpc.Call) -> None:
    slow: Pool | None = None
    while True:
        message = ws.receive()
        if not isinstance(message, str):
            ws.close(1003, "text frames only")
            return
        try:
            frame = parse(message.encode())
        except BadFrame as bad:
            live.refuse(key, bad)
            continue
        if frame.method and frame.method.startswith("argus/"):
            answer = rpc.dispatch(call, frame)
            if callable(answer):
                slow = slow or Pool(SLOW_AT_ONCE)
                slow.spawn(_answer_later, live, key, answer)  # waits while there are too many
            elif answer:
                live.answer(key, answer)
        else:
            live.frame(key, frame)
