"""How long sessions take to come, to come back and to go, with the demo agent as real processes.

    .venv/bin/python bench/lifecycle.py [--sessions 100]

Absolute times on a busy machine mean little; each is printed beside its budget.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support import Client, Gateway, running, until

ROUNDS = 10


def new_session(gateway: Gateway) -> tuple[float, Client]:
    """Seconds from connecting to the answer of initialize, in a session that did not exist."""
    began = time.monotonic()
    client = gateway.client()
    client.result("initialize", {"clientInfo": {"name": "bench", "version": "0"}})
    return time.monotonic() - began, client


def delete(gateway: Gateway, client: Client) -> float:
    """Seconds from DELETE until no process of the session is left."""
    began = time.monotonic()
    gateway.api("DELETE", f"/sessions/{client.session}")
    until(lambda: not gateway.runtime_pids(), 10)
    return time.monotonic() - began


def reattach(gateway: Gateway, sessions: int) -> float:
    """Seconds from kill -9 of a gateway until its successor has all sessions again."""
    for _ in range(sessions):
        new_session(gateway)[1].close()
    gateway.kill()
    began = time.monotonic()
    gateway.start()

    def all_running() -> bool:
        listed = gateway.api("GET", "/sessions").json()["sessions"]
        return len(listed) == sessions and all(s["state"] == "running" for s in listed)

    until(all_running, 60)
    return time.monotonic() - began


def start(gateway: Gateway) -> float:
    """Seconds from exec to the first answer of /healthz."""
    gateway.stop()
    began = time.monotonic()
    gateway.start()
    return time.monotonic() - began


def main() -> int:
    """Measure, print a table; 1 if a budget is exceeded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=100)
    sessions = parser.parse_args().sessions
    rows = []
    with running() as gateway:
        rows.append(("start to /healthz", statistics.median(start(gateway) for _ in range(5)), 1.5))
        delete(gateway, new_session(gateway)[1])  # warm
        made, gone = [], []
        for _ in range(ROUNDS):
            seconds, client = new_session(gateway)
            made.append(seconds)
            gone.append(delete(gateway, client))
        rows.append(("new process session to `initialize` answered", statistics.median(made), 0.4))
        rows.append(("delete to all its processes dead", max(gone), 1.0))
        rows.append((f"kill -9, start, {sessions} sessions attached again", reattach(gateway, sessions), 5.0))
    print("| what | measured | budget | |\n|---|---|---|---|")
    for what, seconds, budget in rows:
        print(
            f"| {what} | {seconds * 1000:.0f} ms | {budget * 1000:.0f} ms | {'ok' if seconds <= budget else 'over'} |"
        )

    return 0 if all(seconds <= budget for _, seconds, budget in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
