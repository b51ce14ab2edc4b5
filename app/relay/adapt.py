"""What the gateway changes in a client's request before an app-server sees it, by kind of runtime. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Where a container keeps the workspace; on `process` these stand for the session's own.
CONTAINER_WORKSPACES = ("/root/.argus/workspace", "/workspace")
_WITH_CWD = frozenset({"thread/start", "thread/resume", "thread/fork", "turn/start", "command/exec", "thread/list"})
_WITH_SANDBOX = frozenset({"thread/start", "thread/resume", "thread/fork"})


@dataclass(frozen=True)
class Traits:
    """What of a runtime matters here."""

    contained: bool = False  # the container is the sandbox: the agent's own can't start inside
    workspace: str | None = None  # container paths are mapped to this one


def adapt(method: str, params: dict[str, Any], traits: Traits) -> dict[str, Any]:
    """The params to replace, by name; empty if all stay as they are.

    Paths below the container's workspace become paths below the session's. In a container `sandbox` and
    `sandboxPolicy` become full access, because the container is the boundary; approvalPolicy is left alone.
    """
    changed: dict[str, Any] = {}
    cwd = params.get("cwd")
    if traits.workspace and method in _WITH_CWD and isinstance(cwd, str):
        mapped = map_path(cwd, traits.workspace)
        if mapped != cwd:
            changed["cwd"] = mapped
    if traits.contained:
        if method in _WITH_SANDBOX and params.get("sandbox") not in (None, "danger-full-access"):
            changed["sandbox"] = "danger-full-access"
        if method == "turn/start" and params.get("sandboxPolicy") is not None:
            changed["sandboxPolicy"] = {"type": "dangerFullAccess"}
    return changed


def map_path(path: str, workspace: str) -> str:
    """A container's workspace path as one of this machine; others stay."""
    for root in CONTAINER_WORKSPACES:
        if path == root or path.startswith(root + "/"):
            return workspace + path[len(root) :]
    return path
