"""The Docker engine: one client that is kept, a deadline for every call, and words for what goes wrong.

The SDK is imported with the first call: gateways without containers do not pay for it. Under gevent its sockets wait
without holding anybody up.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gevent.lock import BoundedSemaphore

from app.errors import Unavailable

Value = TypeVar("Value")

AT_ONCE = 6  # starts and stops under way; more only makes each of them slower
OWN_ID = re.compile(r"/containers/([0-9a-f]{64})/(?:hostname|resolv\.conf|hosts) ")


class Missing(Unavailable):
    """The engine knows no such container, image or network."""


class Refused(Unavailable):
    """The engine answers, and says no. `status` is its HTTP status."""

    def __init__(self, text: str, http_status: int) -> None:
        super().__init__(text)
        self.http_status = http_status


class Engine:
    """Calls to the engine at `url`. Each raises Missing, Refused or Unavailable, and ends within about `timeout_s`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.url, self._timeout_s = url, min(max(timeout_s, 3.0), 30.0)
        self._cached: Any = None
        self._heavy = BoundedSemaphore(AT_ONCE)
        self._own: tuple[str, list[tuple[str, str]]] | None = None

    def call(self, name: str, /, *args: Any, **options: Any) -> Any:
        """`name` is a method of docker.APIClient, or a dotted one of its parts."""
        return self._guarded(lambda: getattr(self._client(), name)(*args, **options))

    def heavily(self, name: str, /, *args: Any, **options: Any) -> Any:
        """The same for what keeps an engine busy, a few at a time."""
        if not self._heavy.acquire(timeout=self._timeout_s * 2):
            raise Unavailable("Docker is busy with other containers; try again in a moment")
        try:
            return self.call(name, *args, **options)
        finally:
            self._heavy.release()

    def host_config(self, **options: Any) -> dict[str, Any]:
        """The host part of a container's configuration, in the engine's own words."""
        return self._guarded(lambda: self._client().create_host_config(**options))

    def inspect(self, container: str) -> dict[str, Any] | None:
        """All that the engine knows of a container, or None if there is none."""
        try:
            return self.call("inspect_container", container)
        except Missing:
            return None

    def _client(self) -> Any:
        if self._cached is None:
            import docker

            self._cached = docker.APIClient(base_url=self.url, version="auto", timeout=self._timeout_s)
        return self._cached

    def _guarded(self, act: Callable[[], Value]) -> Value:
        import docker.errors
        import requests

        try:
            return act()
        except docker.errors.APIError as error:
            said = (error.explanation or str(error)).strip().rstrip(".")
            if error.status_code == 404:
                raise Missing(said) from None
            raise Refused(f"Docker refused: {said}", error.status_code or 500) from None
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise Unavailable(self._why(error)) from None

    def _why(self, error: BaseException) -> str:
        for cause in _causes(error):
            number = getattr(cause, "errno", None)
            if number in (errno.EACCES, errno.EPERM):
                return (
                    f"the gateway's user may not use Docker at {self.url}: add it to the group `docker` and start it "
                    "anew, or run the gateway in a container (docs/operations.md)"
                )
            if number in (errno.ENOENT, errno.ECONNREFUSED):
                return f"no Docker runs at {self.url}: start it, or say with DOCKER_HOST where it is"
            if "timed out" in str(cause).lower():
                return f"Docker at {self.url} does not answer within {self._timeout_s:g} s; see the engine's log"
        return f"Docker at {self.url} can't be used now: {error}"

    # -- the gateway's own container, if it runs in one

    def own_id(self) -> str | None:
        """Id of the container that this process runs in, if this engine runs it."""
        return self._surroundings()[0] or None

    def host_path(self, path: Path) -> Path:
        """Where the engine's host has what is at `path` here. Raises Unavailable if it isn't the host's at all."""
        own, mounts = self._surroundings()
        if not own:
            return path
        found = translated(path, mounts)
        if found is None:
            raise Unavailable(f"{path} is not mounted into the gateway's container: mount it there, at the same path")
        return found

    def _surroundings(self) -> tuple[str, list[tuple[str, str]]]:
        if self._own is None:
            id = own_container()
            found = self.inspect(id) if id else None
            mounts = [(m["Destination"], m["Source"]) for m in found["Mounts"]] if found else []
            self._own = (id if found else "", mounts)
        return self._own


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what is inside it, and what caused it; each once."""
    todo, seen = [error], set()
    while todo:
        each = todo.pop()
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            todo += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]


def own_container(mountinfo: str = "/proc/self/mountinfo") -> str:
    """Id of the container around this process, told by the files that an engine mounts into each; "" if none."""
    try:
        found = OWN_ID.search(Path(mountinfo).read_text())
    except OSError:
        return ""
    return found[1] if found and Path("/.dockerenv").exists() else ""


def translated(path: Path, mounts: list[tuple[str, str]]) -> Path | None:
    """A path in a container as one of its host, by the container's mounts: (inside, on the host)."""
    for inside, source in sorted(mounts, key=lambda mount: -len(mount[0])):
        if path.is_relative_to(inside):
            return Path(source) / path.relative_to(inside)
    return None
