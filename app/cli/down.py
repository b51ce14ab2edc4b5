"""./argus down: stops the gateway of a home, then every runtime that it left running."""

from __future__ import annotations

import os
import signal
import time
from argparse import Namespace

from app import settings
from app.cli import gateway
from app.errors import ArgusError, StartRefused
from app.settings import Settings

STOP_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 5.0


def run(args: Namespace) -> int:
    """Says what was stopped; nothing to stop is no error."""
    current = settings.load()
    if not current.gateway_dir.is_dir():
        print(f"nothing runs on {current.home}")
        return 0
    stopped = []
    found = gateway.running(current)
    if found and (found.pid == 1 or _started_by_init()):
        raise ArgusError(
            "The gateway is this container's own program: docker compose stop ends it. "
            "./argus sessions stop --all ends what runs in sessions."
        )
    if found:
        stopped.append(f"the gateway (pid {found.pid}, {found.url})" + stop(found))
    elif _held(current) and (container := gateway.container_of(current)):
        raise ArgusError(f"The gateway on {current.home} runs in the container {container}: docker stop {container}.")
    elif _held(current):
        raise _between(current)
    count = _stop_runtimes(current)
    if count:
        stopped.append(f"{count} runtime{'s' if count > 1 else ''}")
    print(f"stopped {' and '.join(stopped)}" if stopped else f"nothing runs on {current.home}")
    return 0


def _started_by_init() -> bool:
    """Whether `./argus up` is what the container around us is for: its end would be ours, before the runtimes'."""
    try:
        with open("/proc/1/cmdline", "rb") as file:
            return b"./argus\0up" in file.read()
    except OSError:
        return False


def stop(found: gateway.Running) -> str:
    """SIGTERM, and SIGKILL to it and its workers if that is not enough. Returns "" or a remark for the reader."""
    workers = _children(found.pid)
    _signal(found.pid, found.start_time, signal.SIGTERM)
    if _gone([(found.pid, found.start_time)], STOP_TIMEOUT_S):
        return ""
    everyone = [(found.pid, found.start_time), *workers]
    for pid, started in everyone:
        _signal(pid, started, signal.SIGKILL)
    if not _gone(everyone, KILL_TIMEOUT_S):
        raise ArgusError(f"The gateway (pid {found.pid}) cannot be killed; see what it waits for: ps -l {found.pid}.")
    return f", killed because it did not stop in {STOP_TIMEOUT_S:g} s"


def _stop_runtimes(current: Settings) -> int:
    # Imported late: it brings the store and the drivers, which nothing else here needs.
    from app import wiring

    try:
        return wiring.stop_runtimes(current)
    except StartRefused:
        if _held(current):  # it began after we had looked
            raise _between(current) from None
        raise


def _between(current: Settings) -> ArgusError:
    return ArgusError(f"A gateway on {current.home} is just starting or stopping; run ./argus down again.")


def _held(current: Settings) -> bool:
    try:
        return gateway.held(current)
    except OSError as error:
        raise ArgusError(
            f"{current.gateway_dir} cannot be read ({error.strerror}); run this as the user who started the gateway."
        ) from None


def _children(pid: int) -> list[tuple[int, str]]:
    """The direct children of a process, each with its start time."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listing:
            numbers = [int(word) for word in listing.read().split()]
    except OSError:
        return []
    return [(number, started) for number in numbers if (started := gateway.start_time(number))]


def _signal(pid: int, started: str, number: signal.Signals) -> None:
    """Signals the process that was meant; one that is gone, or whose number is another's by now, is left alone."""
    if gateway.start_time(pid) != started:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise ArgusError(f"The gateway (pid {pid}) belongs to another user; run this as that user.") from None


def _gone(processes: list[tuple[int, str]], timeout_s: float) -> bool:
    """Waits until none of them is left; False if one still is when the time is over."""
    deadline = time.monotonic() + timeout_s
    while any(gateway.start_time(pid) == started for pid, started in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
