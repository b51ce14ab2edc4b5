"""The one error tree. Services raise these; the edge of each dialect maps them (HTTP, JSON-RPC, close code)."""

from __future__ import annotations


class ArgusError(Exception):
    """Something a person or program should be told.

    `code` is a stable word for programs, `status` the HTTP status, `rpc` the JSON-RPC code, `close` the WebSocket
    close code. The text says what was wrong and what to do; it carries no secret.
    """

    code = "internal"
    status = 500
    rpc = -32000
    close = 1011

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Unauthorized(ArgusError):
    """No token, or one that opens nothing. The text is always the same, so that it tells a stranger nothing."""

    code, status, rpc, close = "unauthorized", 401, -32000, 1008

    def __init__(self, text: str = "Unauthorized") -> None:
        super().__init__(text)


class Forbidden(ArgusError):
    """The caller is known, or is a browser from elsewhere, and may not do this."""

    code, status, rpc, close = "forbidden", 403, -32000, 1008


class NotFound(ArgusError):
    """The thing named does not exist."""

    code, status, rpc, close = "not_found", 404, -32000, 1008


class BadRequest(ArgusError):
    """The request is off: a field is missing, of the wrong type, or too large."""

    code, status, rpc, close = "bad_request", 400, -32602, 1008


class TooMany(ArgusError):
    """A limit on number or rate is reached; try again later, or remove something."""

    code, status, rpc, close = "too_many", 429, -32001, 1013


class Unavailable(ArgusError):
    """What the request needs is not there now: runtime, agent, store."""

    code, status, rpc, close = "unavailable", 503, -32000, 1011


class Conflict(ArgusError):
    """The request does not fit the present state."""

    code, status, rpc, close = "conflict", 409, -32000, 1008


class StartRefused(ArgusError):
    """The gateway must not start like this. The text is one sentence with the command or setting that mends it."""

    code = "start_refused"


# JSON-RPC codes used on /ws, with what they mean. docs/protocol.md is held to this table.
RPC_PARSE = -32700
RPC_INVALID = -32600
RPC_NO_METHOD = -32601
RPC_BAD_PARAMS = -32602
RPC_UNAVAILABLE = -32000
RPC_OVERLOADED = -32001
RPC_DEADLINE = -32002

RPC_CODES: dict[int, str] = {
    RPC_PARSE: "the frame is not JSON, not UTF-8, holds a raw newline, or nests deeper than 100",
    RPC_INVALID: "the frame is JSON but no request, answer or notification that may be sent here",
    RPC_NO_METHOD: "there is no such argus/ method",
    RPC_BAD_PARAMS: "a parameter is missing or of the wrong type",
    RPC_UNAVAILABLE: "the agent is not there now (restarting, failed, stopped), or ended before it answered",
    RPC_OVERLOADED: "too many requests wait already; try again later",
    RPC_DEADLINE: "the agent did not answer in time",
}
