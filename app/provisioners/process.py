"""Runtimes as processes of this machine: the bridge and its app-server in a process session of their own.

They outlive the gateway. A runtime is found by its socket, and by two variables in the environment of all that it
starts; pid, start time and boot id serve to send signals to the right process. Nothing isolates the agent here:
docs/security.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import gevent

from app.errors import BadRequest, Unavailable
from app.provisioners import Handle, Spec, failed_write, session_dir, write_private
from app.provisioners.processes import Identity, identify, is_running, marked, members, signal_all
from app.relay.adapt import Traits

log = logging.getLogger("argus.process")

BRIDGE = Path(__file__).resolve().parents[2] / "runtime" / "bridge.py"
SOCKET_PATH_MAX = 100
LADDER = ((signal.SIGINT, 0.4), (signal.SIGTERM, 0.3), (signal.SIGKILL, 5.0))  # signal, seconds to wait after it


class ProcessProvisioner:
    """See app/provisioners/__init__.py for the contract."""

    name = "process"
    quick_stop = True

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
        directory, path = session_dir(self._home, spec.session), self._socket_path(spec.session)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room_for(path)
            pid = _listener(path)
            if pid is not None:
                return self._remember(spec.session, path, pid)
            if self._members(spec.session):  # left by a bridge that was killed: two app-servers on a home would fight
                self.stop({"session": spec.session})
            self._spawn(spec, directory, path)
            return self._remember(spec.session, path, self._wait(spec.session, directory, path))
        except OSError as error:
            raise Unavailable(failed_write(error, directory)) from None

    def _spawn(self, spec: Spec, directory: Path, path: str) -> None:
        workspace = self.workspace(spec.session)
        config = {
            "listen": f"unix:{path}",
            "secret": spec.secret,
            "command": spec.command,
            "cwd": str(workspace),
            "workspace": str(workspace),
            "templates": str(BRIDGE.parent / "templates"),
            "log": str(self.log_path(spec.session)),
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
        workspace.mkdir(parents=True, exist_ok=True)
        write_private(directory / "bridge.json", json.dumps(config))
        with open(directory / "bridge.log", "wb") as said:
            self._children[spec.session] = subprocess.Popen(
                [sys.executable, "-I", "-S", str(BRIDGE), str(directory / "bridge.json")],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=workspace, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def _wait(self, session: str, directory: Path, path: str) -> int:
        """Pid of the bridge, once it listens."""
        child, deadline = self._children[session], time.monotonic() + self._timeout_s
        while (pid := _listener(path)) is None:
            late = time.monotonic() > deadline
            if child.poll() is not None or late:
                said = (directory / "bridge.log").read_text("utf-8", "replace").strip().splitlines()[-1:]
                self.stop({"session": session, **identify(child.pid).__dict__})
                why = said[0] if said else f"nothing in {self._timeout_s:g} s" if late else f"exit {child.returncode}"
                raise Unavailable(f"the session's bridge did not start: {why}; see {directory / 'bridge.log'}")
            gevent.sleep(0.005)
        return pid

    def _remember(self, session: str, path: str, pid: int) -> Handle:
        handle = {"session": session, "address": f"unix:{path}", "attach": True, **identify(pid).__dict__}
        try:
            write_private(session_dir(self._home, session) / "runtime.json", json.dumps(handle))
        except OSError as error:  # it runs; list() finds it without this, where there is a /proc
            log.warning("session %s: its handle was not written: %s", session, error)
        return handle

    def stop(self, handle: Handle) -> None:
        """INT, TERM, KILL to all that belongs to the runtime."""
        session = handle["session"]
        left = self._members(session, handle)
        for number, wait_s in LADDER:
            deadline, told = time.monotonic() + wait_s, set()
            while left and time.monotonic() < deadline:
                signal_all(left - told, number)  # also those that were made meanwhile
                told |= left
                gevent.sleep(0.02)
                left = self._members(session, handle) or self._members(session, handle)  # an heir of who just died
        if left:
            log.warning("session %s: these processes cannot be ended: %s", session, sorted(left))
        child = self._children.pop(session, None)
        if child is not None:
            child.poll()
        path = self._socket_path(session)
        for file in (path, path + ".lock", session_dir(self._home, session) / "runtime.json"):
            with contextlib.suppress(OSError):
                Path(file).unlink()

    def _members(self, session: str, handle: Handle | None = None) -> set[int]:
        child = self._children.get(session)
        if child is not None:
            child.poll()  # so that it does not stay a zombie
        marks = (f"ARGUS_SESSION_ID={session}", f"ARGUS_RUNTIME_OF={self._home}")
        return gevent.get_hub().threadpool.apply(members, (identity_of(handle or {}), marks))

    def poll(self, handle: Handle) -> str:
        """Running if the very process that the handle names lives."""
        child = self._children.get(handle["session"])
        if child is not None:
            child.poll()
        leader = identity_of(handle)
        return "running" if leader is not None and is_running(leader) else "exited"

    def how_it_ended(self, handle: Handle) -> str:
        """Nobody saw it."""
        return ""

    def list(self) -> list[Handle]:
        """From the files that `start` leaves beside each session, and from what runs without one."""
        found: dict[str, Handle] = {}
        for file in (self._home / "sessions").glob("*/runtime.json"):
            try:
                handle = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError):
                continue
            ours = isinstance(handle, dict) and handle.get("session") == file.parent.name
            if ours and self.poll(handle) == "running":
                found[file.parent.name] = handle
        mark = f"ARGUS_RUNTIME_OF={self._home}"
        running = gevent.get_hub().threadpool.apply(marked, (mark, "ARGUS_SESSION_ID"))
        for session, pid in running.items():
            if session not in found:
                path = self._socket_path(session)
                who = identify(_listener(path) or pid)
                found[session] = {"session": session, "address": f"unix:{path}", "attach": True, **who.__dict__}
        return [found[session] for session in sorted(found)]

    def log_path(self, session: str) -> Path:
        """The agent's stderr and the bridge's notes; beyond 1 MiB it becomes `….1`."""
        return session_dir(self._home, session) / "agent.log"

    def prune(self, known: Callable[[str], bool]) -> list[str]:
        """What runs for a session that is not known is ended."""
        strangers = [handle for handle in self.list() if not known(handle["session"])]
        for handle in strangers:
            self.stop(handle)
        return [handle["session"] for handle in strangers]

    def check(self, spec: Spec) -> None:
        """Processes see the whole machine: there is nothing to mount."""
        if spec.mounts:
            raise BadRequest("mounts are for containers (ARGUS_PROVISION_MODE=docker)")

    def remove(self, session: str) -> None:
        """The session's own directory, with its own workspace if it has one."""
        gevent.get_hub().threadpool.apply(shutil.rmtree, (session_dir(self._home, session), True))

    def _socket_path(self, session: str) -> str:
        """A path short enough for a socket, the same in every gateway life."""
        path = self._home / "run" / f"{session}.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            return str(path)
        name = sha256(os.fsencode(self._home)).hexdigest()[:12]
        return str(Path(tempfile.gettempdir()) / f"argus-{os.getuid()}-{name}" / f"{session}.sock")

    def _make_room_for(self, path: str) -> None:
        """The directory of a socket, which in /tmp somebody else could have made first."""
        directory = Path(path).parent
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        found = directory.lstat()
        if directory.parent != self._home and (found.st_uid != os.getuid() or found.st_mode & 0o077):
            raise Unavailable(f"{directory} belongs to somebody else or is open to others; remove it")


def identity_of(handle: Handle) -> Identity | None:
    """The process that a handle names, if it names one."""
    pid = handle.get("pid")
    return Identity(pid, handle.get("started", ""), handle.get("boot", "")) if isinstance(pid, int) else None


def _listener(path: str) -> int | None:
    """Pid of the process that listens on a Unix socket, or None if nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except OSError:
            return None
        if not hasattr(socket, "SO_PEERCRED"):  # macOS: SOL_LOCAL, LOCAL_PEERPID
            return struct.unpack("i", probe.getsockopt(0, 2, 4))[0]
        return struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
