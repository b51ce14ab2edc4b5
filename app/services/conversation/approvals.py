"""Questions of gateway-owned turns: stored, put to all, answered by a policy or in time.

The relay puts them to the attached clients; here they get a row that outlives the gateway, an end when nobody answers
(decline, and that is said), and an answer from who is no client: a policy, HTTP, a chat.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import Event

from app.clock import now_ms
from app.errors import RPC_NO_METHOD, ArgusError, BadRequest, Conflict, NotFound
from app.relay import owned
from app.relay.envelope import question_key
from app.relay.fold import ServerRequest
from app.relay.heard import Heard
from app.services.options import approvals_of
from app.services.sessions import Sessions
from app.settings import Settings
from app.store import approvals as rows
from app.store import sessions as session_rows
from app.store.approvals import ApprovalRow
from app.store.database import IntegrityError, Store

log = logging.getLogger("argus.approvals")

DECISIONS = ("accept", "acceptForSession", "decline", "cancel")
TRY_S = 2.0  # between attempts to give an answer while the agent can't take it
WRITE_AGAIN_S = 5.0  # between attempts to store how a question ended
LISTED = 200
MAX_WATCHED, MAX_BYTES = 50, 256 << 10  # of a session at a time, and of one; what is more is declined at once

Key = tuple[str, bytes, str]  # session, id as the agent wrote it, turn


@dataclass(slots=True, eq=False)
class _Watch:
    """One question from when it is asked until its row has an end. Only its own greenlet and `_give` end the row."""

    request: ServerRequest
    thread: str
    again: bool  # it was open before a restart, or before the link was lost
    before: gevent.Greenlet | None  # of the last question under this name, if that still writes its end
    wake: Event = field(default_factory=Event)
    row: ApprovalRow | None = None
    given: bool = False  # we answered it
    over: tuple[str, str] | None = None  # state and by whom: it ended without us
    greenlet: Any = None


class Approvals:
    """`hear` is called on the hub; the rest waits."""

    def __init__(self, settings: Settings, store: Store, sessions: Sessions) -> None:
        self._store, self._sessions = store, sessions
        self._timeout_s, self._policy = settings.approval_timeout_s, settings.approvals
        self._open: dict[Key, _Watch] = {}
        self._ending: dict[Key, _Watch] = {}
        self._watched: Counter[str] = Counter()

    def hear(self, session: str, heard: Heard) -> None:
        """A question of a turn of ours is open, or over."""
        request: ServerRequest = heard.about
        key = (session, bytes(request.id), heard.turn)
        watch = self._open.get(key)
        same = watch is not None and watch.request is request
        if heard.what == "question_over":
            if watch is not None and same:
                self._end(key, watch, ("answered", request.to or "") if request.answered else ("settled", ""))
            return
        if watch is not None:
            if same and not watch.given:
                return
            self._end(key, watch, ("settled", ""))
        if self._watched[session] >= MAX_WATCHED or len(request.frame) > MAX_BYTES:
            gevent.spawn(self._refuse, session, request)
            return
        last = self._ending.get(key)
        watch = _Watch(request, heard.thread, heard.what == "question_again", last.greenlet if last else None)
        self._watched[session] += 1
        self._open[key] = watch
        watch.greenlet = gevent.spawn(self._run, key, watch)

    def _end(self, key: Key, watch: _Watch, over: tuple[str, str]) -> None:
        watch.over = over
        watch.wake.set()
        del self._open[key]
        if not watch.greenlet.dead:
            self._ending[key] = watch

    def _refuse(self, session: str, request: ServerRequest) -> None:
        """Nobody is asked: there are too many, or it is too large."""
        keeper, about = self._sessions.live(session), owned.asks(request)
        log.warning("session %s: %s was declined: too many or too large questions", session, request.method)
        if keeper is not None:
            try:
                said = answer_for(request.method, "decline", None)
                keeper.live.decide_question(request.id, request.turn or "", about, said)
            except NotFound:
                pass

    def reconcile(self, session: str) -> None:
        """A session's stream is folded in again: rows of questions that are over are closed, the others watched."""
        keeper = self._sessions.live(session)
        if keeper is None:
            return
        try:
            left = self._store.run(lambda db: rows.listed(db, session, "open", LISTED))
        except ArgusError as error:
            log.warning("session %s: its questions were not looked at: %s", session, error.text)
            return
        fold, core = keeper.live.core.fold, keeper.live.core
        for key, watch in list(
            self._open.items()
        ):  # a gap in the stream takes questions with it and says nothing of them
            if key[0] == session and fold.requests.get(question_key(key[1])) is not watch.request:
                self._end(key, watch, ("settled", ""))
        asked = {(r.turn or "", r.id.decode()): r for r in fold.requests.values() if not r.answered}
        watched = {w.row.id for each in (self._open, self._ending) for w in each.values() if w.row is not None}
        for row in left:
            request = asked.get((row.turn_id, row.request))
            if request is not None and owned.asks(request) == about(row):
                self.hear(session, Heard("question_again", row.thread_id, row.turn_id, about=request))
            elif row.id not in watched:
                self._close(row.id, "settled", "", "")
        for request in owned.open_questions(core):
            self.hear(session, owned.heard_question(request, "question_again").value)

    def _run(self, key: Key, watch: _Watch) -> None:
        session = key[0]
        try:
            if watch.before is not None:
                watch.before.join()
            watch.row = self._row(session, watch)
            if watch.row is not None:
                self._see_through(session, watch, watch.row)
        finally:
            self._watched[session] -= 1
            if self._watched[session] <= 0:
                del self._watched[session]
            if self._ending.get(key) is watch:
                del self._ending[key]

    def _row(self, session: str, watch: _Watch) -> ApprovalRow | None:
        """The question's row. One that was answered before a restart has that answer, to be given again; None if the
        session was deleted meanwhile."""
        (method, params), now, request = owned.asks(watch.request), now_ms(), watch.request
        name = (session, request.turn or "", request.id.decode())
        values = {
            "id": "ap_" + secrets.token_hex(10),
            **dict(zip(("session_id", "turn_id", "request"), name, strict=True)),
            "thread_id": watch.thread,
            "method": method,
            "params": params,
            "state": "open",
            "asked_at_ms": now,
            "expires_at_ms": now + int(self._timeout_s * 1000),
        }

        def work(db: Any) -> ApprovalRow:
            given = rows.answered(db, *name, method, params) if watch.again and request.turn else None
            return given or rows.add(db, **values)

        try:
            return self._store.run(work)
        except IntegrityError:
            return None
        except ArgusError as error:  # a full disk: the question stands all the same, for as long as this gateway lives
            log.warning("session %s: a question was not stored: %s", session, error.text)
            return ApprovalRow(**values, input_id=None, decision="", answered_by="", ended_at_ms=None)

    def _see_through(self, session: str, watch: _Watch, row: ApprovalRow) -> None:
        """Wait for an answer, or give one; until the question is over."""
        decision, by = row.decision, ""
        if row.state == "open":
            policy = self._policy_of(session)
            decision = "accept" if policy == "accept" else "decline"
            by = f"policy {policy}" if policy != "ask" else "timeout"
            if policy == "ask":
                watch.wake.wait(min(self._timeout_s, max(0.0, (row.expires_at_ms - now_ms()) / 1000)))
        while watch.over is None and not watch.given and not self._give(row, decision, by):
            watch.wake.wait(TRY_S)
        if watch.over is not None and not watch.given and row.state == "open":
            self._close(row.id, watch.over[0], "", watch.over[1])

    def _policy_of(self, session: str) -> str:
        try:
            row = self._store.run(lambda db: session_rows.get(db, session))
        except ArgusError as error:
            log.warning(
                "session %s: who answers its questions could not be read, so people are asked: %s", session, error.text
            )
            return "ask"
        return (row and approvals_of(row.options)) or self._policy

    def forget(self, session: str) -> None:
        """The session is gone, its rows with it."""
        for key in [key for key in self._open if key[0] == session]:
            gevent.spawn(self._open.pop(key).greenlet.kill)

    def _give(self, row: ApprovalRow, decision: str, by: str) -> bool:
        """Answer for good; False if that is not possible now. A row that is over is answered again as it was."""
        keeper = self._sessions.live(row.session_id)
        if keeper is None:
            return False
        said = answer_for(row.method, decision, row.asked)
        try:
            keeper.live.decide_question(row.request.encode(), row.turn_id, about(row), said)
        except NotFound:
            return False
        watch = self._open.get((row.session_id, row.request.encode(), row.turn_id))
        if watch is not None and watch.row is not None and watch.row.id == row.id:
            watch.given = True
            watch.wake.set()
        if row.state == "open":
            decision = decision if "result" in said else "decline"  # a policy's yes to what is no yes or no
            log.warning("session %s: %s was answered %s by %s", row.session_id, row.method, decision, by)
            self._close(row.id, "expired" if by == "timeout" else "answered", decision, by)
        return True

    def _close(self, id: str, state: str, decision: str, by: str) -> None:
        """Store how it ended; if that is not possible now, later."""
        ended = {"decision": decision, "answered_by": by, "ended_at_ms": now_ms()}
        try:
            self._store.run(lambda db: rows.close(db, id, state, **ended))
        except ArgusError as error:
            log.warning("approval %s: its end was not stored yet: %s", id, error.text)
            gevent.spawn_later(WRITE_AGAIN_S, self._close, id, state, decision, by)

    # -- for callers

    def list(self, session: str | None, state: str | None) -> list[ApprovalRow]:
        """The newest."""
        return self._store.run(lambda db: rows.listed(db, session, state, LISTED))

    def decide(self, id: str, decision: str, by: str) -> ApprovalRow:
        """Answer one. Raises NotFound, BadRequest, Conflict (it is over, or can't be answered now)."""
        if decision not in DECISIONS:
            raise BadRequest(f"decision must be one of {', '.join(DECISIONS)}")
        row = self._store.run(lambda db: rows.get(db, id))
        if row is None:
            raise NotFound("there is no such approval")
        if row.state != "open":
            raise Conflict(f"this approval is over: {row.state}")
        if decision.startswith("accept") and "error" in answer_for(row.method, decision, row.asked):
            raise BadRequest(f"{row.method} is not answered by yes or no: decline it, or answer it in the page")
        if not self._give(row, decision, by):
            raise Conflict("this approval can't be answered now: it was answered a moment ago, or the agent is away")
        return self._store.run(lambda db: rows.get(db, id)) or row


