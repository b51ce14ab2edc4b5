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
            return True
        except OSError:
            return False
    _, started, state = _stat(who.pid)
    return bool(started) and state != "Z" and (not who.started or (started == who.started and boot_id() == who.boot))


def members(leader: Identity | None, marks: tuple[str, ...]) -> list[int]:
    """Living processes whose environment carries all marks, and those of the leader's process session."""
    if not PROC.is_dir():
        return [leader.pid] if leader and is_running(leader) else []
    session = leader.pid if leader and is_running(leader) else None
    wanted = {mark.encode() for mark in marks}
    found = []
    for name in os.listdir(PROC):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        its_session, _, state = _stat(int(name))
        if state in ("", "Z"):
            continue
        if (session is not None and its_session == session) or _carries(int(name), wanted):
            found.append(int(name))
    return found


def _carries(pid: int, wanted: set[bytes]) -> bool:
    try:
        return wanted <= set((PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return False


def signal_all(pids: list[int], number: int) -> None:
    """Signal each; one that is gone already is fine."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            pass
