"""Bodies of requests: read within a size and a time, as JSON; and what becomes of those that nobody read.

A body is read by `json_object` alone, which flask-openapi3 reaches through `Request.get_json`. One that was not read
whole (a wrong token, too large, too slow) ends its connection: else the server would read on, at full speed and
without a bound, to find the next request behind it.
"""

from __future__ import annotations

import socket
from typing import Any

import flask
import gevent
import msgspec
from flask import Response, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import UnsupportedMediaType

from app.clock import monotonic_s
from app.errors import BadRequest

MAX_BODY_BYTES = 1 << 20  # of a route that names no limit of its own
PUBLIC_BODY_BYTES = 16 << 10  # while nobody has shown a token
BODY_S, BYTES_PER_S = 10.0, 256 << 10  # how long a body may take, and how much longer a large one
LINGER_S, LINGER_BYTES = 1.0, 1 << 20  # so that who still sends can read why it was refused
FORM = "application/x-www-form-urlencoded"  # what curl says of a body when it is not told


class Request(flask.Request):
    """A request whose JSON comes through `json_object`."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The body as an object. Raises BadRequest, 413 and 415 as HTTP errors, whatever `silent` says."""
        return json_object()


def json_object() -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty object. Raises BadRequest, 413, 415."""
    if not request.is_json and request.mimetype not in ("", FORM):
        raise UnsupportedMediaType(f"the body must be application/json, not {request.mimetype[:60]}")
    data = _read()
    try:
        body = msgspec.json.decode(data) if data.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def _read() -> bytes:
    seconds = BODY_S + (request.content_length or request.max_content_length or 0) / BYTES_PER_S
    try:
        with gevent.Timeout(seconds, BadRequest(f"the body did not come within {seconds:.0f} s")):
            data = request.get_data(cache=False)
    except ParseException as error:
        raise BadRequest(f"the body's chunks are broken: {error}") from None
    if request.content_length is not None and len(data) != request.content_length:
        raise BadRequest("the body is shorter than its Content-Length")
    g.body_read = True
    return data


def leave(response: Response) -> None:
    """Before a response goes out: if the request's body was not read whole, its connection ends after it."""
    coming = bool(request.content_length) or "Transfer-Encoding" in request.headers
    sock = request.environ.get("gunicorn.socket")
    if coming and not g.get("body_read") and sock is not None:
        response.call_on_close(lambda: _linger(sock))


def _linger(sock: Any) -> None:
    """Take a bounded part of what is still being sent, then end the connection."""
    until, left = monotonic_s() + LINGER_S, LINGER_BYTES
    try:
        sock.shutdown(socket.SHUT_WR)
        while left > 0 and monotonic_s() < until:
            with gevent.Timeout(LINGER_S, False):
                gevent.sleep(0)  # one that sends fast must not hold up the others
                got = len(sock.recv(65536))
                left -= got or left
                continue
            break
    except OSError:
        pass
    raise StopIteration  # gunicorn's word for: close this connection
