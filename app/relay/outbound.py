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
    """Sends bytes on a non-blocking socket. `limit`: how much may wait; a single piece may exceed it when none does."""

    __slots__ = ("_on_drained", "_on_gone", "_parts", "_raw", "_watcher", "buffered", "closed", "limit", "progress")

    def __init__(
        self, raw: Any, limit: int, on_gone: Callable[[], None] = _nothing, on_drained: Callable[[], None] = _nothing
    ) -> None:
        self._raw, self.limit = raw, limit
        self._parts: deque[memoryview | bytes | bytearray] | None = None
        self._watcher: Any = None
        self._on_gone, self._on_drained = on_gone, on_drained
        self.buffered = self.progress = 0
        self.closed = False

    def send(self, data: bytes, force: bool = False) -> bool:
        """Send, or keep for later. False: too much waits already, and nothing of `data` was taken."""
        if self.closed:
            return True
        if self.buffered:
            if self.buffered + len(data) > self.limit and not force:
                return False
            self._keep(data)
            return True
        try:
            sent = self._raw.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._gone()
            return True
        if sent < len(data):
            self._keep(memoryview(data)[sent:])
        return True

    def _keep(self, data: memoryview | bytes) -> None:
        if self._parts is None:
            self._parts = deque()
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
            self._on_drained()

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
        self.closed = True
        self.buffered = 0
        self._stop()
