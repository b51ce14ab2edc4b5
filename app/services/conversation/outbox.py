"""What goes out: stored deliveries, sent in order to each place, with deadlines and words for what came of it.

A mark is stored before a delivery is sent and its outcome after. A gateway that dies in between leaves the mark, and
the next one knows that this delivery may have arrived: `uncertain`, sent once more after half a minute, and counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.pool import Pool

from app.clock import monotonic_s, now_ms
from app.errors import ArgusError, Conflict, NotFound
from app.services.conversation.states import MAX_WAIT_MS, Outcome, delivered
from app.store import deliveries
from app.store.database import Store
from app.store.deliveries import DeliveryRow

log = logging.getLogger("argus.outbox")

AT_ONCE, PAGE, IDLE_S, LISTED = 32, 200, 60.0, 200
NO_DISK_S, SLICE_S = 5.0, 3.0


class Sender(Protocol):
    """One kind of channel. Drivers of this live in app/channels and import no services."""

    def check(self, route: dict[str, Any]) -> None:
        """Whether this route may be used at all. Raises BadRequest."""

    def send(self, route: dict[str, Any], payload: str, key: str) -> tuple[str, str, float | None, str | None]:
        """Send and wait: kind (see Outcome), detail, retry_after_s, provider_id. Never raises, never hangs."""


class Outbox:
    """Sends what is due. One delivery to a place at a time; one that fails for now holds back those behind it."""

    def __init__(
        self,
        store: Store,
        senders: dict[str, Sender],
        on_change: Callable[[DeliveryRow, str], None] = lambda row, state: None,
    ) -> None:
        self._store, self.senders, self._on_change = store, senders, on_change
        self._poke, self._pool = Event(), Pool(AT_ONCE)
        self._busy: set[str] = set()  # places that something is on its way to
        self.closing = False

    def wake(self) -> None:
        """There may be something to send."""
        self._poke.set()

    def take_up(self) -> None:
        """After a start: what a former gateway was sending has an unknown outcome."""
        for row in self._store.run(deliveries.interrupted):
            self._end(row, Outcome("unknown", "the gateway ended while it was being sent"))

    def run(self) -> None:
        """Send for ever."""
        taken_up = False
        while not self.closing:
            self._poke.clear()
            try:
                if not taken_up:
                    self.take_up()
                    taken_up = True
                wait_s = self._round()
            except ArgusError as error:  # a full disk: nothing is sent whose outcome could not be stored
                log.warning("nothing is sent for now: %s", error.text)
                wait_s = NO_DISK_S
            except Exception:  # a bug in one round must not end all sending
                log.exception("a round of sending failed")
                wait_s = NO_DISK_S
            self._poke.wait(wait_s)

    def _round(self) -> float:
        """Begin to send what is due; how long there is nothing to do unless woken."""
        now = now_ms()
        places = self._store.run(lambda db: deliveries.due_routes(db, now, now + MAX_WAIT_MS, PAGE))
        for place in places:
            if place not in self._busy:
                self._busy.add(place)
                self._pool.spawn(self._serve, place)  # waits while AT_ONCE are on their way
        soonest = self._store.run(lambda db: deliveries.next_due(db, now_ms()))
        return IDLE_S if soonest is None else min(IDLE_S, max((soonest - now_ms()) / 1000, 0.05))

    def _serve(self, place: str) -> None:
        """Send what is due to one place, one after the other; a slow one makes room for others now and then."""
        until = monotonic_s() + SLICE_S
        try:
            while not self.closing and monotonic_s() < until:
                row = self._head(place)
                if row is None or not self._send(row):
                    break
        except ArgusError as error:
            log.warning("nothing is sent there for now: %s", error.text)
            gevent.sleep(NO_DISK_S)
        except Exception:  # a sender's bug: the mark stays, and the next start counts it as unknown
            log.exception("a delivery failed")
            gevent.sleep(NO_DISK_S)
        finally:
            self._busy.discard(place)
            self._poke.set()

    def _head(self, place: str) -> DeliveryRow | None:
        now = now_ms()
        return self._store.run(lambda db: deliveries.head(db, place, now, now + MAX_WAIT_MS))

    def _send(self, row: DeliveryRow) -> bool:
        if not self._store.run(lambda db: deliveries.begin(db, row.id)):
            return False
        route = json.loads(row.route)
        sender = self.senders.get(route.get("type"))
        if sender is None:
            outcome = Outcome("refused", f"there is no channel {route.get('type')!r} now")
        else:
            outcome = Outcome(*sender.send(route, row.payload, row.key))
        begun = DeliveryRow(**{**row.__dict__, "attempts": row.attempts + 1})
        while not self._end(begun, outcome):
            gevent.sleep(NO_DISK_S)
        return True

    def _end(self, row: DeliveryRow, outcome: Outcome) -> bool:
        """Store what came of an attempt; False if the disk does not take it."""
        after, now = delivered(outcome, row.attempts, row.uncertain), now_ms()
        values: dict[str, Any] = {"state": after.state, "sending": False, "uncertain": after.uncertain}
        values |= {"error": "" if after.state == "sent" else outcome.detail[:500], "provider_id": outcome.provider_id}
        if after.wait_ms is not None:
            values["next_at_ms"] = now + after.wait_ms
        if after.state == "sent":
            values["sent_at_ms"] = now
        else:
            log.warning("delivery %s (attempt %d): %s, %s", row.id, row.attempts, after.state, outcome.detail)
        try:
            self._store.run(lambda db: deliveries.change(db, row.id, **values))
        except ArgusError as error:
            log.warning("the outcome of delivery %s was not stored: %s", row.id, error.text)
            return False
        self._on_change(row, after.state)
        return True

    # -- for callers

    def list(self, state: str | None, session: str | None) -> list[DeliveryRow]:
        """The newest."""
        return self._store.run(lambda db: deliveries.listed(db, state, session, LISTED))

    def retry(self, id: str) -> DeliveryRow:
        """Send a dead one again. Raises NotFound, Conflict."""
        revived = self._store.run(lambda db: deliveries.revive(db, id, now_ms()))
        row = self._store.run(lambda db: deliveries.get(db, id))
        if row is None:
            raise NotFound("there is no such delivery")
        if not revived:
            raise Conflict(f"only dead deliveries are retried; this one is {row.state}")
        self.wake()
        self._on_change(row, row.state)
        return row
