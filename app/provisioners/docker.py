"""Runtimes as containers, one a session, found again by their labels. They outlive the gateway.

`stop` leaves the container, stopped; the next `start` wakes it, or makes it anew if what it should be has changed since
(image, limits, hardening, mounts, variables): only the mounted folders are kept then. `remove` deletes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent

from app.errors import ArgusError, Unavailable
from app.provisioners import Handle, Spec, failed_write, session_dir, write_private
from app.provisioners.containers import (
    CONFIG_LABEL,
    GATEWAY_LABEL,
    HOME_LABEL,
    LAYOUT,
    PORT,
    SESSION_LABEL,
    Plan,
)
from app.provisioners.engine import Engine, Missing, Refused
from app.provisioners.mounts import check_mounts
from app.provisioners.networks import Networks
from app.relay.adapt import Traits
from app.relay.link import dial
from app.settings import Settings

log = logging.getLogger("argus.docker")

STOP_S = 2  # the bridge ends within half a second of SIGTERM
LOOK_S = 0.25  # between looks at a container that does not answer yet
PROBE_S = 2.0


class DockerProvisioner:
    """See app/provisioners/__init__.py for the contract."""

    name = "docker"
    quick_stop = False

    def __init__(self, settings: Settings) -> None:
        self._settings, self._home, self._timeout_s = settings, settings.home, settings.connect_timeout_s
        self._engine = Engine(settings.docker_url, settings.connect_timeout_s)
        self._plan = Plan(settings, self._engine.host_path)
        self._networks = Networks(self._engine, settings.docker_network, settings.runtime_subnets, self._plan.strict)

    def traits(self, session: str) -> Traits:
        """The container is the sandbox."""
        return Traits(contained=True)

    def workspace(self, session: str) -> Path:
        """What its container has as the workspace, as the gateway sees it."""
        return self._plan.folders(session)[-1]

    def log_path(self, session: str) -> Path:
        """The agent's stderr and the bridge's notes; a folder of its own that the container can write."""
        return session_dir(self._home, session) / "state" / "agent.log"

    def check(self, spec: Spec) -> None:
        """Whether such a runtime may be made. Raises BadRequest for mounts outside the allowed folders."""
        check_mounts(spec.mounts, self._settings.mount_allow, self._home, self._settings.docker_url)

    # -- start

    def start(self, spec: Spec) -> Handle:
        """Make the container, wake it, or take over the one that runs."""
        try:
            return self._start(spec)
        except Missing as error:
            self._networks.forget()  # removed behind our back, perhaps
            raise Unavailable(f"Docker could not start the container: {error.text}; it is tried again") from None
        except OSError as error:
            raise Unavailable(failed_write(error, session_dir(self._home, spec.session))) from None

    def _start(self, spec: Spec) -> Handle:
        name = self._plan.name(spec.session)
        found = self._engine.inspect(name)
        if found is not None:
            self._must_be_ours(found)
            if _runs(found):
                return self._reached(found, spec)
        self.check(spec)
        network = self._networks.ensure(spec.session, self._label())
        self._prepare(spec)
        request = self._plan.container(spec, network, self._image_id(), self._owner())
        fresh = (
            found is None or found["Config"]["Labels"].get(CONFIG_LABEL) != request["options"]["labels"][CONFIG_LABEL]
        )
        if fresh and found is not None:
            log.info("session %s: its container is made anew, because what it should be has changed", spec.session)
            self._discard(found["Id"])
        id = self._create(request) if fresh else found["Id"]
        try:
            self._engine.heavily("start", id)
            return self._reached(self._engine.inspect(id), spec)
        except BaseException:
            with contextlib.suppress(ArgusError):  # nothing half-made is left behind
                self._discard(id) if fresh else self._engine.heavily("stop", id, timeout=STOP_S)
            raise

    def _create(self, request: dict[str, Any]) -> str:
        host = self._engine.host_config(**request["host"])
        return self._engine.heavily("create_container", host_config=host, **request["options"])["Id"]

    def _must_be_ours(self, found: dict[str, Any]) -> None:
        labels = found["Config"]["Labels"] or {}
        if any(labels.get(key) != value for key, value in self._plan.ours().items()):
            name = found["Name"].lstrip("/")
            raise Unavailable(f"the container {name} is not this gateway's: remove it, or set ARGUS_CONTAINER_PREFIX")

    def _image_id(self) -> str:
        image = self._settings.runtime_image
        try:
            return self._engine.call("inspect_image", image)["Id"]
        except Missing:
            raise Unavailable(
                f"the image {image} is missing: build it with `docker compose build runtime-image` (or `docker build "
                f"--tag {image} runtime`), or name another with ARGUS_RUNTIME_IMAGE"
            ) from None

    def _owner(self) -> tuple[int, int]:
        found = self._home.stat()
        return found.st_uid, found.st_gid

    def _prepare(self, spec: Spec) -> None:
        """The session's folders and its bridge's configuration, which has the secret."""
        own = session_dir(self._home, spec.session)
        fresh = [own] if not own.exists() else []
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (*self._plan.folders(spec.session), *(self._home / name for name in ("run", "gateway"))):
            if not folder.exists():
                folder.mkdir(parents=True, mode=0o700)
                fresh.append(folder)
        write_private(own / "bridge.json", json.dumps(self._plan.bridge(spec)))
        if self._plan.strict and os.getuid() == 0 and self._owner()[0] != 0:
            for path in (*fresh, own / "bridge.json"):
                os.chown(path, *self._owner())

    # -- ready

    def _reached(self, found: dict[str, Any] | None, spec: Spec) -> Handle:
        """The handle, once the bridge answers. Raises Unavailable with what the container said if it ends first."""
        deadline = time.monotonic() + self._timeout_s
        look = 0.0
        while True:
            if found is None or not _runs(found):
                raise Unavailable(self._how_it_ended(found))
            handle = self._handle(found, spec.session)
            why = _answers(handle["address"], spec.secret) if handle else "it has no address"
            if not why:
                return handle
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the bridge in container {self._plan.name(spec.session)} was not reached within "
                    f"{self._timeout_s:g} s: {why}"
                )
            gevent.sleep(0.01)
            look += 0.01
            if look >= LOOK_S or not handle:
                found, look = self._engine.inspect(found["Id"]), 0.0

    def _handle(self, found: dict[str, Any], session: str) -> Handle | None:
        address = _address(found["NetworkSettings"]["Networks"])
        return self._handle_of(found["Id"], found["Name"].lstrip("/"), session, address) if address else None

    def _handle_of(self, id: str, name: str, session: str, address: str) -> Handle:
        return {
            "session": session,
            "address": f"tcp:{address}:{PORT}",
            "attach": True,
            "container": id,
            "name": name,
            "layout": LAYOUT,
        }

    def _how_it_ended(self, found: dict[str, Any] | None) -> str:
        if found is None:
            return "the session's container was removed"
        state, said = found["State"], ""
        with contextlib.suppress(ArgusError):
            said = self._engine.call("logs", found["Id"], tail=3).decode("utf-8", "replace").strip()[-300:]
        how = "runtime out of memory" if state.get("OOMKilled") else f"code {state.get('ExitCode')}"
        how = f"the session's container ended: {how}"
        return how + (f": {said}" if said else f" {state.get('Error', '')}".rstrip())

    # -- what there is

    def poll(self, handle: Handle) -> str:
        """Running if the very container that the handle names runs, at the same address; it can be dialled then."""
        session = handle["session"]
        found = self._engine.inspect(handle.get("container") or self._plan.name(session))
        if found is None or not _runs(found):
            return "exited"
        same = self._handle(found, session)
        if not same or same["address"] != handle.get("address"):
            return "exited"
        self._networks.ensure(session, self._label())  # a connection begun outside of it would never be made
        return "running"

    def how_it_ended(self, handle: Handle) -> str:
        """Out of memory, its exit code with its last words, or removed."""
        found = self._engine.inspect(handle.get("container") or self._plan.name(handle["session"]))
        return "" if found is not None and _runs(found) else self._how_it_ended(found)

    def list(self) -> list[Handle]:
        """Containers with this home's labels that run; the gateway is joined to their networks."""
        handles = []
        if not self._plan.strict:  # joining a network can cut connections: before there are any
            self._networks.ensure("", self._label())
        for found in self._containers(all=False):
            session, address = found["Labels"][SESSION_LABEL], _address(found["NetworkSettings"]["Networks"])
            if address:
                handles.append(self._handle_of(found["Id"], found["Names"][0].lstrip("/"), session, address))
                self._networks.ensure(session, self._label())
        return sorted(handles, key=lambda handle: handle["session"])

    def prune(self, known: Callable[[str], bool]) -> list[str]:
        """Remove the containers of sessions that are not known; their ids. Files stay."""
        gone = []
        for found in self._containers(all=True):
            session = found["Labels"][SESSION_LABEL]
            if not known(session):
                self._discard(found["Id"])
                self._networks.drop(session)
                gone.append(session)
        return gone

    def _containers(self, all: bool) -> list[dict[str, Any]]:
        labels = [f"{key}={value}" for key, value in self._plan.ours().items()]
        return self._engine.call("containers", all=all, filters={"label": [*labels, SESSION_LABEL]})

    def _label(self) -> str:
        return self._plan.ours()[HOME_LABEL]

    # -- the end

    def stop(self, handle: Handle) -> None:
        """Stop the container; what is stopped or gone already is success."""
        found = self._engine.inspect(self._plan.name(handle["session"]))
        if found is not None and _runs(found) and self._is_ours(found):
            with contextlib.suppress(Missing):
                self._engine.heavily("stop", found["Id"], timeout=STOP_S)

    def _is_ours(self, found: dict[str, Any]) -> bool:
        labels = found["Config"]["Labels"] or {}
        return GATEWAY_LABEL in labels and labels.get(HOME_LABEL) == self._label()

    def _discard(self, id: str) -> None:
        try:
            self._engine.heavily("remove_container", id, force=True, v=True)
        except Missing:
            pass
        except Refused as error:
            if error.http_status != 409:  # it is being removed already
                raise

    def remove(self, session: str) -> None:
        """The container, its own network, and the session's folder with all that is in it."""
        found = self._engine.inspect(self._plan.name(session))
        if found is not None and self._is_ours(found):
            self._discard(found["Id"])
        if self._plan.strict:
            self._networks.drop(session)
        own = session_dir(self._home, session)
        gevent.get_hub().threadpool.apply(shutil.rmtree, (own, True))
        if own.exists():
            self._remove_as_root(own)

    def _remove_as_root(self, folder: Path) -> None:
        """What root made in a container, a gateway that is not root can remove in a container only."""
        mount = {"Type": "bind", "Source": str(self._engine.host_path(folder.parent)), "Target": "/sessions"}
        host = self._engine.host_config(mounts=[mount], network_mode="none")
        made = self._engine.heavily(
            "create_container",
            self._settings.runtime_image,
            ["rm", "-rf", f"/sessions/{folder.name}"],
            entrypoint=[],
            user="0",
            host_config=host,
            labels={HOME_LABEL: self._label()},
        )["Id"]
        try:
            self._engine.heavily("start", made)
            self._engine.call("wait", made)
        finally:
            self._discard(made)
        if folder.exists():
            log.warning("%s could not be removed; remove it by hand", folder)


def _runs(found: dict[str, Any]) -> bool:
    state = found["State"]
    return bool(state["Running"]) and not state.get("Paused")


def _address(networks: dict[str, Any]) -> str:
    return next((n["IPAddress"] for n in networks.values() if n and n.get("IPAddress")), "")


def _answers(address: str, secret: str) -> str:
    """Why no bridge answers there, or "". It is asked under a term that it must refuse, which disturbs nobody."""
    try:
        sock = dial(address, PROBE_S)
    except OSError as error:
        return str(error)
    try:
        ask = {"id": 1, "method": "bridge/attach", "params": {"secret": secret, "term": -1}}
        sock.sendall(json.dumps(ask).encode() + b"\n")
        data = b""
        while b"\n" not in data and len(data) < 4096:
            part = sock.recv(4096)
            if not part:
                return "it closed the connection"
            data += part
        said = json.loads(data.partition(b"\n")[0])["error"]
        return "" if "term" in said.get("data", {}) else f"it said: {said.get('message')}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"no bridge answers ({error})"
    finally:
        sock.close()
