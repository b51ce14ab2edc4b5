"""Runtimes that somebody else runs, reached over TCP: a bare app-server, or a bridge with its secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.errors import BadRequest, NotFound
from app.provisioners import Handle, Spec
from app.relay.adapt import Traits


class StaticProvisioner:
    """See app/provisioners/__init__.py for the contract. Starting and stopping is the operator's business."""

    name = "static"
    quick_stop = False

    def __init__(self, upstreams: dict[str, dict[str, Any]]) -> None:
        self._upstreams = upstreams

    def choose(self, name: str | None) -> str:
        """The upstream of this name, or the only one. Raises NotFound."""
        if name is None and len(self._upstreams) == 1:
            return next(iter(self._upstreams))
        if name not in self._upstreams:
            raise NotFound("Unknown upstream id")
        return name

    def secret_of(self, upstream: str) -> str | None:
        """The secret of an upstream that is a bridge, or None for a bare app-server."""
        row = self._upstreams.get(upstream, {})
        return row["secret"] if row.get("bridge") else None

    def start(self, spec: Spec) -> Handle:
        """Where it is."""
        row = self._upstreams[self.choose(spec.upstream)]
        address = f"tcp:{row.get('host', '127.0.0.1')}:{row.get('port', 7777)}"
        return {"session": spec.session, "address": address, "attach": bool(row.get("bridge"))}

    def stop(self, handle: Handle) -> None:
        """Not ours to stop."""

    def poll(self, handle: Handle) -> str:
        """Connecting will tell."""
        return "running"

    def how_it_ended(self, handle: Handle) -> str:
        """Nobody saw it."""
        return ""

    def list(self) -> list[Handle]:
        """None that could be left over."""
        return []

    def prune(self, known: Callable[[str], bool]) -> list[str]:
        """None is ours to end."""
        return []

    def check(self, spec: Spec) -> None:
        """What somebody else runs is as it is."""
        if spec.mounts or spec.environment:
            raise BadRequest("mounts and variables are for runtimes that the gateway starts")

    def traits(self, session: str) -> Traits:
        """Nothing is known of what runs there."""
        return Traits()

    def log_path(self, session: str) -> None:
        """Whoever runs it keeps its log."""

    def workspace(self, session: str) -> None:
        """Somewhere else."""

    def remove(self, session: str) -> None:
        """It has nothing here."""
