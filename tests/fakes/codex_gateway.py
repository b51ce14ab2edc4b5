"""A gateway whose agent is the real Codex, its model a local server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from parts import require
from support import Gateway, running

from fakes.codex_home import codex_binary, write_codex_home
from fakes.model_server import ModelServer


@contextlib.contextmanager
def codex_gateway(folder: Path, **env: str) -> Iterator[Gateway]:
    """It runs for the length of a with block, with a home of its own below `folder`; skips where there is no Codex."""
    binary = codex_binary()
    require("codex", binary is not None, "./argus up --agent codex installs it")
    with ModelServer() as model:
        home = folder / "codex-home"
        home.mkdir()
        write_codex_home(home, model.url)
        own = {"CODEX_HOME": str(home), "HOME": str(folder), **env}  # no login shell profile of this machine
        with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=f"{binary} app-server", **own) as gateway:
            yield gateway
