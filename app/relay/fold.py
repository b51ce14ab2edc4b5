"""The one fold over an app-server's output lines. It makes all stream state: replay ring, open turns, pending
server requests, known threads, the handshake's result. Nothing else keeps a copy. Pure.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.relay.envelope import (
    Envelope,
    Life,
    LifeNote,
    Params,
    answer_of,
    as_utf8,
    envelope_of,
    exit_text,
    life_note_of,
    lines_of,
    note_of,
    number_of,
    question_key,
)
from app.relay.frames import HEADERS, header, text_frame
from app.relay.heard import Heard, hear, readable
from app.relay.ring import EPOCH_SHIFT, IN_EPOCH, LINE_SHIFT, NEXT, Entry, Ring, position

CR = 13
DELTAS = tuple(
    b'{"method":"item/%s"' % name
    for name in (b"agentMessage/delta", b"commandExecution/outputDelta", b"reasoning/summaryTextDelta")
)
ONE_BYTES = len(HEADERS)  # a longer block is rarely one line, and looking would cost more
LINK_IDS = 2**31  # a link's requests are numbered link * 2**31 + n; n = 0 is the handshake
PLAIN_BASE = 1_000_000_000  # first id on a plain link
MAX_THREADS, MAX_TURNS, MAX_QUESTIONS = 200, 1000, 1000  # the newest of each are kept
MAX_QUESTION_BYTES = 16 << 20
MAX_ID = 200  # characters; a thread with a longer id is passed on and not remembered


@dataclass(slots=True)
class ServerRequest:
    """A question of the app-server that waits for its one answer."""

    id: bytes  # as written by the app-server: its type counts
    method: str
    thread: str
    turn: str | None
    item: bytes  # as written
    frame: bytes
    to: str | None = None  # key of the client that was asked
    taken: str | None = None  # key of the client that took it over
    answered: bool = False  # an answer is on its way


@dataclass(slots=True)
class Answer:
    """A response line."""

    id: bytes
    line: bytes


@dataclass(slots=True)
class Event:
    """Something the shell or a service must act on."""

    name: str  # exited, started, thread, initialized, handshake_failed, owner, heard, reply; question_over, …_dropped
    value: Any = None


Piece = list[Entry] | ServerRequest | Answer | Event


def cut_off(thread: str, turn: str, why: str) -> Event:
    """A turn that its app-server did not end."""
    return Event("heard", Heard("turn_completed", thread, turn, "interrupted", why))


def gateway_frame(method: str, params: dict[str, Any]) -> bytes:
    """A text frame with a notification of the gateway's own."""
    return text_frame(json.dumps({"method": method, "params": params}, separators=(",", ":")).encode())


def settled_frame(request: ServerRequest) -> bytes:
    """What a client is told when a question needs no answer any more; its id as the app-server wrote it."""
    params = b'{"threadId":%s,"requestId":%s}' % (json.dumps(request.thread).encode(), request.id)
    return text_frame(b'{"method":"serverRequest/resolved","params":%s}' % params)


