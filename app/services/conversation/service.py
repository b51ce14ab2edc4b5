"""What rpc and routes call: accept, list, remove, retry and cancel what was said, and tell its whole story."""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import Event

from app.clock import monotonic_s, now_ms
from app.errors import ArgusError, BadRequest, Conflict, NotFound, Unavailable
from app.services.auth import Principal
from app.services.conversation.agent import NoThread
from app.services.conversation.checks import Said, said
from app.services.conversation.desk import Desk
from app.services.conversation.lane import MAIN, Lane
from app.services.conversation.outbox import Outbox, Sender
from app.services.conversation.shown import story
from app.services.conversation.states import before
from app.services.sessions import Sessions
from app.settings import Settings
from app.store import approvals, deliveries, inputs
from app.store.database import IntegrityError, Store
from app.store.deliveries import DeliveryRow
from app.store.inputs import InputRow

log = logging.getLogger("argus.conversation")

LISTED = 200
LOOK_S = 0.3  # between looks at an input that somebody waits for
MAX_OPEN = 100_000  # inputs of a lane that are not over
SAME = ("lane", "text", "source", "route", "attachments", "mode")


@dataclass(frozen=True)
class Accepted:
    """An input that is stored. `queued`: something was before it."""

    row: InputRow
    lane: Lane
    known: bool  # the same was said before under the same key

    @property
    def queued(self) -> bool:
        """Whether something was before it when it was accepted."""
        return self.row.depth > 0


