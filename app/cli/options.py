"""The command line: the commands, their options, and which setting an option stands for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from app import settings

# An option that only stands for a variable, so that both are checked and explained by the table of settings.
VARIABLES = {
    "--port": "ARGUS_PORT",
    "--bind": "ARGUS_BIND",
    "--home": "ARGUS_HOME_HOST_PATH",
    "--agent": "ARGUS_AGENT",
    "--provision": "ARGUS_PROVISION_MODE",
}


@dataclass(frozen=True)
class Command:
    """One command: what it does in a line, the options that stand for settings, and what must be in .venv for it.

    Without requirements it runs in any Python, with or without a .venv, and looks at the settings itself.
    """

    summary: str
    settings: tuple[str, ...] = ()
    requirements: str = "requirements.txt"


COMMANDS = {
    "up": Command("start the gateway; the first time, make .venv and install what it needs", tuple(VARIABLES)),
    "down": Command(
        "stop the gateway of a home, and every runtime it started on this machine", ("--home", "--provision")
    ),
    "link": Command("print a link that opens the page; good once, for ten minutes", ("--home",)),
    "receipt": Command("tell what became of something that was said to an agent", ("--home",)),
    "doctor": Command(
        "look for what keeps Argus from working, and say what mends it", tuple(VARIABLES), requirements=""
    ),
    "sessions": Command("list, stop, start or remove sessions, or read their logs", ("--home",)),
    "smoke": Command("say one thing to an agent and print its answer", ("--home",)),
    "web": Command("pass port 3000 on to a gateway, as docker-compose.yml's profile web does"),
    "test": Command("run the tests", requirements="requirements-dev.txt"),
}


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one sentence and exit code 2, and an option must be written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """One sentence, exit code 2."""
        print(f"argus: {message}; {self.prog} --help says what there is.", file=sys.stderr)
        sys.exit(2)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace: `command`, the command's own options, and `settings` (variable to text).

    A mistake ends the process with one sentence and exit code 2; --help with the help and 0.
    """
    # What follows `test` is pytest's, options and all.
    if argv[:1] == ["test"] and argv[1:] not in (["-h"], ["--help"]):
        return argparse.Namespace(command="test", pytest=list(argv[1:]), settings={})
    parser = _parser()
    args, unknown = parser.parse_known_args(list(argv))
    if unknown:  # said by the command's own parser: its help has what may stand there
        of = Parser(prog=f"./argus {args.command}") if args.command else parser
        of.error(f"unrecognized arguments: {' '.join(unknown)}")
    args.settings = _chosen(parser, args)
    return args


def overview() -> str:
    """The text of `./argus help`."""
    lines = ["Argus, a self-hosted gateway between people and AI agents.", "", "usage: ./argus COMMAND [options]", ""]
    lines += [f"  {name:9}{command.summary}" for name, command in COMMANDS.items()]
    lines += [f"  {'help':9}print this", "", "options of up, each with the variable that it stands for:", ""]
    for option in COMMANDS["up"].settings:
        row = _row(option)
        lines.append(f"  {option + ' ' + _metavar(option):18}{row['name']}, default {row['default']}")
        lines.append(f"  {'':18}{_explained(row)}")
    lines += ["", "./argus COMMAND --help tells more of each; docs/settings.md has every setting."]
    return "\n".join(lines) + "\n"


def _row(option: str) -> dict:
    return next(row.metadata for row in settings.table() if row.metadata["name"] == VARIABLES[option])


def _explained(row: dict) -> str:
    """What the setting means and, where it is a word of a few, which."""
    kind = row["kind"]
    words = f" {kind.allowed[:1].upper()}{kind.allowed[1:]}." if kind.allowed.startswith("one of") else ""
    return row["help"] + words


def _metavar(option: str) -> str:
    return {"--port": "N", "--bind": "ADDRESS", "--home": "DIR", "--agent": "NAME", "--provision": "MODE"}[option]


def _parser() -> Parser:
    parser = Parser(prog="./argus", add_help=False)
    parser.format_help = overview  # type: ignore[method-assign]
    parser.add_argument("-h", "--help", action="help")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, description=command.summary[:1].upper() + command.summary[1:] + ".")
        for option in command.settings:
            row = _row(option)
            text = f"{_explained(row)} Stands for {row['name']}; default {row['default']}.".replace("%", "%%")
            sub.add_argument(option, metavar=_metavar(option), dest=row["name"], help=text)
        if name == "sessions":
            _sessions(sub)
        if name == "smoke":
            _smoke(sub)
        if name == "receipt":
            sub.add_argument("input", metavar="ID", help="the id that accepting it gave (inputId)")
            sub.add_argument("--json", action="store_true", help="as one JSON object, for programs")
        if name == "doctor":
            sub.add_argument("--json", action="store_true", help="as one JSON object, for programs")
        if name == "test":
            sub.add_argument("pytest", nargs="*", help="what pytest is given; nothing: the whole suite")
    commands.add_parser("help", add_help=False)
    return parser


def _sessions(sub: Parser) -> None:
    sub.add_argument("action", choices=("list", "logs", "stop", "start", "rm"), help="what to do with them")
    sub.add_argument("session", nargs="*", metavar="SESSION", help="an id, its beginning, or a container's name")
    sub.add_argument("--all", action="store_true", help="all sessions")
    sub.add_argument("--lines", type=int, default=200, metavar="N", help="logs: how many lines; default 200")


def _smoke(sub: Parser) -> None:
    sub.add_argument(
        "target",
        nargs="?",
        metavar="HOST:PORT | SOCKET",
        help="a runtime that no gateway holds; left out: through the gateway of this home",
    )
    sub.add_argument("--prompt", default="hello", metavar="TEXT", help="what is said; default hello")
    sub.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for all of it; default 60")
    sub.add_argument("--auto-approve", action="store_true", help="say yes when the agent asks; else it is told no")
    sub.add_argument("--secret", default="", metavar="S", help="the secret of a runtime that asks for one")


def _chosen(parser: Parser, args: argparse.Namespace) -> dict[str, str]:
    """The variables that options set, checked as the settings check them. A relative home is the caller's."""
    chosen = {}
    for option, name in VARIABLES.items():
        text = getattr(args, name, None)
        if text is None:
            continue
        kind = _row(option)["kind"]
        try:
            if not text.strip():
                raise ValueError
            if option == "--home":
                text = os.path.abspath(os.path.expanduser(text))
            kind.parse(text)
        except (ValueError, TypeError):
            parser.prog = f"./argus {args.command}"
            parser.error(f"{option}: {text!r} is not allowed, it must be {kind.allowed}")
        chosen[name] = text
    return chosen
