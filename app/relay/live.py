"""One session while the gateway runs: its Core, its link and its clients' sockets. The shell around the rules.

Nothing here waits: lines come on the hub, frames in the handlers' greenlets, and both only compute and hand bytes to
Outbound. What must wait (starting a runtime, writing to the store) is told to `on_event`.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.clock import monotonic_s
from app.relay import owned
from app.relay.core import Core
from app.relay.fold import Event
from app.relay.frames import text_frame
from app.relay.heard import Reply
from app.relay.inbound import BadFrame, Frame
from app.relay.link import Attach, Link
from app.relay.messages import Out, error_frame
from app.relay.ring import Entry, joined, numbered
from app.relay.websocket import WebSocket

log = logging.getLogger("argus.live")

LINK_HIGH = 1 << 20  # more than this waiting for the agent: requests queue in the core
IDLE_RING_BYTES = 256 << 10
BEGINS_WITHIN_S = 3.0  # how long after the answer to turn/start an agent may take to say that the turn has begun


@dataclass(slots=True)
class Client:
    """One attached socket."""

    ws: WebSocket
    with_seq: bool


class Live:
    """The live side of a session. `on_event` is called on the hub and must not block."""

    def __init__(self, id: str, core: Core, request_timeout_s: float, on_event: Callable[[Event], None]) -> None:
        self.id, self.core, self._timeout_s = id, core, request_timeout_s
        self._on_event, self._one_delta = on_event, core.fold.one_delta
        self.link: Link | None = None
        self.clients: dict[str, Client] = {}
        self._plain: tuple[Callable[[bytes], None], ...] = ()  # how each client is sent to, without numbers and with
        self._numbered = self._plain
        self.active_at, self._heard = monotonic_s(), 0
        self._backlog: Callable[[], None] | None = None
        self._backlog_until = 0
        self._promised: dict[str, float] = {}  # thread: until when a turn may begin there that was answered for

    # -- link

    def link_up(self, link: Link, attach: Attach | None, epoch: str, on_backlog: Callable[[], None]) -> None:
        """Take lines from this link; `on_backlog` is called once all that the bridge had kept is folded in."""
        self.link = link
        if attach is None:
            out = self.core.linked(epoch, None, 0, None, 0)
        else:
            before = attach.first - 1
            out = self.core.linked(epoch, attach.link, before, attach.sent, before, attach.mark)
        self._backlog, self._backlog_until = on_backlog, attach.next - 1 if attach else 0
        self.perform(out)
        link.start(self._on_lines, self._on_one, self._on_drained)
        self._check_backlog()

    def link_down(self, why: str) -> None:
        """The link is gone; in-flight requests are answered."""
        self.link, self._backlog = None, None
        self.perform(self.core.unlinked(why))

    def _on_lines(self, block: bytes) -> None:
        self.perform(self.core.feed(block))
        if self._backlog:
            self._check_backlog()

    def _on_one(self, block: bytes) -> bool:
        """One delta goes to all and changes nothing; whether it was one."""
        one_delta = self._one_delta
        entry = one_delta(block)
        if entry is None:
            return False
        for send in self._plain:
            send(entry[1])
        if self._numbered:
            with_seq = numbered(entry)
            for send in self._numbered:
                send(with_seq)
        if self._backlog:
            self._check_backlog()
        return True

    def _check_backlog(self) -> None:
        if self._backlog and self.core.fold.seq >= self._backlog_until:
            done, self._backlog = self._backlog, None
            done()

    def _on_drained(self) -> None:
        self.perform(self.core.drained())

    # -- clients

    def attach(self, ws: WebSocket, hello: dict[str, Any], with_seq: bool, cursor: str | None, key: str | None) -> str:
        """Join: sends argus/session, open questions, missed frames. Returns the client's key."""
        key = key or secrets.token_hex(8)
        if key in self.clients:
            self.clients[key].ws.close(1000, "Replaced by a newer connection of this client")
            self.detach(key, self.clients[key].ws)
        joined_up = self.core.attach(key, with_seq, cursor)
        params = {**hello, "cursor": joined_up.cursor, "oldest": joined_up.oldest, "client": key}
        if joined_up.resume:
            params["resume"] = joined_up.resume
        first = text_frame(json.dumps({"method": "argus/session", "params": params}, separators=(",", ":")).encode())
        self.clients[key] = Client(ws, with_seq)
        self._sort_clients()
        ws.on_overflow = lambda: self.detach(key, ws)
        ws.send_frames(first + joined_up.frames)
        self.perform(joined_up.moved)
        return key

    def detach(self, key: str, ws: WebSocket) -> None:
        """Leave; nothing happens if the key belongs to a newer socket by now."""
        client = self.clients.get(key)
        if client is not None and client.ws is ws:
            del self.clients[key]
            self._sort_clients()
            self.perform(self.core.detach(key))

    def _sort_clients(self) -> None:
        self._plain = tuple(client.ws.send_frames for client in self.clients.values() if not client.with_seq)
        self._numbered = tuple(client.ws.send_frames for client in self.clients.values() if client.with_seq)

    def frame(self, key: str, frame: Frame) -> None:
        """A checked frame of a client."""
        if key in self.clients:
            self.active_at = monotonic_s()
            if self.link is None:
                self._on_event(Event("needed"))
            self.perform(self.core.frame(key, frame, self.active_at, self._timeout_s))

    def take_question(self, key: str, id: bytes) -> None:
        """A client makes an open question its own. Raises NotFound if it is not open."""
        if key in self.clients:
            self.perform(self.core.take(key, id))

    def answer(self, key: str, frame: bytes) -> None:
        """Send one frame to one client."""
        client = self.clients.get(key)
        if client is not None:
            client.ws.send_frames(frame)

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """A notification of the gateway's own to every client; it is not replayed."""
        self._broadcast(text_frame(json.dumps({"method": method, "params": params}, separators=(",", ":")).encode()))

    def refuse(self, key: str, bad: BadFrame) -> None:
        """Tell a client what was wrong with its frame."""
        self.answer(key, error_frame(bad.id, bad.code, bad.text))

    def close_clients(self, code: int, reason: str) -> None:
        """End every client's socket."""
        for client in list(self.clients.values()):
            client.ws.close(code, reason)

    # -- for services that own turns

    def request(self, method: str, params: dict[str, Any], reply: Callable[[Reply], None], timeout_s: float) -> None:
        """Ask the agent; `reply` is called once, on the hub."""
        self.active_at = monotonic_s()
        self.perform(owned.request(self.core, method, params, self.active_at, timeout_s, reply))

    def idle(self, thread: str) -> bool:
        """Whether a turn/start would begin a turn. True holds until the caller waits for something."""
        can = self.core.ready and not self.core.blocked and not self.busy(thread)
        return can and owned.idle(self.core, thread)

    def busy(self, thread: str) -> bool:
        """Whether a turn runs on the thread, or was promised by the answer to a turn/start and is about to."""
        return thread in self.core.fold.turns or self._promised.get(thread, 0.0) > monotonic_s()

    def own(self, thread: str) -> None:
        """The running turn of this thread is the gateway's."""
        self.perform(owned.own(self.core, thread))

    def decide_question(self, id: bytes, turn: str, about: tuple[str, str], said: dict[str, Any]) -> None:
        """The gateway answers an open question (owned.answer). Raises NotFound if it can't be answered now."""
        self.perform(owned.answer(self.core, id, turn, about, said))

    def spoke(self, thread: str, since: int) -> bool:
        """Whether any line after this position names the thread."""
        name = json.dumps(thread).encode()
        return any(name in entry[1] for entry in self.core.fold.ring.after(since))

    # -- doing what the core says

    def perform(self, out: Out) -> None:
        """Deliver, send, report."""
        for to, what in out.deliveries:
            if to is not None:
                self.answer(to, what if isinstance(what, bytes) else joined(what, False))
            else:
                self._broadcast(what)
        if out.upstream:
            self._send_upstream(out.upstream)
        for event in out.events:
            if event.name == "owner":
                self._promised[event.value[0]] = monotonic_s() + BEGINS_WITHIN_S
            elif event.name == "heard" and event.value.what == "turn_completed":
                self._promised.pop(event.value.thread, None)
            self._on_event(event)

    def _broadcast(self, entries: bytes | list[Entry]) -> None:
        own = isinstance(entries, bytes)  # the gateway's own words have no number
        if self._plain:
            frames = entries if own else joined(entries, with_seq=False)
            for send in self._plain:
                send(frames)
        if self._numbered:
            frames = entries if own else joined(entries, with_seq=True)
            for send in self._numbered:
                send(frames)

    def _send_upstream(self, lines: list[bytes]) -> None:
        link = self.link
        if link is None or link.closed.is_set():
            return  # link_down answers what was in flight
        link.send(b"".join(lines) if len(lines) > 1 else lines[0])
        if link.waiting > LINK_HIGH:
            self.core.blocked = True

    def tick(self, now: float) -> None:
        """Once a second: deadlines, and memory back when nothing happens."""
        self.perform(self.core.expire(now))
        self._promised = {thread: until for thread, until in self._promised.items() if until > now}
        if self.core.fold.seq != self._heard:  # noted here: a clock for each line would cost more than the line
            self.active_at, self._heard = now, self.core.fold.seq
        if now - self.active_at > 600 and not self.core.fold.turns and self.core.unseen is None:
            self.core.fold.ring.trim(IDLE_RING_BYTES)
