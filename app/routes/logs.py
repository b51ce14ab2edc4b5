"""A session's runtime log over HTTP: its tail, and what comes after it for as long as somebody reads."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Literal

import gevent
from flask import Response, g
from flask import request as http
from pydantic import Field

from app.clock import monotonic_s
from app.errors import ArgusError, NotFound, TooMany, Unauthorized, Unavailable
from app.pool import in_thread
from app.routes.api import IdPath, Model, blueprint
from app.routes.policy import services
from app.services.logs import MAX_LINES, LogFile
from app.wiring import Services

bp = blueprint("logs")

MAX_FOLLOWERS = 32
LOOK_S, CHECK_S = 0.25, 1.0  # between looks at the file; at the session and the connection
WRITE_S = 30.0  # how long a reader may take for one piece
followers: set[Follower] = set()


class LogQuery(Model):
    """How much of the log, and whether to stay."""

    lines: int = Field(200, ge=0, le=MAX_LINES)
    follow: Literal["0", "1"] = "0"


@bp.get("/sessions/<id>/logs", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def session_logs(path: IdPath, query: LogQuery) -> Any:
    """The last lines of the runtime's log, at most 1 MiB. With `follow=1` it goes on with what is written, until the
    session is deleted or the token ends. 409 if the log is no plain file."""
    file, follow = services().sessions.log_path(path.id), query.follow == "1"
    if follow and len(followers) >= MAX_FOLLOWERS:
        raise TooMany(f"{MAX_FOLLOWERS} logs are being followed already; end one first")
    log = LogFile(file)
    try:
        tail = in_thread(gevent.get_hub().threadpool, lambda: log.tail(query.lines))
    except ArgusError:
        log.close()
        raise
    if not follow:
        log.close()
        return Response(tail, mimetype="text/plain")
    follower = Follower(services(), path.id, log, tail, http.environ["gunicorn.socket"])
    services().sockets.add(follower, g.principal)
    if not services().auth.stands(g.principal):  # revoked while the log was opened
        follower.end()
        raise Unauthorized
    response = Response(follower.pieces(), mimetype="text/plain")
    response.call_on_close(follower.end)  # also if it was never begun
    return response


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
