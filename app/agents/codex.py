"""OpenAI's Codex: where its program is, and whether it can log in."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

from app.errors import Unavailable
from app.settings import child_variable

CODEX_VERSION = "0.169.0"
ROOT = Path(__file__).resolve().parents[2]
INSTALLED_AT = ROOT / ".agents" / "codex"
NATIVE = "node_modules/@openai/codex-*/vendor/*/bin/codex"  # skips the Node wrapper: one process and 65 ms less
CONTAINED = ["codex", "app-server"]  # in a container: what runtime/Dockerfile installs

# Model providers that Codex knows without a table, and those of them that need no login at OpenAI.
WITHOUT_LOGIN = ("ollama", "lmstudio", "amazon-bedrock", "gcp")
BUILT_IN = ("openai", *WITHOUT_LOGIN)
KEYS = ("OPENAI_API_KEY", "CODEX_API_KEY")


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
        how = "stop the gateway and start it with ./argus up --agent codex, or set ARGUS_RUNTIME_CMD"
        raise Unavailable(f"Codex is not installed: {how}")
    return [str(program), "app-server"]


def login_command() -> str:
    """What a person types to log in. With a key in the environment: what makes a login of it."""
    wrapper = INSTALLED_AT / "node_modules" / ".bin" / "codex"
    command = f"{wrapper} login" if wrapper.exists() else "codex login"
    key = next((name for name in KEYS if child_variable(name)), None)
    return f"printenv {key} | {command} --with-api-key" if key else command


def config_home(home: Path | None = None) -> Path:
    """Where Codex keeps its login and its config.toml."""
    return Path(child_variable("CODEX_HOME") or (home or Path.home()) / ".codex")


def login(home: Path | None = None) -> str | None:
    """What Codex can log in with, in words, or None.

    KEYS in the environment do not count: the app-server does not read them.
    """
    return login_in(config_home(home))


def login_in(codex_home: Path) -> str | None:
    """What a folder that is Codex's home brings to log in with, in words, or None."""
    if (codex_home / "auth.json").is_file():
        return "auth.json"
    try:
        config = tomllib.loads((codex_home / "config.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    provider = config.get("model_provider")
    if provider in WITHOUT_LOGIN:
        return f"model_provider {provider}"
    table = _table(config, "model_providers").get(provider)
    own = isinstance(table, dict) and not table.get("requires_openai_auth")
    return f"model_provider {provider}" if own else None


def config_mistakes(text: str) -> list[str]:
    """What in a config.toml makes Codex refuse every thread/start, each as a sentence that says how to mend it."""
    try:
        config = tomllib.loads(text)
    except ValueError as error:
        return [f"it is no TOML ({error})"]
    found = []
    provider = config.get("model_provider")
    if isinstance(provider, str) and provider not in BUILT_IN and provider not in _table(config, "model_providers"):
        found.append(
            f"model_provider {provider!r} has no table [model_providers.{provider}]; add it, or take the line out"
        )
    for name, server in _table(config, "mcp_servers").items():
        if not isinstance(server, dict):
            found.append(f"mcp_servers.{name} is no table; it needs a url or a command")
        elif "bearer_token" in server:
            found.append(
                f"[mcp_servers.{name}] has bearer_token, which Codex refuses; put the token into a variable and name "
                "that: bearer_token_env_var"
            )
        elif not server.keys() & {"url", "command"}:
            found.append(f"[mcp_servers.{name}] has neither url nor command; add one, or take the table out")
    return found


def missing_variables(text: str) -> list[str]:
    """Variables that the chosen model provider takes its key from and that are not set."""
    try:
        config = tomllib.loads(text)
    except ValueError:
        return []
    table = _table(config, "model_providers").get(config.get("model_provider"))
    name = table.get("env_key") if isinstance(table, dict) else None
    return [name] if isinstance(name, str) and name and not child_variable(name) else []


def _table(config: dict[str, Any], name: str) -> dict[Any, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}
