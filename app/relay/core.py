"""The relay's rules: who gets what. Pure: lines and frames in, deliveries out; sockets and time are the shell's.

Contract: every client of a session sees every notification; an answer goes only to who asked, under the id it used; a
server request goes to exactly one client, and only that one may answer it, once.
"""

from __future__ import annotations

import msgspec

from app.errors import RPC_DEADLINE, RPC_INVALID, RPC_OVERLOADED, RPC_UNAVAILABLE
from app.relay import owned
from app.relay.adapt import Traits, adapt
from app.relay.envelope import answer_of, number_of
from app.relay.fold import (
    LINK_IDS,
    MAX_ID,
    PLAIN_BASE,
    Answer,
    Event,
    Fold,
    ServerRequest,
    cut_off,
    gateway_frame,
)
from app.relay.frames import text_frame
from app.relay.inbound import Frame, encode, top_level
from app.relay.messages import Attached, Out, Waiting, answer_frame, error_frame
from app.relay.questions import GATEWAY, Questions
from app.relay.ring import Entry, Ring, joined, position

STOP, STOPS = "turn/interrupt", 16  # so many stops may be in flight beyond the window
MAX_IN_FLIGHT = 64  # an app-server loses requests when more than 128 are in flight
MAX_QUEUE, MAX_QUEUE_BYTES = 4096, 32 << 20
MAX_OWN_TIMEOUT_MS = 24 * 3600 * 1000  # the longest that a client may ask for
RESUME, RESUME_TIMEOUT_S = b"", 15.0  # id of the gateway's own thread/resume requests
HANDSHAKE = (
    b'{"method":"initialize","id":%d,"params":{"clientInfo":'
    b'{"name":"argus_gateway","title":"Argus Gateway","version":"0.1.0"}}}\n'
)
INITIALIZED = b'{"method":"initialized"}\n'


