"""Drivers that make runtimes. The contract, which tests/test_provisioners.py holds every driver to:

- `start(spec)` returns when a bridge or app-server can be reached at `handle["address"]`, or raises Unavailable with
  what to do and leaves nothing running. If the session's runtime runs already (a gateway died between starting it and
  storing the handle), it is taken over, not doubled.
- `poll(handle)` says `running` or `exited`; a handle of an earlier gateway life, or of another boot, is no error.
- `stop(handle)` ends the runtime and all it started, and returns when they are gone; what is gone already is success.
- `list()` gives the handles of all runtimes of this home that run, whether or not anybody remembers them.
- `prune(known)` ends and removes the runtimes of sessions that are not known, and says which; files stay.

A handle is a JSON object: `session`, `address` and `attach` (what answers there is a bridge that wants the secret, not
a bare app-server) are always there, the rest is the driver's own. Drivers may wait;
they are called in greenlets, never on the hub, and import no services. Any of these may raise Unavailable, if whoever
runs the runtimes is away.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from app.relay.adapt import Traits

Handle = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """What a runtime is to be."""

    session: str
    secret: str
    command: list[str] | str = ""
    environment: dict[str, str] = field(default_factory=dict)
    upstream: str = ""
    mounts: list[dict[str, Any]] = field(default_factory=list)  # {"source", "target", "readOnly"}


class Provisioner(Protocol):
    """See the module's text for the contract."""

    name: str
    quick_stop: bool  # `stop` takes well below a second, and nothing that the agent started outlives it

    def start(self, spec: Spec) -> Handle:
        """Make the runtime."""

    def stop(self, handle: Handle) -> None:
        """End it."""

    def poll(self, handle: Handle) -> str:
        """`running` or `exited`."""

    def how_it_ended(self, handle: Handle) -> str:
        """Why a runtime that `exited` did, in words; empty if that is not known."""

    def list(self) -> list[Handle]:
        """All that run."""

    def prune(self, known: Callable[[str], bool]) -> list[str]:
        """End and remove what belongs to no session; whose that was."""

    def check(self, spec: Spec) -> None:
        """Raises BadRequest if such a runtime can't be made here."""

    def traits(self, session: str) -> Traits:
        """What the relay must know of this kind of runtime."""

    def log_path(self, session: str) -> Path | None:
        """Where the runtime's log is, whether or not there is one yet; None if it is kept elsewhere."""

    def workspace(self, session: str) -> Path | None:
        """Where the session works, as this machine sees it; None if that is elsewhere."""

    def remove(self, session: str) -> None:
        """Delete what the session kept on disk, never what is shared."""


def session_dir(home: Path, session: str) -> Path:
    """Where a session's own files are."""
    return home / "sessions" / session


def write_private(path: Path, text: str) -> None:
    """Write a 0600 file so that a reader sees the old or the new one. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)


def failed_write(error: OSError, directory: Path) -> str:
    """Why a session's files could not be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that holds {directory} is full; free some space"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename or directory} can't be written ({error.strerror}); make it the gateway's own"
    return f"the session's runtime can't be started: {error}"
