"""Sessions: made, found, kept, listed, deleted. The one place that knows which of them are live."""

from __future__ import annotations

import json
import logging
import secrets
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gevent
from gevent.lock import RLock
from gevent.pool import Pool

from app import agents
from app.clock import monotonic_s, now_ms
from app.errors import ArgusError, BadRequest, NotFound, TooMany, Unavailable
from app.provisioners import Handle, Provisioner, Spec
from app.provisioners.static import StaticProvisioner
from app.relay.heard import Heard
from app.services.auth import Principal
from app.services.counters import Counters
from app.services.keeper import Keeper
from app.services.options import Options, options_of, with_approvals
from app.services.threads import ThreadMemory
from app.settings import Settings
from app.store import sessions as rows
from app.store.database import Store
from app.store.sessions import SessionRow

log = logging.getLogger("argus.sessions")

RECONCILE_S = 300.0  # between looks for what nobody remembers
RETRY_S, RETRY_MAX_S = 0.5, 30.0
ATTACH_AT_ONCE = 20  # sessions taken up at the same time after a start
TITLE_MAX = 200
SHOWS_NOTHING = {"Cc", "Cf", "Cn", "Cs", "Mn", "Zl", "Zp", "Zs"}  # Unicode categories
BLANK_LETTERS = set("\u115f\u1160\u2800\u3164\uffa0")  # of other categories, and as empty


@dataclass
class Numbers:
    """Sums over all live sessions, for /metrics."""

    clients: int = 0
    links: int = 0
    turns: int = 0
    questions: int = 0
    in_flight: int = 0
    queued: int = 0
    queued_bytes: int = 0
    client_bytes: int = 0
    agent_bytes: int = 0


