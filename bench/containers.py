"""How long sessions in containers take to come, to be woken and to come back, beside a bare `docker run`.

    .venv/bin/python bench/containers.py [--rounds 10] [--sessions 20]

Rounds alternate between a bare `docker run --detach` of the same image (until the client says that it runs), a new
session and a stopped one (both until `initialize` is answered). Medians; only ratios mean something on a busy machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from docker_kit import DockerGateway, docker_running, require_docker
from support import Client, until

MAX_COLD, MAX_WOKEN = 2.0, 1.5


def bare(image: str) -> float:
    """Seconds of a bare `docker run`."""
    began = time.monotonic()
    program = ["python3", "-c", "import time; time.sleep(60)"]
    command = ["docker", "run", "--detach", "--network", "argus-net", image, *program]
    id = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    took = time.monotonic() - began
    subprocess.run(["docker", "rm", "--force", id], check=True, capture_output=True)
    return took


def opened(gateway: DockerGateway, **query: str) -> tuple[float, Client]:
    """Seconds from connecting to the answer of initialize."""
    began = time.monotonic()
    client = gateway.client(hello=False, **query)
    client.session = client.note("argus/session", 60)["id"]
    client.result("initialize", {"clientInfo": {"name": "bench", "version": "0"}}, 60)
    return time.monotonic() - began, client


def pss_mb(gateway: DockerGateway) -> float:
    """Memory of the gateway's processes, shared parts counted once."""
    pids = [gateway.process.pid, *map(int, children(gateway.process.pid))]
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def children(pid: int) -> list[str]:
    """All descendants."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in found for each in (child, *children(int(child)))]


def starts(gateway: DockerGateway, rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each round: bare, cold, woken."""
    runs, colds, wakes = [], [], []
    image = gateway.env["ARGUS_RUNTIME_IMAGE"]
    for _ in range(rounds):
        runs.append(bare(image))
        took, client = opened(gateway)
        colds.append(took)
        client.close()
        gateway.api("POST", f"/sessions/{client.session}/stop")
        took, again = opened(gateway, session=client.session)
        wakes.append(took)
        again.close()
        gateway.api("DELETE", f"/sessions/{client.session}")
    return runs, colds, wakes


def reattach(gateway: DockerGateway, sessions: int) -> float:
    """Seconds from kill -9 of a gateway until its successor has all sessions again."""
    openers = [threading.Thread(target=lambda: opened(gateway)[1].close()) for _ in range(sessions)]
    for opener in openers:
        opener.start()
    for opener in openers:
        opener.join()
    gateway.kill()
    began = time.monotonic()
    gateway.start()

    def all_there() -> bool:
        rows = gateway.api("GET", "/sessions").json()["sessions"]
        return sum(row["state"] == "running" for row in rows) == sessions

    until(all_there, 120)
    return time.monotonic() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=20)
    args = parser.parse_args()
    require_docker()
    with docker_running() as gateway:
        opened(gateway)[1].close()  # the network is made, the SDK is imported
        gateway.api("DELETE", f"/sessions/{gateway.api('GET', '/sessions').json()['sessions'][0]['sessionId']}")
        runs, colds, wakes = (statistics.median(times) for times in starts(gateway, args.rounds))
        say("bare docker run", runs)
        say("new session to initialize answered", colds, colds / runs, MAX_COLD)
        say("stopped session to initialize answered", wakes, wakes / runs, MAX_WOKEN)
        say(f"kill -9, start, {args.sessions} sessions attached again", reattach(gateway, args.sessions))
        print(f"{'memory of the gateway then (PSS)':48} {pss_mb(gateway):8.1f} MB")


def say(what: str, seconds: float, ratio: float = 0.0, most: float = 0.0) -> None:
    """One row."""
    print(f"{what:48} {seconds * 1000:8.0f} ms" + (f"  {ratio:.2f} (<= {most})" if ratio else ""))


if __name__ == "__main__":
    main()
