"""Runtimes as processes of this machine: the bridge and its app-server in a process session of their own.

They outlive the gateway. A runtime is known by the socket that answers attach with the session's secret; pid, start
time and boot id only serve to send signals to the right process. Nothing isolates the agent here: docs/security.md.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import gevent

from app.errors import Unavailable
from app.provisioners import Handle, Spec, session_dir
from app.provisioners.processes import Identity, identify, is_running, members, signal_all
from app.relay.adapt import Traits

BRIDGE = Path(__file__).resolve().parents[2] / "runtime" / "bridge.py"
SOCKET_PATH_MAX = 100
LADDER = ((signal.SIGINT, 0.4), (signal.SIGTERM, 0.3), (signal.SIGKILL, 5.0))  # signal, seconds to wait after it


class ProcessProvisioner:
    """See app/provisioners/__init__.py for the contract."""

    name = "process"

    def __init__(
        self,
        home: Path,
        layout: str = "shared",
        environment: dict[str, str] | None = None,
        bridge_limits: dict[str, int] | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self._home, self._layout, self._timeout_s = home, layout, timeout_s
        self._environment, self._limits = environment or {}, bridge_limits or {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def workspace(self, session: str) -> Path:
        """Where the session works."""
        own = session_dir(self._home, session) / "workspace"
        return own if self._layout == "session" else self._home / "workspace"

    def traits(self, session: str) -> Traits:
        """Container paths are mapped to the session's workspace."""
        return Traits(workspace=str(self.workspace(session)))

    def start(self, spec: Spec) -> Handle:
        """Make the runtime, or take over the one that runs."""
        directory = session_dir(self._home, spec.session)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._socket_path(spec.session)
        pid = _listener(path)
        if pid is None:
            self._sweep(spec.session)
            pid = self._spawn(spec, directory, path)
        handle = {"session": spec.session, "address": f"unix:{path}", "attach": True, **identify(pid).__dict__}
        _write_private(directory / "runtime.json", json.dumps(handle))
        return handle

    def _spawn(self, spec: Spec, directory: Path, path: str) -> int:
        workspace = self.workspace(spec.session)
        config = {
            "listen": f"unix:{path}",
            "secret": spec.secret,
            "command": spec.command,
            "cwd": str(workspace),
            "workspace": str(workspace),
            "templates": str(BRIDGE.parent / "templates"),
            "log": str(directory / "agent.log"),
            **self._limits,
        }
        environment = {
            **self._environment,
            **spec.environment,
            "ARGUS_SESSION_ID": spec.session,
            "ARGUS_RUNTIME_OF": str(self._home),
            "ARGUS_AGENT_STATE": str(directory / "state"),
            "APP_HOME": str(self._home),
        }
        try:
            workspace.mkdir(parents=True, exist_ok=True)
            _write_private(directory / "bridge.json", json.dumps(config))
            with open(directory / "bridge.log", "ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(BRIDGE), str(directory / "bridge.json")],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=workspace, env=environment,
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise Unavailable(_why(error, directory)) from None
        self._children[spec.session] = child
        deadline = time.monotonic() + self._timeout_s
        while _listener(path) is None:
            if child.poll() is not None or time.monotonic() > deadline:
                self.stop({"session": spec.session, "pid": child.pid})
                said = (directory / "bridge.log").read_text("utf-8", "replace").strip().splitlines()[-1:]
                raise Unavailable(f"the session's bridge did not start: {said[0] if said else 'no reason given'}")
            gevent.sleep(0.005)
        return child.pid

    def stop(self, handle: Handle) -> None:
        """INT, TERM, KILL to all that belongs to the runtime."""
        session = handle["session"]
        for number, wait_s in LADDER:
            deadline = time.monotonic() + wait_s
            left = self._members(session, handle)
            if left:
                signal_all(left, number)
            while left and time.monotonic() < deadline:
                gevent.sleep(0.02)
                left = self._members(session, handle)
            if not left:
                break
        child = self._children.pop(session, None)
        if child is not None:
            child.poll()
        for path in (self._socket_path(session), session_dir(self._home, session) / "runtime.json"):
            Path(path).unlink(missing_ok=True)

    def _members(self, session: str, handle: Handle | None = None) -> list[int]:
        leader = identity_of(handle) if handle else None
        child = self._children.get(session)
        if child is not None:
            child.poll()
        marks = (f"ARGUS_SESSION_ID={session}", f"ARGUS_RUNTIME_OF={self._home}")
        pool = gevent.get_hub().threadpool
        return pool.apply(members, (leader, marks))

    def _sweep(self, session: str) -> None:
        """End what a bridge that was killed left behind: two app-servers on one home would fight."""
        if self._members(session):
            self.stop({"session": session})

    def poll(self, handle: Handle) -> str:
        """Running if its very process lives, or if its socket has a listener."""
        child = self._children.get(handle["session"])
        if child is not None and child.poll() is not None:
            return "exited"
        leader = identity_of(handle)
        return "running" if leader is not None and is_running(leader) else "exited"

    def list(self) -> list[Handle]:
        """From the files that `start` leaves beside each session."""
        found = []
        for file in sorted((self._home / "sessions").glob("*/runtime.json")):
            try:
                handle = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError):
                continue
            ours = isinstance(handle, dict) and handle.get("session") == file.parent.name
            if ours and self.poll(handle) == "running":
                found.append(handle)
        return found

    def remove(self, session: str) -> None:
        """The session's own directory, with its own workspace if it has one."""
        gevent.get_hub().threadpool.apply(shutil.rmtree, (session_dir(self._home, session), True))

    def _socket_path(self, session: str) -> str:
        """A path short enough for a socket, the same in every gateway life."""
        path = self._home / "run" / f"{session}.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return str(path)
        name = sha256(os.fsencode(self._home)).hexdigest()[:12]
        directory = Path(tempfile.gettempdir()) / f"argus-{os.getuid()}-{name}"
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise Unavailable(f"{directory} belongs to somebody else or is open to others; remove it")
        return str(directory / f"{session}.sock")


def identity_of(handle: Handle) -> Identity | None:
    """The process that a handle names, if it names one."""
    if "pid" not in handle:
        return None
    return Identity(handle["pid"], handle.get("started", ""), handle.get("boot", ""))


def _listener(path: str) -> int | None:
    """Pid of the process that listens on a Unix socket, or None if nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except OSError:
            return None
        if not hasattr(socket, "SO_PEERCRED"):
            return 0
        return struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def _write_private(path: Path, text: str) -> None:
    """Write a 0600 file so that a reader sees the old or the new one."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)


def _why(error: OSError, directory: Path) -> str:
    if error.errno == errno.ENOSPC:
        return f"the disk that holds {directory} is full; free some space"
    return f"the session's bridge can't be started: {error}"
