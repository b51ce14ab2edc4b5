"""The gateway of a home, seen from outside: does one run, where, and how to ask it something."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from app.errors import ArgusError, Unavailable
from app.settings import Settings

ASK_TIMEOUT_S = 60.0  # a session may take its time to start


@dataclass(frozen=True)
class Running:
    """A gateway that is alive: gunicorn's master, and where it answers on this machine."""

    pid: int
    start_time: str
    url: str


def start_time(pid: int) -> str | None:
    """When the process started, in the kernel's ticks; None if it has ended. A number given again differs in it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    # Field 3 is the state, field 22 the start time (proc(5)); a zombie only waits to be counted.
    return None if fields[0] in "ZX" else fields[19]


def running(settings: Settings) -> Running | None:
    """The gateway that holds this home, by its gateway.json, or None if that one is no longer alive."""
    try:
        raw = json.loads((settings.gateway_dir / "gateway.json").read_text())
        found = Running(int(raw["pid"]), str(raw["startTime"]), str(raw["url"]).rstrip("/"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if start_time(found.pid) == found.start_time else None


def container_of(settings: Settings) -> str:
    """The container that the home's gateway says it runs in, if that is not this one; else empty."""
    try:
        found = json.loads((settings.gateway_dir / "gateway.json").read_text()).get("container", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) and found != socket.gethostname() else ""


def held(settings: Settings) -> bool:
    """Does some process hold the lock of this home? Looks only; makes nothing. Raises OSError if it may not look."""
    try:
        lock = os.open(settings.gateway_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def need(settings: Settings, args: Namespace) -> Running:
    """The running gateway; raises Unavailable with the command that starts one."""
    found = running(settings)
    if found is None and (container := container_of(settings)) and held(settings):
        words = f"docker exec {container} {command(args.command, args)}"
        raise Unavailable(f"The gateway on {settings.home} runs in a container; ask there: {words}.")
    if found is None:
        elsewhere = "" if args.settings.get("ARGUS_HOME_HOST_PATH") else ", or say where one runs with --home"
        raise Unavailable(f"No gateway runs on {settings.home}; start one with {command('up', args)}{elsewhere}.")
    return found


def command(name: str, args: Namespace) -> str:
    """`./argus NAME` as it must be typed to mean the same home."""
    home = args.settings.get("ARGUS_HOME_HOST_PATH")
    return f"./argus {name}" + (f" --home {shlex.quote(home)}" if home else "")


def headers(settings: Settings) -> dict[str, str]:
    """What opens the gateway's doors: the operator's token, or the one that the gateway made."""
    token = settings.token
    if not token:
        try:
            token = (settings.gateway_dir / "token").read_text().strip()
        except FileNotFoundError:
            # With ARGUS_AUTH=off there may never have been one; the gateway says so if it wants one.
            return {}
        except OSError as error:
            raise ArgusError(
                f"{settings.gateway_dir / 'token'} cannot be read ({error.strerror}); "
                "run this as the user who started the gateway."
            ) from None
    return {"Authorization": f"Bearer {token}"}


def ask(settings: Settings, gateway: Running, method: str, path: str) -> dict[str, Any]:
    """One request to the running gateway, as its owner; the answer's JSON object, {} if it has no body.

    Raises ArgusError with what the gateway said, or with what to do if it said nothing.
    """
    answer = _answer(settings, gateway, method, path)
    try:
        body = answer.json() if answer.content else {}
    except ValueError:
        body = {}
    if not answer.ok or not isinstance(body, dict):
        said = body.get("detail", answer.reason) if isinstance(body, dict) else answer.reason
        raise ArgusError(f"The gateway answered {answer.status_code} to {method} {path}: {said}.")
    return body


def ask_text(settings: Settings, gateway: Running, path: str) -> str:
    """GET of something that is text. Raises ArgusError as `ask` does."""
    answer = _answer(settings, gateway, "GET", path)
    if not answer.ok:
        raise ArgusError(f"The gateway answered {answer.status_code} to GET {path}: {answer.text.strip()[:500]}")
    return answer.text


def _answer(settings: Settings, gateway: Running, method: str, path: str) -> Any:
    import requests  # late: the rest of this file works before there is a .venv

    with requests.Session() as http:
        # A proxy of the environment knows nothing of this machine's own loopback.
        http.trust_env = False
        try:
            answer = http.request(method, gateway.url + path, headers=headers(settings), timeout=ASK_TIMEOUT_S)
        except requests.RequestException:
            raise Unavailable(
                f"The gateway (pid {gateway.pid}) does not answer at {gateway.url}; "
                "see its log, or start it anew with ./argus down and ./argus up."
            ) from None
    if answer.status_code == 401:
        raise ArgusError(
            "The gateway does not accept this token; set ARGUS_TOKEN as it was when the gateway was started."
        )
    return answer
