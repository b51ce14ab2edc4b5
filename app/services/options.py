"""What a session's runtime is given beyond the gateway's own settings: folders of the host, and variables."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.errors import BadRequest
from app.provisioners.mounts import MAX_MOUNTS, resolve

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
RESERVED = re.compile(r"(ARGUS|APP)_.*|HOME|LD_PRELOAD|LD_LIBRARY_PATH")
MAX_VARIABLES, MAX_VALUE = 64, 8192
__all__ = ["MAX_MOUNTS", "Options", "options_of"]


@dataclass(frozen=True)
class Options:
    """`mounts`: [{"source", "target", "readOnly"?}] (read-only if left out); `env`: {name: text}."""

    mounts: list[dict[str, Any]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)

    def stored(self, allowed: tuple[Path, ...]) -> str | None:
        """As the session's row keeps it: checked, links in sources resolved. Raises BadRequest."""
        _check_variables(self.env)
        if not self.mounts and not self.env:
            return None
        return json.dumps({"mounts": resolve(self.mounts, allowed) if self.mounts else [], "env": self.env})


def options_of(stored: str | None) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Mounts and variables of a row."""
    known = json.loads(stored) if stored else {}
    return known.get("mounts", []), known.get("env", {})


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
