"""Every setting of the gateway, in one typed table: name, type, default, help. Only this file reads the environment.

`Settings` is the table: one field a setting. docs/settings.md is made from it (`python -m app.settings`).
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from app.errors import StartRefused
from app.kinds import (
    CPUS,
    ITEMS,
    MAYBE_PATH,
    MEMORY_SIZE,
    NAME,
    PATH,
    PATHS,
    PIDS,
    SECRET,
    SUBNETS,
    TEXT,
    UPSTREAMS,
    Kind,
    choice,
    seconds,
    whole,
)

# Variables that begin with ARGUS_ and belong to the tests, the launcher or docker-compose.yml, not to the gateway.
NOT_SETTINGS = re.compile(
    r"ARGUS_(TEST_\w+|RUN_ID|RUNTIME_INSTALL_CMD|\w+_BASE_IMAGE|GATEWAY_IMAGE|WEB_PORT|FRONT_NETWORK|GATEWAY_WS_URL)"
)


def setting(name: str, kind: Kind, default: str, text: str) -> Any:
    """One row of the table. `default` is written as the variable would be."""
    return field(metadata={"name": name, "kind": kind, "default": default, "help": text})


@dataclass(frozen=True)
class Settings:
    """The settings of one gateway, checked. Build it with `load`."""

    home: Path = setting(
        "ARGUS_HOME_HOST_PATH", PATH, "~/.argus", "Where the gateway keeps its database, token, sessions, workspace."
    )
    bind: str = setting(
        "ARGUS_BIND", TEXT, "127.0.0.1", "Address to listen on. Anything but loopback is open to the network."
    )
    port: int = setting("ARGUS_PORT", whole(0, 65535), "8080", "Port to listen on; 0 takes any free one.")
    agent: str = setting(
        "ARGUS_AGENT",
        choice("auto", "codex", "demo"),
        "auto",
        "Agent of new sessions. auto: codex if its program and a login are both there, else demo.",
    )
    runtime_cmd: str = setting(
        "ARGUS_RUNTIME_CMD", TEXT, "", "Command that starts the app-server, instead of the codex on PATH."
    )
    provision_mode: str = setting(
        "ARGUS_PROVISION_MODE",
        choice("process", "docker", "static"),
        "process",
        "How runtimes are made. process: on this machine; docker: a container each; static: somebody else runs them.",
    )
    workspace: Path | None = setting(
        "ARGUS_WORKSPACE_HOST_PATH", MAYBE_PATH, "", "docker: where all sessions work, instead of <home>/workspace."
    )
    docker_url: str = setting(
        "DOCKER_HOST",
        TEXT,
        "unix:///var/run/docker.sock",
        "docker: where the engine is, as Docker's own tools read it.",
    )
    runtime_image: str = setting("ARGUS_RUNTIME_IMAGE", TEXT, "argus-runtime", "docker: image of new containers.")
    docker_network: str = setting(
        "ARGUS_DOCKER_NETWORK",
        NAME,
        "argus-net",
        "docker: network of the containers; this one is made, another must exist.",
    )
    container_prefix: str = setting(
        "ARGUS_CONTAINER_PREFIX", NAME, "argus-session", "docker: a container is called <prefix>-<session>."
    )
    hardening: str = setting(
        "ARGUS_RUNTIME_HARDENING",
        choice("off", "default", "strict"),
        "default",
        "docker: what holds a container's programs back; docs/security.md says what each level stops.",
    )
    runtime_cpus: float | None = setting("ARGUS_RUNTIME_CPUS", CPUS, "", "docker: CPUs of a container; empty: all.")
    runtime_memory: int | None = setting(
        "ARGUS_RUNTIME_MEM_LIMIT",
        MEMORY_SIZE,
        "",
        "docker: memory of a container; empty: 512m, with hardening off all.",
    )
    runtime_memswap: int | None = setting(
        "ARGUS_RUNTIME_MEMSWAP_LIMIT", MEMORY_SIZE, "", "docker: memory and swap together; empty: no swap."
    )
    runtime_pids: int | None = setting(
        "ARGUS_RUNTIME_PIDS_LIMIT",
        PIDS,
        "",
        "docker: processes of a container; empty: 256, with hardening off any number.",
    )
    runtime_tmp: int | None = setting(
        "ARGUS_RUNTIME_TMP_LIMIT", MEMORY_SIZE, "256m", "docker: size of /tmp, which is memory; not with hardening off."
    )
    runtime_subnets: ipaddress.IPv4Network = setting(
        "ARGUS_RUNTIME_SUBNETS",
        SUBNETS,
        "10.213.0.0/16",
        "docker, strict: the networks of sessions, a /28 each, are cut from this.",
    )
    mount_allow: tuple[Path, ...] = setting(
        "ARGUS_RUNTIME_MOUNT_ALLOW", PATHS, "", "docker: host folders that sessions may mount; empty: none."
    )
    idle_stop_s: float = setting(
        "ARGUS_IDLE_STOP_S",
        seconds(0, 31_536_000),
        "0",
        "A session that nobody has used for so long is stopped; the next message wakes it. 0: never.",
    )
    home_layout: str = setting(
        "ARGUS_HOME_LAYOUT",
        choice("shared", "session"),
        "shared",
        "shared: all sessions work in <home>/workspace; session: each in a workspace of its own.",
    )
    token: str = setting(
        "ARGUS_TOKEN", SECRET, "", "The token that opens every door. Empty: made once, kept in <home>/gateway/token."
    )
    auth: str = setting(
        "ARGUS_AUTH", choice("on", "off"), "on", "off: no token is asked for; works on loopback addresses only."
    )
    allowed_hosts: tuple[str, ...] = setting(
        "ARGUS_ALLOWED_HOSTS", ITEMS, "", "Further names under which the gateway may be addressed (the Host header)."
    )
    cors_origins: tuple[str, ...] = setting(
        "ARGUS_CORS_ORIGINS", ITEMS, "", "Further origins whose pages may call the gateway; * for any."
    )
    tcp_host: str = setting("ARGUS_TCP_HOST", TEXT, "127.0.0.1", "static: host of the one upstream.")
    tcp_port: int = setting("ARGUS_TCP_PORT", whole(1, 65535), "7777", "static: port of the one upstream.")
    upstreams: dict[str, dict[str, Any]] = setting(
        "ARGUS_UPSTREAMS_JSON", UPSTREAMS, "", "static: several upstreams by name, instead of ARGUS_TCP_HOST and _PORT."
    )
    max_sessions: int = setting(
        "ARGUS_MAX_SESSIONS", whole(1, 100_000), "500", "How many sessions one principal may have."
    )
    connect_timeout_s: float = setting(
        "ARGUS_CONNECT_TIMEOUT_S",
        seconds(0.1, 600),
        "30",
        "How long a runtime may take to be reached and to initialize.",
    )
    request_timeout_s: float = setting(
        "ARGUS_REQUEST_TIMEOUT_S", seconds(1, 86400), "300", "How long an agent may take to answer one request."
    )
    line_limit_bytes: int = setting(
        "ARGUS_JSONL_LINE_LIMIT_BYTES", whole(65536, 2**30), "8388608", "Longest line an app-server may print."
    )
    client_buffer_bytes: int = setting(
        "ARGUS_CLIENT_BUFFER_BYTES",
        whole(65536, 2**30),
        "8388608",
        "How much may wait for one slow client before it is cut (1013); it resumes by cursor.",
    )
    ring_bytes: int = setting(
        "ARGUS_RING_BYTES", whole(65536, 2**30), "4194304", "How much output of a session is kept for replay."
    )
    followups: str = setting(
        "ARGUS_FOLLOWUPS",
        choice("each", "batch"),
        "each",
        "What waits behind a turn. each: one turn each, in order; batch: all of it merged into one turn.",
    )
    context: str = setting(
        "ARGUS_CONTEXT",
        choice("every-turn", "on-change"),
        "every-turn",
        "When a gateway-owned turn carries the workspace's context files. on-change: when they or the thread's memory "
        "changed.",
    )
    context_file_bytes: int = setting(
        "ARGUS_CONTEXT_FILE_BYTES", whole(0, 2**20), "16384", "How much of one context file a turn carries at most."
    )
    context_bytes: int = setting(
        "ARGUS_CONTEXT_BYTES", whole(0, 2**22), "49152", "How much of all context files together a turn carries."
    )
    approvals: str = setting(
        "ARGUS_APPROVALS",
        choice("ask", "decline", "accept"),
        "ask",
        "What becomes of questions of gateway-owned turns. ask: they are put to all clients of the session.",
    )
    approval_timeout_s: float = setting(
        "ARGUS_APPROVAL_TIMEOUT_S",
        seconds(1, 604800),
        "600",
        "How long a question of a gateway-owned turn waits for an answer before it is declined.",
    )
    stuck_turn_timeout_s: float = setting(
        "ARGUS_STUCK_TURN_TIMEOUT_S",
        seconds(0, 86400),
        "900",
        "A gateway-owned turn without any progress for so long is stopped and its sender told; 0: never.",
    )
    http_signing_key: str = setting(
        "ARGUS_HTTP_SIGNING_KEY",
        SECRET,
        "",
        "Signs what is posted to http reply routes. Empty: made once, kept in <home>/gateway/http-signing-key.",
    )
    http_private_hosts: tuple[str, ...] = setting(
        "ARGUS_HTTP_PRIVATE_HOSTS",
        ITEMS,
        "",
        "Hosts and networks (10.0.0.0/8) that http reply routes may name though they are private; * for any.",
    )
    log_level: str = setting(
        "ARGUS_LOG_LEVEL",
        choice("debug", "info", "warning", "error"),
        "info",
        "How much the gateway writes to its log.",
    )

    @property
    def gateway_dir(self) -> Path:
        """What belongs to the gateway itself: database, token, lock, address file."""
        return self.home / "gateway"

    @property
    def database_url(self) -> str:
        """The one database of this home."""
        return f"sqlite:///{self.gateway_dir / 'argus.db'}"


def table() -> list[Field[Any]]:
    """The rows of the table, in order."""
    return list(fields(Settings))


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment; an empty variable counts as unset.

    Raises StartRefused with the variable's name and what is allowed.
    """
    environ = os.environ if environ is None else environ
    values = {}
    for row in table():
        name, kind, default = row.metadata["name"], row.metadata["kind"], row.metadata["default"]
        text = environ.get(name) or default
        try:
            values[row.name] = kind.parse(text)
        except (ValueError, TypeError):
            shown = "its value" if kind in (SECRET, UPSTREAMS) else repr(text)
            raise StartRefused(f"{name}: {shown} is not allowed; it must be {kind.allowed}.") from None
    made = Settings(**values)
    if made.runtime_memswap and (made.runtime_memory or 0) > made.runtime_memswap:
        raise StartRefused("ARGUS_RUNTIME_MEMSWAP_LIMIT must not be less than ARGUS_RUNTIME_MEM_LIMIT: it counts both.")
    if made.runtime_memswap and not made.runtime_memory:
        raise StartRefused("ARGUS_RUNTIME_MEMSWAP_LIMIT needs ARGUS_RUNTIME_MEM_LIMIT: it is memory and swap together.")
    return made