class Conversation:
    """The durable way in. Methods wait; call them in greenlets."""

    def __init__(self, settings: Settings, store: Store, sessions: Sessions, senders: dict[str, Sender]) -> None:
        self._store, self._sessions = store, sessions
        self.outbox = Outbox(store, senders, self._delivery_moved)
        self.desk = Desk(settings, store, sessions, self.outbox)
        self.desk.on_change = self._moved
        self._waiting: dict[str, list[Event]] = {}
        sessions.listener, sessions.on_delete = self.desk.hear, self.forget

    def begin(self) -> None:
        """Go on where the last gateway ended."""
        for work in (self.outbox.run, self.desk.usage.run, self._take_up):
            gevent.spawn(work)

    def _take_up(self) -> None:
        while not self.desk.closing:
            try:
                self.desk.take_up()
                return
            except Unavailable as error:
                log.warning("what waits was not taken up: %s", error.text)
                gevent.sleep(1.0)

    def close(self) -> None:
        """The gateway ends: nothing new is started or sent. What runs goes on without us."""
        self.desk.closing = self.outbox.closing = True
        self.desk.usage.flush()

    # -- saying something

    def accept(self, principal: Principal, session: str, said: Said, retry_of: str | None = None) -> Accepted:
        """Store an input; when this returns, it will be answered once, or its sender will know why not.

        Raises NotFound (session, thread), BadRequest (route), Conflict (other text under the same key), Unavailable
        (nothing was stored).
        """
        if self._sessions.live(session) is None:  # one that is live has a row; the insert finds out otherwise
            self._sessions.get(session)
        if said.route is not None:
            sender = self.outbox.senders.get(str(said.route.get("type")))
            if sender is None:
                raise BadRequest(f"replyRoute.type must be one of {', '.join(self.outbox.senders)}")
            sender.check(said.route)
        name = self._lane_name(session, said.thread)
        lane = self.desk.lane(session, name)
        lane.accepting += 1
        lane.depth += 1
        stored = False
        try:
            row, id = self._store_input(principal, session, said, lane, retry_of)
            stored = row.id == id
            lane.waiting_changed()
        finally:
            lane.accepting -= 1
            lane.depth -= not stored
            if not stored:
                lane.wake()  # one that was made for what could not be stored ends
        accepted = Accepted(row, lane, not stored)
        if not stored:
            self._check_same(row, said, name)
        elif said.mode != "queue":
            lane.steering += said.mode == "steer"
            gevent.spawn(self._overtake, lane, row)
        if stored:
            self._moved(row, "queued")
        lane.wake()
        return accepted

    def _store_input(
        self, principal: Principal, session: str, said: Said, lane: Lane, retry_of: str | None
    ) -> tuple[InputRow, str]:
        id = "in_" + secrets.token_hex(10)
        if lane.depth > MAX_OPEN:
            raise Unavailable(f"{MAX_OPEN} inputs wait on this thread already; let some be answered first")
        values = {
            "id": id,
            "session_id": session,
            "lane": lane.name,
            "kind": "user",
            "owner": principal.name,
            **_said_columns(said),
            "ahead": int(said.mode == "interrupt"),
            "dedupe": said.key,
            "depth": self._before(lane),
            "state": "queued",
            "message_id": id,
            "retry_of": retry_of,
            "accepted_at_ms": now_ms(),
        }
        try:
            return self._store.run(lambda db: inputs.add(db, values)), id
        except IntegrityError:
            raise NotFound("Unknown session") from None

    def _before(self, lane: Lane) -> int:
        """How many stand before one that is accepted now, a client's own running turn among them."""
        keeper, thread = self._sessions.live(lane.session), lane.name
        if thread == MAIN:
            thread = self.desk.agents.known_main(lane.session) or ""
        foreign = keeper is not None and lane.turn is None and keeper.live.busy(thread)
        return lane.depth - 1 + (foreign and lane.depth == 1)

    def _lane_name(self, session: str, thread: str | None) -> str:
        if thread is None or thread == self.desk.agents.known_main(session):
            return MAIN
        keeper = self._sessions.live(session)
        if keeper is None or thread not in keeper.live.core.fold.threads:
            owners = self._store.run(lambda db: inputs.session_of_thread(db, thread))
            if owners and session not in owners:
                raise NotFound("this thread belongs to another session")
        return thread

    def _check_same(self, row: InputRow, said: Said, lane: str) -> None:
        new = {"lane": lane, **_said_columns(said)}
        if any(getattr(row, name) != new[name] for name in SAME):
            raise Conflict("this idempotency key was used for something else; use a new one for each input")

    def _overtake(self, lane: Lane, row: InputRow) -> None:
        """`interrupt`: stop what runs, this is next. `steer`: put it into the running turn, if one runs."""
        if row.mode == "interrupt":
            turn = lane.turn
            if turn is None:
                self._interrupt_clients_turn(lane)
            elif row.id not in [r.id for r in turn.rows] and not turn.cancel_id:
                turn.cancel_id = secrets.token_hex(6)
                self.desk.stop_turn(lane, turn, "a newer message took its place")
            lane.wake()
            return
        try:
            self._steer(lane, row)
        except ArgusError as error:
            log.warning("session %s: %s could not be steered in: %s", lane.session, row.id, error.text)
        finally:
            lane.steering -= 1
            lane.wake()

    def _interrupt_clients_turn(self, lane: Lane) -> None:
        keeper, thread = self._sessions.live(lane.session), lane.thread(make=False)
        running = keeper.live.core.fold.turns.get(thread) if keeper and thread else None
        if running and thread:
            self.desk.stop_turn(None, None, "a newer message took its place", (lane.session, thread, running))

    def _steer(self, lane: Lane, row: InputRow) -> None:
        keeper, thread = self._sessions.live(lane.session), lane.thread(make=False)
        running = keeper.live.core.fold.turns.get(thread) if keeper and thread else None
        if not running or not thread:
            return
        text = self.desk.prompt_of_one(row)
        params = {
            "threadId": thread,
            "expectedTurnId": running,
            "clientUserMessageId": row.message_id,
            "input": [{"type": "text", "text": text}],
        }
        reply = self.desk.agents.ask(lane.session, "turn/steer", params)
        if reply.kind == "result":
            turn = lane.turn
            if turn is not None and turn.id == running and turn.ended is None:
                turn.rows.append(row)
                self.desk.started(turn)
                return
        if reply.kind in ("result", "unknown"):
            lane.unsettled = True  # a client's turn, or one that ended just now: what became of it is read

    # -- what was said

    def get(self, id: str) -> InputRow:
        """One input. Raises NotFound."""
        row = self._store.run(lambda db: inputs.get(db, id))
        if row is None:
            raise NotFound("there is no such input")
        return row

    def list(self, session: str, thread: str | None, only_open: bool) -> list[InputRow]:
        """A session's inputs, the newest first. Raises NotFound."""
        self._sessions.get(session)
        lane = None if thread is None else self._lane_name(session, thread)
        return self._store.run(lambda db: inputs.listed(db, session, lane, only_open, LISTED))

    def remove(self, id: str) -> InputRow:
        """Take back what waits still. Raises NotFound, Conflict (it was begun)."""
        return self._change_waiting(id, "removed", {"ended_at_ms": now_ms()})

    def edit(self, id: str, text: str) -> InputRow:
        """Another text for what waits still, in its place. Raises NotFound, Conflict (it was begun), BadRequest."""
        return self._change_waiting(id, "queued", {"text": said({"text": text}).text})

    def _change_waiting(self, id: str, state: str, values: dict[str, Any]) -> InputRow:
        row = self.get(id)
        lane = self.desk.lane(row.session_id, row.lane)
        lane.changing += 1
        try:
            with lane.lock:  # what was peeked at is dropped before another holds it: no wait stands in between
                begun = lane.steering or lane.unsettled or (lane.turn and id in [r.id for r in lane.turn.rows])
                if begun or not self._store.run(lambda db: inputs.move(db, id, before("remove"), state, **values)):
                    now = self.get(id).state
                    raise Conflict(f"only what waits can be changed; this input is {now} or being started")
                if state == "removed":
                    lane.depth = max(0, lane.depth - 1)
        finally:
            lane.waiting_changed()
            lane.changing -= 1
            lane.wake()
        self._moved(row, state)
        return self.get(id)

    def retry(self, principal: Principal, id: str) -> Accepted:
        """Say again what was interrupted or failed; the same retry twice is one. Raises NotFound, Conflict."""
        row = self.get(id)
        if row.state not in ("interrupted", "failed"):
            raise Conflict(f"only what was interrupted or failed is said again; this input is {row.state}")
        said = Said(
            row.text,
            None if row.lane == MAIN else row.lane,
            json.loads(row.source) if row.source else None,
            json.loads(row.route) if row.route else None,
            json.loads(row.attachments) if row.attachments else [],
            "queue",
            f"retry:{row.id}",
        )
        return self.accept(principal, row.session_id, said, retry_of=row.id)

    def wait_started(self, accepted: Accepted, timeout_s: float) -> InputRow:
        """The input once its turn has begun or it is over; as it is after `timeout_s`."""
        id, until = accepted.row.id, monotonic_s() + timeout_s
        waiter = Event()  # of its own: several that wait with a timeout on one can hang for ever
        self._waiting.setdefault(id, []).append(waiter)
        try:
            while True:
                waiter.wait(LOOK_S)  # it is not looked up at once: the turn's own way to the store goes first
                row = self.get(id)
                if row.state != "queued" or monotonic_s() > until:
                    return row
        finally:
            left = [other for other in self._waiting.pop(id) if other is not waiter]
            if left:
                self._waiting[id] = left

    def _moved(self, row: InputRow, state: str) -> None:
        for waiter in self._waiting.get(row.id, []):
            waiter.set()
        thread = row.thread_id or (row.lane if row.lane != MAIN else self.desk.agents.known_main(row.session_id))
        self._tell(row.session_id, {"inputId": row.id, "threadId": thread, "state": state})

    def _delivery_moved(self, row: DeliveryRow, state: str) -> None:
        self._tell(row.session_id, {"inputId": row.input_id, "deliveryId": row.id, "delivery": state})

    def _tell(self, session: str, params: dict[str, Any]) -> None:
        """All clients of a session, if any are attached."""
        keeper = self._sessions.live(session)
        if keeper is not None and keeper.live.clients:
            keeper.live.tell("argus/input", params)

    # -- threads

    def ensure_main(self, session: str) -> str:
        """The session's main thread, loaded. Raises NotFound, Unavailable."""
        self._sessions.get(session)
        try:
            return self.desk.agents.main_thread(session)
        except NoThread as gone:
            raise Unavailable(f"the main thread can't be used: {gone}") from None

    def cancel(self, session: str, thread: str | None) -> dict[str, Any]:
        """Stop the turn that runs on a thread (None: the main one), whoever started it, within a second."""
        self._sessions.get(session)
        main = self.desk.agents.known_main(session)
        thread = thread or main
        keeper = self._sessions.live(session)
        lane = self.desk.lanes.get((session, MAIN if thread == main else thread or MAIN))
        turn = lane.turn if lane else None
        running = keeper.live.core.fold.turns.get(thread) if keeper and thread else None
        answer = {"ok": True, "cancelRequested": False, "threadId": thread}
        if turn is None and running is None:
            return {**answer, "reason": "NO_ACTIVE_USER_TURN"}
        if turn is not None and turn.cancel_id:
            told = {"cancelRequested": True, "turnId": turn.id, "alreadyRequested": True, "cancelId": turn.cancel_id}
            return {**answer, **told}
        cancel_id = secrets.token_hex(6)
        if turn is not None:
            turn.cancel_id = cancel_id
        raw = None if turn is not None else (session, thread or "", running or "")
        stopped = self.desk.stop_turn(lane if turn else None, turn, "it was stopped by a person", raw)
        told = {"cancelRequested": True, "turnId": turn.id if turn else running, "alreadyRequested": False}
        return {**answer, **told, "cancelId": cancel_id, "stopped": stopped}

    def session_of(self, thread: str) -> str:
        """The session of a thread. Raises NotFound, Conflict (several share it)."""
        owners = self._store.run(lambda db: inputs.session_of_thread(db, thread))
        if not owners:
            self._sessions.memory.flush()  # rows of threads are written together, a moment after they began
            owners = self._store.run(lambda db: inputs.session_of_thread(db, thread))
        if not owners:
            raise NotFound("no session knows this thread")
        if len(owners) > 1:
            raise Conflict("several sessions know this thread; name one with ?session=")
        return owners[0]

    def forget(self, session: str) -> None:
        """A session was deleted."""
        self.desk.agents.forget(session)
        self.desk.approvals.forget(session)
        for owner, name in list(self.desk.lanes):
            if owner == session:
                self.desk.lanes.pop((owner, name)).let_go()

    # -- the story of an input

    def receipt(self, id: str) -> dict[str, Any]:
        """All that is known of an input: its steps with their times, its deliveries, its questions."""
        row = self.get(id)

        def work(db: Any) -> tuple[list[DeliveryRow], list[Any], str | None]:
            asked = approvals.of_turn(db, row.session_id, row.turn_id) if row.turn_id else []
            return deliveries.of_input(db, id), asked, inputs.retried_as(db, id)

        sent, asked, retried = self._store.run(work)
        return story(row, sent, asked, retried, self._why(row))

    def _why(self, row: InputRow) -> str:
        """Why it waits, in words; empty if it does not, or just for its turn."""
        lane = self.desk.lanes.get((row.session_id, row.lane))
        return lane.why if lane is not None and row.state == "queued" else ""


def _said_columns(said: Said) -> dict[str, Any]:
    def text(value: Any) -> str | None:
        return json.dumps(value, ensure_ascii=False, sort_keys=True) if value else None

    return {
        "text": said.text,
        "source": text(said.source),
        "route": text(said.route),
        "attachments": text(said.attachments),
        "mode": said.mode,
    }
