"""A real gateway and real clients for the tests. Nothing here is a mock."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "a-token-for-tests-only"
PATIENCE_S = 60.0  # costs something only when something is wrong; the machine may be busy with other tests
PORTS = range(10_000, 32_000)  # below those that the system gives to the near end of connections
_dice = random.SystemRandom()  # of its own: Hypothesis seeds the common one, in all processes alike


def free_port() -> int:
    """A port that nobody listens on now, and that no connection takes before the caller does."""
    while True:
        port = _dice.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(check: Callable[[], Any], timeout_s: float = PATIENCE_S, what: str = "") -> Any:
    """Wait for a condition; its value. Fails after the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {timeout_s} s: {what or check}")
        time.sleep(0.01)


class Gateway:
    """A gateway as its users start it: gunicorn, gevent, SQLite, in a process group of its own."""

    def __init__(self, **env: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="argus-test-"))
        self.port = free_port()
        self.env = {"ARGUS_AGENT": "demo", "ARGUS_TOKEN": TOKEN, **env}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.home / "gateway.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker(self) -> int:
        """Pid of the process that holds the sessions; 0 while there is none."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def start(self, *args: str, wait: bool = True) -> Gateway:
        base = {k: v for k, v in os.environ.items() if not k.startswith("ARGUS_")}
        env = {**base, **self.env, "ARGUS_HOME_HOST_PATH": str(self.home), "ARGUS_PORT": str(self.port)}
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app", *args]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        if wait:
            until(self.answers, 60, "the gateway answers /healthz; log: " + str(self.log))
        return self

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended:\n{self.said()}")
        try:
            return requests.get(self.url + "/healthz", timeout=5).ok
        except requests.RequestException:
            return False

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """kill -9 of all of it; runtimes are not in its process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)

    def restart(self) -> Gateway:
        self.kill()
        return self.start()

    def close(self) -> None:
        """End everything and remove the home."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.end_runtimes()
        shutil.rmtree(self.home, ignore_errors=True)

    def end_runtimes(self) -> None:
        """kill -9 of all runtimes of this home."""
        for pid in self.runtime_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def runtime_pids(self) -> list[int]:
        """Every process that a runtime of this home consists of."""
        mark = f"ARGUS_RUNTIME_OF={self.home}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    def pids_of(self, program: str) -> list[int]:
        """Runtime processes whose command line names this program (bridge.py, demo.py)."""
        found = []
        for pid in self.runtime_pids():
            with contextlib.suppress(OSError):  # it may end meanwhile
                if program in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
        return found

    def api(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {TOKEN}", **kwargs.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=PATIENCE_S, **kwargs)

    def client(self, **options: Any) -> Client:
        return Client(self, **options)


class Closed(Exception):
    """The server closed the socket."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


class Client:
    """A WebSocket client (of another make) that keeps all it has seen."""

    def __init__(self, gateway: Gateway, token: str | None = TOKEN, hello: bool = True, **query: str) -> None:
        args = "&".join(f"{k}={v}" for k, v in {"token": token, **query}.items() if v is not None)
        url = f"ws://127.0.0.1:{gateway.port}/ws?{args}"
        # No pings of the client's own: it would take a busy machine for a dead gateway.
        options = {"max_size": None, "compression": None, "proxy": None, "ping_interval": None, "legacy": True}
        self.ws: ClientConnection = connect(url, open_timeout=PATIENCE_S, **options)
        self.seen: list[Any] = []
        self.read = 0  # how many of `seen` next() has handed out
        self.ids = 0
        self.session = ""
        self.hello: dict[str, Any] = {}
        if hello:
            self.hello = self.wait(lambda m: m.get("method") == "argus/session")["params"]
            self.session = self.hello["id"]

    def send(self, message: Any) -> None:
        self.ws.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def recv(self, timeout_s: float = PATIENCE_S) -> Any:
        """The next frame, decoded where it is JSON."""
        try:
            text = self.ws.recv(timeout=timeout_s)
        except ConnectionClosed as error:
            raise Closed(error.rcvd.code if error.rcvd else None, error.rcvd.reason if error.rcvd else "") from None
        try:
            message = json.loads(text)
        except ValueError:
            message = text
        self.seen.append(message)
        return message

    def wait(self, check: Callable[[Any], Any], timeout_s: float = PATIENCE_S) -> Any:
        """The next frame, not looked at yet, for which `check` holds."""
        deadline = time.monotonic() + timeout_s
        while True:
            while self.read < len(self.seen):
                self.read += 1
                message = self.seen[self.read - 1]
                if isinstance(message, dict) and check(message):
                    return message
            self.recv(max(0.01, deadline - time.monotonic()))

    def note(self, method: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The params of the next notification of this name."""
        return self.wait(lambda m: m.get("method") == method, timeout_s)["params"]

    def ask(self, method: str, params: Any = None, timeout_s: float = PATIENCE_S) -> Any:
        """Send a request; its whole answer. Other frames stay to be read."""
        self.ids += 1
        id = f"q{self.ids}"
        self.send({"id": id, "method": method, "params": {} if params is None else params})
        deadline = time.monotonic() + timeout_s
        at = len(self.seen)
        while True:
            for i, message in enumerate(self.seen[at:], at):
                if isinstance(message, dict) and message.get("id") == id and "method" not in message:
                    self.seen[i] = ("answered", message)  # nobody else waits for it
                    return message
            at = len(self.seen)
            self.recv(max(0.01, deadline - time.monotonic()))

    def result(self, method: str, params: Any = None, timeout_s: float = PATIENCE_S) -> Any:
        answer = self.ask(method, params, timeout_s)
        assert "result" in answer, answer
        return answer["result"]

    def ready(self, **params: Any) -> str:
        """Handshake and a new thread; its id."""
        self.result("initialize", {"clientInfo": {"name": "test", "version": "0"}})
        self.send({"method": "initialized"})
        return self.result("thread/start", params)["thread"]["id"]

    def turn(self, thread: str, text: str, **params: Any) -> str:
        """Start a turn; its id."""
        given = {"threadId": thread, "input": [{"type": "text", "text": text}], **params}
        return self.result("turn/start", given)["turn"]["id"]

    def text(self) -> str:
        """All agent text seen so far, from deltas."""
        deltas = [m for m in self.seen if isinstance(m, dict) and m.get("method") == "item/agentMessage/delta"]
        return "".join(m["params"]["delta"] for m in deltas)

    def close(self) -> None:
        self.ws.close()

    def closed(self, timeout_s: float = PATIENCE_S) -> Closed:
        """Wait for the server's close."""
        try:
            while True:
                self.recv(timeout_s)
        except Closed as closed:
            return closed


@contextlib.contextmanager
def running(**env: str) -> Iterator[Gateway]:
    """A gateway for the length of a with block."""
    gateway = Gateway(**env)
    try:
        yield gateway.start()
    finally:
        gateway.close()
