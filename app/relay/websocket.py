"""Our WebSocket object, used through Flask-Sock's API (app/routes/sock.py). wsproto shakes hands, Reader cuts what
comes into messages in the handler's greenlet, Outbound writes.

simple-websocket's own object loses what the kernel does not take under gevent and lets senders interleave; this one
has one bounded writer, UTF-8 and mask checks, a message limit (1009), pings for all sockets from one timer, and a
close frame for every end, the gateway's SIGTERM (1012) included.
"""

from __future__ import annotations

import logging
import socket as stdsocket
import time
from collections.abc import Callable
from typing import Any

import gevent
import h11
from simple_websocket import ConnectionClosed
from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from app.relay.frames import PING_FRAME, binary_frame, close_frame, pong_frame, text_frame
from app.relay.outbound import Outbound
from app.relay.reader import BINARY, CLOSE, NO_CODE, PING, TEXT, BadFrames, Message, Reader, close_reason

log = logging.getLogger("argus.ws")

MESSAGE_LIMIT = 16 << 20
BUFFER_LIMIT = 8 << 20
PING_AFTER_S = 20.0
FRAMES_IN_A_ROW, TURN_S = 16, 0.005  # how often it is asked, and after how much work at a stretch, to let others on
WAITED_S = 0.001  # a read that took longer had to wait, and others had their turn meanwhile
CLOSE_WAIT_S = 1.0  # how long a peer may take to answer a close frame
DRAIN_WAIT_S = 30.0  # how long a slow peer that is being closed may stand still with frames still to come
_open: set[WebSocket] = set()
_timer: Any = None


