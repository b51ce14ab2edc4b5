"""A real bridge in a process of its own, a puppet as its app-server, and links to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE_S, ROOT, until

BRIDGE = ROOT / "runtime" / "bridge.py"
SECRET = "the secret of these tests"

# An app-server that does what its stdin says, and repeats every line that is no order of these.
PUPPET = r"""
import os, signal, subprocess, sys, time

def say(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()

def lines(n, size=b"0"):
    for i in range(1, int(n) + 1):
        sys.stdout.buffer.write((b'{"n":%d,"of":%s}' % (i, n)).ljust(int(size)) + b"\n")
    say(b"")

def huge(n, end=b""):
    for _ in range(int(n) >> 16):
        say(bytes([97]) * 65536)
    say(bytes([97]) * (int(n) & 65535) + (b"\n" if end else b""))

def half(text):
    say(text)
    os._exit(7)

def trickle(text):
    for byte in text:
        say(bytes([byte]))
    say(b"\n")

def err(text, times=b"1"):
    for _ in range(int(times)):
        sys.stderr.buffer.write(text + b"\n")
    sys.stderr.buffer.flush()
    say(b"said\n")

def child(what, how=b"child"):
    code = {
        b"hold": "import time; time.sleep(60)",
        b"stubborn": "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)",
        b"chatty": "import sys\nwhile True: sys.stdout.write('noise ' * 9 + chr(10))",
    }[what]
    say(b"%d\n" % subprocess.Popen([sys.executable, "-c", code], start_new_session=how == b"leaves").pid)

ORDERS = {
    b"lines": lines, b"huge": huge, b"half": half, b"trickle": trickle, b"err": err, b"child": child,
    b"exit": lambda code: os._exit(int(code)),
    b"raw": lambda text: say(bytes.fromhex(text.decode())),
    b"close": lambda fd: os.close(int(fd)),
    b"sleep": lambda: time.sleep(60),
    b"deaf": lambda: (say(b"deaf\n"), time.sleep(60)),
    b"stubborn": lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), say(b"stubborn\n")),
}
say(b'{"pid":%d}\n' % os.getpid())
for text in sys.stdin.buffer:
    words = text.split()
    if words and words[0] in ORDERS:
        ORDERS[words[0]](*words[1:])
    else:
        say(text)
"""


def puppet(folder: Path) -> list[str]:
    """The command of a puppet, which is put into this folder."""
    program = folder / "puppet.py"
    program.write_text(PUPPET)
    return [sys.executable, "-I", "-S", str(program)]


class Peer:
    """One connection to a bridge. `seq` is the number of the last line that `line` gave, after an attach."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.held, self.seq, self.answer = sock, b"", 0, {}
        sock.settimeout(PATIENCE_S)

    def send(self, *lines: bytes | str | dict[str, Any]) -> Peer:
        texts = [json.dumps(each) if isinstance(each, dict) else each for each in lines]
        self.sock.sendall(b"".join((t.encode() if isinstance(t, str) else t) + b"\n" for t in texts))
        return self

    def attach(self, secret: str, after: int = 0, term: int = 1, *lines: bytes | str) -> Peer:
        """Say what a gateway says first, and read the bridge's answer."""
        params = {"secret": secret, "term": term, "after": after}
        self.send({"id": 1, "method": "bridge/attach", "params": params}, *lines)
        self.answer = json.loads(self.line())
        self.seq = self.answer["result"]["first"] - 1 if "result" in self.answer else 0
        return self

    def line(self) -> bytes:
        """The next line, without its end; EOFError when there is none."""
        while b"\n" not in self.held:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self.held += data
        text, _, self.held = self.held.partition(b"\n")
        self.seq += 1
        return text

    def lines(self, count: int) -> list[bytes]:
        return [self.line() for _ in range(count)]

    def wait(self, part: bytes | str) -> bytes:
        """The next line that has this in it."""
        part = part.encode() if isinstance(part, str) else part
        while part not in (found := self.line()):
            pass
        return found

    def note(self, method: str) -> dict[str, Any]:
        """The params of the bridge's next line of this method."""
        return json.loads(self.wait(f'{{"method":"{method}"'))["params"]

    def rest(self) -> bytes:
        """All that still comes until the bridge closes the connection."""
        data = [self.held]
        with contextlib.suppress(ConnectionResetError):
            while data[-1] or len(data) == 1:
                data.append(self.sock.recv(1 << 20))
        return b"".join(data)

    def closed(self) -> bool:
        """Wait for the bridge's close; False if something else comes."""
        return self.rest() == b""

    def close(self) -> None:
        self.sock.close()


