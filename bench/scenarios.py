"""What is measured, and the budget of each figure: the rows of the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What one measurement gave: the report of load/clients, or what the start of a gateway took.
Sample = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of a scenario's samples, and what it may be."""

    what: str
    figure: Callable[[Sample], float | None]
    unit: str
    budget: float
    relative: bool = False  # the budget is for ours / baseline, not for ours


@dataclass(frozen=True)
class Scenario:
    id: str
    what: str
    load: dict[str, float]  # options of load/clients; empty: only start the gateway
    rows: tuple[Row, ...]
    repeats: int = 1  # measurements a round; several short ones even out a busy machine
    may_stall: bool = False  # a gateway that does not get through is a result, not a fault

    @property
    def timed(self) -> bool:
        """Whether other programs' work on the same CPUs would spoil it."""
        return any(row.unit in ("µs", "ms") for row in self.rows)


def of(*path: str, scale: float = 1) -> Callable[[Sample], float | None]:
    """The figure at that path of a sample, times scale; None where there is none."""

    def figure(sample: Sample) -> float | None:
        value: Any = sample
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return None if value is None else value * scale

    return figure


def cpu(budget: float) -> Row:
    return Row("CPU per message", of("cpu_us_per_message"), "µs", budget, relative=True)


def p99(budget: float) -> Row:
    return Row("p99 latency of a delta", of("latency", "p99"), "µs", budget, relative=True)


def memory() -> Row:
    return Row("memory per client", of("pss_kb_per_client"), "KB", 24)


def bystanders_finish(sample: Sample) -> float:
    return float(sample["finished"] >= sample["clients"] - 1 and not sample["wrong"])


# `n` lines of `size` bytes a turn; `rate` lines a second, 0 = as fast as they are taken.
SCENARIOS = (
    Scenario("sat-128", "1 client, saturated, 128 B", {"n": 2000, "size": 128, "turns": 50}, (cpu(0.10),), repeats=2),
    Scenario("sat-4k", "1 client, saturated, 4 KB", {"n": 200, "size": 4096, "turns": 60}, (cpu(0.30),), repeats=2),
    Scenario(
        "sat-10",
        "10 clients on a session, saturated, 128 B",
        {"clients": 10, "n": 2000, "size": 128, "turns": 8},
        (cpu(0.05),),
        repeats=2,
    ),
    Scenario("paced-1", "1 client, 1000/s", {"n": 2500, "size": 128, "rate": 1000}, (cpu(0.50), p99(1.0)), repeats=2),
    Scenario(
        "paced-10",
        "10 clients on a session, 100/s",
        {"clients": 10, "n": 250, "size": 128, "rate": 100},
        (cpu(0.60), p99(1.0)),
        repeats=2,
    ),
    Scenario(
        "paced-200",
        "200 sessions at 20/s",
        # Waiting and spreading keep the making of 200 sessions and turns at one moment out of it.
        {"sessions": 200, "n": 100, "size": 128, "rate": 20, "hold_ms": 1500, "spread_ms": 1000},
        (cpu(0.50), p99(1.0)),
        repeats=4,
    ),
    Scenario(
        "request",
        "request beside a saturated session",
        {"n": 2000, "size": 128, "probes": 1500, "probe_ms": 4000},
        (Row("round trip p50", of("round_trip", "p50", scale=1e-3), "ms", 5),),
    ),
    Scenario(
        "slow",
        "3 clients on a session, one reads 20 KB/s, 64 MB",
        {"clients": 3, "n": 2000, "size": 4096, "turns": 8, "slow": 1, "timeout_ms": 10_000},
        # A client's buffer (8 MiB), the replay ring (4 MiB), and as much again as slack.
        (
            Row("the other two finish", bystanders_finish, "yes/no", 1),
            Row("peak growth", of("peak_growth_kb", scale=1 / 1024), "MB", 32),
        ),
        may_stall=True,
    ),
    Scenario("idle-shared", "1000 idle clients on one session", {"clients": 1000, "hold_ms": 2000}, (memory(),)),
    Scenario("idle-sessions", "1000 idle clients on 1000 sessions", {"sessions": 1000, "hold_ms": 2000}, (memory(),)),
    Scenario(
        "start",
        "start of the gateway",
        {},
        (
            Row("until /healthz answers", of("start_s"), "s", 1.5),
            Row("PSS when idle", of("pss_kb", scale=1 / 1024), "MB", 110),
        ),
    ),
)
