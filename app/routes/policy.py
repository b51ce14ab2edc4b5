"""The one policy of every door: who may be addressed how (Host), from which pages (Origin), and by whom (token)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import gevent
from flask import Flask, Response, current_app, g, request

from app.clock import monotonic_s
from app.errors import ArgusError, Forbidden, Unauthorized
from app.relay.websocket import WebSocket
from app.routes.body import MAX_BODY_BYTES, PUBLIC_BODY_BYTES, leave
from app.services.auth import Principal, bearer
from app.wiring import Services

View = TypeVar("View", bound=Callable[..., Any])

ALWAYS_HOSTS = frozenset({"localhost", "gateway", socket.gethostname().lower()})
ALWAYS_ORIGINS = frozenset({"http://localhost:3000", "http://127.0.0.1:3000"})
_PUBLIC, _LIMIT = "argus_public", "argus_body_limit"


def public(view: View) -> View:
    """Mark a view that needs no token."""
    setattr(view, _PUBLIC, True)
    return view


def body_limit(size: int) -> Callable[[View], View]:
    """How many bytes the body of a view may have; without this 1 MiB, and 16 KiB if the view is public."""

    def mark(view: View) -> View:
        setattr(view, _LIMIT, size)
        return view

    return mark


def services() -> Services:
    """The gateway's services."""
    return current_app.extensions["argus"]


def install(app: Flask) -> None:
    """Put the policy before every request of this application."""
    app.before_request(check)
    app.after_request(finish)
    app.teardown_request(count_down)


def check() -> Response | None:
    """Before every request. Raises Forbidden or Unauthorized."""
    services().requests += 1
    g.began = monotonic_s()
    rule = request.url_rule  # what was routed decides, never a header alone
    is_socket = rule is not None and rule.websocket
    if not is_socket:
        gevent.sleep(0)  # a keep-alive connection with the next request ready would starve the others
    settings = services().settings
    check_host(request.headers.get("Host", ""), settings.allowed_hosts)
    check_origin(request.headers.get("Origin"), request.headers.get("Host", ""), settings.cors_origins)
    if not services().auth.required and not _from_here(request.remote_addr):
        raise Forbidden("ARGUS_AUTH=off answers on loopback only")
    if request.method == "OPTIONS":
        return Response(status=204)
    view = current_app.view_functions.get(request.endpoint or "")
    is_public = view is None or getattr(view, _PUBLIC, False)
    request.max_content_length = getattr(view, _LIMIT, PUBLIC_BODY_BYTES if is_public else MAX_BODY_BYTES)
    if is_public or is_socket:
        return None  # an unknown path; a public one; a socket is checked once it is accepted
    g.principal = identify(request.headers.get("Authorization"), request.args.get("token"))
    return None


def count_down(error: BaseException | None) -> None:
    """After every request, however it ended."""
    services().requests -= 1


def identify(header: str | None, token: str | None) -> Principal:
    """Whose token it is; failures are slowed down by address. Raises Unauthorized, TooMany."""
    auth = services().auth
    try:
        return auth.identify(bearer(header, token))
    except Unauthorized:
        auth.failures.slow_down(request.remote_addr or "unix")
        raise


def socket_principal(ws: WebSocket) -> Principal | None:
    """Who opened this WebSocket; None after it was closed with 1008 (accepted first, so that a browser sees it)."""
    auth, ticket = services().auth, request.args.get("ticket")
    try:
        if request.headers.get("Authorization") is None and ticket and auth.required:
            try:
                return auth.redeem_socket_ticket(ticket)
            except Unauthorized:
                auth.failures.slow_down(request.remote_addr or "unix")
                raise
        return identify(request.headers.get("Authorization"), request.args.get("token"))
    except ArgusError as error:
        ws.close(error.close, error.text)
    return None


def check_host(host: str, allowed: tuple[str, ...]) -> None:
    """The Host header must be an IP address or a name of ours: against DNS rebinding."""
    name = _host_name(host)
    if name in ALWAYS_HOSTS or name in {a.lower() for a in allowed} or _is_address(name):
        return
    raise Forbidden(f"the gateway is not addressed as {name[:100]!r}; add it to ARGUS_ALLOWED_HOSTS if it should be")


def check_origin(origin: str | None, host: str, allowed: tuple[str, ...]) -> None:
    """A page of another origin may not call, whatever token it brings."""
    if origin is None or origin_allowed(origin, host, allowed):
        return
    raise Forbidden(f"pages of {origin[:100]!r} may not call the gateway; add it to ARGUS_CORS_ORIGINS if they should")


def origin_allowed(origin: str, host: str, allowed: tuple[str, ...]) -> bool:
    """Our own origin (http or https in front of us), the page's on port 3000, or one that the operator lists."""
    own = {f"http://{host}".lower(), f"https://{host}".lower()}
    return origin.lower() in own | ALWAYS_ORIGINS or "*" in allowed or origin.lower() in {a.lower() for a in allowed}


def _host_name(host: str) -> str:
    name = host.strip().lower()
    if name.startswith("["):
        address, _, rest = name[1:].partition("]")
        return address if not rest or rest.startswith(":") else name
    return name.rpartition(":")[0] if ":" in name else name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False


def _from_here(address: str | None) -> bool:
    return not address or (_is_address(address) and ipaddress.ip_address(address).is_loopback)


def finish(response: Response) -> Response:
    """After every request: CORS for allowed origins, and headers that a browser should have."""
    origin = request.headers.get("Origin")
    settings = services().settings
    response.headers.add("Vary", "Origin")
    if origin and origin_allowed(origin, request.headers.get("Host", ""), settings.cors_origins):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "MCP-Session-Id, MCP-Protocol-Version"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH, DELETE, OPTIONS"
            wanted = request.headers.get("Access-Control-Request-Headers", "Authorization, Content-Type")
            response.headers["Access-Control-Allow-Headers"] = wanted
            response.headers["Access-Control-Max-Age"] = "600"
    leave(response)
    rule = request.url_rule
    if rule is None or not rule.websocket:
        seconds = monotonic_s() - g.began
        services().metrics.request(rule.rule if rule else "", request.method, response.status_code, seconds)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Cache-Control", "no-store")
    return response