class Bridge:
    """A bridge with its configuration, working in `folder`. Use it in a with block."""

    def __init__(self, folder: Path, command: Any = None, listen: str = "", **config: Any) -> None:
        self.folder, self.address = folder, listen or f"unix:{folder / 's'}"
        self.config = {
            "listen": self.address,
            "command": command or puppet(folder),
            "cwd": str(folder),
            "log": str(folder / "agent.log"),
            "secret": SECRET,
            "backoff_s": [0.01],
            **config,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.peers: list[Peer] = []

    def spawn(self) -> subprocess.Popen[bytes]:
        path = self.folder / "bridge.json"
        path.write_text(json.dumps(self.config))
        with open(self.folder / "bridge.log", "ab") as log:
            return subprocess.Popen([sys.executable, "-I", "-S", str(BRIDGE), str(path)], stdout=log, stderr=log)

    def __enter__(self) -> Bridge:
        self.process = self.spawn()
        until(self._listens, what=f"the bridge listens; it said: {self.said()}")
        return self

    def __exit__(self, *_: Any) -> None:
        for peer in self.peers:
            peer.close()
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.said()
        with contextlib.suppress(OSError):
            self.connect().close()
            return True
        return False

    def said(self) -> str:
        return (self.folder / "bridge.log").read_text()

    def logged(self) -> str:
        """What is in the log that it keeps of itself and of the app-server's stderr."""
        path = self.folder / "agent.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def connect(self) -> Peer:
        scheme, _, rest = self.address.partition(":")
        self.peers.append(Peer(socket.socket(socket.AF_UNIX if scheme == "unix" else socket.AF_INET)))
        self.peers[-1].sock.connect(rest if scheme == "unix" else ("127.0.0.1", int(rest.rpartition(":")[2])))
        return self.peers[-1]

    def attach(self, after: int = 0, term: int = 1, *lines: bytes | str) -> Peer:
        """A link, with the bridge's answer read."""
        return self.connect().attach(SECRET, after, term, *lines)

    def plain(self, *lines: bytes | str) -> Peer:
        return self.connect().send({"method": "bridge/plain", "params": {"secret": SECRET}}, *lines)

    def memory(self) -> int:
        """The most memory it has had so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10

    def stands_still(self) -> int:
        """Wait until it reads nothing more; how many bytes it has read in its life."""
        io, read = Path(f"/proc/{self.process.pid}/io"), [-1]

        def same() -> bool:
            time.sleep(0.05)
            read.append(int(io.read_text().split()[1]))
            return read[-1] == read[-2]

        until(same)
        return read[-1]


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_in(text: bytes) -> int:
    return json.loads(text)["pid"]


def gone(*pids: int, timeout_s: float = PATIENCE_S) -> bool:
    until(lambda: not any(lives(pid) for pid in pids), timeout_s, f"{pids} end")
    return True


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def seconds_since(began: float) -> float:
    return time.monotonic() - began


@contextlib.contextmanager
def tmpfs(where: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield where
    finally:
        until(lambda: subprocess.run(["umount", str(where)], capture_output=True).returncode == 0, what="umount")


def fill(disk: Path) -> Path:
    """Use up what is free on a file system; the file that does."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return ballast