class Sessions:
    """All sessions of this gateway. Methods may wait (store, provisioner); call them in greenlets."""

    def __init__(self, settings: Settings, store: Store, provisioner: Provisioner, agent: Callable[[], str]) -> None:
        self._settings, self._store, self._provisioner = settings, store, provisioner
        self._default_agent = agent
        self._keepers: dict[str, Keeper] = {}
        self._lock = RLock()  # which keepers there are; never held while a runtime starts
        self._term = store.run(rows.next_term)
        self._closing = False
        self._ending: set[str] = set()  # being deleted now
        self.memory = ThreadMemory(store)
        self.counters = Counters()
        self.listener: Callable[[str, Heard], None] = lambda session, heard: None  # who owns turns
        self.on_delete: Callable[[str], None] = lambda session: None

    # -- at start and at the end

    def run_reconcile(self) -> None:
        """Attach to what a former gateway left running; then, and from time to time, end runtimes without a row."""
        taken_up, wait_s = False, RETRY_S
        while not self._closing:
            try:
                if not taken_up:
                    self._take_up_all()
                    taken_up = True
                for session in self._provisioner.prune(self._is_known):
                    log.warning("session %s has no row: what ran for it was ended", session)
                wait_s = RECONCILE_S
            except Unavailable as error:  # whoever runs the runtimes is away, or the store is
                log.warning("runtimes could not be looked at, which is tried again: %s", error.text)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
            except Exception:  # a driver's bug must not end this loop
                log.exception("runtimes could not be looked at")
                wait_s = RECONCILE_S
            gevent.sleep(wait_s)

    def _is_known(self, id: str) -> bool:
        return id in self._keepers or self._store.run(lambda db: rows.get(db, id)) is not None

    def _take_up_all(self) -> None:
        running = {handle["session"] for handle in self._provisioner.list()}
        pool = Pool(ATTACH_AT_ONCE)
        for row in self._store.run(rows.all_rows):
            if row.provisioner == self._provisioner.name and (row.id in running or self._is_upstream(row)):
                pool.spawn(self._take_up, row)

    def _is_upstream(self, row: SessionRow) -> bool:
        """A bridge that somebody else runs; a plain link begins anew when somebody comes."""
        return row.provisioner == "static" and bool(row.handle and json.loads(row.handle).get("attach"))

    def _take_up(self, row: SessionRow) -> None:
        try:
            self._keeper(row).wait_up(self._settings.connect_timeout_s)
        except ArgusError as error:
            log.warning("session %s was not taken up: %s", row.id, error.text)

    def run_ticker(self) -> None:
        """Deadlines of all sessions, once a second, for ever."""
        while not self._closing:
            gevent.sleep(1.0)
            now = monotonic_s()
            for keeper in list(self._keepers.values()):
                try:
                    keeper.live.tick(now)
                    if 0 < self._settings.idle_stop_s < keeper.idle_s(now):
                        log.info("session %s is stopped: nobody used it for %g s", keeper.row.id, keeper.idle_s(now))
                        keeper.sleep("nobody used the session for a while; the next message starts it again")
                except Exception:  # one session's bug must not stop the deadlines of the others
                    log.exception("session %s: a deadline could not be kept", keeper.row.id)

    def close(self, runtimes_too: bool) -> None:
        """The gateway ends: let go of all sessions, and end their runtimes if asked."""
        self._closing = True
        pool = Pool(ATTACH_AT_ONCE)
        for keeper in list(self._keepers.values()):
            pool.spawn(keeper.stop, runtimes_too, "the gateway ends")
        pool.join(timeout=4)
        self.memory.flush()

    # -- for callers

    def default_agent(self) -> str:
        """The agent of a new session that names none; `upstream` where somebody else runs them."""
        return "upstream" if isinstance(self._provisioner, StaticProvisioner) else self._default_agent()

    def create(
        self,
        principal: Principal,
        agent: str | None,
        title: str = "",
        upstream: str | None = None,
        options: Options | None = None,
    ) -> SessionRow:
        """A new session's row. Raises TooMany, BadRequest (agent, title, options), NotFound (upstream)."""
        static = self._provisioner if isinstance(self._provisioner, StaticProvisioner) else None
        chosen = static.choose(upstream) if static else ""
        name = agent or self.default_agent()
        if not static:
            agents.command(name, self._settings)
        secret = (static.secret_of(chosen) if static else None) or secrets.token_urlsafe(24)
        now = now_ms()
        row = SessionRow(
            id=uuid.uuid4().hex[:12],
            agent=name,
            title=clean_title(title) if title else "",
            owner=principal.name,
            provisioner=self._provisioner.name,
            upstream=chosen,
            handle=None,
            secret=secret,
            state="created",
            reason="",
            initialize=None,
            created_at_ms=now,
            active_at_ms=now,
            options=options.stored(self._settings.mount_allow) if options else None,
        )
        self._provisioner.check(self._spec(row))
        limit = self._settings.max_sessions

        def insert(db) -> None:
            if rows.count_of(db, principal.name) >= limit:
                raise TooMany(f"there are {limit} sessions already (ARGUS_MAX_SESSIONS); delete one first")
            rows.add(db, row)

        self._store.run(insert)
        log.info("session %s made, agent %s", row.id, row.agent)
        return row

    def open(self, principal: Principal, id: str | None, upstream: str | None = None) -> tuple[Keeper, bool]:
        """The live session of this id, woken if it slept; without an id a new one (then True).

        Raises NotFound (`Unknown session`), TooMany, Unavailable.
        """
        created = False
        if id is None:
            row = self._shared_bridge(upstream)
            if row is None:
                row, created = self.create(principal, None, upstream=upstream), True
        else:
            row = self.get(id)
        keeper = self._keeper(row)
        try:
            keeper.wait_up(self._settings.connect_timeout_s)
        except Unavailable:
            if created:
                self.delete(row.id)
            raise
        return keeper, created

    def _shared_bridge(self, upstream: str | None) -> SessionRow | None:
        """An upstream that is a bridge has one session; whoever comes joins it."""
        static = self._provisioner
        if not isinstance(static, StaticProvisioner):
            return None
        chosen = static.choose(upstream)
        if static.secret_of(chosen) is None:
            return None
        return next((r for r in self._store.run(rows.all_rows) if r.upstream == chosen), None)

    def get(self, id: str) -> SessionRow:
        """A session's row. Raises NotFound."""
        row = self._store.run(lambda db: rows.get(db, id))
        if row is None or id in self._ending:
            raise NotFound("Unknown session")
        return row

    def threads(self, id: str) -> list[str]:
        """Ids of its threads, the latest used first."""
        self.memory.flush()
        return [*self._store.run(lambda db: rows.known_threads(db, id))][::-1]

    def list(self) -> list[SessionRow]:
        """All rows, the latest active first."""
        return self._store.run(rows.all_rows)

    def state_of(self, row: SessionRow) -> str:
        """created, running, restarting, failed or stopped, as it is now."""
        keeper = self._keepers.get(row.id)
        if keeper is not None:
            return keeper.state
        return "created" if row.state == "created" else "stopped"

    def handle_of(self, row: SessionRow) -> Handle:
        """What its provisioner calls its runtime; empty if there was none yet."""
        keeper = self._keepers.get(row.id)
        return (keeper.handle if keeper else None) or (json.loads(row.handle) if row.handle else {})

    def busy(self, id: str) -> tuple[int, int]:
        """How many of its turns run, and how many questions wait for a person."""
        keeper = self._keepers.get(id)
        fold = keeper.live.core.fold if keeper else None
        return (len(fold.turns), sum(not r.answered for r in fold.requests.values())) if fold else (0, 0)

    def rename(self, id: str, title: str) -> SessionRow:
        """Give it another title; its row. Raises NotFound, BadRequest."""
        title = clean_title(title)
        self.get(id)
        if not self._store.run(lambda db: rows.change(db, id, title=title)):
            raise NotFound("Unknown session")
        return self.get(id)

    def set_approvals(self, id: str, approvals: str | None) -> SessionRow:
        """Who answers the questions of its turns from now on; None: as ARGUS_APPROVALS says. Raises NotFound."""

        def work(db) -> None:
            row = rows.get(db, id)
            if row is not None:
                rows.change(db, id, options=with_approvals(row.options, approvals))

        self._store.run(work)
        return self.get(id)

    def restart(self, id: str) -> None:
        """Begin with a fresh agent, or wake one that does not run; does not wait. Raises NotFound, Unavailable."""
        self._keeper(self.get(id)).restart()
        log.info("session %s: a restart was asked for", id)

    def log_path(self, id: str) -> Path:
        """Where its runtime's log is. Raises NotFound."""
        row = self.get(id)
        path = self._provisioner.log_path(id) if row.provisioner == self._provisioner.name else None
        if path is None:
            raise NotFound("this session's log is not kept here, but where its runtime runs")
        return path

    def stop(self, id: str) -> None:
        """Stop its runtime until somebody uses it. Its turns end as interrupted. Raises NotFound, Unavailable."""
        keeper = self._keeper(self.get(id))
        keeper.sleep("the session was stopped; the next message starts it again")
        keeper.wait_asleep(self._settings.connect_timeout_s)
        log.info("session %s stopped", id)

    def start(self, id: str) -> None:
        """Start its runtime if it does not run. Raises NotFound, Unavailable with why it can't."""
        self._keeper(self.get(id)).wait_up(self._settings.connect_timeout_s)

    def delete(self, id: str) -> None:
        """End the runtime, close its clients, remove row and the session's own files. Raises NotFound."""
        row = self.get(id)
        with self._lock:
            self._ending.add(id)
            keeper = self._keepers.pop(id, None)
        try:
            self._end(row, keeper)
        finally:
            self._ending.discard(id)
        self.on_delete(id)
        log.info("session %s deleted", id)

    def _end(self, row: SessionRow, keeper: Keeper | None) -> None:
        id = row.id
        if keeper is not None:
            keeper.ended = (1000, "Session deleted")
            keeper.live.close_clients(*keeper.ended)
            keeper.stop(runtime_too=True)
        elif row.handle and row.provisioner == self._provisioner.name:
            self._provisioner.stop(json.loads(row.handle))
        ours = row.provisioner == self._provisioner.name
        try:
            self._store.run(lambda db: rows.remove(db, id))
        except Unavailable:
            if not ours:
                raise
            self._provisioner.remove(id)  # on a full disk, its own files are the room that the store needs
            self._store.run(lambda db: rows.remove(db, id))
        if ours:
            self._provisioner.remove(id)

    def live(self, id: str) -> Keeper | None:
        """A session's keeper if it has one now; nothing is started."""
        return self._keepers.get(id)

    def keep(self, id: str) -> Keeper:
        """A session's keeper, woken if it slept, without waiting for its runtime. Raises NotFound, Unavailable."""
        keeper = self._keepers.get(id)
        return keeper if keeper is not None else self._keeper(self.get(id))

    def workspace(self, id: str) -> Path | None:
        """Where a session's agent works, as this machine sees it; None if somebody else runs it."""
        return self._provisioner.workspace(id)

    def contained(self, id: str) -> bool:
        """Whether a container is the sandbox of its agent."""
        return self._provisioner.traits(id).contained

    def counts(self) -> dict[str, int]:
        """Live sessions and attached clients, for readiness."""
        return {"live": len(self._keepers), "clients": sum(len(k.live.clients) for k in self._keepers.values())}

    def numbers(self) -> Numbers:
        """What all live sessions have open or waiting now, in sums."""
        now = Numbers()
        for keeper in self._keepers.values():
            live, core = keeper.live, keeper.live.core
            turns, questions = self.busy(keeper.row.id)
            now.turns += turns
            now.questions += questions
            now.clients += len(live.clients)
            now.client_bytes += sum(client.ws.buffered for client in live.clients.values())
            if live.link is not None:
                now.links += 1
                now.agent_bytes += live.link.waiting
            now.in_flight += len(core.waiting)
            now.queued += len(core.queue)
            now.queued_bytes += core.queued_bytes
        return now

    # -- inside

    def _keeper(self, row: SessionRow) -> Keeper:
        if self._closing:
            raise Unavailable("the gateway is stopping")
        if row.provisioner != self._provisioner.name:
            raise Unavailable(
                f"the session was made with ARGUS_PROVISION_MODE={row.provisioner}, the gateway runs with "
                f"{self._provisioner.name}"
            )
        with self._lock:
            if row.id in self._ending:
                raise NotFound("Unknown session")
            keeper = self._keepers.get(row.id)
            if keeper is None:
                keeper = Keeper(
                    row,
                    self._settings,
                    self._store,
                    self.memory,
                    self._provisioner,
                    self._term,
                    self._spec,
                    self.counters,
                    lambda session, heard: self.listener(session, heard),
                )
                self._keepers[row.id] = keeper
            return keeper

    def _spec(self, row: SessionRow) -> Spec:
        command = "" if row.provisioner == "static" else agents.command(row.agent, self._settings)
        mounts, environment = options_of(row.options)
        return Spec(row.id, row.secret, command, environment, row.upstream, mounts)


def clean_title(text: str) -> str:
    """A title as it is stored: on one line, trimmed. Raises BadRequest for one that shows nothing, or is too long."""
    title = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())
    if all(unicodedata.category(c) in SHOWS_NOTHING or c in BLANK_LETTERS for c in title):
        raise BadRequest("title must have something that can be seen")
    if len(title) > TITLE_MAX:
        raise BadRequest(f"title may have {TITLE_MAX} characters")
    return title
