#!/usr/bin/env python3
"""What the bridge costs per line, beside socat in the same run.

    .venv/bin/python bench/bridge.py [--rounds 3] [--lines 1000000] [--json FILE]

Both get the same app-server, a program that prints lines of 128 bytes as fast as they are taken,
and the same reader on a Unix socket; they run alternately. Counted is the CPU time of the bridge
(or socat) alone, from the reader's first line to its last. Ends with 1 if the budget is exceeded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import processes

BRIDGE = Path(__file__).resolve().parent.parent / "runtime" / "bridge.py"
BUDGET = 1.5
LINE_BYTES = 128
LIMIT_S = 60.0
SETTLE_S = 0.02
SECRET = "only for this measurement"
GO = b'{"method":"bench/go"}\n'
DONE = b'{"method":"bench/done"}\n'


def generator(lines: int) -> list[str]:
    cpu = next(iter(processes.LOAD_CPU))
    return ["./lines", str(lines), str(LINE_BYTES), str(cpu)]


def bridge_command(folder: Path, lines: int) -> list[str]:
    """How the bridge is started; it reads everything else from its configuration."""
    config = {
        "listen": f"unix:{folder / 'socket'}",
        "secret": SECRET,
        "command": generator(lines),
        "cwd": str(processes.BUILD),
        "log": str(folder / "bridge.log"),
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return [sys.executable, str(BRIDGE), str(path)]


def socat_command(folder: Path, lines: int) -> list[str]:
    return ["socat", f"UNIX-LISTEN:{folder / 'socket'}", "EXEC:" + " ".join(generator(lines))]


def attach(link: socket.socket) -> None:
    """Shows the secret to the bridge and waits for its answer, which is one line."""
    params = {"secret": SECRET, "term": 1, "after": 0}
    request = {"id": 1, "method": "bridge/attach", "params": params}
    link.sendall(json.dumps(request).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        byte = link.recv(1)
        if not byte:
            raise RuntimeError("the bridge hung up")
        answer += byte
    if "result" not in json.loads(answer):
        raise RuntimeError(f"the bridge refused: {answer.decode().strip()}")


def connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(LIMIT_S)
        try:
            link.connect(str(path))
            return link
        except OSError:  # not there yet
            link.close()
            time.sleep(0.01)
    raise RuntimeError("nothing listens: it ended or takes too long")


def read_lines(link: socket.socket, expected: int) -> float:
    """Reads until the generator is done; returns the seconds it took. All lines must be there."""
    began = time.monotonic()
    size = newlines = 0
    tail = b""
    while not tail.endswith(DONE):
        block = link.recv(1 << 20)
        if not block or time.monotonic() > began + LIMIT_S:
            raise RuntimeError("the stream broke off")
        size += len(block)
        newlines += block.count(b"\n")
        tail = (tail + block)[-len(DONE) :]
    # The bridge may add a line or two of its own, such as that it started the app-server.
    if newlines < expected + 1 or size < expected * (LINE_BYTES + 1):
        raise RuntimeError(f"only {newlines} of {expected + 1} lines came through")
    return time.monotonic() - began


def own_pids(process: subprocess.Popen[bytes]) -> list[int]:
    """The process and its helpers, without the app-server it runs."""
    return [pid for pid in processes.tree(process.pid) if processes.name_of(pid) != "lines"]


def measure(command: list[str], folder: Path, lines: int, greet: Callable | None) -> dict[str, float]:
    process = processes.start_measured(command, cwd=processes.BUILD, stdin=subprocess.DEVNULL)
    try:
        with connect(folder / "socket", process) as link:
            if greet:
                greet(link)
            time.sleep(SETTLE_S)  # schedstat misses up to a tick of whoever is on the CPU
            before = processes.cpu_ns(own_pids(process))
            link.sendall(GO)
            seconds = read_lines(link, lines)
            time.sleep(SETTLE_S)
            after = processes.cpu_ns(own_pids(process))
    finally:
        processes.stop(process)
    return {"cpu_us_per_line": (after - before) / 1000 / lines, "lines_per_s": lines / seconds}


def measure_in_folder(kind: str, lines: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-bridge-") as name:
        folder = Path(name)
        if kind == "socat":
            return measure(socat_command(folder, lines), folder, lines, greet=None)
        return measure(bridge_command(folder, lines), folder, lines, greet=attach)


def report(samples: dict[str, list[dict[str, float]]]) -> bool:
    """Prints the table; True if the budget holds."""

    def median(kind: str, figure: str) -> float:
        return statistics.median(sample[figure] for sample in samples[kind])

    ratio = median("bridge", "cpu_us_per_line") / median("socat", "cpu_us_per_line")
    print("| what | socat | bridge | ratio | budget | |\n|---|---:|---:|---:|---|---|")
    cells = [f"{median(kind, 'cpu_us_per_line'):.3f} µs" for kind in ("socat", "bridge")]
    verdict = "ok" if ratio <= BUDGET else "over"
    print(f"| CPU per line of {LINE_BYTES} B | {cells[0]} | {cells[1]} | {ratio:.3f} | ratio ≤ {BUDGET} | {verdict} |")
    speeds = [f"{median(kind, 'lines_per_s'):,.0f}" for kind in ("socat", "bridge")]
    print(f"| lines per second | {speeds[0]} | {speeds[1]} | | | |")
    return ratio <= BUDGET


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    args = parser.parse_args()
    if not shutil.which("socat"):
        processes.warn("socat is not installed: there is nothing to compare the bridge with")
        return 2
    processes.prepare()
    samples: dict[str, list[dict[str, float]]] = {"socat": [], "bridge": []}
    for _ in range(max(1, args.rounds)):
        for kind, list_of_kind in samples.items():
            list_of_kind.append(measure_in_folder(kind, args.lines))
    if args.json:
        Path(args.json).write_text(json.dumps(samples, indent=1) + "\n")
    return 0 if report(samples) else 1


if __name__ == "__main__":
    sys.exit(main())
