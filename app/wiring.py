"""Builds the services of one gateway from its settings. The only place that picks a driver."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from app import agents
from app.channels.http import HttpSender
from app.errors import StartRefused
from app.provisioners import Provisioner
from app.provisioners.docker import DockerProvisioner
from app.provisioners.process import ProcessProvisioner
from app.provisioners.static import StaticProvisioner
from app.services.auth import Auth
from app.services.conversation.service import Conversation
from app.services.metrics import Metrics
from app.services.renderer import Renderer
from app.services.sessions import Sessions
from app.services.sockets import OpenSockets
from app.settings import Settings, inherited_environment
from app.store.database import Store, open_store

LOCK_WAIT_S = 5.0


@dataclass
class Services:
    """What the routes use."""

    settings: Settings
    store: Store
    auth: Auth
    sessions: Sessions
    agent: agents.Choice
    lock: int
    sockets: OpenSockets
    renderer: Renderer
    metrics: Metrics
    conversation: Conversation
    requests: int = 0  # being answered now


def provisioner(settings: Settings) -> Provisioner:
    """The driver that ARGUS_PROVISION_MODE names."""
    if settings.provision_mode == "static":
        single = {"default": {"host": settings.tcp_host, "port": settings.tcp_port}}
        return StaticProvisioner(settings.upstreams or single)
    if settings.provision_mode == "docker":
        return DockerProvisioner(settings)
    limits = {"ring_bytes": settings.ring_bytes, "line_limit": settings.line_limit_bytes}
    environment = inherited_environment()
    return ProcessProvisioner(settings.home, settings.home_layout, environment, limits, settings.connect_timeout_s)


def build(settings: Settings) -> Services:
    """All services, holding the home's lock. Raises StartRefused with one sentence."""
    lock = hold_home(settings)
    store = open_store(settings.database_url)
    sockets = OpenSockets()
    auth = Auth(settings, store, sockets.cut)
    chosen = agents.choose(settings)
    sessions = Sessions(settings, store, provisioner(settings), lambda: agents.choose(settings).name)
    renderer = Renderer()
    metrics = Metrics(sessions, store, renderer)
    conversation = Conversation(settings, store, sessions, {"http": HttpSender(settings)})
    return Services(settings, store, auth, sessions, chosen, lock, sockets, renderer, metrics, conversation)


def hold_home(settings: Settings, wait_s: float = LOCK_WAIT_S) -> int:
    """Take the home for this process, for as long as it lives. Raises StartRefused if another gateway has it."""
    path = settings.gateway_dir / "lock"
    try:
        for directory in (settings.home, settings.gateway_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StartRefused(
            f"The home {settings.home} can't be written ({error.strerror}); make it yours or name another with --home."
        ) from None
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # only a word for who asks; the lock is the lock
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = _holder(path)
                os.close(fd)
                raise StartRefused(
                    f"Another gateway{holder} holds {settings.home}: exactly one worker may run on a home. "
                    "Stop it with `./argus down`, or start this one with another --home."
                ) from None
            time.sleep(0.1)


def _holder(path: Path) -> str:
    try:
        return f" (process {path.read_text().strip()})"
    except OSError:
        return ""


def stop_runtimes(settings: Settings) -> int:
    """End all runtimes of a home whose gateway does not run (`./argus down`); how many there were."""
    lock = hold_home(settings)
    try:
        driver = provisioner(settings)
        handles = driver.list()
        for handle in handles:
            driver.stop(handle)
        return len(handles)
    finally:
        os.close(lock)
