"""Which programs can run in a runtime: command, login, and whether they are here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.agents import codex, demo
from app.errors import BadRequest
from app.settings import Settings

NAMES = ("codex", "demo")


@dataclass(frozen=True)
class Choice:
    """The agent of new sessions, and why it is that one."""

    name: str
    why: str
    warning: str = ""


def command(name: str, settings: Settings) -> list[str] | str:
    """What starts the agent's app-server. Raises BadRequest for an agent that does not exist or is not installed."""
    contained = settings.provision_mode == "docker"
    if name == "demo":
        return demo.CONTAINED if contained else demo.command()
    if name == "codex":
        return (settings.runtime_cmd or codex.CONTAINED) if contained else codex.command(settings.runtime_cmd)
    raise BadRequest(f"there is no agent {name[:60]!r}; there are {', '.join(NAMES)}")


def choose(settings: Settings, home: Path | None = None) -> Choice:
    """A named agent is taken; else codex if its program and a login are both there, else demo.

    In containers the program is there (it is in the image), and the login is the home's own.
    """
    if settings.provision_mode == "docker":
        return _choose_contained(settings)
    login = codex.login(home)
    if settings.agent == "demo":
        return Choice("demo", "ARGUS_AGENT=demo")
    if settings.agent == "codex":
        warning = "" if login else f"Codex has no login yet: run `{codex.login_command()}`."
        return Choice("codex", "ARGUS_AGENT=codex", warning)
    if settings.runtime_cmd:
        return Choice("codex", "ARGUS_RUNTIME_CMD is set")
    if codex.installed() is None:
        return Choice("demo", "Codex is not installed; `./argus up --agent codex` installs it")
    if not login:
        return Choice("demo", f"Codex is installed but has no login; `{codex.login_command()}` gives it one")
    return Choice("codex", f"Codex is installed and has a login ({login})")


def _choose_contained(settings: Settings) -> Choice:
    folder = settings.home / ".codex"
    login = codex.login_in(folder)
    how = (
        f"copy your ~/.codex/auth.json to {folder}/, or run `docker compose run --rm runtime-image codex login "
        "--device-auth`"
    )
    if settings.agent == "demo":
        return Choice("demo", "ARGUS_AGENT=demo")
    if settings.agent == "codex":
        return Choice("codex", "ARGUS_AGENT=codex", "" if login else f"Codex has no login yet: {how}.")
    if settings.runtime_cmd:
        return Choice("codex", "ARGUS_RUNTIME_CMD is set")
    if not login:
        return Choice("demo", f"Codex has no login in {folder}: {how}")
    return Choice("codex", f"Codex has a login ({login})")
