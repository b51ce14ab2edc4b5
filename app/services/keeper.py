"""Keeps one session attached: starts its runtime, dials it, does the handshake, and begins again when it breaks.

One greenlet a session. What happens on the stream comes as events on the hub; nothing there may wait, so whatever goes
to the store is spawned.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event as Flag

from app.clock import monotonic_s
from app.errors import ArgusError, Unavailable
from app.provisioners import Handle, Provisioner, Spec
from app.relay.core import Core
from app.relay.fold import Event
from app.relay.heard import Heard
from app.relay.link import Attach, Link, open_attached, open_plain
from app.relay.live import Live
from app.services.counters import Counters
from app.services.threads import ThreadMemory
from app.settings import Settings
from app.store import sessions
from app.store.database import Store
from app.store.sessions import SessionRow

log = logging.getLogger("argus.keeper")

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
FAILED_AFTER = 3
LOOK_S = 0.01  # between looks at whether a session is up
QUICK_S = 5.0  # a link that breaks sooner is not dialled again at once
RESUME_THREADS = 20  # after a death: the newest
RESTART = b'{"method":"bridge/restart"}\n'
RESTART_NOW = b'{"method":"bridge/restart","params":{"graceMs":200}}\n'


class Keeper:
    """A session that is wanted. `up` is set while a link is there and its backlog is folded in."""

    def __init__(
        self,
        row: SessionRow,
        settings: Settings,
        store: Store,
        threads: ThreadMemory,
        provisioner: Provisioner,
        term: int,
        spec: Callable[[SessionRow], Spec],
        counters: Counters,
        hear: Callable[[str, Heard], None] = lambda session, heard: None,
    ) -> None:
        self._hear = hear
        self.row, self._settings, self._store, self._threads = row, settings, store, threads
        self._provisioner, self._term, self._spec = provisioner, term, spec
        self._counters = counters
        self.handle: Handle | None = json.loads(row.handle) if row.handle else None
        core = Core(settings.ring_bytes, provisioner.traits(row.id), settings.connect_timeout_s)
        self.live = Live(row.id, core, settings.request_timeout_s, self._on_event)
        self.up, self._poke = Flag(), Flag()
        self.state = "restarting" if row.state == "running" else row.state  # until it is attached again
        self.reason = row.reason
        self._stored = (row.state, row.reason)
        self._owners: dict[str, str | None] = {}
        self._attach: Attach | None = None
        self._epoch, self._resume, self._failures, self._broken = "", False, 0, 0
        self._wanted, self._remembered, self._afresh = True, False, False
        self._stopping = 0  # stops of the runtime that go on now
        self._ended = False  # we ended the runtime ourselves
        self._asleep = ""  # why its runtime is stopped for now
        self._resting, self._awake = Flag(), Flag()  # it is stopped; it is needed again
        self.ended: tuple[int, str] | None = None  # close code and reason for who comes too late
        self._greenlet = gevent.spawn(self._run)

    # -- for the sessions service

    def wait_up(self, timeout_s: float) -> None:
        """Until the session can be used. Raises Unavailable with why it can't."""
        deadline = monotonic_s() + timeout_s
        self.wake()
        seen = self._failures
        while not self.up.is_set():  # not up.wait(timeout): several that wait so on one Event can hang for ever
            gevent.sleep(LOOK_S)
            if self._failures > seen or not self._wanted:
                raise Unavailable(self.reason or "the session ends")
            if monotonic_s() > deadline:
                raise Unavailable(self.reason or f"the runtime was not reached within {timeout_s:g} s")

    def restart(self) -> None:
        """Begin with a fresh agent: told to the bridge, or by starting what does not run. Does not wait."""
        link, self._afresh = self.live.link, False
        if link is not None and self._attach is not None:
            link.send(RESTART)
        elif link is not None:
            link.close("a restart was asked for")  # a bare app-server lives as long as its link
        else:
            self._afresh = not self._asleep  # what is being reached for, and may never answer, is ended first
            self.wake()

    def sleep(self, why: str) -> None:
        """Stop the runtime, for now: clients stay attached, and what they send wakes it. Does not wait."""
        if self._asleep:
            return
        self._asleep = why
        self._awake.clear()
        self._resting.clear()
        self._poke.set()
        if self.live.link is not None:
            self.live.link.close(why)

    def wait_asleep(self, timeout_s: float) -> None:
        """Until the runtime is stopped. Raises Unavailable with why it can't be."""
        deadline, seen = monotonic_s() + timeout_s, self._failures
        while self._asleep and not self._resting.is_set():
            if self._failures > seen or monotonic_s() > deadline:
                raise Unavailable(f"the runtime was not stopped: {self.reason or 'it takes too long'}")
            gevent.sleep(0.02)

    def wake(self) -> None:
        """It is needed: start what sleeps, try again at once what could not be reached. Does not wait."""
        self._asleep = ""
        self._awake.set()
        self._poke.set()

    def idle_s(self, now: float) -> float:
        """For how long nobody has used it; 0 while something runs or waits, or if it is not there anyway."""
        core = self.live.core
        busy = core.fold.turns or core.fold.requests or core.waiting or core.queue or not self.up.is_set()
        return 0.0 if busy else now - self.live.active_at

    def stop(self, runtime_too: bool, why: str = "the session ends") -> None:
        """Let go; the runtime goes on unless it is to end too."""
        self._wanted = False
        self.ended = self.ended or (1012, "the gateway stops or restarts")
        self.wake()
        if self.live.link is not None:
            self.live.link.close(why)
        if gevent.getcurrent() is not self._greenlet:
            self._greenlet.join(timeout=5)
            self._greenlet.kill()
        if runtime_too:  # also what a start had begun to make
            self._provisioner.stop({"session": self.row.id, **(self.handle or {})})

    def end_agent(self) -> str:
        """End the agent's process with all that it started; it is started again. What was ended, in words."""
        link, self._ended = self.live.link, True
        if self._provisioner.quick_stop and self.handle is not None:
            self._stop_runtime(self.handle)
            return "the runtime"
        if link is not None and self._attach is not None and not self.live.core.blocked:
            self._ended = False
            link.send(RESTART_NOW)
            return "the agent's process"
        if self.handle is not None:
            self._stop_runtime(self.handle)
        elif link is not None:
            link.close("the runtime was ended")
        return "the runtime"

    def _stop_runtime(self, handle: Handle) -> None:
        self._stopping += 1  # what is started meanwhile would be ended with the rest
        try:
            self._provisioner.stop(handle)
            if self.live.core.fold.told is None:
                self._lost("the agent did not stop when it was asked to, and was ended", "restarting")
            if self.live.link is not None:
                self.live.link.close("the runtime was ended")
        finally:
            self._stopping -= 1

    # -- the loop

    def _run(self) -> None:
        while self._wanted:
            try:
                self._remember()
                if self._asleep:
                    self._rest()
                    continue
                link, attach = self._connect()
            except ArgusError as error:
                self._failed_to_connect(error.text)
                continue
            except Exception as error:  # a driver's bug must end in words and a retry, not in a silent session
                log.exception("session %s: its runtime could not be reached", self.row.id)
                self._failed_to_connect(f"internal error: {type(error).__name__}")
                continue
            if not self._wanted:  # it was let go while the runtime started
                link.close("the session ends")
                return
            if self._asleep:
                link.close(self._asleep)
                continue
            self._attach, self._failures = attach, 0
            epoch = attach.epoch if attach else secrets.token_hex(6)
            self._resume = self._resume or (self._epoch not in ("", epoch))  # a fresh app-server has no thread loaded
            self._epoch = epoch
            began = monotonic_s()
            self.live.link_up(link, attach, self._epoch, self._backlog_done)
            if self._afresh:  # asked for while this old one was being reached
                self.restart()
            link.closed.wait()
            self.up.clear()
            self._counters.links_lost += self._wanted and not self._asleep
            log.info("session %s: %s", self.row.id, link.why)
            self.live.link_down(link.why)
            if self._asleep:
                continue
            if attach is None and self._wanted:  # a bare app-server lives as long as its link
                self._lost(link.why, "restarting")
            self._broken = self._broken + 1 if monotonic_s() - began < QUICK_S else 0
            if self._wanted and (self._broken or attach is None):
                self._wait(BACKOFF_S[min(self._broken, len(BACKOFF_S) - 1)])

    def _rest(self) -> None:
        """Stop the runtime and wait until it is needed. Turns that run end as interrupted."""
        why = self._asleep
        self._provisioner.stop({"session": self.row.id, **(self.handle or {})})
        self._lost(why, "stopped")
        self._resting.set()
        self._awake.wait()

    def _remember(self) -> None:
        """What the store knows of the session's threads, once."""
        if self._remembered:
            return
        self._owners = self._store.run(lambda db: sessions.known_threads(db, self.row.id))
        for thread in self._owners:
            self.live.core.fold.know(thread)
        self._remembered = True

    def _lost(self, why: str, state: str) -> None:
        """The runtime is gone, or can't be used: clients are told, and threads are resumed once it is back."""
        self._resume = True
        self._hear(self.row.id, Heard("lost", ""))
        self.live.perform(self.live.core.lost(why, state))
        self._set_state(state, why)

    def _failed_to_connect(self, why: str) -> None:
        self._failures += 1
        failed = self._failures >= FAILED_AFTER
        log.warning("session %s: %s", self.row.id, why)
        self._lost(why, "failed" if failed else "restarting")
        self._wait(BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1])

    def _wait(self, seconds: float) -> None:
        self._poke.clear()
        self._poke.wait(seconds)

    def _connect(self) -> tuple[Link, Attach | None]:
        """A link to the runtime, which is started if it does not run."""
        while self._stopping:
            gevent.sleep(0.02)
        handle = self.handle
        if handle is not None and self._afresh:
            self._provisioner.stop(handle)
        if handle is not None and not self._runs(handle):
            self._tell_end(handle)
            handle = None
        if handle is not None and handle.get("attach"):
            try:
                return self._dial(handle, self.live.core.fold.seq)
            except OSError:
                self._provisioner.stop(handle)
        handle = self._start()
        self._afresh = False
        try:
            return self._dial(handle, self.live.core.fold.seq)
        except OSError as error:
            raise Unavailable(f"nothing answers at {handle['address']}: {error}") from None

    def _tell_end(self, handle: Handle) -> None:
        """Clients learn why the runtime ended, where that can be known and was not told yet."""
        ours, self._ended = self._ended or self._afresh, False
        if ours or self.live.core.fold.told:
            return
        try:
            why = self._provisioner.how_it_ended(handle)
        except Unavailable:
            return
        if why:
            self._lost(why, "restarting")

    def _runs(self, handle: Handle) -> bool:
        try:
            return self._provisioner.poll(handle) == "running"
        except Unavailable:  # whoever makes runtimes is away; this one may well be there
            return bool(handle.get("attach"))

    def _start(self) -> Handle:
        handle = self._provisioner.start(self._spec(self.row))
        if handle != self.handle:
            self.handle = handle
            stored = json.dumps(handle)
            if not self._store.run(lambda db: sessions.change(db, self.row.id, handle=stored)):
                self._wanted = False  # it was deleted meanwhile
                self._provisioner.stop(handle)
                self.live.close_clients(1000, "Session deleted")
                raise Unavailable("the session was deleted")
        return handle

    def _dial(self, handle: Handle, after: int) -> tuple[Link, Attach | None]:
        timeout_s, address = self._settings.connect_timeout_s, handle["address"]
        if not handle.get("attach"):
            return open_plain(address, timeout_s, self._settings.line_limit_bytes), None
        link, attach = open_attached(address, self.row.secret, self._term, after, timeout_s)
        if after and attach.epoch != self.live.core.fold.epoch:  # another bridge: its lines begin anew
            link.close("another bridge")
            link, attach = open_attached(address, self.row.secret, self._term, 0, timeout_s)
        return link, attach

    # -- on the hub: nothing here may wait

    def _backlog_done(self) -> None:
        """All that the bridge kept is folded in: take the handshake up where it stands."""
        core, attach = self.live.core, self._attach
        self._resume = self._resume or bool(attach and attach.gap)
        if attach is not None:
            core.fold.life = core.fold.life or attach.life
        core.questions.owners.update({t: owner for t in core.fold.turns if (owner := self._owners.get(t))})
        known = core.fold.handshake or self._stored_handshake(attach)
        if attach is not None and attach.state != "running":
            if attach.state == "failed":
                self._lost("the agent's process keeps ending; see the session's log", "failed")
        elif known is not None:
            self._ready(known)
        else:
            self.live.perform(core.handshake(monotonic_s()))
        self.up.set()

    def _stored_handshake(self, attach: Attach | None) -> bytes | None:
        if attach is None or not self.row.initialize:
            return None
        stored = json.loads(self.row.initialize)
        same = stored["epoch"] == attach.epoch and stored["life"] == self.live.core.fold.life
        return stored["result"].encode() if same else None

    def _ready(self, handshake: bytes) -> None:
        """The app-server is initialized: go on, with the threads that the death of another cut off."""
        core, resume = self.live.core, []
        if self._resume:
            self._resume, resume = False, list(core.fold.threads)[-RESUME_THREADS:]
        self.live.perform(core.initialized(handshake, resume, monotonic_s()))
        self.live.perform(core.runs())
        self._set_state("running", "")
        self._hear(self.row.id, Heard("ready", ""))

    def _on_event(self, event: Event) -> None:
        if event.name == "needed":
            if self._asleep:
                self.wake()
        elif event.name == "heard":
            self._hear(self.row.id, event.value)
        elif event.name == "reply":
            tell, reply = event.value
            tell(reply)
        elif event.name == "initialized":
            self._remember_handshake(event.value)
            self._ready(event.value)
        elif event.name == "started":
            if self.up.is_set():
                self.live.perform(self.live.core.handshake(monotonic_s()))
        elif event.name == "exited":
            self._resume = True
            self._counters.agent_restarts += self.up.is_set()
            self._hear(self.row.id, Heard("lost", ""))
            self._set_state(event.value or "restarting", "the agent's process ended")
        elif event.name == "handshake_failed":
            self._handshake_failed(event.value)
        elif event.name == "owner":
            thread, key = event.value
            self._counters.turns += 1
            self._threads.spoken_to(self.row.id)
            if self._owners.get(thread) != key:  # most turns have the last one's owner: no write
                self._owners[thread] = key
                self._threads.remember(self.row.id, thread, key)
        elif event.name == "thread":
            self._threads.remember(self.row.id, event.value)
        elif event.name == "thread_gone":
            self._threads.forget(self.row.id, event.value)

    def _handshake_failed(self, why: str) -> None:
        """Begin with a fresh app-server; clients that wait are told."""
        core, link = self.live.core, self.live.link
        if "Already initialized" in why and core.fold.handshake is not None:
            self._ready(core.fold.handshake)
            return
        log.warning("session %s: %s", self.row.id, why)
        if "Already initialized" not in why:
            self._lost(why, "failed")
        if link is not None and self._attach is not None:
            link.send(RESTART)
        elif link is not None:
            link.close(why)

    # -- the store, from greenlets of their own

    def _set_state(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason
        if (state, reason) == self._stored:
            return
        self._stored = (state, reason)
        gevent.spawn(self._store_values, state=state, reason=reason[:500])

    def _remember_handshake(self, result: bytes) -> None:
        stored = {"epoch": self._epoch, "life": self.live.core.fold.life, "result": result.decode()}
        gevent.spawn(self._store_values, initialize=json.dumps(stored))

    def _store_values(self, **values: Any) -> None:
        try:
            self._store.run(lambda db: sessions.change(db, self.row.id, **values))
        except Unavailable as error:  # said in the log by the store; the session itself goes on
            log.warning("session %s: its state was not stored: %s", self.row.id, error.text)
