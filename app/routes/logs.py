"""A session's runtime log over HTTP: its tail, and what comes after it for as long as somebody reads."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import gevent
from flask import Blueprint, Response, g, request

from app.clock import monotonic_s
from app.errors import ArgusError, BadRequest, NotFound, TooMany, Unavailable
from app.routes.policy import services
from app.services.logs import MAX_LINES, LogFile
from app.wiring import Services

bp = Blueprint("logs", __name__)

MAX_FOLLOWERS = 32
LOOK_S, CHECK_S = 0.25, 1.0  # between looks at the file; at the session and the connection
WRITE_S = 30.0  # how long a reader may take for one piece
followers: set[Follower] = set()


@bp.get("/sessions/<id>/logs")
def session_logs(id: str) -> Any:
    """text/plain: the last `?lines=` (200; at most 10000, 1 MiB) of the runtime's log. With `follow=1` it goes on
    with what is written, until the session is deleted or the token ends. 409 if the log is no plain file."""
    lines, follow = _number("lines", 200, MAX_LINES), request.args.get("follow") == "1"
    path = services().sessions.log_path(id)
    if follow and len(followers) >= MAX_FOLLOWERS:
        raise TooMany(f"{MAX_FOLLOWERS} logs are being followed already; end one first")
    log = LogFile(path)
    try:
        tail = gevent.get_hub().threadpool.apply(log.tail, (lines,))
    except ArgusError:
        log.close()
        raise
    if not follow:
        log.close()
        return Response(tail, mimetype="text/plain")
    follower = Follower(services(), id, log, tail, request.environ["gunicorn.socket"])
    services().sockets.add(follower, g.principal)
    response = Response(follower.pieces(), mimetype="text/plain")
    response.call_on_close(follower.end)  # also if it was never begun
    return response


def _number(name: str, default: int, most: int) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise BadRequest(f"{name} must be a whole number from 0 to {most}")
    return int(text)


class Follower:
    """One who reads a log as it grows. Closed like a WebSocket, so that a revoked token ends it too."""

    def __init__(self, services: Services, session: str, log: LogFile, tail: bytes, sock: Any) -> None:
        self._services, self._session, self._log, self._tail, self._sock = services, session, log, tail, sock
        self._ended = self._writing = False
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a reader that is gone without a word is found
        followers.add(self)

    def pieces(self) -> Iterator[bytes]:
        """The tail, then what is written, until it ends."""
        if self._tail:
            yield from self._piece(self._tail)
        checked = monotonic_s()
        while not self._ended:
            try:
                data = self._log.more()
            except ArgusError as error:
                yield from self._piece(f"\nargus: {error.text}\n".encode())
                return
            if data:
                yield from self._piece(data)
            else:
                gevent.sleep(LOOK_S)
            if monotonic_s() - checked >= CHECK_S:
                checked = monotonic_s()
                if not self._wanted():
                    return

    def _piece(self, data: bytes) -> Iterator[bytes]:
        timer = gevent.spawn_later(WRITE_S, self._cut)
        self._writing = True
        try:
            yield data
        finally:
            self._writing = False
            timer.kill(block=False)

    def _wanted(self) -> bool:
        """Whether the session is there still, and somebody at the other end."""
        try:
            if not self._sock._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return False
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return False
        try:
            self._services.sessions.get(self._session)
        except NotFound:
            return False
        except Unavailable:
            pass  # the store says nothing now; the log can be read all the same
        return True

    def close(self, code: int, reason: str) -> None:
        """The token was revoked, or ran out."""
        self._ended = True
        if self._writing:
            self._cut()  # it does not read, and would not see the end

    def _cut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def end(self) -> None:
        """The response is over."""
        followers.discard(self)
        self._services.sockets.discard(self)
        self._log.close()
