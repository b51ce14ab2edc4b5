"""What a session has beyond the gateway's own settings: folders of the host and variables for its runtime, and who
answers its agent's questions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import BadRequest
from app.provisioners.mounts import MAX_MOUNTS, resolve

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
RESERVED = re.compile(r"(ARGUS|APP)_.*|HOME|LD_.*")
MAX_VARIABLES, MAX_VALUE = 64, 8192
__all__ = ["MAX_MOUNTS", "Options", "approvals_of", "options_of", "with_approvals"]


@dataclass(frozen=True)
class Options:
    """`mounts`: [{"source", "target", "readOnly"?}] (read-only if left out); `env`: {name: text}; `approvals`: ask,
    decline or accept instead of ARGUS_APPROVALS."""

    mounts: list[dict[str, Any]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    approvals: str | None = None

    def stored(self, allowed: tuple[Path, ...]) -> str | None:
        """As the session's row keeps it: checked, links in sources resolved. Raises BadRequest."""
        _check_variables(self.env)
        kept: dict[str, Any] = {}
        if self.mounts or self.env:
            kept = {"mounts": resolve(self.mounts, allowed) if self.mounts else [], "env": self.env}
        return with_approvals(json.dumps(kept), self.approvals)


def options_of(stored: str | None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Mounts and variables of a row."""
    known = json.loads(stored) if stored else {}
    return known.get("mounts", []), known.get("env", {})


def approvals_of(stored: str | None) -> str | None:
    """Who answers the questions of its turns; None: as ARGUS_APPROVALS says."""
    return json.loads(stored).get("approvals") if stored else None


def with_approvals(stored: str | None, approvals: str | None) -> str | None:
    """A row's options with this answer to `approvals_of`."""
    kept = json.loads(stored) if stored else {}
    kept.pop("approvals", None)
    if approvals is not None:
        kept["approvals"] = approvals
    return json.dumps(kept) if kept else None


def _check_variables(env: dict[str, str]) -> None:
    if len(env) > MAX_VARIABLES:
        raise BadRequest(f"env may have {MAX_VARIABLES} variables")
    for name, value in env.items():
        if not NAME.fullmatch(name):
            raise BadRequest(f"env: {name[:100]!r} is no name of a variable")
        if RESERVED.fullmatch(name):
            raise BadRequest(f"env: {name} is the gateway's own, or would change more than the agent")
        if not isinstance(value, str) or len(value) > MAX_VALUE or "\0" in value:
            raise BadRequest(f"env: the value of {name} must be a text of at most {MAX_VALUE} characters")
