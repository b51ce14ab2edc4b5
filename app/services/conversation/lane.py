"""The queue of one thread: one gateway-owned turn at a time, in the order in which things were said.

A lane has a greenlet while there is something to do. What waits is in the store; the lane holds only the turn that
runs. Whenever the way to the agent was cut, the lane first settles what the agent has (decide.py), then goes on.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.lock import RLock

from app.clock import monotonic_s
from app.errors import ArgusError, NotFound
from app.relay.heard import Heard, Reply
from app.services.conversation.agent import NoThread
from app.services.conversation.decide import STOPPED, Action, Stored, decide
from app.services.conversation.turns import Turn
from app.store import inputs
from app.store.inputs import InputRow

if TYPE_CHECKING:
    from app.services.conversation.desk import Desk

log = logging.getLogger("argus.conversation")

MAIN = "main"
BACKOFF_S = (0.2, 1.0, 2.0, 5.0, 15.0, 30.0)
GIVE_UP_S = 600.0  # an input that can't be started for so long fails, and its sender is told
READ_AGAIN_S, LOOK_S = 0.2, 5.0
OVERLOADED = -32001


class TryAgain(Exception):
    """It was surely not sent; a later attempt may do better."""


class Lane:
    """One thread's queue. `name` is `main` or the thread's id; `depth` counts what is not over."""

    def __init__(self, desk: Desk, session: str, name: str, depth: int = 0, unsettled: bool = False) -> None:
        self.desk, self.session, self.name = desk, session, name
        self.depth, self.unsettled = depth, unsettled
        self.turn: Turn | None = None
        self.why = ""  # why nothing runs although something waits, for receipts
        self.accepting = 0  # inputs that are being stored now
        self.steering = 0  # inputs that are being put into the running turn
        self.changing = 0  # inputs that wait and are being changed or removed
        self.lock = RLock()  # held while the next one is taken, and while one is changed
        self._peeked: list[InputRow] = []  # what is next, unless it changed since it was read
        self._changes = 0
        self._poke, self._greenlet = Event(), None
        self._failing_since: float | None = None

    def wake(self) -> None:
        """There may be something to do."""
        self._poke.set()
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def waiting_changed(self) -> None:
        """Something that waits came, went, or has another text."""
        self._changes += 1
        self._peeked = []

    def let_go(self) -> None:
        """Its session is gone."""
        if self._greenlet is not None:
            gevent.spawn(self._greenlet.kill)

    def hear(self, heard: Heard) -> None:
        """Called on the hub with what the lane's thread is heard to do."""
        if self.turn is not None:
            self.turn.hear(heard)
        if heard.what in ("turn_completed", "ready"):  # not lost: each failed attempt says so, and would bring the next
            self._poke.set()

    def _run(self) -> None:
        failures = 0
        while not self.desk.closing:
            self._poke.clear()
            try:
                if not self._step():
                    if not self._poke.is_set():
                        break
                    continue
                failures, self._failing_since, self.why = 0, None, ""
                continue
            except NotFound:  # the session was deleted, and its inputs with it
                break
            except (TryAgain, ArgusError) as error:
                self.why = str(error)
            except Exception as error:  # a bug must not silence a conversation: it is logged, told, tried again
                log.exception("session %s: lane %s failed", self.session, self.name)
                self.why = f"internal error: {type(error).__name__}"
            failures += 1
            self._failing_since = self._failing_since or monotonic_s()
            self._poke.wait(BACKOFF_S[min(failures, len(BACKOFF_S)) - 1])
        self._greenlet = None
        self.desk.lane_rests(self)

    @property
    def rests(self) -> bool:
        """Whether it has nothing to do and nothing is on its way."""
        return self._greenlet is None and not self.accepting and not self.steering and not self.changing

    def _step(self) -> bool:
        """One thing at a time; False if there is nothing to do."""
        if self.turn is not None:
            self._follow(self.turn)
            return True
        while self.steering:
            self._poke.wait(0.05)
        if self.unsettled:
            self._settle()
            return True
        rows = self._peek()
        if not rows:
            self.depth = self.accepting
            return False
        if self._failing_since and monotonic_s() - self._failing_since > GIVE_UP_S:
            self._failing_since = None
            self.desk.finish(self, rows, Action("failed", why=f"the agent could not be reached: {self.why}"))
            return True
        self._start(rows)
        return True

    def _peek(self) -> list[InputRow]:
        changes = self._changes
        rows = self.desk.next_rows(self)
        self._peeked = rows if self._changes == changes else []
        return rows

    # -- starting

    def thread(self, make: bool) -> str | None:
        """The lane's thread; the main one is made if it is asked for and there is none."""
        if self.name != MAIN:
            return self.name
        return self.desk.agents.main_thread(self.session) if make else self.desk.agents.known_main(self.session)

    def _start(self, rows: list[InputRow]) -> None:
        agents = self.desk.agents
        try:
            thread = self.thread(make=True)
            self._when_idle(thread)  # before it is loaded: an agent can't resume a thread whose first turn just begins
            agents.load(self.session, thread)
        except NoThread as gone:
            self.desk.finish(self, rows, Action("failed", why=f"the thread can't be used: {gone}"))
            return
        with self.lock:
            live, text, context = self._take(thread)
        turn = self.turn
        if turn is None:  # another turn began meanwhile, or nothing waits any more: look again
            return
        params = {
            "threadId": thread,
            "clientUserMessageId": turn.rows[0].message_id,
            "input": [{"type": "text", "text": text}],
            **agents.turn_params(self.session),
        }
        replies: list[Reply] = []
        live.request("turn/start", params, lambda reply: (replies.append(reply), turn.poke.set()), self.desk.timeout_s)
        self._wait_for(turn, replies)
        self._answered(turn, replies[0], context)

    def _take(self, thread: str) -> tuple[Any, str, str | None]:
        """What is said next, as it is now, becomes the lane's turn; nobody can change or remove it from here on."""
        rows, self._peeked = self._peeked or self.desk.next_rows(self), []
        text, context = self.desk.prompt(self, rows) if rows else ("", None)
        live = self.desk.agents.keeper(self.session).live
        if rows and live.idle(thread):
            self.turn = Turn(rows, thread, live.core.fold.head, monotonic_s())
        return live, text, context

    def _when_idle(self, thread: str) -> None:
        """Wait until no turn runs on the thread: a turn/start would steer it."""
        since = monotonic_s()
        while True:
            live = self.desk.agents.keeper(self.session).live
            if live.idle(thread):
                return
            if self.desk.closing:
                raise TryAgain("the gateway stops")
            busy = live.core.ready and not live.core.blocked
            if not busy and monotonic_s() - since > LOOK_S:
                raise TryAgain(live.core.down or "the agent is not ready")
            self.why = "another turn runs on this thread" if busy else "the agent is not ready"
            self._poke.clear()
            self._poke.wait(0.5)

    def _wait_for(self, turn: Turn, replies: list[Reply]) -> None:
        until = monotonic_s() + self.desk.timeout_s + LOOK_S
        while not replies:
            turn.poke.clear()
            turn.poke.wait(1.0)
            if monotonic_s() > until:
                replies.append(Reply("unknown", "the agent did not answer turn/start in time"))

    def _answered(self, turn: Turn, reply: Reply, context: str | None) -> None:
        begun = reply.value.get("turn") if reply.kind == "result" and isinstance(reply.value, dict) else None
        id = begun.get("id") if isinstance(begun, dict) else None
        if isinstance(id, str) and id:
            self.desk.context_sent(self, turn.thread, context)
            turn.begun(id)
            self.desk.started(turn)
            return
        self.turn = None
        if reply.kind in ("unknown", "result"):
            self.unsettled = True
            self.why = str(reply.value)
        elif reply.kind == "unsent" or reply.code == OVERLOADED:
            raise TryAgain(str(reply.value))
        elif "not found" in str(reply.value):
            self.desk.agents.unload(self.session, turn.thread)
            raise TryAgain(str(reply.value))
        else:
            self.desk.finish(self, turn.rows, Action("failed", why=turn.why or str(reply.value)))

    # -- running

    def _follow(self, turn: Turn) -> None:
        """Until the turn is over."""
        while turn.ended is None:
            turn.poke.clear()
            turn.poke.wait(LOOK_S)
            if turn.ended is None and not self._goes_on(turn):
                self.turn, self.unsettled = None, True
                return
        end = turn.ended
        if turn.adopted and end.status == "completed":  # what it said before this gateway came was not heard
            self.turn, self.unsettled = None, True
            return
        what = {"completed": "answered", "failed": "failed"}.get(end.status, "interrupted")
        why = "" if what == "answered" else turn.why or end.error or STOPPED
        self.desk.finish(self, turn.rows, Action(what, turn.id, tuple(turn.texts), why))
        self.turn = None

    def _goes_on(self, turn: Turn) -> bool:
        """Whether the stream knows of the turn still; a turn without progress is stopped."""
        keeper = self.desk.sessions.live(self.session)
        if keeper is None or not keeper.up.is_set():
            return True  # its end will be told, or it is settled once the link is back
        live = keeper.live
        if live.core.fold.turns.get(turn.thread) != turn.id:
            return False
        waits = any(r.thread == turn.thread and not r.answered for r in live.core.fold.requests.values())
        now = monotonic_s()
        if waits or live.spoke(turn.thread, turn.position):
            turn.position, turn.progress_at = live.core.fold.head, now
        elif self.desk.stuck_s and now - turn.progress_at > self.desk.stuck_s and not turn.cancel_id:
            log.warning("session %s: turn %s makes no progress; it is stopped", self.session, turn.id)
            gevent.spawn(self.desk.stop_turn, self, turn, f"the turn made no progress for {self.desk.stuck_s:g} s")
        return True

    # -- after a cut

    def _settle(self) -> None:
        """Find out what the agent has of this lane, and act on it."""
        agents, began = self.desk.agents, time.monotonic()
        thread = self.thread(make=False)
        if thread is not None and self.name != MAIN:
            agents.keeper(self.session)
        while True:
            seen = agents.read(self.session, thread)
            messages = {message for turn in seen.turns or () for message in turn.messages}
            rows = self._unsettled(messages)
            actions = [(row, decide(Stored(row.state, row.message_id, row.turn_id), seen)) for row in rows]
            blank = decide(Stored("queued", ""), seen).what == "read"
            again = any(action.what == "read" for _, action in actions) or (blank and not actions)
            if not again or time.monotonic() - began > LOOK_S:
                break
            gevent.sleep(READ_AGAIN_S)
        for what in ("answered", "interrupted", "failed"):
            for turn_id in dict.fromkeys(a.turn for _, a in actions if a.what == what):
                same = [(row, a) for row, a in actions if a.what == what and a.turn == turn_id]
                self.desk.finish(self, [row for row, _ in same], same[0][1])
        self.unsettled = False
        running = [(row, action.turn) for row, action in actions if action.what == "wait"]
        if running and thread is not None:
            self._adopt([row for row, _ in running], running[-1][1] or "", thread)

    def _unsettled(self, messages: set[str]) -> list[InputRow]:
        return self.desk.store.run(lambda db: inputs.unsettled(db, self.session, self.name, messages))

    def _adopt(self, rows: list[InputRow], id: str, thread: str) -> None:
        """A turn of ours runs: it is followed as if it had been started now."""
        live = self.desk.agents.keeper(self.session).live
        if live.core.fold.turns.get(thread) != id:  # the agent says that it runs; the stream does not, or not yet
            self.unsettled = True
            raise TryAgain("the running turn is not in the stream yet")
        turn = self.turn = Turn(rows, thread, live.core.fold.head, monotonic_s(), adopted=True)
        turn.begun(id)
        live.own(thread)
        self.desk.started(turn)
