"""What the relay's rules speak of: requests that wait, what the shell is to do, answers as frames. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.errors import RPC_UNAVAILABLE
from app.relay.fold import Event
from app.relay.frames import text_frame
from app.relay.inbound import encode, top_level
from app.relay.ring import Entry


@dataclass(slots=True)
class Waiting:
    """A request that was taken from a client (or made by the gateway: client None) and is not answered yet."""

    client: str | None
    id: bytes
    method: str
    deadline: float
    raw: dict[str, bytes] = field(default_factory=dict)
    thread: str = ""
    reply: Any = None  # of the gateway's own: whom to tell what became of it
    sent: bool = False

    @property
    def size(self) -> int:
        """Bytes it will have on the wire, about."""
        return sum(map(len, self.raw.values()))


@dataclass(slots=True)
class Out:
    """What the shell does next, in this order. A delivery to None goes to every client."""

    deliveries: list[tuple[str | None, bytes | list[Entry]]] = field(default_factory=list)
    upstream: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


@dataclass(slots=True)
class Attached:
    """What a client that attaches is sent: its place in the stream, open questions, missed frames."""

    cursor: str
    oldest: str
    resume: str | None  # ok, gap, or None if it asked for nothing and missed nothing
    frames: bytes
    moved: Out


def error_frame(id: bytes, code: int, text: str) -> bytes:
    """An error answer as a text frame. A null id: the frame it answers had none that could be used."""
    return text_frame(b'{"id":%s,"error":{"code":%d,"message":%s}}' % (id, code, json.dumps(text).encode()))


def answer_frame(line: bytes, id: bytes) -> bytes:
    """A response line as a frame, under another id, all else to the byte."""
    try:
        return text_frame(encode({**top_level(line), "id": id}))
    except RecursionError:
        return error_frame(id, RPC_UNAVAILABLE, "the agent's answer nests too deep")
    except msgspec.MsgspecError:
        return error_frame(id, RPC_UNAVAILABLE, "the agent's answer is not JSON")
