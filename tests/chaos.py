#!/usr/bin/env python3
"""Says many things to many agents while the gateway is killed again and again, and looks for what was lost or doubled.

    .venv/bin/python tests/chaos.py                             10,000 inputs, 20 sessions, a kill -9 every 100
    .venv/bin/python tests/chaos.py --inputs 400 --seed 7       a short run, the same every time

The gateway gets kill -9 at random moments, also while an answer is being posted; now and then an agent or a bridge is
killed too. Each sender goes on until its input is accepted, with the same idempotency key. At the end the database,
the agents' own histories and the server that got the answers are compared. Ends with 1 if anything is not as promised.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import requests
from conversations import Sink, new_session
from support import TOKEN, Gateway

QUIET_S = 240  # how long after the last input everything may take to end
STALL_S = 90  # a sender that gets no answer for so long has found something
AHEAD = 20  # inputs of one sender that are not answered yet: so kills hit every part of their way


class Chaos:
    """One run. `problems` is empty if all promises were kept."""

    def __init__(self, inputs: int, sessions: int, kill_every: int, seed: int) -> None:
        self.random, self.inputs, self.kill_every = random.Random(seed), inputs, kill_every
        self.gateway = Gateway(ARGUS_HTTP_PRIVATE_HOSTS="127.0.0.1", ARGUS_LOG_LEVEL="warning")
        self.sink = Sink()
        self.names = sessions
        self.accepted: dict[str, str] = {}  # key -> input id
        self.kills: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stop = threading.Event()

    def run(self) -> dict[str, Any]:
        """Everything; the figures."""
        began = time.monotonic()
        try:
            self.gateway.start()
            sessions = [new_session(self.gateway) for _ in range(self.names)]
            senders = [threading.Thread(target=self.send_all, args=(i, s)) for i, s in enumerate(sessions)]
            for sender in senders:
                sender.start()
            self.kill_now_and_then(senders)
            self.wait_for_quiet()
            return {**self.compare(sessions), "seconds": round(time.monotonic() - began, 1)}
        finally:
            self.stop.set()
            self.gateway.close()
            self.sink.__exit__()

    # -- saying things

    def send_all(self, number: int, session: str) -> None:
        count = self.inputs // self.names + (number < self.inputs % self.names)
        with requests.Session() as http:
            http.headers["Authorization"] = f"Bearer {TOKEN}"
            for n in range(count):
                self.wait_for_answers(number, n)
                key = f"{number}-{n}"
                body = {"text": f"input {key}", "replyRoute": {"type": "http", "url": f"{self.sink.url}/{number}"}}
                self.send_one(http, session, key, body)

    def wait_for_answers(self, number: int, said: int) -> None:
        """Until one sender is not too far ahead of its answers."""
        deadline, before = time.monotonic() + STALL_S, self.received(number)
        while said - self.received(number) >= AHEAD and not self.stop.is_set():
            if self.received(number) != before:
                deadline, before = time.monotonic() + STALL_S, self.received(number)
            if time.monotonic() > deadline:
                self.problems.append(f"sender {number} got no answer for {STALL_S} s: {self.explain(number)}")
                self.stop.set()
            time.sleep(0.01)

    def explain(self, number: int) -> str:
        """What the gateway says of one sender's oldest input that is not over, and the end of its log."""
        sql = f"select id from inputs where dedupe like '{number}-%' and state in ('queued', 'started') order by seq"
        told = "all is over"
        for (id,) in self.query(sql)[:1]:
            told = self.gateway.api("GET", f"/inputs/{id}").text
        waiting = self.query(
            f"select * from deliveries where key like '%' and route like '%/{number}\"%' and state != 'sent'"
        )
        return f"{told} {waiting[:3]} {self.gateway.said()[-3000:]}"

    def received(self, number: int) -> int:
        """How many answers have come for one sender."""
        return len(self.sink.places[f"/{number}"])

    def send_one(self, http: requests.Session, session: str, key: str, body: dict[str, Any]) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(requests.RequestException):
                url = f"{self.gateway.url}/sessions/{session}/inputs"
                answer = http.post(url, json=body, headers={"Idempotency-Key": key}, timeout=20)
                if answer.status_code == 202:
                    self.accepted[key] = answer.json()["inputId"]
                    return
                if answer.status_code not in (429, 503):
                    self.problems.append(f"{key} was refused: {answer.status_code} {answer.text[:200]}")
                    return
            time.sleep(0.02)

    # -- killing

    def kill_now_and_then(self, senders: list[threading.Thread]) -> None:
        due = self.kill_every
        while any(sender.is_alive() for sender in senders):
            if len(self.accepted) < due:
                time.sleep(0.005)
                continue
            due += self.kill_every
            time.sleep(self.random.random() * 0.3)
            if self.random.random() < 0.2:
                self.kill_a_runtime()
            self.gateway.kill()
            self.kills["gateway"] += 1
            self.gateway.start()

    def kill_a_runtime(self) -> None:
        program = self.random.choice(["demo.py", "bridge.py"])
        pids = self.gateway.pids_of(program)
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(pids), signal.SIGKILL)
            self.kills[program] += 1

    # -- looking

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.gateway.home / "gateway" / "argus.db", timeout=10)) as db:
            return db.execute(sql).fetchall()

    def wait_for_quiet(self) -> None:
        def open_rows() -> int:
            waiting = "select count(*) from inputs where state in ('queued', 'started')"
            sending = "select count(*) from deliveries where state in ('pending', 'failed', 'uncertain')"
            return self.query(waiting)[0][0] + self.query(sending)[0][0]

        deadline = time.monotonic() + QUIET_S
        while open_rows():
            if time.monotonic() > deadline:
                self.problems.append(f"{open_rows()} inputs and deliveries were not over after {QUIET_S} s")
                return
            time.sleep(0.1)

    def compare(self, sessions: list[str]) -> dict[str, Any]:
        rows = self.query("select id, dedupe, state, error, message_id from inputs")
        by_key = Counter(row[1] for row in rows)
        states = Counter(row[2] for row in rows)
        lost = [key for key, id in self.accepted.items() if id not in {row[0] for row in rows}]
        self.expect(len(self.accepted) == self.inputs, f"only {len(self.accepted)} were accepted")
        self.expect(not lost, f"accepted, but not stored: {lost[:5]}")
        self.expect(max(by_key.values()) == 1, "one key became two inputs")
        good = [row for row in rows if row[2] == "answered" or (row[2] == "interrupted" and row[3])]
        bad = [row for row in rows if row not in good]
        self.expect(not bad, f"neither answered nor interrupted with a reason: {bad[:5]}")
        doubled = self.look_at_histories(sessions, {row[0]: row for row in rows})
        arrived, uncertain = self.look_at_deliveries(rows)
        return {
            "accepted": len(self.accepted),
            **states,
            "lost": len(lost),
            "doubled turns": doubled,
            "doubled deliveries": sum(arrived.values()) - len(arrived),
            "uncertain": uncertain,
            "kills": dict(self.kills),
        }

    def look_at_histories(self, sessions: list[str], rows: dict[str, Any]) -> int:
        """The agents' own files say how often each message came, and in which order."""
        seen: Counter[str] = Counter()
        for session in sessions:
            for path in Path(self.gateway.home, "sessions", session, "state", "threads").glob("*.jsonl"):
                mine = [id for id in map(message_id, path.read_bytes().splitlines()) if id]
                seen.update(mine)
                order = [int(rows[id][1].split("-")[1]) for id in mine if id in rows]
                self.expect(order == sorted(order), f"out of order in {session}: {order}")
        doubled = sum(count - 1 for count in seen.values())
        self.expect(doubled == 0, f"turns run twice: {[id for id, n in seen.items() if n > 1][:5]}")
        never = [id for id, row in rows.items() if row[2] == "answered" and id not in seen]
        self.expect(not never, f"answered, but the agent never saw it: {never[:5]}")
        return doubled

    def look_at_deliveries(self, rows: list[Any]) -> tuple[Counter[str], int]:
        arrived = self.sink.times()
        sent = self.query("select key, state, uncertain from deliveries")
        uncertain = sum(row[2] for row in sent)
        missing = [key for key, state, _ in sent if state == "sent" and key not in arrived]
        self.expect(len(sent) == len(rows), f"{len(rows)} inputs, {len(sent)} deliveries")
        self.expect(not missing, f"said to be sent, but never came: {missing[:5]}")
        dead = [key for key, state, _ in sent if state == "dead" and key not in arrived]
        self.expect(not dead, f"given up, and never came: {dead[:5]}")
        doubled = sum(arrived.values()) - len(arrived)
        self.expect(doubled <= uncertain, f"{doubled} deliveries came twice, {uncertain} were counted uncertain")
        return arrived, uncertain

    def expect(self, held: bool, otherwise: str) -> None:
        if not held:
            self.problems.append(otherwise)


def message_id(line: bytes) -> str | None:
    """The clientId in a line of a demo agent's history, if it is a user's message."""
    try:
        item = json.loads(line).get("item") or {}
    except ValueError:
        return None
    return item.get("clientId") if item.get("type") == "userMessage" else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--kill-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chaos = Chaos(options.inputs, options.sessions, options.kill_every, options.seed)
    print(json.dumps(chaos.run(), indent=1))
    for problem in chaos.problems:
        print("NOT AS PROMISED:", problem)
    return 1 if chaos.problems else 0


if __name__ == "__main__":
    sys.exit(main())