class Core:
    """One session's relay. Every method returns what is to be done; nothing here waits or fails on I/O."""

    def __init__(self, ring_bytes: int, traits: Traits | None = None, handshake_timeout_s: float = 30.0) -> None:
        self.fold = Fold(Ring(ring_bytes))
        self.traits, self.handshake_timeout_s = traits or Traits(), handshake_timeout_s
        self.clients: dict[str, bool] = {}  # key -> wants seq numbers; in order of attaching
        self.questions = Questions(self.fold, self.clients)
        self.waiting: dict[int, Waiting] = {}
        self.queue: list[Waiting] = []  # an empty deque has 700 bytes, and most sessions never need one
        self.queued_bytes = 0
        self.parked: list[Waiting] = []  # clients that wait for the handshake
        self.ready = self.blocked = False  # blocked: the link takes nothing more for now
        self.down: str | None = None  # why nothing can be sent for a while; None when it can, or may soon
        self.base, self.next = PLAIN_BASE, 0
        self.unseen: int | None = None  # frames after this were seen by nobody

    # -- the link

    def linked(self, epoch: str, link: int | None, seq: int, sent: int | None, floor: int, mark: str = "") -> Out:
        """A link is up; the next line has number seq + 1. `link` None is a plain one.

        `sent`: the last line that a former gateway took; lines after it were seen by nobody. `mark`: what the
        bridge's own lines bear.
        """
        first_ever, fold = self.fold.generation == 0, self.fold
        out = Out()
        fold.plain, fold.mark, self.down = link is None, mark, None
        if not first_ever and epoch != fold.epoch:
            self._cut_off(out, *(fold.told or ("the runtime was replaced", "restarting")))
        were_open = list(fold.requests.values())
        self._broadcast(out, fold.begin(epoch, seq, floor))
        if not fold.requests:
            self.questions.over(were_open, out)
        if first_ever:
            self.unseen = position(fold.generation, seq if sent is None else sent)
        self.base, self.next = (PLAIN_BASE, 0) if link is None else (link * LINK_IDS, 0)
        self.blocked = False
        return out

    def unlinked(self, reason: str) -> Out:
        """The link is gone. What was in flight is answered: its outcome is unknown."""
        out = Out()
        self.ready = False
        self.questions.link_lost()
        self._fail_in_flight(out, f"{reason}; whether the request was carried out is not known")
        return out

    def lost(self, reason: str, state: str) -> Out:
        """The runtime is gone (no bridge told us): end turns and questions, tell the clients."""
        out = self.unlinked(reason)
        self._cut_off(out, reason, state)
        if state == "failed":  # one that is stopped is started for what comes
            self._refuse_all(out, reason)
        return out

    def handshake(self, now: float) -> Out:
        """Initialize the app-server, once per life of it."""
        self.waiting[self.base] = Waiting(None, b"0", "initialize", now + self.handshake_timeout_s)
        self.next = max(self.next, 1)
        return Out(upstream=[HANDSHAKE % self.base])

    def initialized(self, result: bytes, resume: list[str], now: float) -> Out:
        """The handshake's result is known (answered, found in the ring, or stored): go.

        `resume`: threads that a fresh app-server does not have loaded; what clients ask waits until they are.
        """
        out = Out(upstream=[INITIALIZED])
        for thread in reversed(resume):
            params = msgspec.json.encode({"threadId": thread, "excludeTurns": True})
            raw = {"method": b'"thread/resume"', "params": params}
            waiting = Waiting(None, RESUME, "thread/resume", now + RESUME_TIMEOUT_S, raw, thread)
            self.queue.insert(0, waiting)
            self.queued_bytes += waiting.size
        self.fold.handshake, self.ready, self.down = result, True, None
        for waiter in self.parked:
            frame = text_frame(b'{"id":%s,"result":%s}' % (waiter.id, result))
            out.deliveries.append((waiter.client, frame))
        self.parked.clear()
        self.questions.reassign(out)
        self._pump(out)
        return out

    def feed(self, block: bytes) -> Out:
        """Whole lines from the app-server."""
        out = Out()
        for piece in self.fold.feed(block):
            if isinstance(piece, list):
                if self.clients:
                    out.deliveries.append((None, piece))
            elif isinstance(piece, Answer):
                self._answered(piece, out)
            elif isinstance(piece, ServerRequest):
                self.questions.ask(piece, out)
                if piece.to == GATEWAY:
                    out.events.append(owned.heard_question(piece))
            else:
                self._happened(piece, out)
        return out

    def drained(self) -> Out:
        """The link takes more."""
        self.blocked = False
        out = Out()
        self._pump(out)
        return out

    def expire(self, now: float) -> Out:
        """Answer what has waited too long."""
        out = Out()
        for id, waiting in [(i, w) for i, w in self.waiting.items() if w.deadline <= now]:
            del self.waiting[id]
            if waiting.method == "initialize" and waiting.client is None:
                self._handshake_failed(out, "the agent did not answer initialize in time")
            self._error(out, waiting, RPC_DEADLINE, f"the agent did not answer {waiting.method} in time")
        late = [w for w in (*self.queue, *self.parked) if w.deadline <= now]
        if late:
            self.queue = [w for w in self.queue if w.deadline > now]
            self.queued_bytes = sum(w.size for w in self.queue)
            self.parked = [w for w in self.parked if w.deadline > now]
            why = "the agent is busy" if self.ready else "the agent is not ready"
            for waiting in late:
                self._error(out, waiting, RPC_DEADLINE, f"{waiting.method} was not sent in time: {why}")
        self._pump(out)
        return out

    # -- clients

    def attach(self, key: str, with_seq: bool, cursor: str | None) -> Attached:
        """A client joins; with a cursor it gets what came later, without one what nobody has seen."""
        fold, resume = self.fold, None
        where = fold.head
        if cursor is not None:
            found = fold.locate(cursor)
            resume = "gap" if found is None else "ok"
            where = where if found is None else found
        elif self.unseen is not None:
            resume = "gap" if self.unseen < fold.ring.floor else None
            where = max(self.unseen, fold.ring.floor)
        entries = fold.ring.after(where)
        self.unseen = None
        self.clients[key] = with_seq
        moved = Out()
        questions = b"".join(self.questions.joined(key, moved))  # behind the replay: that may settle an older one
        return Attached(
            fold.cursor(where), fold.cursor(fold.ring.floor), resume, joined(entries, with_seq) + questions, moved
        )

    def detach(self, key: str) -> Out:
        """A client left: its answers are dropped, its open questions go to another, its turns stay its own."""
        out = Out()
        if self.clients.pop(key, None) is None:
            return out
        for waiting in (*self.waiting.values(), *self.queue):
            if waiting.client == key:
                waiting.client = None
        self.parked = [w for w in self.parked if w.client != key]
        if not self.clients:
            self.unseen = self.fold.head
        self.questions.left(key, out)
        return out

    def frame(self, key: str, frame: Frame, now: float, timeout_s: float) -> Out:
        """A checked frame of an attached client (argus/ methods do not come here)."""
        out, method = Out(), frame.method
        if method is None and self.questions.is_asked(key, frame, out):
            if self.ready and not self.blocked:
                self.questions.answer(frame, out, key)
            else:
                self._refuse(out, key, None, RPC_UNAVAILABLE, self.down or "the agent is busy; answer again later")
        elif method is None:
            pass
        elif method.startswith("bridge/"):
            self._refuse(out, key, frame.id, RPC_INVALID, "bridge/ methods are the gateway's own")
        elif method == "initialize":
            self._client_initializes(key, frame, now, timeout_s, out)
        elif method == "initialized" and frame.id is None:
            pass
        elif frame.id is None:
            if self.ready and not self.blocked:
                out.upstream.append(encode(self._adapted(frame)) + b"\n")
            else:
                self._refuse(out, key, None, RPC_UNAVAILABLE, self.down or "the agent is busy; try again later")
        else:
            self._client_asks(key, frame, now, timeout_s, out)
        return out

    def take(self, key: str, id: bytes) -> Out:
        """An attached client makes an open question its own to answer. Raises NotFound if it is not open."""
        out = Out()
        self.questions.take(key, id, out)
        return out

    # -- inside

    def _client_asks(self, key: str, frame: Frame, now: float, timeout_s: float, out: Out) -> None:
        method, thread = frame.method or "", frame.params.get("threadId")
        thread = thread if isinstance(thread, str) and len(thread) <= MAX_ID else ""  # it is kept while this waits
        own_limit = frame.params.get("timeoutMs")
        if method == "command/exec" and isinstance(own_limit, int):
            timeout_s = max(timeout_s, min(own_limit, MAX_OWN_TIMEOUT_MS) / 1000 + 10)
        waiting = Waiting(key, frame.id or b"null", method, now + timeout_s, self._adapted(frame), thread)
        taken = self._enqueue(waiting, out)
        if taken and method == "turn/start" and thread:
            self.questions.began(thread, key)

    def _adapted(self, frame: Frame) -> dict[str, bytes]:
        changed = adapt(frame.method or "", frame.params, self.traits)
        if not changed:
            return frame.raw
        new = {name: msgspec.json.encode(value) for name, value in changed.items()}
        return {**frame.raw, "params": encode({**top_level(frame.raw["params"]), **new})}

    def _enqueue(self, waiting: Waiting, out: Out) -> bool:
        """Take a request, or answer it with why not."""
        full = len(self.queue) >= MAX_QUEUE or self.queued_bytes + waiting.size > MAX_QUEUE_BYTES
        if self.down and not self.ready:
            self._error(out, waiting, RPC_UNAVAILABLE, self.down)
            return False
        if full and self.queue:
            self._error(out, waiting, RPC_OVERLOADED, "too many requests wait for the agent; try again later")
            return False
        if waiting.method == STOP and self.ready and not self.blocked and len(self.waiting) < MAX_IN_FLIGHT + STOPS:
            self._send(waiting, out)  # a stop does not stand in line behind what hangs
            return True
        self.queue.append(waiting)
        self.queued_bytes += waiting.size
        self._pump(out)
        return True

    def _pump(self, out: Out) -> None:
        """Send what may be sent, at most MAX_IN_FLIGHT unanswered at a time."""
        while self.ready and not self.blocked and self.queue and len(self.waiting) < MAX_IN_FLIGHT:
            if self.queue[0].id != RESUME and any(w.id == RESUME for w in self.waiting.values()):
                return
            waiting = self.queue.pop(0)
            self.queued_bytes -= waiting.size
            self._send(waiting, out)

    def _send(self, waiting: Waiting, out: Out) -> None:
        self.next = max(self.next, 1)
        id, self.next = self.base + self.next, self.next + 1
        out.upstream.append(encode({**waiting.raw, "id": b"%d" % id}) + b"\n")
        self.waiting[id], waiting.raw, waiting.sent = waiting, {}, True

    def _client_initializes(self, key: str, frame: Frame, now: float, timeout_s: float, out: Out) -> None:
        if frame.id is None:
            return
        if self.fold.handshake is not None and self.ready:
            out.deliveries.append((key, text_frame(b'{"id":%s,"result":%s}' % (frame.id, self.fold.handshake))))
        elif self.down:
            self._refuse(out, key, frame.id, RPC_UNAVAILABLE, self.down)
        elif len(self.parked) >= MAX_QUEUE:
            self._refuse(out, key, frame.id, RPC_OVERLOADED, "too many wait for the agent already; try again later")
        else:
            self.parked.append(Waiting(key, frame.id, "initialize", now + timeout_s))

    def _answered(self, answer: Answer, out: Out) -> None:
        id = number_of(answer.id)
        waiting = self.waiting.pop(id, None)
        if waiting is None:
            return
        if waiting.reply is not None:
            out.events.append(owned.replied(waiting, answer))
        if waiting.client is not None:
            out.deliveries.append((waiting.client, answer_frame(answer.line, waiting.id)))
        if id == self.base and waiting.method == "initialize":
            parsed = answer_of(answer.line)
            if parsed.result is not msgspec.UNSET:
                out.events.append(Event("initialized", bytes(parsed.result)))
            else:
                said = b"{}" if parsed.error is msgspec.UNSET else bytes(parsed.error)
                self._handshake_failed(out, f"the agent refused initialize: {said.decode('utf-8', 'replace')[:500]}")
        elif waiting.method == "turn/start":
            owner = GATEWAY if waiting.reply else waiting.client
            if owner is not None:
                self._turn_answered(waiting.thread, owner, answer, out)
        elif waiting.method == "thread/resume" and waiting.thread:
            resumed = answer_of(answer.line).error is msgspec.UNSET
            if resumed and self.fold.know(waiting.thread):
                out.events.append(Event("thread", waiting.thread))
        self._pump(out)

    def _turn_answered(self, thread: str, client: str, answer: Answer, out: Out) -> None:
        """Who owns the turn is worth storing once there is one."""
        if answer_of(answer.line).error is msgspec.UNSET:
            if self.questions.owners.get(thread) == client:
                out.events.append(Event("owner", (thread, client)))
        elif thread not in self.fold.turns:
            self._turn_over(thread)

    def _handshake_failed(self, out: Out, why: str) -> None:
        out.events.append(Event("handshake_failed", why))

    def _happened(self, event: Event, out: Out) -> None:
        if event.name == "turn_completed":
            self._turn_over(event.value)
        elif event.name == "question_over":
            self._question_over(event.value, out)
        elif event.name == "question_dropped":
            if owned.is_ours(self, event.value):
                out.events.append(owned.heard_question(event.value, "question_over"))
            self.questions.dropped(event.value, out)
        elif event.name == "exited":
            self.ready = False
            self._fail_in_flight(out, "the agent's process ended before it answered")
            if event.value == "failed":
                self._refuse_all(out, "the agent's process keeps ending; see the session's log")
            out.events.append(event)
        elif event.name == "started":
            self.down = None
            out.events.append(event)
        else:
            out.events.append(event)

    def _question_over(self, request: ServerRequest, out: Out) -> None:
        self.questions.over([request], out)
        if owned.is_ours(self, request):
            out.events.append(owned.heard_question(request, "question_over"))

    def _cut_off(self, out: Out, reason: str, state: str) -> None:
        turns, were_open = dict(self.fold.turns), list(self.fold.requests.values())
        self._broadcast(out, self.fold.lost(reason, state))
        for request in were_open:
            self._question_over(request, out)
        for thread, turn in turns.items():
            out.events.append(cut_off(thread, turn, reason))
            self._turn_over(thread)

    def _turn_over(self, thread: str) -> None:
        """The turn's owner has no more to do with the thread, unless a next turn was asked for meanwhile."""
        if thread not in self.questions.owners:
            return  # an agent may end turns without end that nobody began
        asked = (w for w in (*self.waiting.values(), *self.queue) if w.method == "turn/start")
        if not any(waiting.thread == thread for waiting in asked):
            self.questions.owners.pop(thread, None)

    def _fail_in_flight(self, out: Out, why: str) -> None:
        waiting, self.waiting = self.waiting, {}
        for item in waiting.values():
            self._error(out, item, RPC_UNAVAILABLE, why)

    def _refuse_all(self, out: Out, why: str) -> None:
        """Nothing will be sent for a while: say so to all who wait."""
        self.down = why
        for waiting in (*self.queue, *self.parked):
            self._error(out, waiting, RPC_UNAVAILABLE, why)
        self.queue.clear()
        self.parked.clear()
        self.queued_bytes = 0

    def _broadcast(self, out: Out, entries: list[Entry]) -> None:
        if self.clients and entries:
            out.deliveries.append((None, entries))

    def runs(self) -> Out:
        """The agent can be used again: say so to who was told that it can't."""
        if self.fold.told is None:
            return Out()
        self.fold.told = None
        cursor = self.fold.cursor(self.fold.head)
        return self.announce("argus/runtime", {"state": "running", "reason": "", "cursor": cursor})

    def announce(self, method: str, params: dict) -> Out:
        """A notification of the gateway's own, to all clients and the ring."""
        out = Out()
        self._broadcast(out, [self.fold.own(gateway_frame(method, params))])
        return out

    def _refuse(self, out: Out, key: str, id: bytes | None, code: int, text: str) -> None:
        out.deliveries.append((key, error_frame(id or b"null", code, text)))

    def _error(self, out: Out, waiting: Waiting, code: int, text: str) -> None:
        if waiting.reply is not None:
            out.events.append(owned.unanswered(waiting, text))
        if waiting.client is not None:
            out.deliveries.append((waiting.client, error_frame(waiting.id, code, text)))
