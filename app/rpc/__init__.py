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
from app.services.conversation.service import Conversation


@dataclass(frozen=True)
class Call:
    """Who calls, in which session, as which of its clients."""

    principal: Principal
    live: Live
    client: str
    conversation: Conversation

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


def dispatch(call: Call, frame: Frame) -> bytes | Callable[[], bytes | None] | None:
    """Run an `argus/…` frame; the answer as a text frame, or None if it had no id.

    A method that returns a function has done what must be done in order; the rest may wait, and its answer comes from
    what is returned here, which is to be called beside the socket's next frames.
    """
    name, id = frame.method or "", frame.id
    silent = id is None or id == b"null"
    function = METHODS.get(name)
    if function is None:
        return None if silent else error_frame(id or b"null", RPC_NO_METHOD, f"Method not found: {name}")
    answer = _answer(lambda: function(call, frame.params), id or b"null")
    if callable(answer):
        rest = answer
        return lambda: _spoken(_answer(rest, id or b"null"), silent)
    return _spoken(answer, silent)


def _answer(work: Callable[[], Any], id: bytes) -> Any:
    try:
        result = work()
    except ArgusError as error:
        return error_frame(id, error.rpc, error.text)
    return result if callable(result) else text_frame(b'{"id":%s,"result":%s}' % (id, json.dumps(result).encode()))


def _spoken(answer: bytes, silent: bool) -> bytes | None:
    return None if silent else answer


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


from app.rpc import conversation  # noqa: E402, F401  its methods join the table
