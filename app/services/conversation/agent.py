"""The agents of all sessions, as the conversation asks them: threads loaded, made and read, turns started."""

from __future__ import annotations

import logging
from typing import Any

from gevent import Timeout
from gevent.event import AsyncResult
from gevent.lock import RLock

from app.clock import now_ms
from app.errors import Unavailable
from app.relay.heard import Reply
from app.services.conversation.decide import Seen
from app.services.conversation.history import turns_of
from app.services.keeper import Keeper
from app.services.sessions import Sessions
from app.settings import Settings
from app.store import inputs
from app.store.database import Store
from app.store.sessions import set_main_thread

log = logging.getLogger("argus.conversation")

WORKSPACE = "/root/.argus/workspace"  # of every container; the relay maps it to the session's own elsewhere
SLACK_S = 5.0  # beyond a request's own deadline
NO_THREAD = ("no rollout found", "thread not found", "is archived", "no such thread", "invalid thread id")


class NoThread(Exception):
    """The agent says that there is no such thread; the text is its own."""


class Agents:
    """Requests to the agents. Methods wait; call them in greenlets. Raises Unavailable where an agent is not there."""

    def __init__(self, settings: Settings, store: Store, sessions: Sessions) -> None:
        self._settings, self._store, self._sessions = settings, store, sessions
        self._loaded: dict[str, tuple[object, set[str]]] = {}  # session -> (life, threads loaded in it)
        self._main: dict[str, str] = {}
        self._locks: dict[str, RLock] = {}

    def keeper(self, session: str) -> Keeper:
        """A session's live side, once it can be used."""
        keeper = self._sessions.keep(session)
        if not keeper.up.is_set():
            keeper.wait_up(self._settings.connect_timeout_s)
        return keeper

    def ask(self, session: str, method: str, params: dict[str, Any], timeout_s: float | None = None) -> Reply:
        """One request and what became of it."""
        timeout_s, answered = timeout_s or self._settings.request_timeout_s, AsyncResult()
        self.keeper(session).live.request(method, params, answered.set, timeout_s)
        try:
            return answered.get(timeout=timeout_s + SLACK_S)
        except Timeout:
            return Reply("unknown", f"the agent did not answer {method} in time")

    # -- threads

    def known_main(self, session: str) -> str | None:
        """The main thread as it is stored; the agent is not asked."""
        if session not in self._main:
            found = self._store.run(lambda db: inputs.main_thread(db, session))
            if found is None:
                return None
            self._main[session] = found
        return self._main[session]

    def main_thread(self, session: str) -> str:
        """The session's main thread, loaded; made if there is none (contract 8.4)."""
        with self._locks.setdefault(session, RLock()):
            known = self.known_main(session)
            if known is not None:
                try:
                    self.load(session, known)
                    return known
                except NoThread as gone:
                    log.warning("session %s: its main thread %s is gone (%s); a new one begins", session, known, gone)
            return self._new_main(session)

    def _new_main(self, session: str) -> str:
        reply = self.ask(session, "thread/start", self.thread_params(session))
        made = reply.value.get("thread") if reply.kind == "result" and isinstance(reply.value, dict) else None
        thread = made.get("id") if isinstance(made, dict) else None
        if not isinstance(thread, str) or not thread:
            raise Unavailable(f"the agent made no thread: {reply.value if reply.kind != 'result' else 'no id'}")
        self._store.run(lambda db: set_main_thread(db, session, thread, now_ms()))
        self._main[session] = thread
        self._of_life(session).add(thread)
        return thread

    def load(self, session: str, thread: str) -> None:
        """Make sure that the agent has the thread loaded. Raises NoThread, Unavailable."""
        loaded = self._of_life(session)
        if thread in loaded:
            return
        reply = self.ask(session, "thread/resume", {"threadId": thread, "excludeTurns": True})
        if reply.kind == "error" and any(said in str(reply.value) for said in NO_THREAD):
            raise NoThread(reply.value)
        if reply.kind != "result":
            raise Unavailable(f"the thread could not be loaded: {reply.value}")
        self._of_life(session).add(thread)

    def unload(self, session: str, thread: str) -> None:
        """The agent says that it does not have it loaded after all."""
        self._of_life(session).discard(thread)

    def _of_life(self, session: str) -> set[str]:
        """Threads loaded in the present life of the session's app-server."""
        fold = self.keeper(session).live.core.fold
        life = (fold.epoch, fold.life)
        if self._loaded.get(session, (None,))[0] != life:
            self._loaded[session] = (life, set())
        return self._loaded[session][1]

    def read(self, session: str, thread: str | None) -> Seen:
        """What the agent says of a thread. Raises Unavailable while that can't be known."""
        if thread is None:
            return Seen(None)
        live = self.keeper(session).live
        reply = self.ask(session, "thread/read", {"threadId": thread, "includeTurns": True})
        if reply.kind == "error" and any(said in str(reply.value) for said in (*NO_THREAD, "not materialized")):
            return Seen(None)
        if reply.kind != "result":
            raise Unavailable(f"the thread could not be read: {reply.value}")
        told = reply.value.get("thread") if isinstance(reply.value, dict) else None
        turns = told.get("turns") if isinstance(told, dict) else None
        return Seen(turns_of(turns), live.core.fold.turns.get(thread))

    def forget(self, session: str) -> None:
        """The session is gone."""
        for known in (self._main, self._loaded, self._locks):
            known.pop(session, None)

    # -- how turns of the gateway's own are run

    def thread_params(self, session: str) -> dict[str, Any]:
        """Of thread/start."""
        if self._sessions.contained(session):
            return {"cwd": WORKSPACE, "approvalPolicy": "never", "sandbox": "danger-full-access"}
        return {"cwd": WORKSPACE, "approvalPolicy": "on-request", "sandbox": "workspace-write"}

    def turn_params(self, session: str) -> dict[str, Any]:
        """Of turn/start, beside thread, input and id."""
        if self._sessions.contained(session):
            return {"cwd": WORKSPACE, "approvalPolicy": "never", "sandboxPolicy": {"type": "dangerFullAccess"}}
        return {"cwd": WORKSPACE}  # the rest as the thread was started, or as a person set it since
