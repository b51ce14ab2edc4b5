"""What gunicorn needs of us: checks before it starts, words when it runs, and an end within a second.

gunicorn.conf.py hands its hooks here. Signals: TERM closes every socket with 1012 and leaves runtimes running (an
upgrade is a TERM); Ctrl-C on a terminal ends process runtimes too.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import signal
import sys
from typing import Any

from app import VERSION
from app.errors import StartRefused
from app.settings import Settings, unknown

log = logging.getLogger("argus")

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


def check_server(config: Any, settings: Settings) -> None:
    """Before anything listens. Raises StartRefused: one worker, gevent, and no open door without tokens."""
    if config.workers != 1:
        raise StartRefused(
            "Exactly one worker: a session lives in one process. Start gunicorn without -w, or with -w 1."
        )
    if "gevent" not in str(config.worker_class_str):
        raise StartRefused("The worker class must be gevent: start gunicorn without -k, or with -k gevent.")
    if settings.auth == "off":
        wide = [str(address) for address in config.address if not is_loopback(address)]
        if wide or "*" in settings.cors_origins:
            raise StartRefused(
                f"ARGUS_AUTH=off works on loopback addresses only, and without ARGUS_CORS_ORIGINS=*: it would open "
                f"{', '.join(wide) or 'the gateway to every page'}. Bind 127.0.0.1, or leave ARGUS_AUTH on."
            )


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
    fresh.write_text(json.dumps(told), "utf-8")
    os.replace(fresh, path)
    for warning in unknown():
        print(f"warning: {warning}", file=sys.stderr)
    say = [f"Argus {VERSION} at {url}, home {settings.home}", f"agent: {services.agent.name} ({services.agent.why})"]
    if services.agent.warning:
        say.append(f"warning: {services.agent.warning}")
    if settings.provision_mode == "process":
        say.append("runtimes: processes of this machine, not isolated from your files (docs/security.md)")
    if services.auth.required:
        say.append(
            f"open: {url}/#ticket={services.auth.make_ticket()} (good once, 10 minutes; ./argus link makes another)"
        )
    else:
        say.append(f"open: {url}/ (ARGUS_AUTH=off: whoever reaches this address is let in)")
    print("\n".join(say), flush=True)


def begin(services: Any) -> None:
    """Start what runs beside the requests: taking up sessions, deadlines, expiring tokens."""
    import gevent

    def cut_expired() -> None:
        while True:
            gevent.sleep(1.0)
            services.sockets.cut_expired(services.auth)

    for work in (services.sessions.take_up, services.sessions.run_ticker, services.sessions.memory.run, cut_expired):
        gevent.spawn(work)


def _start_time(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def take_over_signals(worker: Any, services: Any) -> None:
    """gunicorn's worker would cut sockets without a close frame, after the grace time; ours says 1012 at once."""
    import gevent

    from app.relay.websocket import close_all

    ended = []

    def end(runtimes_too: bool) -> None:
        if not ended:
            ended.append(True)
            worker.alive = False
            close_all(1012, "the gateway restarts")
            services.sessions.close(runtimes_too and services.settings.provision_mode == "process")

    def on_signal(number: int, frame: Any) -> None:
        worker.alive = False
        gevent.get_hub().loop.run_callback_threadsafe(gevent.spawn, end, number == signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, on_signal)
