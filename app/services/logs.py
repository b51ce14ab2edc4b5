"""A session's runtime log: its last lines, and what comes after them. The log is a file that the agent could replace,
so only a plain file is read, a bounded part of it, and never through a link.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from app.errors import Conflict

MAX_LINES, MAX_BYTES = 10_000, 1 << 20
STEP_BYTES = 64 << 10


class LogFile:
    """A log that is being read. `tail` first, then `more` as often as wanted; they do not wait. Close it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def tail(self, lines: int) -> bytes:
        """The last lines, at most MAX_BYTES; of the rotated file too if the present one has too few.

        Raises Conflict if something other than a plain file is there. Nothing is there: nothing.
        """
        self._fd = open_log(self._path)
        data = _end_of(self._fd) if self._fd is not None else b""
        if data.count(b"\n") < lines and len(data) < MAX_BYTES:
            older = open_log(self._path.with_name(self._path.name + ".1"))
            if older is not None:
                try:
                    data = (_end_of(older) + data)[-MAX_BYTES:]
                finally:
                    os.close(older)
        return last_lines(data, lines)

    def more(self) -> bytes:
        """What was written since, at most STEP_BYTES; empty if nothing was. Goes on in a new file after a rotation.

        Raises Conflict as `tail` does.
        """
        if self._fd is None:
            self._fd = open_log(self._path)
        if self._fd is None:
            return b""
        found = os.fstat(self._fd)
        if os.lseek(self._fd, 0, os.SEEK_CUR) > found.st_size:
            os.lseek(self._fd, 0, os.SEEK_SET)  # emptied in place
        data = os.read(self._fd, STEP_BYTES)
        if not data and self._was_replaced(found):
            self.close()
        return data

    def _was_replaced(self, ours: os.stat_result) -> bool:
        try:
            there = self._path.lstat()
        except OSError:
            return False
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def open_log(path: Path) -> int | None:
    """A descriptor of the plain file at `path`, or None if there is nothing. Raises Conflict for anything else."""
    refusal = Conflict(f"{path} is no plain file: something replaced it, and it is not read; remove it")
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:
        raise refusal from None
    try:
        fd = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Conflict(f"{path} can't be read ({error.strerror}); make it the gateway's own") from None
        raise refusal from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise refusal
    return fd


def _end_of(fd: int) -> bytes:
    """The last MAX_BYTES of a file; the descriptor stands behind them."""
    size = os.fstat(fd).st_size
    start = max(0, size - MAX_BYTES)
    data = os.pread(fd, size - start, start)
    os.lseek(fd, start + len(data), os.SEEK_SET)
    return data


def last_lines(data: bytes, lines: int) -> bytes:
    """The last lines of a text; one without its newline counts."""
    at = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        at = data.rfind(b"\n", 0, max(at, 0))
        if at < 0:
            return data
    return data[at + 1 :] if lines else b""
