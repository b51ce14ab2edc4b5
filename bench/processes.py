"""Processes under measurement: building the load programs, pinning, weighing and stopping.

Only processes started here are ever signalled, by pid. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

LOAD = Path(__file__).resolve().parent / "load"
BUILD = LOAD / "build"
PR_SET_PDEATHSIG = 1  # prctl(2)
CLONE_NEWNET = 0x40000000  # unshare(2)
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)


def cpus() -> tuple[set[int], set[int]]:
    """(for what is measured, for the load): two different CPUs where there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return set(allowed), set(allowed)
    return {allowed[0]}, {allowed[1]}


MEASURED_CPU, LOAD_CPU = cpus()


def prepare() -> None:
    """Once per run: the load programs are built, this process and its children leave the
    measured CPU alone and may open as many sockets as the system allows."""
    # By default SIGTERM would skip every `finally`, and with them the stopping of what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in ("upstream", "clients", "lines"):
        build(name)
    os.sched_setaffinity(0, LOAD_CPU)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def leave_the_network() -> bool:
    """Goes on in a network namespace with nothing but a loopback, if root: what a firewall with connection tracking (a
    Docker daemon brings one) adds to every message is not what is measured. Says whether it could."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        found = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", found)[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    return True


def build(name: str) -> None:
    """Compiles load/<name>.c unless its program is newer than every source."""
    program = BUILD / name
    newest = max(path.stat().st_mtime for path in LOAD.glob("*.[ch]"))
    if program.exists() and program.stat().st_mtime > newest:
        return
    BUILD.mkdir(exist_ok=True)
    subprocess.run(["gcc", "-O2", "-Wall", "-o", program, LOAD / f"{name}.c"], check=True)


def start_measured(command: list[str], **options: object) -> subprocess.Popen[bytes]:
    """Starts a process on the measured CPU, as the leader of a process group of its own."""
    return subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=_begin_measured,
        **options,  # type: ignore[call-overload]
    )


def _begin_measured() -> None:
    """In the new process: on its CPU, and ended by the kernel should this one be killed."""
    os.sched_setaffinity(0, MEASURED_CPU)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def tree(pid: int) -> list[int]:
    """`pid` and all its descendants that are alive now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The command name may hold anything but ends at the last parenthesis.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found


def cpu_ns(pids: Iterable[int]) -> int:
    """Time on the CPU of these processes, all threads, in nanoseconds."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(path.read_text().split()[0])
    return total


def pss_kb(pids: Iterable[int]) -> int:
    """Memory of these processes; pages that several share are counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total


def busy_s() -> float:
    """How long the CPUs of the measurement have been doing anything since the system's start."""
    wanted = {f"cpu{number}" for number in MEASURED_CPU | LOAD_CPU}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, fields[:8])
            ticks += user + nice + system + sum(interrupts_and_stolen)
    return ticks / os.sysconf("SC_CLK_TCK")


def own_s(pids: Iterable[int]) -> float:
    """CPU time of this process, of its children that have ended, and of `pids`."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + cpu_ns(pids) / 1e9


class Disturbance:
    """What others used of the measurement's CPUs meanwhile, as a share of one CPU."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._began = time.monotonic()
        self._foreign = busy_s() - own_s(self._pids)

    def share(self) -> float:
        seconds = time.monotonic() - self._began
        return (busy_s() - own_s(self._pids) - self._foreign) / seconds


def name_of(pid: int) -> str:
    """The command name, or nothing if the process is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def stop(process: subprocess.Popen[bytes], patience_s: float = 2.0) -> None:
    """Asks politely, then kills what is left of the tree."""
    family = tree(process.pid) if process.poll() is None else []
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    for pid in filter(alive, family):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait(patience_s)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
