"""What a session's container looks like: mounts, variables, labels, limits, hardening. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.provisioners import Spec, session_dir
from app.settings import Settings

HOME = "/root/.argus"
WORKSPACE = f"{HOME}/workspace"
STATE = "/var/lib/argus"  # what the session keeps for itself: the agent's log, the demo agent's threads
CONFIG = "/run/argus/bridge.json"
PORT = 7777
LAYOUT = "root_argus_v1"
GATEWAY_LABEL, SESSION_LABEL = "io.argus.gateway", "io.argus.session_id"
HOME_LABEL, CONFIG_LABEL = "io.argus.home", "io.argus.config"
# What a session must not see of a shared home: the gateway's own files and those of other sessions.
COVERED = ("gateway", "sessions", "run")
CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"]
DEFAULT_MEMORY, DEFAULT_PIDS = 512 << 20, 256
CPU_PERIOD_US = 100_000
LOGIN_FILES = ("auth.json", "config.toml")


class Plan:
    """The containers of one gateway. `host_path` says where the engine's host has a path of ours."""

    def __init__(self, settings: Settings, host_path: Callable[[Path], Path]) -> None:
        self._settings, self._host = settings, host_path
        self.home = settings.home
        self.strict = settings.hardening == "strict"
        self.own_home = self.strict or settings.home_layout == "session"

    def name(self, session: str) -> str:
        """What the session's container is called."""
        return f"{self._settings.container_prefix}-{session}"

    def ours(self) -> dict[str, str]:
        """Labels by which a gateway knows its containers; another gateway on this engine has another home."""
        return {GATEWAY_LABEL: "apps/api", HOME_LABEL: str(self._host(self.home))}

    def folders(self, session: str) -> list[Path]:
        """What must be there before the container starts."""
        own = session_dir(self.home, session)
        if self.own_home:
            return [own / "state", own / "home", own / "workspace"]
        return [own / "state", self._settings.workspace or self.home / "workspace"]

    def bridge(self, spec: Spec) -> dict[str, Any]:
        """The bridge's configuration. Without hardening it has no secret: any client may speak plain JSON lines."""
        limits = {"ring_bytes": self._settings.ring_bytes, "line_limit": self._settings.line_limit_bytes}
        return {
            "listen": f"tcp:0.0.0.0:{PORT}",
            "secret": None if self._settings.hardening == "off" else spec.secret,
            "command": spec.command,
            "cwd": WORKSPACE,
            "workspace": WORKSPACE,
            "templates": "/app/templates",
            "log": f"{STATE}/agent.log",
            **limits,
        }

    def container(self, spec: Spec, network: str, image_id: str, owner: tuple[int, int]) -> dict[str, Any]:
        """{"options", "host"}: what docker's create_container and create_host_config are given.

        `owner`: uid and gid of the home. A container whose CONFIG_LABEL differs is to be made anew.
        """
        options: dict[str, Any] = {
            "image": self._settings.runtime_image,
            "name": self.name(spec.session),
            "working_dir": WORKSPACE,
            "environment": self._environment(spec),
        }
        if self.strict:
            options["user"] = f"{owner[0]}:{owner[1]}"
        host = {"mounts": self._mounts(spec), "network_mode": network, **self._limits(), **self._hardening(owner[0])}
        host["log_config"] = {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
        told = json.dumps([options, host, image_id, self._settings.hardening], sort_keys=True)
        labels = {
            **self.ours(),
            SESSION_LABEL: spec.session,
            "io.argus.runtime_layout": LAYOUT,
            "io.argus.runtime_home_container_path": HOME,
            "io.argus.runtime_workspace_container_path": WORKSPACE,
            CONFIG_LABEL: hashlib.sha256(told.encode()).hexdigest()[:16],
        }
        return {"options": {**options, "labels": labels}, "host": host}

    def _environment(self, spec: Spec) -> dict[str, str]:
        own = {
            "APP_HOME": HOME,
            "HOME": HOME,
            "ARGUS_SESSION_ID": spec.session,
            "ARGUS_AGENT_STATE": f"{STATE}/state",
        }
        if isinstance(spec.command, str):
            own["APP_SERVER_CMD"] = spec.command
        return {**spec.environment, **own}

    def _mounts(self, spec: Spec) -> list[dict[str, Any]]:
        own = session_dir(self.home, spec.session)
        mounts = [_bind(self._host(own / "bridge.json"), CONFIG, True), _bind(self._host(own / "state"), STATE)]
        if self.own_home:
            mounts += [_bind(self._host(own / "home"), HOME), _bind(self._host(own / "workspace"), WORKSPACE)]
            mounts += [
                _bind(self._host(file), f"{HOME}/.codex/{file.name}", file.suffix == ".toml") for file in self.login()
            ]
        else:
            mounts.append(_bind(self._host(self.home), HOME))
            if self._settings.workspace:
                mounts.append(_bind(self._host(self._settings.workspace), WORKSPACE))
        mounts += [_bind(self._host(Path(m["source"])), m["target"], m["readOnly"]) for m in spec.mounts]
        return mounts

    def login(self) -> list[Path]:
        """The shared files that a session with a home of its own needs to log in; plain files only, never a link."""
        files = [self.home / ".codex" / name for name in LOGIN_FILES]
        return [file for file in files if file.is_file() and not file.is_symlink() and not file.parent.is_symlink()]

    def _limits(self) -> dict[str, Any]:
        settings, hard = self._settings, self._settings.hardening != "off"
        memory = settings.runtime_memory or (DEFAULT_MEMORY if hard else None)
        pids = settings.runtime_pids or (DEFAULT_PIDS if hard else None)
        limits: dict[str, Any] = {}
        if settings.runtime_cpus:
            quota = max(1000, int(settings.runtime_cpus * CPU_PERIOD_US))
            limits.update(cpu_period=CPU_PERIOD_US, cpu_quota=quota)
        if memory:
            limits["mem_limit"] = memory
        if settings.runtime_memswap or (hard and memory):
            limits["memswap_limit"] = settings.runtime_memswap or memory
        if pids:
            limits["pids_limit"] = pids
        return limits

    def _hardening(self, uid: int) -> dict[str, Any]:
        covers = {} if self.own_home else {f"{HOME}/{name}": "ro,size=4k,mode=0555" for name in COVERED}
        if self._settings.hardening == "off":
            return {"tmpfs": covers} if covers else {}
        tmp = f"rw,exec,nosuid,nodev,mode=1777,size={self._settings.runtime_tmp}"
        hard: dict[str, Any] = {
            "tmpfs": {**covers, "/tmp": tmp},
            "cap_drop": ["ALL"],
            "cap_add": [] if self.strict and uid else CAPABILITIES,
            "security_opt": ["no-new-privileges"],
            "cpu_shares": 512,  # half of the gateway's weight: a busy agent does not starve who watches over it
        }
        if self.strict:
            hard["read_only"] = True
        return hard


def _bind(source: Path, target: str, read_only: bool = False) -> dict[str, Any]:
    """A bind mount whose source must exist: the engine would make a folder of a mistyped one."""
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}
