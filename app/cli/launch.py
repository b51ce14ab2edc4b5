"""./argus COMMAND: checks the command line, makes sure of .venv, and runs the command in it, in the same process.

Runs before .venv exists, so it imports nothing but Python's own; a command's module is imported inside .venv.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from app import settings
from app.cli import environment, options
from app.errors import ArgusError


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns its exit code: 0 done, 1 refused or failed, 2 usage (see smoke for its own)."""
    try:
        return _run(argv)
    except ArgusError as error:
        print(f"argus: {error.text}", file=sys.stderr)
        return 1
    except OSError as error:
        # What no command foresaw of files: another user's folder, a full disk, a read-only one.
        where = f"{error.filename}: " if error.filename else ""
        print(f"argus: {where}{error.strerror or error}; mend that and run it again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("argus: stopped; run it again to go on.", file=sys.stderr)
        return 130


def _run(argv: Sequence[str]) -> int:
    args = options.parse(argv)
    if args.command in (None, "help"):
        print(options.overview(), end="")
        return 0
    os.environ.update(args.settings)
    requirements = options.COMMANDS[args.command].requirements
    if not requirements:
        return importlib.import_module(f"app.cli.{args.command}").run(args)
    if args.command != "test":
        # Before anything is installed: a wrong value should not cost a minute.
        settings.load()
    python = environment.ensure(requirements)
    if not environment.inside():
        # exec, so that the process keeps its number: who started ./argus can signal the gateway itself.
        sys.stdout.flush()
        os.execv(python, [str(python), str(environment.ROOT / "argus"), *argv])
    return importlib.import_module(f"app.cli.{args.command}").run(args)
