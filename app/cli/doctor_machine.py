"""./argus doctor: the Python, its .venv, the running gateway and the port."""

from __future__ import annotations

import errno
import http.client
import importlib.util
import ipaddress
import json
import shlex
import socket
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

from app import VERSION
from app.cli import environment, gateway
from app.cli.findings import BROKEN, INFO, OK, WARNING, Finding
from app.settings import Settings

ASK_TIMEOUT_S = 5.0


def python(_: Settings) -> Iterator[Finding]:
    """Its version, and the parts of it that Debian packs apart."""
    # An older one does not come this far: ./argus says so.
    yield Finding(OK, "Python", f"{sys.version.split()[0]} at {sys.executable}")
    if importlib.util.find_spec("sqlite3") is None or importlib.util.find_spec("_sqlite3") is None:
        yield Finding(BROKEN, "Python", "it has no sqlite3", "install a Python that was built with SQLite")
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        there = environment.state() in ("ready", "stale")
        text = "its venv module is missing, which makes .venv"
        yield Finding(INFO if there else BROKEN, "Python", text, "apt install python3-venv")


def venv(_: Settings) -> Iterator[Finding]:
    """The packages."""
    state = environment.state()
    if state == "ready":
        yield Finding(OK, ".venv", "has what requirements.txt lists")
    elif state == "missing":
        yield Finding(INFO, ".venv", "is not there yet", "./argus up makes it")
    elif state == "stale":
        yield Finding(INFO, ".venv", "is half made, or requirements.txt has changed", "./argus up fills it")
    else:
        yield Finding(WARNING, ".venv", "is broken, or of another Python", "./argus up makes it anew")


def running_gateway(settings: Settings) -> Iterator[Finding]:
    """Does one run on this home, and does it answer?"""
    found = gateway.running(settings)
    if found is None:
        if _held(settings):
            text = "something holds this home, but no gateway says that it does: one is starting, stopping, or stuck"
            yield Finding(WARNING, "gateway", text, f"fuser -v {shlex.quote(str(settings.gateway_dir / 'lock'))}")
        else:
            yield Finding(INFO, "gateway", "none runs on this home", "./argus up")
        return
    again = "./argus down, then ./argus up"
    try:
        status, body = _ask(found.url, "/readyz")
    except (OSError, http.client.HTTPException) as error:
        yield Finding(BROKEN, "gateway", f"pid {found.pid} does not answer at {found.url} ({error})", again)
        return
    if status == 200:
        yield Finding(OK, "gateway", f"pid {found.pid} answers at {found.url}")
    else:
        yield Finding(BROKEN, "gateway", f"{found.url} says that it cannot work: {body[:500]}", again)
    version = _told(settings).get("version")
    if version not in (None, VERSION):
        yield Finding(WARNING, "gateway", f"version {version} runs, and {VERSION} is installed", again)


def port(settings: Settings) -> Iterator[Finding]:
    """Can the port be had, and by whom can it be reached?"""
    where = f"{settings.bind} port {settings.port}"
    if not _is_loopback(settings.bind):
        text = f"{settings.bind} can be reached from other machines"
        if settings.auth == "off":
            yield Finding(BROKEN, "port", f"{text}, and ARGUS_AUTH=off asks nobody for a token", "unset ARGUS_AUTH")
        else:
            yield Finding(INFO, "port", text, "put TLS in front of it, see docs/security.md")
    if gateway.running(settings):
        return
    error = _listening_fails(settings)
    if error is None:
        yield Finding(OK, "port", f"{where} is free")
    elif error.errno == errno.EADDRINUSE:
        who = "another Argus gateway" if _is_argus(settings) else "another program"
        yield Finding(BROKEN, "port", f"{where} is taken by {who}", "./argus up --port 0 takes any free one")
    elif error.errno == errno.EACCES:
        yield Finding(BROKEN, "port", f"{where} is for root only", "./argus up --port 8080")
    else:
        yield Finding(BROKEN, "port", f"{where} cannot be listened on ({error})", "./argus up --bind 127.0.0.1")


def _is_loopback(bind: str) -> bool:
    try:
        return bind == "localhost" or ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return False


def _held(settings: Settings) -> bool:
    try:
        return gateway.held(settings)
    except OSError:
        return False  # the check of the home tells what cannot be read


def _told(settings: Settings) -> dict:
    try:
        told = json.loads((settings.gateway_dir / "gateway.json").read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _ask(url: str, path: str) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=ASK_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(65536).decode("utf-8", "replace")
    finally:
        connection.close()


def _is_argus(settings: Settings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.bind, settings.bind)
    try:
        status, body = _ask(f"http://{f'[{host}]' if ':' in host else host}:{settings.port}", "/healthz")
        return status == 200 and json.loads(body).get("ok") is True
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return False


def _listening_fails(settings: Settings) -> OSError | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.bind, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    except UnicodeError as error:
        return OSError(str(error))
    return None
