"""Server requests: who is asked, and who may answer. Pure.

A question goes to exactly one client: who owns the thread's running turn, else who was asked already, else the one that
last started a turn, or the first that is there. Only that client's answer counts, once.
"""

from __future__ import annotations

from app.errors import RPC_INVALID
from app.relay.envelope import question_key
from app.relay.fold import Fold, ServerRequest, settled_frame
from app.relay.inbound import Frame, encode
from app.relay.messages import Out, error_frame


class Questions:
    """Routing of open questions. `clients` is the core's own table of who is attached."""

    def __init__(self, fold: Fold, clients: dict[str, bool]) -> None:
        self._fold, self._clients = fold, clients
        self.owners: dict[str, str] = {}  # thread -> key of the client whose turn runs
        self.handler: str | None = None  # who is asked where there is no owner

    def ask(self, request: ServerRequest, out: Out) -> None:
        """Give a question to who should have it, if that is not so already."""
        owner = self.owners.get(request.thread)
        if owner in self._clients:
            to = self.handler = owner
        else:
            to = request.to if request.to in self._clients else self.handler
        if to is not None and request.to != to:
            request.to = to
            out.deliveries.append((to, request.frame))

    def reassign(self, out: Out) -> None:
        """Somebody came or left: who loses a question is told that it is settled."""
        for request in self._open():
            before = request.to
            self.ask(request, out)
            if before in self._clients and before != request.to:
                out.deliveries.append((before, settled_frame(request)))
            if request.to not in self._clients:
                request.to = None

    def joined(self, key: str, out: Out) -> list[ServerRequest]:
        """A client came; the questions that are its own to answer."""
        self.handler = self.handler or key
        self.reassign(out)
        out.deliveries = [d for d in out.deliveries if d[0] != key]
        return [request for request in self._open() if request.to == key]

    def left(self, key: str, out: Out) -> None:
        """A client went; its questions go to another, its turns stay its own."""
        if self.handler == key:
            self.handler = next(iter(self._clients), None)
        self.reassign(out)

    def began(self, thread: str, key: str) -> None:
        """A client starts a turn."""
        self.handler = self.owners[thread] = key

    def is_asked(self, key: str, frame: Frame, out: Out) -> bool:
        """Whether this client may give this answer; else it is told why not."""
        raw = frame.id or b""
        request = self._fold.requests.get(question_key(raw))
        if request is not None and not request.answered and request.to == key:
            return True
        open_elsewhere = request is not None and not request.answered
        why = "was not asked of this client" if open_elsewhere else "is not open (answered, or its turn is over)"
        out.deliveries.append((key, error_frame(b"null", RPC_INVALID, f"server request {raw.decode()} {why}")))
        return False

    def answer(self, frame: Frame, out: Out) -> None:
        """The answer goes to the app-server, under the id as that wrote it.

        The question is kept until the app-server says that it is resolved: the answer may be lost with the link.
        """
        request = self._fold.requests[question_key(frame.id or b"")]
        request.answered = True
        out.upstream.append(encode({**frame.raw, "id": request.id}) + b"\n")

    def link_lost(self) -> None:
        """Answers may have been lost with the link: what is not resolved is asked again."""
        for request in self._fold.requests.values():
            if request.answered:
                request.answered, request.to = False, None

    def _open(self) -> list[ServerRequest]:
        return [request for request in self._fold.requests.values() if not request.answered]