def unknown(environ: Mapping[str, str] | None = None) -> list[str]:
    """A warning for each variable that begins with ARGUS_ and is no setting, with the nearest one that is."""
    environ = os.environ if environ is None else environ
    known = [row.metadata["name"] for row in table()]
    warnings = []
    for name in sorted(environ):
        if not name.startswith("ARGUS_") or name in known or NOT_SETTINGS.fullmatch(name):
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else ""
        warnings.append(f"{name} is no setting of this version and is ignored{hint}")
    return warnings


def secret_names() -> frozenset[str]:
    """Variables whose values must never reach a runtime or a log."""
    names = {row.metadata["name"] for row in table() if row.metadata["kind"] is SECRET}
    return frozenset(names | {"ARGUS_NODE_TOKEN", "ARGUS_MCP_TOKEN", "TELEGRAM_BOT_TOKEN", "ARGUS_UPSTREAMS_JSON"})


def child_variable(name: str) -> str:
    """A variable that is not the gateway's but an agent's (a login, a home); empty if unset."""
    return os.environ.get(name, "")


def inherited_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a runtime may inherit: the user's environment without the gateway's own variables and secrets."""
    environ = os.environ if environ is None else environ
    secret = secret_names()
    return {k: v for k, v in environ.items() if k not in secret and not k.startswith(("ARGUS_", "GUNICORN_"))}


def as_markdown() -> str:
    """docs/settings.md, whole."""
    lines = [
        "# Settings",
        "",
        "Made from `app/settings.py` by `python -m app.settings > docs/settings.md`; a test holds them together.",
        "Every setting is an environment variable; an empty one counts as unset. A value that is not allowed stops",
        "the start with the variable's name and what is allowed; an unknown `ARGUS_` variable is warned about.",
        "",
        "| variable | allowed | default | meaning |",
        "|---|---|---|---|",
    ]
    for row in table():
        meta = row.metadata
        default = f"`{meta['default']}`" if meta["default"] else "empty"
        lines.append(f"| `{meta['name']}` | {meta['kind'].allowed} | {default} | {meta['help']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
