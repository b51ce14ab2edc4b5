"""Work in a thread, with what it raises in the caller's hands alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gevent.threadpool import ThreadPool

T = TypeVar("T")


def in_thread(pool: ThreadPool, work: Callable[[], T]) -> T:
    """The result of `work` from a thread of the pool; raises what it raises.

    By itself the pool also writes a traceback of that to stderr, be it only the refusal of bad input.
    """

    def outcome() -> tuple[list[T], Exception | None]:
        try:
            return [work()], None
        except Exception as error:  # whatever it is, it is the caller's
            return [], error

    found, error = pool.apply(outcome)
    if error is not None:
        raise error
    return found[0]
