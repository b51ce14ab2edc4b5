"""What turns use, in tokens: heard from the stream, written together a moment later."""

from __future__ import annotations

import logging
from typing import Any

import gevent
from gevent.event import Event

from app.clock import now_ms
from app.errors import Unavailable
from app.relay.heard import MAX_COUNT, Heard
from app.store import usage as rows
from app.store.database import Store

log = logging.getLogger("argus.usage")

TOGETHER_S, KEPT_TURNS = 0.5, 5000
LISTED = 200
NAMES = {
    "input_tokens": "inputTokens",
    "cached_tokens": "cachedInputTokens",
    "output_tokens": "outputTokens",
    "reasoning_tokens": "reasoningOutputTokens",
    "total_tokens": "totalTokens",
}


class Usage:
    """The only writer of usage rows. `note` does not wait; it may be called on the hub."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: dict[tuple[str, str], dict[str, Any]] = {}  # sums of the turns that ran last
        self._dirty: set[tuple[str, str]] = set()
        self._poke = Event()

    def note(self, session: str, heard: Heard) -> None:
        """A turn has used more: each notice adds what the last step took; the same one twice counts once."""
        counts, key = dict(heard.counts or {}), (session, heard.turn)
        total = counts.pop("thread_total", 0)
        if not heard.turn:
            return
        row = self._turns.setdefault(key, {"thread": heard.thread, "seen": None, **dict.fromkeys(counts, 0)})
        if row["seen"] == total:
            return
        row["seen"] = total
        for name, count in counts.items():
            row[name] = min(row[name] + count, MAX_COUNT)
        while len(self._turns) > KEPT_TURNS:
            del self._turns[next(iter(self._turns))]
        self._dirty.add(key)
        self._poke.set()

    def run(self) -> None:
        """Write for ever."""
        while True:
            self._poke.wait()
            gevent.sleep(TOGETHER_S)
            self.flush()

    def flush(self) -> None:
        """Write what there is, in one transaction."""
        self._poke.clear()
        dirty, self._dirty = self._dirty, set()
        now = now_ms()
        found = [
            {
                "session_id": session,
                "turn_id": turn,
                "thread_id": row["thread"],
                "at_ms": now,
                **{name: row[name] for name in NAMES},
            }
            for session, turn in dirty
            if (row := self._turns.get((session, turn)))
        ]
        if not found:
            return
        try:
            self._store.run(lambda db: rows.note(db, found))
        except Unavailable as error:
            log.warning("usage of %d turns was not stored: %s", len(found), error.text)

    def report(self, session: str | None, since_ms: int, zone_minutes: int = 0) -> dict[str, Any]:
        """Sums of each session, thread and day and of all, and the newest turns."""
        self.flush()

        def work(db: Any) -> tuple[list[dict[str, Any]], ...]:
            wanted = (db, session, since_ms)
            by_day = rows.days(*wanted, zone_minutes, LISTED)
            return rows.sums(*wanted), rows.threads(*wanted, LISTED), by_day, rows.listed(*wanted, LISTED)

        sums, threads, days, turns = self._store.run(work)
        shown = [{"sessionId": row["session_id"], "turns": row["turns"], **_counts(row)} for row in sums]
        return {
            "total": {name: sum(row[name] for row in shown) for name in ("turns", *NAMES.values())},
            "sessions": shown,
            "threads": [
                {
                    "sessionId": row["session_id"],
                    "threadId": row["thread_id"],
                    "turns": row["turns"],
                    "atMs": row["at_ms"],
                    **_counts(row),
                }
                for row in threads
            ],
            "days": [{"day": row["day"], "turns": row["turns"], **_counts(row)} for row in days],
            "turns": [
                {
                    "sessionId": row["session_id"],
                    "threadId": row["thread_id"],
                    "turnId": row["turn_id"],
                    "atMs": row["at_ms"],
                    **_counts(row),
                }
                for row in turns
            ],
        }


def _counts(row: dict[str, Any]) -> dict[str, int]:
    return {shown: row[name] for name, shown in NAMES.items()}
