"""./argus sessions list | logs | stop | start | rm: the sessions of the running gateway, over its HTTP API."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import Any

from app import settings
from app.cli import gateway
from app.errors import ArgusError
from app.settings import Settings

COLUMNS = (("sessionId", "SESSION"), ("state", "STATE"), ("agent", "AGENT"), ("name", "NAME"), ("idle", "LAST USED"))


def run(args: Namespace) -> int:
    """Does it for each session named, or for all with --all; says what failed and goes on. 1 if something failed."""
    current = settings.load()
    found = gateway.need(current, args)
    rows = gateway.ask(current, found, "GET", "/sessions")["sessions"]
    if args.action == "list":
        print("\n".join(table(rows, time.time())))
        return 0
    failed = 0
    for session in chosen(rows, args):
        try:
            act(current, found, args, session)
        except ArgusError as error:
            failed += 1
            print(f"{session}: {error.text}")
    return 1 if failed else 0


def chosen(rows: list[dict[str, Any]], args: Namespace) -> list[str]:
    """Ids of the sessions meant: named whole, by their beginning, or by their container. Raises ArgusError."""
    if args.all:
        return [row["sessionId"] for row in rows]
    if not args.session:
        raise ArgusError(f"Which session? ./argus sessions {args.action} SESSION, or --all; `list` shows them.")
    ids = []
    for name in args.session:
        found = [row["sessionId"] for row in rows if row["sessionId"].startswith(name) or row["name"] == name]
        if len(found) != 1:
            few = "There is no session" if not found else "More than one session is called"
            raise ArgusError(f"{few} {name}; ./argus sessions list shows what there is.")
        ids += found
    return ids


def act(current: Settings, found: gateway.Running, args: Namespace, session: str) -> None:
    """One action on one session; prints what was done. Raises ArgusError."""
    path = f"/sessions/{session}"
    if args.action == "logs":
        print(gateway.ask_text(current, found, f"{path}/logs?lines={args.lines}"), end="")
        return
    if args.action == "rm":
        gateway.ask(current, found, "DELETE", path)
    else:
        gateway.ask(current, found, "POST", f"{path}/{args.action}")
    print(session, {"rm": "removed", "stop": "stopped", "start": "started"}[args.action])


def table(rows: list[dict[str, Any]], now: float) -> list[str]:
    """The lines of `list`."""
    shown = [{**row, "idle": ago(now - row["lastActiveAtMs"] / 1000)} for row in rows]
    cells = [[title for _, title in COLUMNS], *([str(row[key]) for key, _ in COLUMNS] for row in shown)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def ago(seconds: float) -> str:
    """A time that has passed, in the unit that suits it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "now"
