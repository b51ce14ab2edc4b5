"""Markdown for whoever shows it: one child process renders, so that no text can hold up the gateway.

Callers take turns, text by text, so that one with much to render, or with a text that is made to be slow, costs the
others one text's time. The child starts at the first use, is replaced when it dies or takes too long, and ends when
nobody has needed it for a while. It gets no environment.
"""

from __future__ import annotations

import logging
import struct
import sys
from collections import OrderedDict, deque
from pathlib import Path

import gevent
from gevent import socket, subprocess
from gevent.event import AsyncResult, Event

from app.errors import BadRequest, TooMany, Unavailable

log = logging.getLogger("argus.render")

PROGRAM = Path(__file__).with_name("markdown.py")
MAX_TEXTS, MAX_TEXT_BYTES, MAX_BYTES = 100, 256 << 10, 1 << 20
MAX_WAITING, MAX_WAITING_PER_CALLER = 32, 6
TEXT_S, REQUEST_S, IDLE_S = 5.0, 30.0, 600.0
TOO_SLOW = "a text takes too long to render; show it as it is"


class _Job:
    """One request: its texts that are not rendered yet, and its result."""

    def __init__(self, texts: list[bytes]) -> None:
        self.left, self.done = deque(texts), list[bytes]()
        self.result: AsyncResult = AsyncResult()


class Renderer:
    """Renders for many callers. `render` waits; call it in greenlets."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._wake = Event()
        self._worker: gevent.Greenlet | None = None
        self._child: subprocess.Popen | None = None
        self._sock: socket.socket | None = None

    def render(self, texts: list[str], caller: str) -> bytes:
        """The texts as one JSON array of HTML strings, in their order.

        `caller`: who shares one place in the queue. Raises BadRequest (limits), TooMany (this caller has too much
        waiting), Unavailable (everybody has, or a text takes too long).
        """
        job = _Job(checked(texts))
        if not job.left:
            return b"[]"
        waiting = self._callers.get(caller, ())
        if len(waiting) >= MAX_WAITING_PER_CALLER:
            raise TooMany(f"{len(waiting)} of your requests wait to be rendered; send more when they are answered")
        if self.waiting >= MAX_WAITING:
            raise Unavailable("too much waits to be rendered; try again in some seconds")
        self._callers.setdefault(caller, deque()).append(job)
        self._wake.set()
        if not self._worker:
            self._worker = gevent.spawn(self._run)
        try:
            return job.result.get(timeout=REQUEST_S)
        except gevent.Timeout:
            job.left.clear()
            raise Unavailable(f"not rendered within {REQUEST_S:g} s; try again with less, or show the texts") from None

    @property
    def waiting(self) -> int:
        """How many requests are not answered yet."""
        return sum(len(jobs) for jobs in self._callers.values())

    def _run(self) -> None:
        while True:
            if not self._callers:
                self._wake.clear()
                if not self._wake.wait(IDLE_S):
                    self._end_child()
                    self._wake.wait()
            caller, jobs = next(iter(self._callers.items()))
            self._advance(jobs[0])
            if not jobs[0].left:
                jobs.popleft()
            if jobs:
                self._callers.move_to_end(caller)
            else:
                del self._callers[caller]

    def _advance(self, job: _Job) -> None:
        """Render the job's next text, and settle the job with its last."""
        if not job.left:
            return  # its caller went away
        try:
            job.done.append(self._rendered(job.left.popleft()))
            if not job.left:
                job.result.set(b"[" + b",".join(job.done) + b"]")
        except Unavailable as error:
            self._fail(job, error)
        except Exception:  # no child could be made, or a bug: this request fails in words, the next is tried
            log.exception("a text could not be rendered")
            self._end_child()
            self._fail(job, Unavailable("the renderer could not be started; see the gateway's log"))

    @staticmethod
    def _fail(job: _Job, error: Unavailable) -> None:
        job.left.clear()
        job.result.set_exception(error)

    # -- the child

    def _rendered(self, text: bytes) -> bytes:
        """The JSON string of one text's HTML. Raises Unavailable."""
        fresh = self._sock is None
        try:
            with gevent.Timeout(TEXT_S, Unavailable(TOO_SLOW)):
                answer = self._exchange(text)
        except Unavailable:
            self._end_child()
            raise
        except OSError:  # it died: on its own while nobody needed it, or of this text
            self._end_child()
            if not fresh:
                return self._rendered(text)
            raise Unavailable("a text can't be rendered; show it as it is") from None
        if not answer:
            raise Unavailable("a text becomes too long when rendered; show it as it is")
        return answer

    def _exchange(self, text: bytes) -> bytes:
        sock = self._sock or self._start_child()
        sock.sendall(struct.pack(">I", len(text)) + text)
        (size,) = struct.unpack(">I", _receive(sock, 4))
        return _receive(sock, size)

    def _start_child(self) -> socket.socket:
        self._sock, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(PROGRAM)],
                stdin=theirs.fileno(), stdout=subprocess.DEVNULL, cwd="/", env={}, start_new_session=True,
            )  # fmt: skip
        return self._sock

    def _end_child(self) -> None:
        sock, child = self._sock, self._child
        self._sock = self._child = None
        if sock is not None:
            sock.close()
        if child is not None:
            child.kill()
            child.wait()


def checked(texts: list[str]) -> list[bytes]:
    """The texts in UTF-8, within the limits. Raises BadRequest."""
    if len(texts) > MAX_TEXTS:
        raise BadRequest(f"{len(texts)} texts; at most {MAX_TEXTS} are rendered at once")
    if not all(isinstance(text, str) for text in texts):
        raise BadRequest("texts must be a list of strings")
    found = [text.encode() for text in texts]
    if any(len(text) > MAX_TEXT_BYTES for text in found):
        raise BadRequest(f"a text is longer than {MAX_TEXT_BYTES >> 10} KiB; show it as it is")
    if sum(map(len, found)) > MAX_BYTES:
        raise BadRequest(f"the texts are longer than {MAX_BYTES >> 20} MiB together; send them in parts")
    return found


def _receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(min(1 << 16, size - len(data)))
        if not part:
            raise OSError("the renderer ended")
        data += part
    return bytes(data)
