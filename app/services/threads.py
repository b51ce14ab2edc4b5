"""Remembers threads, who ran a turn on them last, and when sessions were spoken to, in the store, some at a time.

A turn must not wait for the disk, and a hundred sessions that begin a turn at once must not make a hundred
transactions: what is learned is written together a moment later. What a kill takes away is found again in the ring.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
from gevent.event import Event

from app.clock import now_ms
from app.errors import Unavailable
from app.store import sessions
from app.store.database import Store

log = logging.getLogger("argus.threads")

TOGETHER_S, MAX_AT_ONCE = 0.1, 2000


class ThreadMemory:
    """The only writer of thread rows. All but `run` and `flush` do not wait; they may be called on the hub."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], str | None] = {}  # (session, thread) -> owner, or None for no news of it
        self._gone: set[tuple[str, str]] = set()
        self._spoken: dict[str, int] = {}  # session -> when
        self._dirty = Event()

    def remember(self, session: str, thread: str, owner: str | None = None) -> None:
        """A thread was seen; `owner`: the key of the client whose turn it is."""
        key = (session, thread)
        self._gone.discard(key)
        self._known[key] = owner or self._known.pop(key, None)
        if len(self._known) > MAX_AT_ONCE:
            del self._known[next(iter(self._known))]
        self._dirty.set()

    def forget(self, session: str, thread: str) -> None:
        """A thread was archived or deleted."""
        self._known.pop((session, thread), None)
        self._gone.add((session, thread))
        self._dirty.set()

    def spoken_to(self, session: str) -> None:
        """Something was said in a session; it was not only looked at."""
        self._spoken[session] = now_ms()
        self._dirty.set()

    def run(self) -> None:
        """Write for ever."""
        while True:
            self._dirty.wait()
            gevent.sleep(TOGETHER_S)
            self.flush()

    def flush(self) -> None:
        """Write what there is, in one transaction."""
        self._dirty.clear()
        known, self._known = self._known, {}
        gone, self._gone = self._gone, set()
        spoken, self._spoken = self._spoken, {}
        if not known and not gone and not spoken:
            return

        def work(db: Any) -> None:
            sessions.know_threads(db, known, gone, now_ms())
            sessions.spoken_to(db, spoken)

        try:
            self._store.run(work)
        except Unavailable as error:
            self._spoken = spoken | self._spoken  # with the next that is written
            log.warning("%d threads were not remembered: %s", len(known), error.text)
