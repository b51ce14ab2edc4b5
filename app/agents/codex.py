"""OpenAI's Codex: where its program is, and whether it can log in."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

from app.errors import Unavailable
from app.settings import child_variable

CODEX_VERSION = "0.169.0"
ROOT = Path(__file__).resolve().parents[2]
INSTALLED_AT = ROOT / ".agents" / "codex"
NATIVE = "node_modules/@openai/codex-*/vendor/*/bin/codex"  # skips the Node wrapper: one process and 65 ms less


def installed() -> Path | None:
    """The program that `./argus up --agent codex` installed, or the one on PATH."""
    own = sorted(INSTALLED_AT.glob(NATIVE))
    if own:
        return own[0]
    found = shutil.which("codex")
    if found is None:
        return None
    native = sorted(Path(found).resolve().parents[1].glob(NATIVE))
    return native[0] if native else Path(found)


def command(runtime_cmd: str) -> list[str] | str:
    """What starts its app-server; the operator's command replaces it."""
    if runtime_cmd:
        return runtime_cmd
    program = installed()
    if program is None:
        raise Unavailable("Codex is not installed: run `./argus up --agent codex`, or set ARGUS_RUNTIME_CMD")
    return [str(program), "app-server"]


def login_command() -> str:
    """What a person types to log in."""
    wrapper = INSTALLED_AT / "node_modules" / ".bin" / "codex"
    return f"{wrapper} login" if wrapper.exists() else "codex login"


def login(home: Path | None = None) -> str | None:
    """What Codex can log in with, in words, or None."""
    codex_home = Path(child_variable("CODEX_HOME") or (home or Path.home()) / ".codex")
    if (codex_home / "auth.json").is_file():
        return "auth.json"
    for name in ("OPENAI_API_KEY", "CODEX_API_KEY"):
        if child_variable(name):
            return name
    try:
        config = tomllib.loads((codex_home / "config.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    provider = config.get("model_provider")
    return f"model_provider {provider}" if provider and provider in config.get("model_providers", {}) else None
