"""How each gateway under test is started, found ready and stopped."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import processes

BENCH = Path(__file__).resolve().parent
START_LIMIT_S = 30.0


@dataclass(frozen=True)
class Spec:
    """A gateway that could be started: a command, and the path that clients connect to."""

    name: str
    command: list[str]
    cwd: Path
    target: str = "/ws"
    env: dict[str, str] = field(default_factory=dict)


def ours(port: int, upstream_port: int, home: str) -> Spec:
    """Argus in static mode: every session opens its own plain TCP link to the upstream."""
    token = secrets.token_urlsafe(24)
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    command += ["--no-control-socket", "-b", f"127.0.0.1:{port}", "wsgi:app"]
    env = {
        "ARGUS_PROVISION_MODE": "static",
        "ARGUS_TCP_HOST": "127.0.0.1",
        "ARGUS_TCP_PORT": str(upstream_port),
        "ARGUS_HOME_HOST_PATH": home,
        "ARGUS_TOKEN": token,
        "ARGUS_MAX_SESSIONS": "5000",
    }
    return Spec("ours", command, BENCH.parent, f"/ws?token={token}", env)


def baseline(port: int, upstream_port: int, home: str) -> Spec:
    """Plain Flask-Sock on the same server, with room for as many sockets."""
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "1"]
    command += ["--worker-connections", "20000", "--backlog", "2048"]
    command += ["--no-control-socket", "-b", f"127.0.0.1:{port}", "baseline:app"]
    return Spec("baseline", command, BENCH, env={"BENCH_UPSTREAM_PORT": str(upstream_port)})


KINDS = {"ours": ours, "baseline": baseline}


class Gateway:
    """A running gateway with a home of its own; leaves nothing behind."""

    def __init__(self, kind: str, upstream_port: int) -> None:
        self.home = tempfile.mkdtemp(prefix="bench-home-")
        self.log = Path(self.home) / "bench.log"
        self.port = free_port()
        self.spec = KINDS[kind](self.port, upstream_port, self.home)
        began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = processes.start_measured(
                self.spec.command,
                cwd=self.spec.cwd,
                env=clean_env(self.spec.env),
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_healthy(began + START_LIMIT_S)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - began

    def _wait_until_healthy(self, deadline: float) -> None:
        while not answers(f"http://127.0.0.1:{self.port}/healthz"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.spec.name} did not start:\n{tail}")
            time.sleep(0.005)

    def pids(self) -> list[int]:
        return processes.tree(self.process.pid)

    def stop(self) -> None:
        processes.stop(self.process)
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def clean_env(extra: dict[str, str]) -> dict[str, str]:
    """The caller's own Argus settings must not reach the gateway that is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARGUS_")}
    return kept | extra


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    # A proxy from the environment must not be asked about this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
