"""Drivers that make runtimes. The contract, which tests/test_provisioners.py holds every driver to:

- `start(spec)` returns when a bridge or app-server can be reached at `handle["address"]`, or raises Unavailable with
  what to do and leaves nothing running. If the session's runtime runs already (a gateway died between starting it and
  storing the handle), it is taken over, not doubled.
- `poll(handle)` says `running` or `exited`; a handle of an earlier gateway life, or of another boot, is no error.
- `stop(handle)` ends the runtime and all it started, and returns when they are gone; what is gone already is success.
- `list()` gives the handles of all runtimes of this home that run, whether or not anybody remembers them.

A handle is a JSON object: `session`, `address` and `attach` (what answers there is a bridge that wants the secret, not
a bare app-server) are always there, the rest is the driver's own. Drivers may wait;
they are called in greenlets, never on the hub, and import no services.
"""

from __future__ import annotations

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


class Provisioner(Protocol):
    """See the module's text for the contract."""

    name: str

    def start(self, spec: Spec) -> Handle:
        """Make the runtime."""

    def stop(self, handle: Handle) -> None:
        """End it."""

    def poll(self, handle: Handle) -> str:
        """`running` or `exited`."""

    def list(self) -> list[Handle]:
        """All that run."""

    def traits(self, session: str) -> Traits:
        """What the relay must know of this kind of runtime."""

    def log_path(self, session: str) -> Path | None:
        """Where the runtime's log is, whether or not there is one yet; None if it is kept elsewhere."""

    def remove(self, session: str) -> None:
        """Delete what the session kept on disk, never what is shared."""


def session_dir(home: Path, session: str) -> Path:
    """Where a session's own files are."""
    return home / "sessions" / session
