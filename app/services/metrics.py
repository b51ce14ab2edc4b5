"""What the gateway counts of itself, in Prometheus' text format. What is hot bumps plain integers; all else is looked
at when somebody asks. No label names a session, a thread or a client: their number has no bound.
"""

from __future__ import annotations

import platform
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app import VERSION
from app.services.renderer import Renderer
from app.services.sessions import Sessions
from app.store.database import Store

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATES = ("created", "running", "restarting", "failed", "stopped")


@dataclass
class Latency:
    """How long requests of one kind took."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    seconds: float = 0.0


class Metrics:
    """Counts requests, and reads off what the other services count."""

    def __init__(self, sessions: Sessions, store: Store, renderer: Renderer) -> None:
        self._sessions, self._store, self._renderer = sessions, store, renderer
        self._requests: dict[tuple[str, str, str], Latency] = {}
        self._began = time.time()
        self._registry: Any = None

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is the rule that matched, not the path."""
        key = (route, method if method in METHODS else "other", f"{status // 100}xx")
        latency = self._requests.get(key)
        if latency is None:
            latency = self._requests[key] = Latency()
        latency.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        latency.seconds += seconds

    def text(self) -> bytes:
        """All of it. Waits for the store; raises Unavailable."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest  # most never ask

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            ProcessCollector(registry=self._registry)
            self._registry.register(self)
        return generate_latest(self._registry)

    def describe(self) -> list[Any]:
        """Nothing ahead of time: prometheus_client would collect once just to learn the names."""
        return []

    def collect(self) -> Iterator[Any]:
        """The families, for prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        build = GaugeMetricFamily("argus_build_info", "The gateway's version.", labels=["version", "python"])
        build.add_metric([VERSION, platform.python_version()], 1)
        yield build
        yield GaugeMetricFamily("argus_start_time_seconds", "When the gateway started.", self._began)
        states = GaugeMetricFamily("argus_sessions", "Sessions by state.", labels=["state"])
        found = [self._sessions.state_of(row) for row in self._sessions.list()]
        for state in STATES:
            states.add_metric([state], found.count(state))
        yield states
        for name, help, value in self._gauges():
            yield GaugeMetricFamily(f"argus_{name}", help, value)
        for name, help, value in self._counters():
            yield CounterMetricFamily(f"argus_{name}", help, value)
        yield self._latencies()

    def _gauges(self) -> Iterator[tuple[str, str, float]]:
        now = self._sessions.numbers()
        yield "clients", "WebSocket clients attached.", now.clients
        yield "links", "Links to runtimes that are up.", now.links
        yield "open_turns", "Turns that run.", now.turns
        yield "open_questions", "Questions of agents that wait for a person.", now.questions
        yield "relay_in_flight", "Requests that agents have not answered.", now.in_flight
        yield "relay_queued", "Requests that wait for room at an agent.", now.queued
        yield "relay_queued_bytes", "Size of those.", now.queued_bytes
        yield "client_outbound_bytes", "Bytes that wait for slow clients.", now.client_bytes
        yield "agent_outbound_bytes", "Bytes that wait for slow agents.", now.agent_bytes
        yield "store_waiting", "Transactions that wait or run.", self._store.waiting
        yield "render_waiting", "Requests that wait to be rendered.", self._renderer.waiting

    def _counters(self) -> Iterator[tuple[str, str, float]]:
        counted = self._sessions.counters
        yield "turns", "Turns that clients started.", counted.turns
        yield "agent_restarts", "Deaths of agents, each followed by a restart.", counted.agent_restarts
        yield "links_lost", "Links that ended while their session was wanted.", counted.links_lost
        yield "overflows", "Clients cut because they were too slow (1013).", counted.overflows
        yield "store_transactions", "Transactions done.", self._store.done
        yield "store_seconds", "Time that they took, waiting included.", self._store.seconds

    def _latencies(self) -> Any:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(
            "argus_http_request_seconds", "Time to answer.", labels=["route", "method", "status"]
        )
        for key, latency in list(self._requests.items()):
            count, rows = 0, []
            for bound, n in zip((*map(str, BUCKETS_S), "+Inf"), latency.buckets, strict=True):
                count += n
                rows.append((bound, count))
            family.add_metric(list(key), rows, latency.seconds)
        return family
