"""The gateway's one connection to a session's bridge, or straight to an app-server (a plain link).

Lines come in through a libev callback on the hub, one recv a wake-up; it hands on blocks of whole lines, never blocks
and never raises. docs/bridge.md is the protocol of the attach line.
"""

from __future__ import annotations

import json
import logging
import socket as stdsocket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event

from app.clock import monotonic_s
from app.errors import Unavailable
from app.relay.outbound import Outbound

log = logging.getLogger("argus.link")

READ = 1  # libev's EV_READ
READ_BYTES, LEAST_BYTES = 65536, 4096  # a wake-up: more while much comes, less while lines cost much
LONG_S = 0.02  # a wake-up that takes longer holds up all other sessions
NEWLINE = 10
ANSWER_BYTES = 65536
SEND_LIMIT = 64 << 20


@dataclass(frozen=True)
class Attach:
    """What a bridge answered to bridge/attach; docs/bridge.md explains the fields."""

    epoch: str
    link: int
    life: int
    first: int
    next: int
    sent: int
    gap: bool
    state: str
    mark: str = ""  # a bridge of before there were marks says none


def dial(address: str, timeout_s: float) -> socket.socket:
    """Connect to `unix:/path` or `tcp:HOST:PORT`. Raises OSError."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout_s)
        try:
            sock.connect(rest)
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = rest.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout_s)
    sock.setsockopt(stdsocket.IPPROTO_TCP, stdsocket.TCP_NODELAY, 1)
    return sock


class Link:
    """An open connection. `start` begins to deliver; `closed` is set when it is over, `why` says how."""

    # fmt: off
    __slots__ = (
        "_held", "_limit", "_on_lines", "_on_one", "_outbound", "_parts", "_pause", "_raw", "_recv", "_rest", "_size",
        "_sock", "_watcher", "closed", "why",
    )
    # fmt: on

    def __init__(self, sock: socket.socket, rest: bytes = b"", line_limit: int | None = None) -> None:
        self._sock, self._raw, self._recv = sock, sock._sock, sock._sock.recv
        sock.settimeout(None)
        self._raw.setblocking(False)
        self._parts: list[bytes] = []
        self._held, self._rest, self._limit = 0, rest, line_limit or sys.maxsize
        self._watcher: Any = None
        self._pause: Any = None  # a timer, while others have their turn
        self._size = LEAST_BYTES
        self._on_lines: Callable[[bytes], None] = lambda block: None
        self._on_one: Callable[[bytes], bool] = lambda block: False
        self.closed, self.why = Event(), ""
        self._outbound = Outbound(
            self._raw,
            SEND_LIMIT,
            on_gone=lambda: self.close("the link broke"),
            on_full=lambda: self.close("the agent does not read its input"),
        )

    def start(
        self, on_lines: Callable[[bytes], None], on_one: Callable[[bytes], bool], on_drained: Callable[[], None]
    ) -> None:
        """Deliver blocks of whole lines from now on, on the hub.

        What comes where a line begins is shown to `on_one` first; it says whether it took it.
        """
        self._on_lines, self._on_one, self._outbound.on_drained = on_lines, on_one, on_drained
        self._watcher = gevent.get_hub().loop.io(self._raw.fileno(), READ)
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest)
        if not self.closed.is_set():
            self._watcher.start(self._readable)

    def send(self, lines: bytes) -> None:
        """Write whole lines. Never blocks; what waits is bounded, and over the bound the link ends."""
        self._outbound.send(lines)

    @property
    def waiting(self) -> int:
        """Bytes not yet taken by the other side."""
        return self._outbound.buffered

    def _readable(self) -> None:
        try:
            recv = self._recv  # called through a name: a slot that is called at once is looked up the slow way
            data = recv(self._size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"the link broke: {error}")
            return
        try:
            on_one = self._on_one
            if not self._parts and on_one(data):
                return
        except Exception:
            self._bug()
            return
        if len(data) >= LEAST_BYTES:
            self._take_much(data)
        elif not data:
            self.close("the link was closed")
        else:
            self._size = LEAST_BYTES  # to make room for 64 KB costs more than to read a hundred bytes
            self._take_any(data)

    def _take_much(self, data: bytes) -> None:
        """A large block may hold twenty thousand lines: if it takes long, others come first, and less is read then."""
        began = monotonic_s()
        self._take_any(data)
        spent = monotonic_s() - began
        if spent <= LONG_S:
            self._size = min(READ_BYTES, self._size * 2)
            return
        self._size = max(LEAST_BYTES, self._size // 2)
        if self._watcher is not None:
            self._watcher.stop()
            self._pause = gevent.get_hub().loop.timer(spent)
            self._pause.start(self._go_on)

    def _go_on(self) -> None:
        self._end_pause()
        if self._watcher is not None:
            self._watcher.start(self._readable)

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.stop()
            self._pause.close()
            self._pause = None

    def _take_any(self, data: bytes) -> None:
        if data[-1] == NEWLINE and not self._parts and len(data) <= self._limit:
            self._hand_on(data)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        if self._held + (data.find(b"\n") if end else len(data)) > self._limit:
            self.close(f"a line is longer than {self._limit} bytes (ARGUS_JSONL_LINE_LIMIT_BYTES)")
            return
        if not end:
            self._parts.append(data)
            self._held += len(data)
            return
        if self._parts:
            block = b"".join((*self._parts, data[:end]))
            self._parts = []
        else:
            block = data[:end]
        if end < len(data):
            self._parts.append(data[end:])
        self._held = len(data) - end
        self._hand_on(block)

    def _hand_on(self, block: bytes) -> None:
        try:
            self._on_lines(block)
        except Exception:
            self._bug()

    def _bug(self) -> None:
        """It must not kill the hub's callback for all sessions."""
        log.exception("a line could not be handled")
        self.close("internal error")

    def close(self, why: str) -> None:
        """End the link; safe to call from anywhere, more than once."""
        if self.closed.is_set():
            return
        self.why = why
        self._end_pause()
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._outbound.close()
        self._sock.close()
        self.closed.set()


