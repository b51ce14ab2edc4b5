#!/usr/bin/env python3
"""What the relay's hot path costs, beside a plain Flask-Sock relay in the same run.

    .venv/bin/python bench/run.py                      every scenario, three rounds
    .venv/bin/python bench/run.py --only sat-128,start --rounds 5
    .venv/bin/python bench/run.py --quick              one short round: does it work at all?
    .venv/bin/python bench/run.py --check              the baseline beside itself: ratios near 1

Absolute times differ between machines and between minutes on one machine, so both gateways run
alternately (baseline, ours, baseline, ours, ...) and the budgets are ratios of medians where
possible. The gateway has one CPU and the load another. Each measurement has a fresh gateway and a
fresh app-server, and a short warm-up. CPU time is what the kernel's scheduler counted
(/proc/<pid>/task/*/schedstat) for the gateway's process tree during the measured phase.

A sample during which other programs used those CPUs is taken again, while --patience lasts; a row
for which no quiet moment was found says so. Prints a Markdown table; ends with 1 if a budget is
exceeded or a measurement failed.
Needs Linux, gcc and the packages of requirements.txt. All traffic is on 127.0.0.1; as root, in a network namespace of
its own, so that the machine's firewall does not count.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import processes
from gateways import Gateway
from scenarios import SCENARIOS, Row, Sample, Scenario

BASELINE, OURS = "baseline", "ours"
WARM_UP = {"n": 300, "turns": 2, "size": 128}
LOAD_LIMIT_S = 90
NOTHING = 0.01  # a ratio to less than this, in the row's unit, would say nothing
QUIET_S = 0.5  # after the start, before memory is weighed
# Other programs may use this share of a CPU during a sample; looked at for so long before it.
DISTURBED, PEEK_S = 0.08, 0.5


# ---- measuring ----


@contextmanager
def upstream() -> Iterator[tuple[int, int]]:
    """(port, pid) of a fresh app-server; it ends when its stdin closes."""
    process = subprocess.Popen([processes.BUILD / "upstream"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin and process.stdout
        yield int(process.stdout.readline()), process.pid
        process.stdin.close()
        process.wait(5)
    finally:
        process.kill()
        process.wait()


def run_load(gateway: Gateway, options: dict[str, float]) -> Sample:
    command: list[str | Path] = [processes.BUILD / "clients", f"port={gateway.port}"]
    command.append(f"target={gateway.spec.target}")
    command.append("pids=" + ",".join(map(str, gateway.pids())))
    command.extend(f"{name}={value}" for name, value in options.items())
    done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_LIMIT_S)
    if done.returncode != 0:
        raise RuntimeError(f"the load program failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def fault_in(sample: Sample) -> str:
    """Why a sample cannot be used; empty if it can."""
    if sample["wrong"]:
        return f"{sample['wrong']} deltas lost, doubled or out of order"
    if sample["failed"]:
        return f"{sample['failed']} clients failed, the first: {sample['failure']}"
    return "timed out" if sample["timed_out"] else ""


def measure(kind: str, scenario: Scenario, options: dict[str, float]) -> Sample:
    with upstream() as (port, upstream_pid), Gateway(kind, port) as gateway:
        if not scenario.load:
            time.sleep(QUIET_S)
            return {"start_s": gateway.start_s, "pss_kb": processes.pss_kb(gateway.pids())}
        fault = fault_in(run_load(gateway, WARM_UP))
        if fault:
            return {"error": f"warm-up: {fault}"}
        disturbance = processes.Disturbance([*gateway.pids(), upstream_pid])
        sample = run_load(gateway, options)
        sample["others"] = disturbance.share()
        fault = "" if scenario.may_stall else fault_in(sample)
        return {"error": fault, "sample": sample} if fault else sample


def measure_safely(kind: str, scenario: Scenario, options: dict[str, float]) -> Sample:
    """A gateway that does not start or a load that hangs costs one sample, not the run."""
    try:
        sample = measure(kind, scenario, options)
    except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:
        sample = {"error": str(error)}
    if "error" in sample:
        processes.warn(f"{scenario.id}, {kind}: {sample['error']}")
    return sample


def measure_quietly(kind: str, scenario: Scenario, options: dict[str, float], patience: Patience) -> Sample:
    """Waits for a quiet moment, and measures again if it was none after all; both while patience lasts."""
    while True:
        if scenario.timed:
            patience.wait()
        began = time.monotonic()
        sample = measure_safely(kind, scenario, options)
        if not scenario.timed or "error" in sample or quiet(sample):
            return sample
        patience.left_s -= time.monotonic() - began
        if patience.left_s <= 0:
            return sample


class Patience:
    """How long a scenario may still wait for other programs to let go of the CPUs that are timed."""

    def __init__(self, left_s: float) -> None:
        self.left_s = left_s

    def wait(self) -> None:
        while self.left_s > 0:
            disturbance = processes.Disturbance([])
            time.sleep(PEEK_S)
            if disturbance.share() <= DISTURBED:
                return
            self.left_s -= PEEK_S


def quiet(sample: Sample) -> bool:
    return sample.get("others", 0) <= DISTURBED


def shorter(options: dict[str, float]) -> dict[str, float]:
    """A quarter of the work, for --quick."""
    cut = dict(options)
    if cut.get("rate"):
        cut["n"] = max(1, cut["n"] // 4)
    elif "turns" in cut and "slow" not in cut:
        cut["turns"] = max(1, cut["turns"] // 4)
    if "probe_ms" in cut:
        cut["probe_ms"] /= 4
    return {name: int(value) for name, value in cut.items()}


# ---- the table ----


@dataclass(frozen=True)
class Result:
    scenario: Scenario
    row: Row
    baseline: float | None
    ours: float | None
    faults: int  # samples of ours that failed: one lost delta is one too many
    busy: bool  # no sample of one of the two was free of other programs' work

    @property
    def ratio(self) -> float | None:
        if self.ours is None or self.baseline is None or self.baseline < NOTHING:
            return None
        return self.ours / self.baseline

    @property
    def verdict(self) -> str:
        value = self.ratio if self.row.relative else self.ours
        if value is None or self.faults:
            return "failed"
        at_least = self.row.unit == "yes/no"
        holds = value >= self.row.budget if at_least else value <= self.row.budget
        return "ok" if holds else "over"

    def line(self) -> str:
        row = self.row
        if row.relative:
            budget = f"ratio ≤ {row.budget:.2f}"
        else:
            budget = "yes" if row.unit == "yes/no" else f"≤ {row.budget:g} {row.unit}"
        ratio = "" if row.unit == "yes/no" or self.ratio is None else f"{self.ratio:.3f}"
        cells = (
            self.scenario.id,
            f"{self.scenario.what}: {row.what}",
            show(self.baseline, row.unit),
            show(self.ours, row.unit),
            ratio,
            budget,
            self.verdict + (" (machine busy)" if self.busy else ""),
        )
        return "| " + " | ".join(cells) + " |"


def show(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "yes/no":
        return "yes" if value >= 1 else "no"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2
    return f"{round(value, digits) + 0.0:.{digits}f} {unit}"  # + 0.0: no "-0.00"


def usable(samples: list[Sample]) -> list[Sample]:
    """Without the failed ones; without the disturbed ones, if any others are left."""
    good = [sample for sample in samples if "error" not in sample]
    return [sample for sample in good if quiet(sample)] or good


def combine(samples: list[Sample], row: Row) -> float | None:
    """The median; for yes/no the worst."""
    known = [value for value in map(row.figure, usable(samples)) if value is not None]
    if not known:
        return None
    return min(known) if row.unit == "yes/no" else statistics.median(known)


HEADER = "| id | what | {} | {} | ratio | budget | |\n|---|---|---:|---:|---:|---|---|"


def run_scenario(
    scenario: Scenario, kinds: tuple[str, str], rounds: int, quick: bool, patience: Patience
) -> tuple[list[Result], dict[str, list[Sample]]]:
    options = shorter(scenario.load) if quick else scenario.load
    first: list[Sample] = []
    second: list[Sample] = []
    for _ in range(rounds if quick else rounds * scenario.repeats):
        first.append(measure_quietly(kinds[0], scenario, options, patience))
        second.append(measure_quietly(kinds[1], scenario, options, patience))
    faults = sum("error" in sample for sample in second)
    busy = scenario.timed and not all(map(quiet, usable(first) + usable(second)))
    results = [Result(scenario, row, combine(first, row), combine(second, row), faults, busy) for row in scenario.rows]
    return results, {"baseline": first, "ours": second}


def chosen(only: str) -> list[Scenario]:
    if not only:
        return list(SCENARIOS)
    known = {scenario.id: scenario for scenario in SCENARIOS}
    unknown = [name for name in only.split(",") if name not in known]
    if unknown:
        raise SystemExit(f"no such scenario: {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in only.split(",")]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each gateway is measured")
    parser.add_argument("--only", default="", metavar="IDS", help="scenarios, separated by commas")
    parser.add_argument("--quick", action="store_true", help="one round with a quarter of the load")
    parser.add_argument("--check", action="store_true", help="measure the baseline beside itself")
    parser.add_argument(
        "--patience",
        type=float,
        default=120,
        metavar="SECONDS",
        help="how long a scenario may wait for quiet CPUs (default 120)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    scenarios = chosen(args.only)
    rounds = 1 if args.quick else max(1, args.rounds)
    kinds = (BASELINE, BASELINE if args.check else OURS)
    processes.prepare()
    network = "a network of its own" if processes.leave_the_network() else "the machine's network, firewall included"
    print(
        f"Python {platform.python_version()}, Linux {platform.release()}, {rounds} rounds, {network}, "
        f"gateway on CPU {processes.MEASURED_CPU}, load on CPU {processes.LOAD_CPU}\n"
    )
    print(HEADER.format("baseline", "baseline again" if args.check else "ours"), flush=True)
    samples: dict[str, dict[str, list[Sample]]] = {}
    verdicts = set()
    for scenario in scenarios:
        results, samples[scenario.id] = run_scenario(scenario, kinds, rounds, args.quick, Patience(args.patience))
        for result in results:
            print(result.line(), flush=True)
            verdicts.add(result.verdict)
    if args.json:
        Path(args.json).write_text(json.dumps(samples, indent=1) + "\n")
    return 0 if verdicts == {"ok"} else 1


if __name__ == "__main__":
    sys.exit(main())
