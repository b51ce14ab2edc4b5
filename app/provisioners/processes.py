"""Finding and signalling processes without hitting a stranger that got the same pid. Linux reads /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """A process, told apart from a later one with its pid. `started` is in clock ticks since `boot`."""

    pid: int
    started: str
    boot: str


def identify(pid: int) -> Identity:
    """The identity of a process that lives now."""
    return Identity(pid, _stat(pid)[1], boot_id())


def boot_id() -> str:
    """Changes at every boot; empty where the system does not tell."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _stat(pid: int) -> tuple[int, str, str]:
    """(process session, start time, state) or zeros."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return int(fields[3]), fields[19], fields[0]
    except (OSError, ValueError, IndexError):
        return 0, "", ""


def is_running(who: Identity) -> bool:
    """Whether this very process lives (a zombie does not)."""
    if not PROC.is_dir():
        try:
            os.kill(who.pid, 0)
            return who.pid > 1
        except OSError:
            return False
    _, started, state = _stat(who.pid)
    return bool(started) and state != "Z" and started == who.started and boot_id() == who.boot


def members(leader: Identity | None, marks: tuple[str, ...]) -> set[int]:
    """Living processes whose environment carries all marks, and those of the leader's process session."""
    alive = leader if leader and is_running(leader) else None
    if not PROC.is_dir():
        return {alive.pid} if alive else set()
    wanted, found = {mark.encode() for mark in marks}, set()
    for pid in _pids():
        session, _, state = _stat(pid)
        if state in ("", "Z"):
            continue
        if (alive and session == alive.pid) or wanted <= _environment(pid):
            found.add(pid)
    return found


def marked(mark: str, name: str) -> dict[str, int]:
    """One living process for each value that the variable `name` has where the environment carries the mark."""
    found: dict[str, int] = {}
    for pid in _pids():
        environment = _environment(pid)
        if mark.encode() in environment and _stat(pid)[2] not in ("", "Z"):
            for variable in environment:
                key, _, value = variable.decode("utf-8", "replace").partition("=")
                if key == name:
                    found.setdefault(value, pid)
    return found


def _pids() -> list[int]:
    """All processes but this one; the oldest first, as far as pids tell."""
    names = os.listdir(PROC) if PROC.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit() and int(name) != os.getpid())


def _environment(pid: int) -> set[bytes]:
    try:
        return set((PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


def signal_all(pids: set[int], number: int) -> None:
    """Signal each; one that is gone already is fine."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass
