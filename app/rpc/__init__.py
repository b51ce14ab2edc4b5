"""The gateway's own methods on /ws (`argus/…`): a table of decorated functions. No I/O of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from app.errors import RPC_NO_METHOD, ArgusError, BadRequest
from app.relay.frames import text_frame
from app.relay.inbound import Frame
from app.relay.live import Live
from app.relay.messages import error_frame
from app.services.auth import Principal


@dataclass(frozen=True)
class Call:
    """Who calls, in which session, as which of its clients."""

    principal: Principal
    live: Live
    client: str

    @property
    def session(self) -> str:
        """The session's id."""
        return self.live.id


Method = Callable[[Call, dict[str, Any]], Any]
METHODS: dict[str, Method] = {}


def method(name: str) -> Callable[[Method], Method]:
    """Put a function into the table."""

    def register(function: Method) -> Method:
        METHODS[name] = function
        return function

    return register


def dispatch(call: Call, frame: Frame) -> bytes | None:
    """Run an `argus/…` frame; the answer as a text frame, or None if it had no id."""
    name, id = frame.method or "", frame.id
    silent = id is None or id == b"null"
    function = METHODS.get(name)
    if function is None:
        return None if silent else error_frame(id or b"null", RPC_NO_METHOD, f"Method not found: {name}")
    try:
        result = function(call, frame.params)
    except ArgusError as error:
        return None if silent else error_frame(id or b"null", error.rpc, error.text)
    return None if silent else text_frame(b'{"id":%s,"result":%s}' % (id, json.dumps(result).encode()))


@method("argus/ping")
def ping(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    """Whether the gateway is there; the agent is not asked."""
    return {"ok": True, "sessionId": call.session}


@method("argus/question/take")
def take_question(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    """The caller is asked from now on, instead of who was. Raises BadRequest, NotFound (not open)."""
    id = params.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int | float):
        raise BadRequest("id must be that of an open question, a string or a number")
    call.live.take_question(call.client, msgspec.json.encode(id))
    return {}
