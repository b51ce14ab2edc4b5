"""Server requests: who is asked, who may answer, and what the others are told of it. Pure.

A question goes to exactly one client: who took it over, else who owns the thread's running turn, else who was asked
already, else the one that last started a turn, or the first that is there. Only that client's answer counts, once.
All others learn by `argus/question` what waits, for whom, and how it ended. A question of a gateway-owned turn goes to
all that are attached, and the first answer of any counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from app.errors import RPC_INVALID, NotFound
from app.relay.envelope import question_key
from app.relay.fold import Fold, ServerRequest, settled_frame
from app.relay.frames import payload_of, text_frame
from app.relay.inbound import Frame, encode, top_level
from app.relay.messages import Out, error_frame

GATEWAY = "@gateway"  # owner of the gateway's own turns, addressee of their questions; no client's key


class Questions:
    """Routing of open questions. `clients` is the core's own table of who is attached."""

    def __init__(self, fold: Fold, clients: dict[str, bool]) -> None:
        self._fold, self._clients = fold, clients
        self.owners: dict[str, str] = {}  # thread -> key of the client whose turn runs
        self.handler: str | None = None  # who is asked where there is no owner

    def ask(self, request: ServerRequest, out: Out) -> None:
        """Give a question to who should have it, if that is not so already."""
        owner = self.owners.get(request.thread)
        if owner == GATEWAY:
            self._give_to_all(request, out)
            return
        if request.taken in self._clients:
            to = request.taken
        elif owner in self._clients:
            to = self.handler = owner
        else:
            to = request.to if request.to in self._clients else self.handler
        if to is not None and request.to != to:
            self._give(request, to, out)

    def _give(self, request: ServerRequest, to: str, out: Out) -> None:
        """Who loses a question is told first that it is settled; all but the addressee are told who has it now."""
        before, request.to = request.to, to
        if before in self._clients:
            out.deliveries.append((before, settled_frame(request)))
        out.deliveries.append((to, request.frame))
        others = [key for key in self._clients if key != to]
        if others:
            told = open_frame(request)
            out.deliveries += [(key, told) for key in others]

    def _give_to_all(self, request: ServerRequest, out: Out) -> None:
        if request.to != GATEWAY:
            before, request.to = request.to, GATEWAY
            out.deliveries += [(key, request.frame) for key in self._clients if key != before]

    def reassign(self, out: Out) -> None:
        """Somebody came or left."""
        for request in self._open():
            self.ask(request, out)
            if request.to not in self._clients and request.to != GATEWAY:
                request.to = None

    def joined(self, key: str, out: Out) -> list[bytes]:
        """A client came; the frames by which it learns of all open questions, its own to answer among them."""
        self.handler = self.handler or key
        self.reassign(out)
        out.deliveries = [d for d in out.deliveries if d[0] != key]
        return [request.frame if request.to in (key, GATEWAY) else open_frame(request) for request in self._open()]

    def left(self, key: str, out: Out) -> None:
        """A client went; its questions go to another, its turns stay its own."""
        if self.handler == key:
            self.handler = next(iter(self._clients), None)
        self.reassign(out)

    def began(self, thread: str, key: str) -> None:
        """A client starts a turn, or the gateway does."""
        self.owners[thread] = key
        if key != GATEWAY:
            self.handler = key

    def take(self, key: str, id: bytes, out: Out) -> None:
        """A client makes itself the addressee for as long as it is there. Raises NotFound."""
        request = self._fold.requests.get(question_key(id))
        if request is None or request.answered:
            raise NotFound(f"server request {id.decode()} is not open (answered, or its turn is over)")
        request.taken = key
        self.ask(request, out)

    def is_asked(self, key: str, frame: Frame, out: Out) -> bool:
        """Whether this client may give this answer; else it is told why not."""
        raw = frame.id or b""
        request = self._fold.requests.get(question_key(raw))
        if request is not None and not request.answered and request.to in (key, GATEWAY):
            return True
        open_elsewhere = request is not None and not request.answered
        why = "was not asked of this client" if open_elsewhere else "is not open (answered, or its turn is over)"
        out.deliveries.append((key, error_frame(b"null", RPC_INVALID, f"server request {raw.decode()} {why}")))
        return False

    def answer(self, frame: Frame, out: Out, by: str) -> None:
        """The answer goes to the app-server, under the id as that wrote it; all are told of it.

        The question is kept until the app-server says that it is resolved: the answer may be lost with the link.
        """
        request = self._fold.requests[question_key(frame.id or b"")]
        request.answered, request.to = True, by
        out.upstream.append(encode({**frame.raw, "id": request.id}) + b"\n")
        result = frame.value.get("result")
        decision = result.get("decision") if isinstance(result, dict) else None
        out.deliveries.append((None, _frame(request, "answered", b',"decision":' + json.dumps(decision).encode())))

    def over(self, requests: Iterable[ServerRequest], out: Out) -> None:
        """Questions that need no answer any more, as the stream says itself; of those answered all was told."""
        if self._clients:
            out.deliveries += [(None, _frame(request, "closed")) for request in requests if not request.answered]

    def dropped(self, request: ServerRequest, out: Out) -> None:
        """A question that the stream says nothing of: another came under its id, or too many are open."""
        if request.to in self._clients and not request.answered:
            out.deliveries.append((request.to, settled_frame(request)))
        self.over([request], out)

    def link_lost(self) -> None:
        """Answers may have been lost with the link: what is not resolved is asked again."""
        for request in self._fold.requests.values():
            if request.answered:
                request.answered, request.to = False, None

    def _open(self) -> list[ServerRequest]:
        return [request for request in self._fold.requests.values() if not request.answered]


def open_frame(request: ServerRequest) -> bytes:
    """What those are told of an open question who are not asked; its params as the app-server wrote them."""
    return _frame(request, "open", b',"params":' + top_level(payload_of(request.frame)).get("params", b"null"))


def _frame(request: ServerRequest, state: str, more: bytes = b"") -> bytes:
    about = {
        "method": request.method,
        "threadId": request.thread or None,
        "turnId": request.turn,
        "state": state,
        "client": request.to,
    }
    words = json.dumps(about, separators=(",", ":")).encode()[1:-1]
    parts = b'"id":%s,"itemId":%s,%s%s' % (request.id, request.item, words, more)
    return text_frame(b'{"method":"argus/question","params":{%s}}' % parts)
