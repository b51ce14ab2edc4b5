"""Time, in one place, so that a test can bring its own."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Wall clock, milliseconds since 1970. For what is stored or shown."""
    return int(time.time() * 1000)


def monotonic_s() -> float:
    """A clock that never jumps, seconds. For deadlines."""
    return time.monotonic()
