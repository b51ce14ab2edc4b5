"""./argus up: looks at what would make the start fail, says it in one sentence, else becomes the gateway."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
import tempfile
from argparse import Namespace

import requests

from app import settings
from app.cli import gateway
from app.cli.environment import ROOT
from app.errors import StartRefused
from app.settings import Settings

PROBE_TIMEOUT_S = 1.0


def run(args: Namespace) -> int:
    """Becomes gunicorn in this very process (same pid, same process group). Never returns; raises StartRefused."""
    current = settings.load()
    check_home(current, args)
    check_port(current, args)
    if current.agent == "codex" and not current.runtime_cmd:
        # Imported late: only this choice needs it.
        from app.cli import codex_install

        codex_install.ensure()
    # gunicorn takes its modules from the folder it runs in; settings hold absolute paths only.
    os.chdir(ROOT)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app"])


def check_home(current: Settings, args: Namespace) -> None:
    """The home can be written, and no other gateway has it."""
    try:
        current.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        current.gateway_dir.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=current.gateway_dir):
            pass
        held = gateway.held(current)
    except OSError as error:
        raise StartRefused(
            f"{current.home} cannot be written ({error.strerror}); name a folder that can: ./argus up --home DIR."
        ) from None
    if not held:
        return
    found = gateway.running(current)
    who = f"the gateway at {found.url} (pid {found.pid})" if found else "another gateway, just starting or stopping"
    raise StartRefused(
        f"{current.home} is held by {who}; open it with {gateway.command('link', args)}, stop it with "
        f"{gateway.command('down', args)}, or take another home: ./argus up --home DIR --port 0."
    )


def check_port(current: Settings, args: Namespace) -> None:
    """The address exists here and the port is free, as far as one can know before the gateway binds it itself."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            current.bind, current.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise StartRefused(
            f"ARGUS_BIND: {current.bind!r} is no address; ./argus up --bind 127.0.0.1 takes this machine's own."
        ) from None
    with socket.socket(family, kind) as probe:
        # As the server does it, so that connections that linger from the last start do no harm.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            # Two may bind with SO_REUSEADDR; only one may listen.
            probe.listen(1)
        except OSError as error:
            raise StartRefused(_no_port(current, args, error)) from None


def _no_port(current: Settings, args: Namespace, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        who, other = _holder(current)
        free = f"{_again(args)} --port {_free_port(current)}"
        return f"Port {current.port} is in use by {who}; take another with {free}{other}."
    if error.errno == errno.EACCES:
        return f"Port {current.port} is for root only; take one above 1023: {_again(args)} --port 8080."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"ARGUS_BIND: {current.bind} is no address of this machine; ./argus up --bind 127.0.0.1 takes its own."
    return f"{current.bind}:{current.port} cannot be listened on ({error.strerror}); see ./argus up --help."


def _again(args: Namespace) -> str:
    """This very command without its port, to be typed again with another one."""
    words = ["./argus", "up"]
    for option, name in (("--home", "ARGUS_HOME_HOST_PATH"), ("--bind", "ARGUS_BIND"), ("--agent", "ARGUS_AGENT")):
        if name in args.settings:
            words += [option, shlex.quote(args.settings[name])]
    return " ".join(words)


def _holder(current: Settings) -> tuple[str, str]:
    """Who has the port, and what else could be done about it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(current.bind, current.bind)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{current.port}"
    with requests.Session() as http:
        http.trust_env = False
        try:
            answer = http.get(f"{url}/healthz", timeout=PROBE_TIMEOUT_S, allow_redirects=False).json()
        except (requests.RequestException, ValueError):
            return "another program", ""
    if not isinstance(answer, dict) or answer.get("ok") is not True:
        return "another program", ""
    return f"another Argus gateway ({url})", ", or stop that one with ./argus down --home ITS_HOME"


def _free_port(current: Settings) -> int:
    """The next port that can be bound now."""
    family = socket.AF_INET6 if ":" in current.bind else socket.AF_INET
    for port in range(current.port + 1, min(current.port + 100, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((current.bind, port))
            except OSError:
                continue
            return port
    return 0
