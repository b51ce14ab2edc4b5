"""Runs in a child process of the gateway: see app/store/database.py."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError


def config(url: str) -> Config:
    """Alembic's configuration, without a file."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return made


def main(url: str, revision: str = "head") -> None:
    """Upgrade, or downgrade to an older revision ("base": no tables)."""
    known = {script.revision for script in ScriptDirectory.from_config(config(url)).walk_revisions()}
    older = revision in known or revision == "base"
    (command.downgrade if older else command.upgrade)(config(url), revision)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except DBAPIError as error:
        sys.exit(str(error.orig))  # the gateway shows the last line
