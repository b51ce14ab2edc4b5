"""./argus doctor: the container engine, which only ARGUS_PROVISION_MODE=docker needs."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import socket
from collections.abc import Iterator

from app.cli.findings import BROKEN, INFO, OK, Finding
from app.settings import Settings

ASK_TIMEOUT_S = 5.0
DEFAULT = "unix:///var/run/docker.sock"


def engine(settings: Settings) -> Iterator[Finding]:
    """Is its socket there, may we use it, and does it answer?"""
    needed = settings.provision_mode == "docker"
    bad = BROKEN if needed else INFO
    host = os.environ.get("DOCKER_HOST") or DEFAULT
    note = "" if needed else " (only ARGUS_PROVISION_MODE=docker needs it)"
    if not host.startswith("unix://"):
        yield Finding(INFO, "Docker", f"DOCKER_HOST is {host}; only a local socket is looked at", "docker version")
        return
    path = host.removeprefix("unix://")
    try:
        status, version = ask(path, "/version")
    except FileNotFoundError:
        yield Finding(bad, "Docker", f"there is no {path}{note}", "install Docker, or start it: systemctl start docker")
    except PermissionError:
        mend = 'usermod -aG docker "$USER" as root, then log in again'
        yield Finding(bad, "Docker", f"{path} may not be opened by this user{note}", mend)
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = f"the engine behind {path} does not answer ({error}){note}"
        yield Finding(bad, "Docker", text, "systemctl restart docker")
    else:
        if status != 200:
            text = f"the engine behind {path} answers {status}{note}"
            yield Finding(bad, "Docker", text, "systemctl restart docker")
            return
        yield Finding(OK, "Docker", f"engine {version.get('Version', '?')} answers at {path}{note}")
        if needed:
            yield from _image(settings, path)


def _image(settings: Settings, path: str) -> Iterator[Finding]:
    """The image that sessions are made from."""
    name = getattr(settings, "runtime_image", "")
    if not name:
        return
    status, _ = ask(path, f"/images/{name}/json")
    if status == 404:
        mend = f"docker build -t {shlex.quote(name)} runtime"
        yield Finding(BROKEN, "Docker", f"there is no image {name}", mend)
    elif status == 200:
        yield Finding(OK, "Docker", f"the image {name} is there")


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ASK_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, what: str) -> tuple[int, dict]:
    """GET from the engine: status and JSON object. Raises OSError, HTTPException or ValueError."""
    connection = _Unix(path)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        body = json.loads(answer.read(1 << 22))
        return answer.status, body if isinstance(body, dict) else {}
    finally:
        connection.close()
