"""The networks of containers: one for all, or with hardening `strict` a small one for each session."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network
from typing import Any

from gevent.lock import RLock

from app.errors import Unavailable
from app.provisioners.containers import HOME_LABEL, SESSION_LABEL
from app.provisioners.engine import Engine, Missing, Refused

DEFAULT = "argus-net"
SUBNET_BITS = 28
TRIES = 64  # subnets that may turn out to be somebody else's


class Networks:
    """Made when they are needed, and the gateway's own container joined to them."""

    def __init__(self, engine: Engine, name: str, pool: IPv4Network, each: bool) -> None:
        self._engine, self._name, self._pool, self._each = engine, name, pool, each
        self._lock = RLock()
        self._ready: set[str] = set()

    def of(self, session: str) -> str:
        """The name of a session's network."""
        return f"{self._name}-{session}" if self._each else self._name

    def ensure(self, session: str, home: str) -> str:
        """The session's network, made if it is missing and joined by the gateway; its name."""
        name = self.of(session)
        if name in self._ready:
            return name
        with self._lock:
            try:
                found = self._engine.call("inspect_network", name)
            except Missing:
                self._make(name, session, home)
                found = self._engine.call("inspect_network", name)
            self._join(found)
            self._ready.add(name)
        return name

    def forget(self) -> None:
        """Look again next time: the engine said that one is not there."""
        self._ready.clear()

    def drop(self, session: str) -> None:
        """Remove the session's own network, if it has one."""
        name = f"{self._name}-{session}"
        self._ready.discard(name)
        try:
            found = self._engine.call("inspect_network", name)
            if (found.get("Labels") or {}).get(SESSION_LABEL) == session:
                for container in found.get("Containers") or {}:
                    self._engine.call("disconnect_container_from_network", container, name, force=True)
                self._engine.call("remove_network", name)
        except Missing:
            pass

    def _make(self, name: str, session: str, home: str) -> None:
        if self._each:
            self._make_small(name, {HOME_LABEL: home, SESSION_LABEL: session})
        elif name == DEFAULT:
            try:
                self._engine.call("create_network", name, driver="bridge", check_duplicate=True)
            except Refused as error:
                if error.http_status != 409:  # somebody else has just made it
                    raise
        else:
            raise Unavailable(
                f"the Docker network {name} does not exist: make it with `docker network create {name}`, or set "
                f"ARGUS_DOCKER_NETWORK={DEFAULT}, which the gateway makes itself"
            )

    def _make_small(self, name: str, labels: dict[str, str]) -> None:
        """The engine's own pools hold about 30 networks: ours are cut from a pool of their own."""
        taken, tries = self._taken(), 0
        for subnet in self._pool.subnets(new_prefix=SUBNET_BITS):
            if any(subnet.overlaps(other) for other in taken):
                continue
            ipam = {"Driver": "default", "Config": [{"Subnet": str(subnet)}]}
            try:
                self._engine.call("create_network", name, driver="bridge", ipam=ipam, labels=labels)
                return
            except Refused as error:
                tries += 1
                if "overlap" not in error.text.lower() or tries >= TRIES:
                    raise
        raise Unavailable(f"all networks of ARGUS_RUNTIME_SUBNETS={self._pool} are taken; delete sessions or widen it")

    def _taken(self) -> list[Any]:
        networks = self._engine.call("networks")
        configs = [config for n in networks for config in (n.get("IPAM") or {}).get("Config") or []]
        return [net for c in configs if c.get("Subnet") and (net := ip_network(c["Subnet"], False)).version == 4]

    def _join(self, network: dict[str, Any]) -> None:
        own = self._engine.own_id()
        if own and own not in (network.get("Containers") or {}):
            try:
                self._engine.call("connect_container_to_network", own, network["Id"], aliases=["gateway"])
            except Refused as error:
                if "already exists" not in error.text:
                    raise
