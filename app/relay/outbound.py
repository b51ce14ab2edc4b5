"""The one function through which a socket is written to: non-blocking, ordered, bounded.

It is called from the hub and from greenlets alike and never switches. What the kernel does not take at once waits in
memory and is written by a libev watcher when the socket can take more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gevent

WRITE = 2  # libev's EV_WRITE
JOIN_BYTES = 16 << 10
ROUND_BYTES = 1 << 20  # written in one wake-up, so that one fast reader does not hold up the others


def _nothing() -> None:
    pass


class Outbound:
    """Sends bytes on a non-blocking socket. `limit`: how much may wait; a single piece may exceed it when none does.

    `on_full` is called when more would wait; nothing of that piece was taken. After `end` only forced pieces go out.
    """

    # fmt: off
    __slots__ = (
        "_direct", "_ending", "_on_full", "_on_gone", "_parts", "_raw", "_send", "_watcher", "buffered", "closed",
        "limit", "on_drained", "progress",
    )
    # fmt: on

    def __init__(
        self, raw: Any, limit: int, on_gone: Callable[[], None] = _nothing, on_full: Callable[[], None] = _nothing
    ) -> None:
        self._raw, self._send, self.limit = raw, raw.send, limit
        self._parts: deque[memoryview | bytes | bytearray] | None = None
        self._watcher: Any = None
        self._on_gone, self._on_full, self.on_drained = on_gone, on_full, _nothing
        self.buffered = self.progress = 0
        self.closed = self._ending = False
        self._direct = True  # nothing waits and nothing ended: straight to the kernel

    def send(self, data: bytes, force: bool = False) -> None:
        """Send, or keep for later; `force`: although too much waits, or after the end. Never blocks, never raises."""
        if not self._direct and self._is_held_up(data, force):
            return
        try:
            send = self._send
            sent = send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._gone()
            return
        if sent < len(data):
            self._keep(memoryview(data)[sent:])

    def end(self, data: bytes) -> None:
        """Send this as the last, behind what waits."""
        self._direct, self._ending = False, True
        self.send(data, force=True)

    def _is_held_up(self, data: bytes, force: bool) -> bool:
        """Whether the kernel is not to be asked now; what is to go out later is kept."""
        if self.closed or (self._ending and not force):
            return True
        if not self.buffered:
            return False
        if self.buffered + len(data) > self.limit and not force:
            self._on_full()
        else:
            self._keep(data)
        return True

    def _keep(self, data: memoryview | bytes) -> None:
        if self._parts is None:
            self._parts = deque()
        self._direct = False
        self.buffered += len(data)
        if len(self._parts) > 1 and isinstance(self._parts[-1], bytearray) and len(self._parts[-1]) < JOIN_BYTES:
            self._parts[-1] += data  # many small pieces would cost more than what is in them
        elif self._parts and len(data) < JOIN_BYTES:
            self._parts.append(bytearray(data))
        else:
            self._parts.append(data)
        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.io(self._raw.fileno(), WRITE)
            self._watcher.start(self._writable)

    def _writable(self) -> None:
        """Called by the hub: must not block and must not raise."""
        budget = ROUND_BYTES
        try:
            while self._parts and budget > 0:
                part = self._parts[0]
                sent = self._raw.send(part)
                self.buffered -= sent
                self.progress += sent
                budget -= sent
                if sent == len(part):
                    self._parts.popleft()
                else:
                    self._parts[0] = memoryview(part)[sent:]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._gone()
            return
        if not self._parts:
            self._stop()
            self._direct = not self._ending
            self.on_drained()

    def _stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        self._parts = None

    def _gone(self) -> None:
        self.close()
        self._on_gone()

    def close(self) -> None:
        """Forget what waits. Call it before the socket is closed."""
        self.closed = self._ending = True
        self._direct, self.buffered = False, 0
        self._stop()
