"""./argus doctor: Codex, its login, and the mistakes in its config.toml that make every thread fail."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator

from app.agents import codex
from app.cli.findings import BROKEN, INFO, OK, WARNING, Finding
from app.settings import Settings

VERSION_TIMEOUT_S = 20.0


def codex_program(settings: Settings) -> Iterator[Finding]:
    """Is it there, does it run, and is it the version that Argus was tested with?"""
    if settings.provision_mode != "process" or settings.agent == "demo":
        return
    if settings.runtime_cmd:
        yield from _own_command(settings.runtime_cmd)
        return
    program = codex.installed()
    if program is None:
        level = BROKEN if settings.agent == "codex" else INFO
        yield Finding(level, "Codex", "is not installed; the demo agent is there", "./argus up --agent codex")
        return
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S
        )
        said = done.stdout.strip() if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    own = program.is_relative_to(codex.INSTALLED_AT)
    anew = f"rm -r {shlex.quote(str(codex.INSTALLED_AT))}; ./argus up --agent codex" if own else "install Codex anew"
    if not said:
        yield Finding(BROKEN, "Codex", f"{program} does not run", anew)
    elif said.split()[-1] != codex.CODEX_VERSION:
        text = f"{said} at {program}; Argus was tested with {codex.CODEX_VERSION}"
        mend = anew if own else f"npm install -g @openai/codex@{codex.CODEX_VERSION}"
        yield Finding(INFO, "Codex", text, mend)
    else:
        yield Finding(OK, "Codex", f"{said} at {program}")


def _own_command(command: str) -> Iterator[Finding]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        yield Finding(BROKEN, "agent", f"ARGUS_RUNTIME_CMD is no command ({error})", "mend its quotes")
        return
    # A line for the shell may begin with anything; only a plain word is looked for.
    if words and not set(words[0]) & set("=$;&|<>(){}") and shutil.which(words[0]) is None:
        yield Finding(BROKEN, "agent", f"ARGUS_RUNTIME_CMD: there is no {words[0]}", "install it, or mend the command")
    else:
        yield Finding(OK, "agent", f"ARGUS_RUNTIME_CMD is {command}")


def _used(settings: Settings) -> bool:
    """May new sessions run Codex on this machine?"""
    if settings.provision_mode != "process" or settings.agent == "demo":
        return False
    return bool(settings.runtime_cmd) or codex.installed() is not None


def codex_login(settings: Settings) -> Iterator[Finding]:
    """What it logs in with."""
    if not _used(settings):
        return
    login = codex.login()
    if login:
        yield Finding(OK, "Codex login", login)
        return
    level = WARNING if settings.agent == "codex" else INFO
    keys = [name for name in codex.KEYS if os.environ.get(name)]
    text = f"none; {keys[0]} is set, but Codex's app-server does not read it" if keys else "none"
    yield Finding(level, "Codex login", text, codex.login_command())


def codex_config(settings: Settings) -> Iterator[Finding]:
    """Mistakes that Codex tells of only when a thread is started."""
    path = codex.config_home() / "config.toml"
    if not _used(settings) or not path.exists():
        return
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield Finding(BROKEN, "Codex config", f"{path} cannot be read ({error})", f"chmod u+r {shlex.quote(str(path))}")
        return
    mistakes = codex.config_mistakes(text)
    for mistake in mistakes:
        told, _, mend = mistake.partition("; ")
        text_ = f"{path}: {told}; every thread/start will fail"
        yield Finding(BROKEN, "Codex config", text_, mend or f"edit {shlex.quote(str(path))}")
    for name in codex.missing_variables(text):
        mend = f"export {name}=..., then start Argus again"
        yield Finding(WARNING, "Codex config", f"its model provider takes its key from {name}, which is not set", mend)
    if not mistakes:
        yield Finding(OK, "Codex config", str(path))