@dataclass(slots=True)
class Fold:
    """Stream state of one session. `feed` takes whole lines and says what came of them, in order."""

    ring: Ring
    where: int = 0  # position of the newest line
    epoch: str = ""
    epochs: dict[str, int] = field(default_factory=dict)
    skip: int = 0  # lines to come that an earlier link has brought already
    newest_own: int = 0
    plain: bool = False
    mark: str = ""  # on the lines of the bridge's own; empty: one of before there were marks
    life: int = 0
    handshake: bytes | None = None
    told: tuple[str, str] | None = None  # reason and state that clients were told; None while it runs
    turns: dict[str, str] = field(default_factory=dict)
    requests: dict[bytes, ServerRequest] = field(default_factory=dict)
    threads: dict[str, None] = field(default_factory=dict)  # ordered: the newest last

    @property
    def generation(self) -> int:
        """Which epoch of this gateway life it is, from 1; 0 before the first."""
        return self.where >> EPOCH_SHIFT

    @property
    def seq(self) -> int:
        """Number of the newest line in its epoch."""
        return (self.where & IN_EPOCH) >> LINE_SHIFT

    @seq.setter
    def seq(self, seq: int) -> None:
        """The newest line is this one."""
        self.where = position(self.generation, seq)

    @property
    def head(self) -> int:
        """Position of the newest frame."""
        return max(self.where, self.newest_own)

    def begin(self, epoch: str, seq: int, floor_seq: int) -> list[Entry]:
        """Lines come from `epoch` now, the next one numbered seq + 1; those after floor_seq will all be seen.

        Returns frames of the gateway's own that say so where lines were lost in between.
        """
        first_ever = self.generation == 0
        if epoch != self.epoch:
            self.epoch, self.where = epoch, position(self.generation + 1, seq)
            self.epochs[epoch] = self.generation
            whole, self.skip = self.generation > 1 and floor_seq == 0, 0
        else:
            whole, self.skip = seq <= self.seq, max(0, self.seq - seq)
        if not whole:  # lines were lost in between
            self.ring.trim(-1)
            self.ring.floor = position(self.generation, floor_seq)
        self.seq = max(self.seq, seq)
        if whole or first_ever:
            return []
        settled = [settled_frame(request) for request in self.requests.values()]  # the agent asks again on resume
        self.requests.clear()
        self.turns.clear()
        gap = gateway_frame("argus/gap", {"cursor": self.cursor(self.head)})
        return [(self.head, frame, False) for frame in (*settled, gap)]  # who comes later gets `resume: gap`

    def locate(self, cursor: str) -> int | None:
        """The position that a client's cursor names, or None if it can't be resumed from."""
        epoch, _, number = cursor.rpartition(":")
        generation = self.epochs.get(epoch)
        if generation is None or not (number.isascii() and number.isdigit() and len(number) < 14):
            return None
        where = position(generation, int(number))
        return where if self.ring.floor <= where <= self.head else None

    def cursor(self, where: int) -> str:
        """The cursor for a position, in the words of its own epoch."""
        for epoch, generation in self.epochs.items():
            if generation == where >> EPOCH_SHIFT:
                return f"{epoch}:{(where - position(generation, 0)) >> LINE_SHIFT}"
        return f"{self.epoch}:0"

    def feed(self, block: bytes) -> list[Piece]:
        """Fold whole lines in."""
        if not block.isascii():
            block = as_utf8(block)
        if self.skip:
            block = self._skipped(block)
        pieces: list[Piece] = []
        where = began = self.where
        parts: list[bytes] = []  # header, line, header, line of the run since `began`
        deltas = DELTAS if CR not in block else ()
        for line in lines_of(block):
            where += NEXT
            if line.startswith(deltas):  # most lines of a stream; what begins like this is a notification
                parts += (header(len(line)), line)
                continue
            envelope = envelope_of(line)
            if envelope is not None and is_plain(envelope):
                plain = line[:-1] if line[-1] == CR else line
                parts += (header(len(plain)), plain)
                continue
            if parts:
                pieces.append(self._run(began, parts))
                parts = []
            began = self.where = where
            pieces.extend(self._other(line, envelope))
        if parts:
            pieces.append(self._run(began, parts))
        self.where = where
        return pieces

    def one_delta(self, block: bytes) -> Entry | None:
        """What `feed` makes of a block that is just one delta, at a third of the cost; None if it is not that.

        While an agent speaks this is nearly all that comes: one delta a wake-up.
        """
        if len(block) > ONE_BYTES or not block.startswith(DELTAS):
            return None
        line, newline, more = block.partition(b"\n")
        if more or not newline or CR in line or self.skip:
            return None
        if not line.isascii() and as_utf8(line) is not line:
            return None
        where = self.where = self.where + NEXT
        frame = HEADERS[len(line)] + line
        entry, ring = (where, frame, 1), self.ring
        ring.entries.append(entry)  # Ring.append, without the call
        ring.bytes += len(frame)
        ring.frames += 1
        if ring.bytes > ring.max_bytes or ring.frames > ring.max_frames:
            ring.shrink()
        return entry

    def _run(self, began: int, parts: list[bytes]) -> list[Entry]:
        """Keep the plain lines that came behind position `began`."""
        entry = (began + NEXT, b"".join(parts), len(parts) // 2)
        self.ring.append(entry)
        return [entry]

    def _other(self, line: bytes, envelope: Envelope | None) -> list[Piece]:
        """A line that changes state, is an answer or a question, or no JSON object at all."""
        if line[-1:] == b"\r":
            line = line[:-1]
        if not line:
            return []
        if envelope is None:
            return self._unreadable(line)
        try:
            return self._special(line, envelope)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self._unreadable(line)

    def _unreadable(self, line: bytes) -> list[Piece]:
        """It is passed on as it came; one that changes state, or answers somebody, must count all the same."""
        with contextlib.suppress(msgspec.MsgspecError, RecursionError, ValueError):
            again = readable(line)
            envelope = envelope_of(again)
            if envelope is not None and (envelope.method in WATCHED or envelope.id is not msgspec.UNSET):
                return self._special(again, envelope)
        entry = (self.where, text_frame(line), 0)
        self.ring.append(entry)
        return [[entry]]

    def _skipped(self, block: bytes) -> bytes:
        lines = block.split(b"\n")
        known = min(self.skip, len(lines) - 1)
        self.skip -= known
        return b"\n".join(lines[known:])

    def lost(self, reason: str, state: str) -> list[Entry]:
        """The app-server is gone: end what hung on it, in frames of the gateway's own."""
        news, self.told = (reason, state) != self.told, (reason, state)
        frames = [gateway_frame("argus/runtime", {"state": state, "reason": reason})] if news else []
        frames += [settled_frame(request) for request in self.requests.values()]
        for thread, turn in self.turns.items():
            ended = {"id": turn, "items": [], "itemsView": "summary", "status": "interrupted", "error": None}
            frames.append(gateway_frame("turn/completed", {"threadId": thread, "turn": ended}))
        self.requests.clear()
        self.turns.clear()
        self.handshake = None
        return [self.own(frame) for frame in frames]

    def own(self, frame: bytes) -> Entry:
        """Keep a frame of the gateway's own behind the newest line."""
        self.newest_own = self.head + 1
        entry = (self.newest_own, frame, False)
        self.ring.append(entry)
        return entry

    def know(self, thread: str) -> bool:
        """Remember a thread; True when it is new."""
        new = thread not in self.threads
        self.threads.pop(thread, None)
        self.threads[thread] = None
        if len(self.threads) > MAX_THREADS:
            del self.threads[next(iter(self.threads))]
        return new

    # -- the few lines that change state

    def _special(self, line: bytes, envelope: Envelope) -> list[Piece]:
        method = envelope.method
        raw = b"" if envelope.id is msgspec.UNSET else bytes(envelope.id)
        if method is None and raw:
            return self._answer(raw, line)
        entry = (self.where, text_frame(line), True)
        if method is None or (raw and raw == b"null") or (raw and method in WATCHED):
            self.ring.append(entry)
            return [[entry]]
        if not raw and method.startswith("bridge/"):
            return self._of_bridge(method, life_note_of(line), entry)
        params = note_of(line).params
        if raw:
            item = b"null" if params.itemId is msgspec.UNSET else bytes(params.itemId)
            return self._asked(ServerRequest(raw, method, params.threadId, params.turnId, item, entry[1]))
        heard = hear(method, line)
        pieces = WATCHED[method](self, params, entry)
        return [*pieces, Event("heard", heard)] if heard else pieces

    def _of_bridge(self, method: str, note: LifeNote, entry: Entry) -> list[Piece]:
        """What looks like the bridge's own line; the agent may print such lines, too, but not its mark."""
        if self.plain or note.mark != self.mark:
            return [self._broadcast(entry)]
        return WATCHED[method](self, note.params, entry)

    def _asked(self, request: ServerRequest) -> list[Piece]:
        key = question_key(request.id)
        known = self.requests.get(key)
        if known is not None and known.frame == request.frame:
            if known.answered:  # asked once more: the answer did not arrive
                known.answered, known.to = False, None
            return [known]
        dropped = [] if known is None else [self.requests.pop(key)]  # another question under the same id
        size = sum(len(r.frame) for r in self.requests.values()) + len(request.frame)
        while self.requests and (len(self.requests) >= MAX_QUESTIONS or size > MAX_QUESTION_BYTES):
            dropped.append(self.requests.pop(next(iter(self.requests))))
            size -= len(dropped[-1].frame)
        self.requests[key] = request
        return [*(Event("question_dropped", old) for old in dropped), request]

    def _answer(self, raw: bytes, line: bytes) -> list[Piece]:
        id = number_of(raw)
        if id == PLAIN_BASE if self.plain else id >= LINK_IDS and id % LINK_IDS == 0:
            result = answer_of(line).result
            if result is not msgspec.UNSET:
                self.handshake = bytes(result)
        return [Answer(raw, line)]

    def _told(self, params: Params, entry: Entry) -> list[Piece]:
        return [self._broadcast(entry)]

    def _broadcast(self, entry: Entry) -> list[Entry]:
        self.ring.append(entry)
        return [entry]

    def _turn_started(self, params: Params, entry: Entry) -> list[Piece]:
        if not 0 < len(params.threadId) <= MAX_ID:
            return [self._broadcast(entry)]
        turn = params.turnId or (params.turn.id if params.turn else "")
        self.turns[params.threadId] = turn
        if len(self.turns) > MAX_TURNS:
            del self.turns[next(iter(self.turns))]
        pieces: list[Piece] = [Event("thread", params.threadId)] if self.know(params.threadId) else []
        return [*pieces, self._broadcast(entry)]

    def _turn_completed(self, params: Params, entry: Entry) -> list[Piece]:
        turn = params.turnId or (params.turn.id if params.turn else "")
        self.turns.pop(params.threadId, None)
        over = []
        for raw, request in list(self.requests.items()):
            if request.thread == params.threadId and (not turn or request.turn in (None, turn)):
                over.append(Event("question_over", self.requests.pop(raw)))
        return [self._broadcast(entry), *over, Event("turn_completed", params.threadId)]

    def _resolved(self, params: Params, entry: Entry) -> list[Piece]:
        raw = b"" if params.requestId is msgspec.UNSET else bytes(params.requestId)
        over = self.requests.pop(question_key(raw), None)
        return [self._broadcast(entry), *([Event("question_over", over)] if over else [])]

    def _thread_started(self, params: Params, entry: Entry) -> list[Piece]:
        thread = params.thread.id if params.thread else params.threadId
        pieces: list[Piece] = [Event("thread", thread)] if 0 < len(thread) <= MAX_ID and self.know(thread) else []
        return [*pieces, self._broadcast(entry)]

    def _thread_gone(self, params: Params, entry: Entry) -> list[Piece]:
        self.threads.pop(params.threadId, None)
        return [Event("thread_gone", params.threadId), self._broadcast(entry)]

    def _exited(self, params: Life, entry: Entry) -> list[Piece]:
        over = [Event("question_over", request) for request in self.requests.values()]
        for thread, turn in self.turns.items():
            over += [Event("turn_completed", thread), cut_off(thread, turn, exit_text(params))]
        return [self.lost(exit_text(params), params.state or "restarting"), Event("exited", params.state), *over]

    def _started(self, params: Life, entry: Entry) -> list[Piece]:
        self.life, self.handshake = params.life, None
        return [Event("started", params.life)]


WATCHED = {
    "turn/started": Fold._turn_started,
    "turn/completed": Fold._turn_completed,
    "serverRequest/resolved": Fold._resolved,
    "thread/started": Fold._thread_started,
    "thread/archived": Fold._thread_gone,
    "thread/deleted": Fold._thread_gone,
    "item/completed": Fold._told,
    "thread/tokenUsage/updated": Fold._told,
    "thread/compacted": Fold._told,
    "bridge/exited": Fold._exited,
    "bridge/started": Fold._started,
}


def is_plain(envelope: Envelope) -> bool:
    """Whether it is a notification that changes no state."""
    return envelope.method is not None and envelope.method not in WATCHED and envelope.id is msgspec.UNSET
