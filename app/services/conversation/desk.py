"""What all lanes share: the store's side of a turn (started, over, delivered), its text, and stopping it."""

from __future__ import annotations

import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gevent

from app.clock import monotonic_s, now_ms
from app.relay.heard import Heard
from app.services.conversation import context, prompt
from app.services.conversation.agent import Agents
from app.services.conversation.approvals import Approvals
from app.services.conversation.decide import Action
from app.services.conversation.lane import MAIN, Lane
from app.services.conversation.outbox import Outbox
from app.services.conversation.states import after, before
from app.services.conversation.turns import Turn, answer_of
from app.services.conversation.usage import Usage
from app.services.sessions import Sessions
from app.settings import Settings
from app.store import deliveries, inputs
from app.store.database import Store
from app.store.inputs import InputRow

log = logging.getLogger("argus.conversation")

BATCH_MAX = 50
EVENTS = {"answered": "answer", "interrupted": "interrupt", "failed": "fail"}
INTERRUPT_S, END_S = 0.25, 0.7  # of stopping a turn: the agent's own way, then by signals
CONTEXTS_MAX = 1000


class Desk:
    """One for the gateway. Lanes call it in their greenlets; `hear` is called on the hub."""

    def __init__(self, settings: Settings, store: Store, sessions: Sessions, outbox: Outbox) -> None:
        self.settings, self.store, self.sessions, self.outbox = settings, store, sessions, outbox
        self.agents = Agents(settings, store, sessions)
        self.approvals = Approvals(settings, store, sessions)
        self.usage = Usage(store)
        self.timeout_s, self.stuck_s = settings.request_timeout_s, settings.stuck_turn_timeout_s
        self.closing = self.taken_up = False
        self.lanes: dict[tuple[str, str], Lane] = {}
        self._contexts: OrderedDict[tuple[str, str], str] = OrderedDict()  # what a thread was sent last
        self.on_change: Callable[[InputRow, str], None] = lambda row, state: None  # it is in this state now

    # -- lanes

    def lane(self, session: str, name: str) -> Lane:
        """The lane of this name; there is never a second one."""
        known = self.lanes.get((session, name))
        if known is None:
            known = self.lanes[session, name] = Lane(self, session, name, unsettled=not self.taken_up)
        return known

    def lane_rests(self, lane: Lane) -> None:
        """It has nothing to do."""
        if lane.rests and self.lanes.get((lane.session, lane.name)) is lane:
            del self.lanes[lane.session, lane.name]

    def take_up(self) -> None:
        """After a start: whatever was not over goes on."""
        found = self.store.run(inputs.open_lanes)
        for session, name, depth in found:
            lane = self.lane(session, name)
            lane.depth = max(lane.depth, depth)
        self.taken_up = True  # from here on a new lane has nothing behind it
        for session, name, _ in found:
            self.lane(session, name).wake()

    def hear(self, session: str, heard: Heard) -> None:
        """On the hub, with all that a session's stream says of turns."""
        if heard.what == "usage":
            self.usage.note(session, heard)
        elif heard.what.startswith("question"):
            self.approvals.hear(session, heard)
        elif heard.what in ("ready", "lost"):
            if heard.what == "ready":
                gevent.spawn(self.approvals.reconcile, session)
            for (owner, _), lane in list(self.lanes.items()):
                if owner == session:
                    lane.hear(heard)
        else:
            if heard.what == "compacted":
                self._contexts.pop((session, heard.thread), None)
            for lane in (self.lanes.get((session, heard.thread)), self.lanes.get((session, MAIN))):
                if lane is not None and (lane.turn is None or lane.turn.thread == heard.thread):
                    lane.hear(heard)

    # -- the store's side of a turn

    def next_rows(self, lane: Lane) -> list[InputRow]:
        """What is to be said next: one input, or all that wait, merged."""
        most = BATCH_MAX if self.settings.followups == "batch" else 1

        def work(db: Any) -> list[InputRow]:
            rows = inputs.next_queued(db, lane.session, lane.name, most)
            if any(row.message_id != rows[0].id for row in rows):
                inputs.merge(db, [row.id for row in rows], rows[0].id)
            return rows

        rows = self.store.run(work)
        return [InputRow(**{**row.__dict__, "message_id": rows[0].id}) for row in rows]

    def started(self, turn: Turn) -> None:
        """The agent has it."""
        now, ids = now_ms(), [row.id for row in turn.rows]

        def work(db: Any) -> None:
            for id in ids:
                inputs.move(
                    db, id, before("start"), "started", turn_id=turn.id, thread_id=turn.thread, started_at_ms=now
                )

        self.store.run(work)
        for row in turn.rows:
            self.on_change(row, "started")

    def finish(self, lane: Lane, rows: list[InputRow], action: Action) -> None:
        """The turn is over: close its inputs and write what is to be sent, all at once."""
        event, now, answer = EVENTS[action.what], now_ms(), answer_of(action.texts)
        state = after(event)
        thread = lane.turn.thread if lane.turn else None

        def work(db: Any) -> bool:
            wrote, told = False, set()
            for row in rows:
                values = {"error": action.why, "answer": answer, "ended_at_ms": now}
                values |= {"turn_id": action.turn} if action.turn else {}
                values |= {"thread_id": thread} if thread else {}
                if not inputs.move(db, row.id, before(event), state, **values) or not row.route or row.route in told:
                    continue
                told.add(row.route)  # one turn says its answer once to the same place
                payload = _payload(row, action, answer, thread or row.thread_id)
                wrote |= deliveries.add(
                    db,
                    id="dl_" + secrets.token_hex(10),
                    input_id=row.id,
                    session_id=row.session_id,
                    key=f"{row.id}:answer",
                    route=row.route,
                    payload=json.dumps(payload, ensure_ascii=False),
                    state="pending",
                    next_at_ms=now,
                    created_at_ms=now,
                )
            return wrote

        wrote = self.store.run(work)
        lane.depth = max(0, lane.depth - len(rows))
        if action.what != "answered":
            log.warning("session %s: input %s %s: %s", lane.session, rows[0].id, state, action.why)
        for row in rows:
            self.on_change(row, state)
        if wrote:
            self.outbox.wake()

    # -- what the agent is told

    def prompt(self, lane: Lane, rows: list[InputRow]) -> tuple[str, str | None]:
        """The text of a turn, and the fingerprint of the context it carries (None: it carries none)."""
        whole = self._context(lane.session)
        key, mark = (lane.session, lane.thread(make=False) or ""), None
        if whole is not None:
            mark = prompt.fingerprint(whole)
            if self.settings.context == "on-change" and self._contexts.get(key) == mark:
                whole = None
        sources = [json.loads(row.source) if row.source else None for row in rows]
        attachments = [each for row in rows for each in json.loads(row.attachments or "[]")]
        text = rows[0].text if len(rows) == 1 else prompt.batch([row.text for row in rows])
        source = sources[0] if all(source == sources[0] for source in sources) else None
        return prompt.user_turn(whole, text, source, attachments), mark

    def prompt_of_one(self, row: InputRow) -> str:
        """The text of an input that joins a running turn: the context is there already."""
        source = json.loads(row.source) if row.source else None
        return prompt.user_turn(None, row.text, source, json.loads(row.attachments or "[]"))

    def _context(self, session: str) -> str | None:
        workspace = self.sessions.workspace(session)
        if workspace is None:
            return None
        most = self.settings.context_file_bytes
        linked = self.settings.workspace == workspace or not self.sessions.contained(session)
        files, skills = gevent.get_hub().threadpool.apply(context.read, (workspace, most, linked))
        return prompt.project_context(session, files, skills, self.settings.context_bytes)

    def context_sent(self, lane: Lane, thread: str, mark: str | None) -> None:
        """The thread has seen this context."""
        if mark is not None:
            self._contexts[lane.session, thread] = mark
            while len(self._contexts) > CONTEXTS_MAX:
                self._contexts.popitem(last=False)

    # -- stopping

    def stop_turn(self, lane: Lane | None, turn: Turn | None, why: str, raw: tuple[str, str, str] | None = None) -> str:
        """Stop a turn of ours, or a client's (`raw`: session, thread, turn); what was ended, in words.

        First the agent's own way; if that does not end it at once, its processes get signals.
        """
        session = lane.session if lane else raw[0] if raw else ""
        thread, id = (turn.thread, turn.id) if turn else (raw[1], raw[2]) if raw else ("", None)
        if turn is not None:
            turn.why = why
        keeper = self.sessions.live(session)
        if keeper is None:
            return "nothing"

        def over() -> bool:
            if turn is not None:
                return turn.ended is not None or (lane is not None and lane.turn is not turn)
            return keeper.live.core.fold.turns.get(thread) != id

        if id is not None:
            params = {"threadId": thread, "turnId": id}
            keeper.live.request("turn/interrupt", params, lambda reply: None, INTERRUPT_S * 4)
        if _within(over, INTERRUPT_S):
            return "the turn"
        ended = keeper.end_agent()
        _within(over, END_S)
        return f"the turn and {ended}"


def _within(check: Callable[[], bool], seconds: float) -> bool:
    until = monotonic_s() + seconds
    while not check():
        if monotonic_s() > until:
            return False
        gevent.sleep(0.005)
    return True


def _payload(row: InputRow, action: Action, answer: str, thread: str | None) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "type": "answer",
        "inputId": row.id,
        "sessionId": row.session_id,
        "threadId": thread,
        "turnId": action.turn,
        "status": action.what,
        "text": answer,
        "source": json.loads(row.source) if row.source else None,
    }
    if action.what != "answered":
        payload["error"] = action.why
        payload["retry"] = f"/inputs/{row.id}/retry"
    return payload
