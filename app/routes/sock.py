"""Flask-Sock as the API and the routing, with our WebSocket object in the handlers' hands."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import flask_sock
from flask import Response, request
from simple_websocket import ConnectionClosed
from wsproto.utilities import RemoteProtocolError

from app.relay.websocket import WebSocket, accept

log = logging.getLogger("argus.ws")


class _Handled(Response):
    """Tells gunicorn that the connection was taken over and is done with."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise StopIteration


class Sock(flask_sock.Sock):
    """Flask-Sock, with our WebSocket object in the handlers' hands.

    `@sock.route(path, **options)`: options of the socket (limit, buffer_limit) may be given with the route.
    """

    def route(
        self, path: str, bp: Any = None, options: Callable[[], dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        """As Flask-Sock's; `options` is called for each connection."""

        def decorator(handler: Callable[..., None]) -> Callable[..., Response]:
            @wraps(handler)
            def websocket_route(*args: Any, **kw: Any) -> Response:
                try:
                    ws = accept(request.environ, **(options() if options else {}))
                except RemoteProtocolError as error:
                    return Response(f"Not a WebSocket handshake: {error}\n", 400, mimetype="text/plain")
                _serve(ws, handler, *args, **kw)
                return _Handled()

            (bp or self.app).route(path, websocket=True, **kwargs)(websocket_route)
            return websocket_route

        return decorator


def _serve(ws: WebSocket, handler: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    try:
        handler(ws, *args, **kwargs)
    except ConnectionClosed:
        pass
    except Exception:  # whatever a handler lets through: else gunicorn writes an HTTP 500 into the open WebSocket
        log.exception("a WebSocket handler failed")
        ws.close(1011, "internal error")
    finally:
        ws.finish()
