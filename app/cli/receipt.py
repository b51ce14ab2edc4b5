"""./argus receipt ID: the whole story of one thing that was said."""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from app import settings
from app.cli import gateway

SHOWN_CHARACTERS = 300


def run(args: Namespace) -> int:
    """Prints it for people, or with --json as the API gives it."""
    current = settings.load()
    told = gateway.ask(current, gateway.need(current, args), "GET", f"/inputs/{quote(args.input, safe='')}")
    print(json.dumps(told, indent=2, ensure_ascii=False) if args.json else "\n".join(lines(told)))
    return 0


def lines(told: dict[str, Any]) -> list[str]:
    """A receipt as text."""
    say = [f"{told['inputId']}: {told['state']}", f"  said: {_short(told['text'])}"]
    if told["source"]:
        say.append(f"  from: {_short(' '.join(f'{k}={v}' for k, v in told['source'].items()))}")
    say += [f"  {_when(step['atMs'])}  {step['step']}" for step in told["steps"]]
    for name, label in (("waitsFor", "waits"), ("error", "why not"), ("answer", "answer")):
        if told[name]:
            say.append(f"  {label}: {_short(told[name])}")
    for each in told["approvals"]:
        say.append(f"  asked: {each['method']}: {each['state']} {each['decision']} {each['by']}".rstrip())
    for each in told["deliveries"]:
        where = each["route"].get("url") or each["route"].get("type")
        doubts = f", {each['uncertain']} of unknown outcome" if each["uncertain"] else ""
        why = f": {_short(each['error'])}" if each["error"] else ""
        say.append(
            f"  delivery {each['deliveryId']} to {where}: {each['state']}, attempts {each['attempts']}{doubts}{why}"
        )
    if told["retriedAs"]:
        say.append(f"  said again as {told['retriedAs']}")
    elif told["state"] in ("interrupted", "failed"):
        say.append(f"  say it again: POST /inputs/{told['inputId']}/retry")
    return say


def _when(at_ms: int | None) -> str:
    if at_ms is None:
        return "?" * 23
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _short(text: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
