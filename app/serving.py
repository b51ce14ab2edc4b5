"""What gunicorn needs of us: checks before it starts, words when it runs, and an end within a second.

gunicorn.conf.py hands its hooks here. Signals: TERM closes every socket with 1012 and leaves runtimes running (an
upgrade is a TERM); Ctrl-C on a terminal ends process runtimes too.
"""

from __future__ import annotations

import gc
import ipaddress
import json
import logging
import os
import re
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from app import VERSION
from app.errors import StartRefused
from app.settings import Settings, unknown

log = logging.getLogger("argus")

LAST_WORDS_S = 3.0  # how long sockets may take to close and requests to be answered at the end

SECRET_IN_URL = re.compile(r"\b(token|ticket|secret)=[^&\s\"'#]+", re.IGNORECASE)


class Scrub(logging.Filter):
    """No token in any log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrites the record; never drops it."""
        text = record.getMessage()
        if "=" in text and SECRET_IN_URL.search(text):
            record.msg, record.args = SECRET_IN_URL.sub(r"\1=…", text), None
        return True


def set_up_logging(level: str) -> None:
    """Our own loggers to stderr, scrubbed."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Scrub())
    root = logging.getLogger("argus")
    root.handlers, root.propagate = [handler], False
    root.setLevel(level.upper())


def scrub_gunicorn() -> None:
    """The same for gunicorn's own logs."""
    for name in ("gunicorn.error", "gunicorn.access"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(Scrub())


def speak_json() -> None:
    """What gunicorn refuses before any route sees it (a broken head, one too large) is an error like ours."""
    from gunicorn import util

    def write_error(sock: Any, status: int, reason: str, message: str) -> None:
        problem = {"detail": message[:300] or reason, "code": reason.lower().replace(" ", "_")}
        body = json.dumps(problem).encode()
        head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        util.write_nonblock(sock, head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(1.0)
        for _ in range(8):  # closed on what was not read, the connection is reset, and the answer may be lost
            if not sock.recv(65536):
                break

    util.write_error = write_error


def check_server(config: Any, settings: Settings) -> None:
    """Before anything listens. Raises StartRefused: one worker, gevent, and no open door without tokens."""
    if config.workers != 1:
        raise StartRefused(
            "Exactly one worker: a session lives in one process. Start gunicorn without -w, or with -w 1."
        )
    if "gevent" not in str(config.worker_class_str):
        raise StartRefused("The worker class must be gevent: start gunicorn without -k, or with -k gevent.")
    if settings.auth == "off":
        wide = [f"{address[0]}:{address[1]}" for address in config.address if not is_loopback(address)]
        if wide or "*" in settings.cors_origins:
            raise StartRefused(
                f"ARGUS_AUTH=off works on loopback addresses only, and without ARGUS_CORS_ORIGINS=*: it would open "
                f"{', '.join(wide) or 'the gateway to every page'}. Bind 127.0.0.1, or leave ARGUS_AUTH on."
            )


def raise_file_limit(wanted: int) -> int:
    """As many open files as the system lets us have; how many connections fit below that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or soft < hard):
        soft = hard if hard != resource.RLIM_INFINITY else wanted * 3
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, (soft - min(200, soft // 2)) // 2)


def is_loopback(address: Any) -> bool:
    """Whether a gunicorn address (host, port) or socket path can be reached from this machine only."""
    if not isinstance(address, tuple):
        return isinstance(address, str)
    if address[0] == "localhost":
        return True
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


def url_of(sockets: list[Any]) -> str:
    """Where a browser on this machine finds the gateway."""
    for sock in sockets:
        name = sock.getsockname()
        if isinstance(name, tuple):
            host = "127.0.0.1" if name[0] in ("0.0.0.0", "::", "") else name[0]
            return f"http://[{host}]:{name[1]}" if ":" in host else f"http://{host}:{name[1]}"
    return "http://127.0.0.1"


def announce(services: Any, url: str) -> None:
    """Say where and what, and leave it for `./argus link` and `down`."""
    settings: Settings = services.settings
    path = settings.gateway_dir / "gateway.json"
    fresh = path.with_suffix(".new")
    master = os.getppid()
    told = {"pid": master, "startTime": _start_time(master), "url": url, "version": VERSION}
    if in_container():
        told["container"] = socket.gethostname()
    fresh.write_text(json.dumps(told), "utf-8")
    os.replace(fresh, path)
    for warning in unknown():
        print(f"warning: {warning}", file=sys.stderr)
    print("\n".join(start_lines(services, url)), flush=True)


def start_lines(services: Any, url: str) -> list[str]:
    """What a person reads when the gateway has started."""
    settings: Settings = services.settings
    say = [f"Argus {VERSION} at {url}, home {settings.home}"]
    if settings.provision_mode == "static":
        say.append("agents: upstreams that somebody else runs (ARGUS_PROVISION_MODE=static)")
    else:
        say.append(f"agent: {services.agent.name} ({services.agent.why})")
        if services.agent.warning:
            say.append(f"warning: {services.agent.warning}")
        where = f"containers of {settings.runtime_image}, hardening {settings.hardening}"
        if settings.provision_mode == "process":
            where = "processes of this machine, not isolated from your files"
        say.append(f"runtimes: {where} (docs/security.md)")
    if not is_loopback((settings.bind, settings.port)) and not in_container():
        say.append(f"open to the network: {settings.bind} can be reached from other machines; put TLS in front of it")
    if services.auth.required:
        home = "" if settings.home == Path.home() / ".argus" else f" --home {settings.home}"
        ticket = services.auth.make_ticket()
        say.append(f"open: {url}/#ticket={ticket} (good once, 10 minutes; ./argus link{home} makes another)")
    else:
        say.append(f"open: {url}/ (ARGUS_AUTH=off: whoever reaches this address is let in)")
    return say


def in_container() -> bool:
    """Whether an engine's container is around this process: who reaches it is then the engine's business."""
    return Path("/.dockerenv").exists()


def begin(services: Any) -> None:
    """Start what runs beside the requests: taking up sessions, deadlines, expiring tokens."""
    import gevent

    gc.collect()  # what was imported stays: a full collection would look at all of it, for tens of milliseconds
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)

    def cut_expired() -> None:
        while True:
            gevent.sleep(1.0)
            services.sockets.cut_expired(services.auth)

    for work in (
        services.sessions.run_reconcile,
        services.sessions.run_ticker,
        services.sessions.memory.run,
        cut_expired,
    ):
        gevent.spawn(work)
    services.conversation.begin()


def _start_time(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def take_over_signals(worker: Any, services: Any) -> None:
    """gunicorn's worker would cut sockets without a close frame, after the grace time; ours says 1012 at once."""
    import gevent

    from app.relay.websocket import close_all, open_sockets

    ended = []

    def end(runtimes_too: bool) -> None:
        if ended:
            return
        ended.append(True)
        worker.alive = False
        runtimes_too = runtimes_too and services.settings.provision_mode == "process"
        live = services.sessions.counts()["live"]
        close_all(1012, "the gateway stops or restarts")
        services.conversation.close()
        services.sessions.close(runtimes_too)
        what = "ended with it" if runtimes_too else "go on; the next start takes them up, ./argus down ends them"
        print(f"argus: stopped; {live} sessions {what}" if live else "argus: stopped", flush=True)
        deadline = time.monotonic() + LAST_WORDS_S
        while (open_sockets() or services.requests) and time.monotonic() < deadline:
            gevent.sleep(0.02)
        worker.log.debug("every request is answered")
        os._exit(0)  # gunicorn would wait the whole grace time for idle keep-alive connections

    def on_signal(number: int, frame: Any) -> None:
        worker.alive = False
        gevent.get_hub().loop.run_callback_threadsafe(gevent.spawn, end, number == signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, on_signal)