class WebSocket:
    """One accepted connection. `receive` and `send` are Flask-Sock's; both raise ConnectionClosed when it is over."""

    # fmt: off
    __slots__ = (
        "__weakref__", "_closed_by_peer", "_closing_at", "_failed", "_frames", "_outbound", "_pinged", "_progress",
        "_reader", "_seen", "_sock", "_turn_began", "close_code", "close_reason", "on_overflow", "send_frames",
    )
    # fmt: on

    def __init__(self, sock: Any, limit: int = MESSAGE_LIMIT, buffer_limit: int = BUFFER_LIMIT) -> None:
        self._sock, self._reader = sock, Reader(limit)
        self._outbound = Outbound(sock._sock, buffer_limit, on_gone=self._shutdown, on_full=self._too_slow)
        self.send_frames = self._outbound.send  # ready-made ones; never blocks, never raises; too slow a peer gets 1013
        self._seen, self._pinged, self._progress = time.monotonic(), False, 0
        self._closing_at: float | None = None
        self._frames, self._turn_began = 0, 0.0
        self._closed_by_peer = self._failed = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.on_overflow: Callable[[], None] | None = None
        _open.add(self)

    # -- sending

    def send(self, data: str | bytes) -> None:
        """Send one message: text for str, binary for bytes."""
        if self._closing_at is not None or self._outbound.closed:
            raise ConnectionClosed(self.close_code or 1006, self.close_reason)
        self.send_frames(text_frame(data.encode()) if isinstance(data, str) else binary_frame(data))

    def _too_slow(self) -> None:
        self.close(1013, "too slow: reconnect with your cursor")
        if self.on_overflow:
            self.on_overflow()

    @property
    def buffered(self) -> int:
        """Bytes that wait for the peer."""
        return self._outbound.buffered

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Begin the closing handshake: (code, text), as in simple-websocket. What was sent before still goes out."""
        if self._closing_at is not None:
            return
        self.close_code, self.close_reason = reason or 1000, message or ""
        self._closing_at = time.monotonic()
        self._outbound.end(close_frame(self.close_code, self.close_reason))

    # -- receiving

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The next message, or None after `timeout` seconds. Only the handler's greenlet may call it."""
        if timeout is not None:
            with gevent.Timeout(timeout, False):
                return self.receive()
            return None
        while True:
            message = self._next_message()
            if message is not None:
                return message
            asked = time.monotonic()
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._closed_by_peer = True
                raise ConnectionClosed(self.close_code or 1006, self.close_reason)
            self._seen, self._pinged = time.monotonic(), False
            if self._seen - asked > WAITED_S:
                self._turn_began = self._seen
            else:
                self._let_others()
            self._reader.feed(data)
            data = b""  # nothing of it is kept while the next is waited for

    def _next_message(self) -> str | bytes | None:
        try:
            while (found := self._reader.next()) is not None:
                self._frames += 1
                if self._frames % FRAMES_IN_A_ROW == 0:
                    self._let_others()
                message = self._on_message(found)
                if message is not None:
                    return message
        except BadFrames as error:
            self._fail(error.code, error.text)
        return None

    def _let_others(self) -> None:
        """A peer that always has more must not starve the others. sleep(0) would not do: the hub runs fifty callbacks
        before it looks at the sockets again."""
        now = time.monotonic()
        if now - self._turn_began > TURN_S:
            gevent.sleep(0.001)
            self._turn_began = time.monotonic()

    def _on_message(self, found: Message) -> str | bytes | None:
        opcode, payload = found
        if opcode in (TEXT, BINARY):
            return payload if self._closing_at is None else None
        assert isinstance(payload, bytes)
        if opcode == PING:
            if self._closing_at is None and not self._outbound.buffered:  # a pong behind what waits says nothing
                self._outbound.send(pong_frame(payload))
        elif opcode == CLOSE:
            code, reason = close_reason(payload)
            self._closed_by_peer = True
            if self._closing_at is None:
                self.close_code, self.close_reason, self._closing_at = code, reason, time.monotonic()
                self._outbound.end(close_frame(None if code == NO_CODE else code))
            raise ConnectionClosed(self.close_code or NO_CODE, self.close_reason)
        return None

    def _fail(self, code: int, text: str) -> None:
        self.close(code, text)
        self._failed = True
        raise ConnectionClosed(code, text)

    # -- the end

    def finish(self) -> None:
        """Called by the route when the handler is done: close if nobody did, let the peer answer, let go."""
        self.close(1000)
        try:
            while not self._closed_by_peer and not self._failed:
                self.receive()
        except ConnectionClosed:
            pass
        while self._outbound.buffered and not self._outbound.closed:  # the ticker ends a peer that stands still
            gevent.sleep(0.05)
        if self._failed:
            self._linger()
        _open.discard(self)
        self._outbound.close()
        self.on_overflow, self._reader = None, Reader(0)  # half a message may be large; cycles are looked for rarely

    def _linger(self) -> None:
        """Read what a peer that broke the rules still sends: closing on unread bytes would reset the connection, and
        take the close frame with it."""
        with gevent.Timeout(CLOSE_WAIT_S, False):
            try:
                self._sock.shutdown(stdsocket.SHUT_WR)
                while self._sock.recv(65536):
                    gevent.sleep(0)
            except OSError:
                pass

    def _shutdown(self) -> None:
        try:
            self._sock._sock.shutdown(stdsocket.SHUT_RDWR)
        except OSError:
            pass

    def tick(self, now: float) -> None:
        """Once a second, from the one timer: ping the idle, cut the dead, end what does not close."""
        if self._outbound.progress != self._progress:
            self._progress, self._seen, self._pinged = self._outbound.progress, now, False
            if self._closing_at is not None:
                self._closing_at = now
        if self._closing_at is not None:
            if now - self._closing_at > (DRAIN_WAIT_S if self._outbound.buffered else CLOSE_WAIT_S):
                self._drop()
        elif self._pinged and now - self._seen > 2 * PING_AFTER_S:
            self.close_code, self.close_reason = 1006, "no answer to a ping"
            self._drop()
        elif not self._pinged and now - self._seen > PING_AFTER_S:
            self._pinged = True
            self._outbound.send(PING_FRAME, force=True)

    def _drop(self) -> None:
        self._outbound.close()
        self._shutdown()


def close_all(code: int, reason: str) -> None:
    """Close every open WebSocket of the process (SIGTERM)."""
    for ws in list(_open):
        ws.close(code, reason)


def open_sockets() -> int:
    """How many there are."""
    return len(_open)


def _tick_all() -> None:
    while True:
        gevent.sleep(1.0)
        now = time.monotonic()
        for ws in list(_open):
            ws.tick(now)


def accept(environ: dict[str, Any], **options: Any) -> WebSocket:
    """Answer the upgrade request that gunicorn parsed. Raises RemoteProtocolError if it is none."""
    global _timer
    if _timer is None:
        _timer = gevent.spawn(_tick_all)
    sock = environ["gunicorn.socket"]
    names = [key for key in environ if key.startswith("HTTP_") and key != "HTTP_SEC_WEBSOCKET_EXTENSIONS"]
    headers = [(key[5:].replace("_", "-").lower().encode(), environ[key].encode("latin-1")) for key in names]
    handshake = H11Handshake(ConnectionType.SERVER)
    try:
        handshake.initiate_upgrade_connection(headers, "/")
        list(handshake.events())
        answer = handshake.send(AcceptConnection())
    except (h11.ProtocolError, UnicodeError) as error:
        raise RemoteProtocolError(str(error)) from None
    if sock.family != stdsocket.AF_UNIX:
        sock.setsockopt(stdsocket.IPPROTO_TCP, stdsocket.TCP_NODELAY, 1)
    sock.sendall(answer)
    return WebSocket(sock, **options)