def about(row: ApprovalRow) -> tuple[str, str]:
    """What a stored question asks, as `owned.asks` says it of an open one."""
    return row.method, row.params


def answer_for(method: str, decision: str, params: Any) -> dict[str, Any]:
    """The answer that says a decision in the words of this kind of question: `{"result"}`, or `{"error"}` to a
    question that no yes or no answers."""
    yes, asked = decision.startswith("accept"), params if isinstance(params, dict) else {}
    if method in ("item/commandExecution/requestApproval", "item/fileChange/requestApproval"):
        return {"result": {"decision": decision}}
    if method == "item/permissions/requestApproval":
        wanted = asked.get("permissions") if yes else {}
        given = {name: each for name, each in wanted.items() if each is not None} if isinstance(wanted, dict) else {}
        return {"result": {"permissions": given, "scope": "session" if decision == "acceptForSession" else "turn"}}
    if method == "mcpServer/elicitation/request":
        return {"result": {"action": "accept", "content": {}} if yes else {"action": "decline"}}
    if method in ("execCommandApproval", "applyPatchApproval"):
        old = {"accept": "approved", "acceptForSession": "approved_for_session", "decline": "denied"}
        return {"result": {"decision": old.get(decision, "abort")}}
    if method == "item/tool/requestUserInput":
        return {"result": {"answers": {}}}
    if method.endswith("/requestApproval"):
        return {"result": {"decision": decision}}
    return {"error": {"code": RPC_NO_METHOD, "message": f"nobody answered {method}"}}
