#!/usr/bin/env python3
"""What it costs to say something durably: stored with synchronous=FULL before it is acknowledged.

    .venv/bin/python bench/conversation.py [--inputs 500] [--queued 10000]

The agent answers at once, so that the gateway is what is measured. Absolute times on a busy machine mean little; the
plain cost of a transaction on this disk is printed beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests
from processes import pss_kb, tree

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support import TOKEN, Client, Gateway, until

AGENT = Path(__file__).resolve().parent / "load" / "instant_agent.py"
WARM_UP, SPEAKERS, TURNS = 20, 8, 200


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def gateway(log: Path, **more: str) -> Gateway:
    command = f"{sys.executable} -I -S {AGENT} {log}"
    return Gateway(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=command, ARGUS_LOG_LEVEL="error", **more).start()


def transaction_ms(rounds: int = 200) -> float:
    """The median of one small transaction on this disk, as the gateway's database is set."""
    with tempfile.TemporaryDirectory() as place, contextlib.closing(sqlite3.connect(f"{place}/x.db")) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.execute("create table t (a integer primary key, b text)")
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            with db:
                db.execute("insert into t (b) values (?)", ("x" * 500,))
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def say(http: requests.Session, url: str, session: str, text: str) -> tuple[float, str]:
    """Seconds until one input was acknowledged, and its id."""
    began = time.perf_counter()
    answer = http.post(f"{url}/sessions/{session}/inputs", json={"text": text})
    took = time.perf_counter() - began
    return took, answer.json()["inputId"]


def speaker() -> requests.Session:
    http = requests.Session()
    http.headers["Authorization"] = f"Bearer {TOKEN}"
    return http


def acknowledged(made: Gateway, inputs: int) -> tuple[list[float], float]:
    """Seconds from asking to 202, one speaker; and inputs a second with several."""
    http = speaker()
    session = http.post(made.url + "/sessions", json={}).json()["sessionId"]
    say(http, made.url, session, "hang")  # all else waits: only accepting is measured
    for _ in range(WARM_UP):
        say(http, made.url, session, "warm")
    alone = [say(http, made.url, session, f"input {n}")[0] for n in range(inputs)]

    def many() -> None:
        own = speaker()
        for n in range(inputs // SPEAKERS):
            say(own, made.url, session, f"input {n}")

    threads = [threading.Thread(target=many) for _ in range(SPEAKERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return alone, inputs // SPEAKERS * SPEAKERS / (time.perf_counter() - began)


def on_the_wire(made: Gateway, log: Path) -> list[float]:
    """Seconds from sending an input on /ws until its turn/start has reached the agent's stdin, by way of the bridge."""
    client = Client(made)
    client.result("argus/thread/main/ensure")
    asked: dict[str, float] = {}
    for n in range(WARM_UP + TURNS):
        began = time.monotonic()
        told = client.result("argus/input/enqueue", {"text": f"input {n}"})
        asked[told["inputId"]] = began
        client.note("turn/completed")
        client.seen.clear()
        client.read = 0
    client.close()
    arrived = {name: float(at) for name, at in (line.split() for line in log.read_text().splitlines())}
    return [arrived[id] - began for id, began in list(asked.items())[WARM_UP:]]


def with_queue(log: Path, queued: int) -> dict[str, Any]:
    """Start and memory of a gateway with so many queued inputs, beside an empty one."""
    made = gateway(log)
    try:
        http = speaker()
        empty = _start(made)
        session = http.post(made.url + "/sessions", json={}).json()["sessionId"]
        say(http, made.url, session, "hang")
        ids = [say(http, made.url, session, "x" * 200)[1] for _ in range(queued)]
        full = _start(made)
        until(lambda: made.api("GET", f"/sessions/{session}").json()["state"] == "running", 30)
        waits = made.api("GET", f"/inputs/{ids[-1]}").json()["state"]
        assert waits == "queued", waits
        return {"empty": empty, "full": full}
    finally:
        made.close()


def _start(made: Gateway) -> tuple[float, int]:
    """(seconds from exec to /healthz after a kill -9, PSS in KB a moment later)."""
    made.kill()
    began = time.monotonic()
    made.start()
    took = time.monotonic() - began
    time.sleep(2.0)
    return took, pss_kb(tree(made.process.pid))


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--queued", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        plain = transaction_ms()
        log = Path(place) / "log"
        made = gateway(log)
        try:
            alone, rate = acknowledged(made, options.inputs)
            wire = on_the_wire(made, log)
        finally:
            made.close()
        starts = with_queue(log, options.queued)
    rows = [
        ("one plain SQLite transaction here (synchronous=FULL), p50", f"{plain:.2f} ms", ""),
        ("input to 202, one speaker, p50", f"{statistics.median(alone) * 1000:.1f} ms", ""),
        ("input to 202, one speaker, p99", f"{percentile(alone, 0.99) * 1000:.1f} ms", ""),
        (f"inputs acknowledged a second, {SPEAKERS} speakers", f"{rate:.0f}", ""),
        ("input to turn/start at the agent, p50", f"{statistics.median(wire) * 1000:.1f} ms", "≤ 8 ms"),
        ("input to turn/start at the agent, p99", f"{percentile(wire, 0.99) * 1000:.1f} ms", ""),
    ]
    for name, what in (("empty", "nothing queued"), ("full", f"{options.queued} inputs queued")):
        took, kb = starts[name]
        rows.append((f"start to /healthz after kill -9, {what}", f"{took:.2f} s", "≤ 1.5 s"))
        rows.append((f"memory of the gateway then (PSS), {what}", f"{kb / 1024:.0f} MB", "≤ 110 MB"))
    print("| what | measured | budget |\n|---|---:|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(json.dumps({"wire_ms": [round(w * 1000, 2) for w in wire[:10]]}), file=sys.stderr)


if __name__ == "__main__":
    main()
