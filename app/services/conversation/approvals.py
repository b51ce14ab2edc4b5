"""Questions of gateway-owned turns: stored, put to all, answered by a policy or in time.

The relay puts them to the attached clients; here they get a row that outlives the gateway, an end when nobody answers
(decline, and that is said), and an answer from who is no client: a policy, HTTP, a chat.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any

import gevent

from app.clock import now_ms
from app.errors import RPC_NO_METHOD, ArgusError, BadRequest, Conflict, NotFound
from app.relay.heard import Heard
from app.relay.owned import asks
from app.relay.questions import GATEWAY
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
LISTED = 200


class Approvals:
    """`hear` is called on the hub; the rest waits."""

    def __init__(self, settings: Settings, store: Store, sessions: Sessions) -> None:
        self._store, self._sessions = store, sessions
        self._timeout_s, self._policy = settings.approval_timeout_s, settings.approvals
        self._open: dict[tuple[str, bytes, str], gevent.Greenlet] = {}
        self._ending: dict[tuple[str, bytes, str], gevent.Greenlet] = {}  # the next under this name waits for it

    def hear(self, session: str, heard: Heard) -> None:
        """A question of a turn of ours is open, or over."""
        request = heard.about
        key = (session, bytes(request.id), heard.turn)
        if heard.what == "question" and key not in self._open:
            self._open[key] = gevent.spawn(self._keep, key, heard)
        elif heard.what == "question_over":
            waiting = self._open.pop(key, None)
            if waiting is not None and waiting is not gevent.getcurrent():
                self._ending[key] = gevent.spawn(self._settled, waiting, key, heard)

    def reconcile(self, session: str) -> None:
        """A session's stream is folded in again: rows of questions that are over are closed, the others watched."""
        keeper = self._sessions.live(session)
        if keeper is None:
            return
        asked = {(r.turn or "", r.id.decode()): r for r in keeper.live.core.fold.requests.values() if not r.answered}
        try:
            left = self._store.run(lambda db: rows.listed(db, session, "open", LISTED))
        except ArgusError as error:
            log.warning("session %s: its questions were not looked at: %s", session, error.text)
            return
        for row in left:
            request = asked.get((row.turn_id, row.request))
            if request is None or asks(request) != about(row):
                self._close(row.id, "settled", "", "")
            else:
                self.hear(session, Heard("question", row.thread_id, row.turn_id, about=request))

    def _keep(self, key: tuple[str, bytes, str], heard: Heard) -> None:
        before = self._ending.get(key)
        if before is not None:
            before.join()
        session, request, now = key[0], heard.about, now_ms()
        method, params = asks(request)
        values = {
            "id": "ap_" + secrets.token_hex(10),
            "session_id": session,
            "thread_id": heard.thread,
            "turn_id": heard.turn,
            "request": request.id.decode(),
            "method": method,
            "params": json.dumps(params, ensure_ascii=False),
            "state": "open",
            "asked_at_ms": now,
            "expires_at_ms": now + int(self._timeout_s * 1000),
        }
        try:
            row = self._store.run(lambda db: rows.add(db, **values))
            left_s = min(self._timeout_s, max(0.0, (row.expires_at_ms - now) / 1000))
        except IntegrityError:  # the session was deleted meanwhile
            self._open.pop(key, None)
            return
        except ArgusError as error:  # a full disk: the question stands all the same, for as long as this gateway lives
            log.warning("session %s: a question was not stored: %s", session, error.text)
            unset = {"input_id": None, "decision": "", "answered_by": "", "ended_at_ms": None}
            row, left_s = ApprovalRow(**values, **unset), self._timeout_s
        policy = self._policy_of(session)
        if policy == "ask":
            gevent.sleep(left_s)
        decision = "accept" if policy == "accept" else "decline"
        by = f"policy {policy}" if policy != "ask" else "timeout"
        while self._open.get(key) is gevent.getcurrent() and not self._give(row, decision, by):
            gevent.sleep(TRY_S)

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
            gevent.spawn(self._open.pop(key).kill)

    def _give(self, row: ApprovalRow, decision: str, by: str) -> bool:
        keeper = self._sessions.live(row.session_id)
        if keeper is None:
            return False
        said = answer_for(row.method, decision, json.loads(row.params))
        try:
            keeper.live.decide_question(row.request.encode(), row.turn_id, about(row), said)
        except NotFound:
            return False
        decision = decision if "result" in said else "decline"  # a policy's yes to what is no yes or no
        state = "expired" if by == "timeout" else "answered"
        log.warning("session %s: %s was answered %s by %s", row.session_id, row.method, decision, by)
        self._close(row.id, state, decision, by)
        return True

    def _close(self, id: str, state: str, decision: str, by: str) -> None:
        try:
            self._store.run(
                lambda db: rows.close(db, id, state, decision=decision, answered_by=by, ended_at_ms=now_ms())
            )
        except ArgusError as error:
            log.warning("approval %s: its end was not stored: %s", id, error.text)

    def _settled(self, waiting: gevent.Greenlet, key: tuple[str, bytes, str], heard: Heard) -> None:
        """Somebody answered, or the turn is over."""
        try:
            if heard.about.to == GATEWAY:
                waiting.join(timeout=TRY_S)  # it gave the answer itself and is writing that down
            waiting.kill()
            self._note_end(key, heard)
        finally:
            if self._ending.get(key) is gevent.getcurrent():
                del self._ending[key]

    def _note_end(self, key: tuple[str, bytes, str], heard: Heard) -> None:
        same = (key[0], key[2], key[1].decode())
        by = heard.about.to or ""
        state = "answered" if heard.about.answered else "settled"
        try:
            found = self._store.run(lambda db: rows.find(db, *same))
        except ArgusError as error:
            log.warning("session %s: the end of a question was not stored: %s", key[0], error.text)
            return
        if found is not None:
            self._close(found.id, state, "", by)

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
        if decision.startswith("accept") and "error" in answer_for(row.method, decision, json.loads(row.params)):
            raise BadRequest(f"{row.method} is not answered by yes or no: decline it, or answer it in the page")
        if not self._give(row, decision, by):
            raise Conflict("this approval can't be answered now: it was answered a moment ago, or the agent is away")
        return self._store.run(lambda db: rows.get(db, id)) or row


def about(row: ApprovalRow) -> tuple[str, Any]:
    """What a stored question asks, as `owned.asks` says it of an open one."""
    return row.method, json.loads(row.params)


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
