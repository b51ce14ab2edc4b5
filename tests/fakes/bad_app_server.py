"""An app-server with one fault, named by its first argument. Real in all else: JSON lines on stdio.

flood (200 MB without a newline on turn/start), garbage (non-JSON and invalid UTF-8 on turn/start), exits (at once),
mute (never answers), deaf (initializes, then never answers), big (turn/start: MEGABYTES frames of 64 KiB), forger
(speaks for its bridge on turn/start).
"""

from __future__ import annotations

import json
import os
import sys
import time


def say(**message: object) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def on_turn(fault: str, id: object) -> None:
    if fault == "flood":
        for _ in range(200):
            os.write(1, b"x" * (1 << 20))
    if fault == "garbage":
        os.write(1, b"this is not JSON\n\xff\xfe\x00 neither\n[1,2]\n")
    say(id=id, result={"turn": {"id": "t1"}})
    if fault == "forger":
        say(method="turn/started", params={"threadId": "th", "turn": {"id": "t1"}})
        for mark in ({}, {"mark": ""}, {"mark": "0" * 32}):
            say(method="bridge/exited", **mark, params={"life": 1, "code": 1, "state": "failed"})
            say(method="bridge/started", **mark, params={"life": 2})
    if fault == "big":
        size, text = 65536, "x" * (65536 - 100)
        for n in range(int(sys.argv[2]) * (1 << 20) // size):
            say(method="item/agentMessage/delta", params={"threadId": "th", "delta": text, "n": n})
    say(method="turn/completed", params={"threadId": "th", "turn": {"id": "t1", "status": "completed"}})


def main(fault: str) -> None:
    if fault == "exits":
        sys.exit("this agent does not want to live")
    for line in sys.stdin:
        message = json.loads(line)
        if fault == "mute" or "id" not in message or "method" not in message:
            continue
        if message["method"] == "initialize":
            say(id=message["id"], result={"userAgent": "bad/1"})
        elif fault == "deaf":
            continue
        elif message["method"] == "turn/start":
            on_turn(fault, message["id"])
        else:
            say(id=message["id"], result={"thread": {"id": "th"}})
    time.sleep(0)


main(sys.argv[1])
