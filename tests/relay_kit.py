"""A session without sockets for the tests of app/relay: the Core, what it told the shell to do, and who got what."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hypothesis import settings

from app.relay.adapt import Traits
from app.relay.core import Core
from app.relay.fold import Event
from app.relay.inbound import parse
from app.relay.messages import Attached, Out
from app.relay.ring import Entry, each, joined

STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=100)  # the same examples in every run
HELLO = b'{"userAgent":"x","n":1.50}'  # a handshake's result


def payloads(data: bytes) -> list[bytes]:
    """The payloads of text frames that stand one after the other; nothing but whole ones may stand there."""
    found = []
    while data:
        assert data[0] == 0x81, data[:20]
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        assert len(data) >= start + size
        found.append(data[start : start + size])
        data = data[start + size :]
    return found


def line(message: Any) -> bytes:
    """A message as a line without its end; bytes are taken as they are."""
    return message if isinstance(message, bytes) else json.dumps(message).encode()


def note(method: str, **params: Any) -> bytes:
    """A notification line."""
    return line({"method": method, "params": params})


def asks(id: Any, thread: str = "t", turn: str | None = "u", method: str = "item/x/requestApproval") -> bytes:
    """A server request of a turn."""
    return line({"id": id, "method": method, "params": {"threadId": thread, "turnId": turn, "reason": None}})


def turn_started(thread: str = "t", turn: str = "u") -> bytes:
    return note("turn/started", threadId=thread, turn={"id": turn})


def turn_completed(thread: str = "t", turn: str = "u") -> bytes:
    return note("turn/completed", threadId=thread, turn={"id": turn, "status": "completed"})


def is_news(frame: bytes) -> bool:
    """Whether it tells a client of a question (argus/question)."""
    return frame.startswith(b'{"method":"argus/question"')


def exited(state: str = "restarting", **params: Any) -> bytes:
    return note("bridge/exited", **{"life": 1, "code": 1, "signal": None, "reason": "exited", "state": state, **params})


class Session:
    """Drives a Core as the gateway does; `got`, `told` and `sent` hand out what came since they were last asked."""

    def __init__(self, ready: bool = True, ring_bytes: int = 1 << 20, traits: Traits | None = None) -> None:
        self.core = Core(ring_bytes, traits)
        self.inbox: dict[str, list[bytes]] = {}
        self.upstream: list[bytes] = []
        self.events: list[Event] = []
        self.base = 0
        if ready:
            self.up()
            self.shake()

    def up(self, epoch: str = "e", link: int | None = 1, seq: int | None = None, sent: int = 0, floor: int = 0) -> None:
        """A link that goes on where the last one ended, or as told."""
        go_on = self.core.fold.seq if epoch == self.core.fold.epoch else 0
        self.do(self.core.linked(epoch, link, go_on if seq is None else seq, sent, floor))
        self.base = self.core.base

    def shake(self, *resume: str, now: float = 0.0) -> None:
        """The whole handshake. The answer to it is a line of the stream like any other."""
        self.do(self.core.handshake(now))
        self.feed(b'{"id":%d,"result":%s}' % (self.base, HELLO))
        self.do(self.core.initialized(HELLO, list(resume), now))
        self.sent()

    def do(self, out: Out) -> None:
        for to, what in out.deliveries:
            for key in [to] if to is not None else list(self.inbox):
                data = what if isinstance(what, bytes) else joined(what, self.core.clients[key])
                if key in self.inbox:
                    self.inbox[key] += payloads(data)
        for block in out.upstream:
            assert block.endswith(b"\n") and block.count(b"\n") == 1
            self.upstream.append(block[:-1])
        self.events += out.events

    def attach(self, key: str, cursor: str | None = None, with_seq: bool = False) -> Attached:
        attached = self.core.attach(key, with_seq, cursor)
        self.inbox[key] = payloads(attached.frames)
        self.do(attached.moved)
        return attached

    def detach(self, key: str) -> None:
        self.inbox.pop(key, None)
        self.do(self.core.detach(key))

    def says(self, key: str, message: Any, now: float = 0.0, timeout_s: float = 60.0) -> None:
        """A frame of a client."""
        self.do(self.core.frame(key, parse(line(message)), now, timeout_s))

    def feed(self, *lines: Any) -> None:
        """Lines of the app-server, in one block."""
        self.do(self.core.feed(b"".join(line(each) + b"\n" for each in lines)))

    def expire(self, now: float) -> None:
        self.do(self.core.expire(now))

    def answer(self, id: int, body: bytes = b'"result":{}') -> None:
        """Answer the n-th request on this link."""
        self.feed(b'{"id":%d,%s}' % (self.base + id, body))

    def got(self, key: str) -> list[bytes]:
        """What reached a client, as written, but for what it was told of others' questions."""
        found = [frame for frame in self.inbox[key] if not is_news(frame)]
        self.inbox[key] = [frame for frame in self.inbox[key] if is_news(frame)]
        return found

    def told(self, key: str) -> list[dict[str, Any]]:
        """The params of all argus/question that reached a client."""
        found = [json.loads(frame)["params"] for frame in self.inbox[key] if is_news(frame)]
        self.inbox[key] = [frame for frame in self.inbox[key] if not is_news(frame)]
        return found

    def got_all(self, key: str) -> list[bytes]:
        """All that reached a client, in its order."""
        found, self.inbox[key] = self.inbox[key], []
        return found

    def got_json(self, key: str) -> list[Any]:
        return [json.loads(each) for each in self.got(key)]

    def codes(self, key: str) -> list[tuple[Any, int]]:
        """The errors that reached a client, as (id, code); nothing else may have."""
        return [(each["id"], each["error"]["code"]) for each in self.got_json(key)]

    def sent(self) -> list[bytes]:
        """The lines that went to the app-server."""
        found, self.upstream = self.upstream, []
        return found

    def sent_json(self) -> list[Any]:
        return [json.loads(each) for each in self.sent()]

    @property
    def asked_of(self) -> dict[bytes, str | None]:
        """Open server requests and whose they are."""
        return {id: request.to for id, request in self.core.fold.requests.items() if not request.answered}


def ready(**more: Any) -> Session:
    """A session with the clients a and b."""
    with_seq = more.pop("with_seq", False)
    session = Session(**more)
    session.attach("a", with_seq=with_seq)
    session.attach("b", with_seq=with_seq)
    return session


def request(id: Any, method: str = "m", **params: Any) -> dict[str, Any]:
    return {"id": id, "method": method, "params": params}


def ids(lines: list[Any]) -> list[int]:
    return [each["id"] for each in lines]


def spread(entries: Iterable[Entry]) -> list[Entry]:
    """Kept frames one by one, however they came together."""
    return [frame for entry in entries for frame in each(entry)]