def open_plain(address: str, timeout_s: float, line_limit: int) -> Link:
    """A raw JSONL link to an app-server that somebody else runs. Raises Unavailable."""
    try:
        return Link(dial(address, timeout_s), line_limit=line_limit)
    except OSError as error:
        raise Unavailable(f"nothing answers at {address}: {error}") from None


def open_attached(address: str, secret: str, term: int, after: int, timeout_s: float) -> tuple[Link, Attach]:
    """Attach to a bridge. Raises OSError if nobody listens, Unavailable if it refuses or does not answer."""
    sock = dial(address, timeout_s)
    try:
        params = {"secret": secret, "term": term, "after": after}
        sock.sendall(json.dumps({"id": 1, "method": "bridge/attach", "params": params}).encode() + b"\n")
        answer, rest = _first_line(sock)
        result = answer["result"]
        told = {name: result[name] for name in Attach.__dataclass_fields__ if name in result}
        return Link(sock, rest), Attach(**told)
    except OSError as error:
        sock.close()
        raise Unavailable(f"the bridge does not answer: {error}") from None
    except (KeyError, TypeError, ValueError):
        sock.close()
        error = answer.get("error") if isinstance(answer, dict) else None
        said = error.get("message") if isinstance(error, dict) else "what answers there is no bridge"
        raise Unavailable(f"the bridge refused the link: {said}") from None


def _first_line(sock: socket.socket) -> tuple[Any, bytes]:
    data = b""
    while b"\n" not in data:
        part = sock.recv(READ_BYTES)
        if not part or len(data) > ANSWER_BYTES:
            raise OSError("it closed the connection")
        data += part
    line, _, rest = data.partition(b"\n")
    try:
        return json.loads(line), rest
    except ValueError:
        return None, rest
