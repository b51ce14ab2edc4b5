"""/metrics: what the gateway says of itself."""

from __future__ import annotations

import os
import re

from prometheus_client.parser import text_string_to_metric_families
from support import Gateway, until


def read(gateway: Gateway) -> dict[str, float]:
    """Every sample by its name and labels, as a real parser reads it."""
    answer = gateway.api("GET", "/metrics")
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_sessions_clients_and_links_are_counted(own_gateway: Gateway) -> None:
    before = read(own_gateway)
    assert before["argus_sessions{state=running}"] == before["argus_clients"] == before["argus_links"] == 0
    client = own_gateway.client()
    thread = client.ready()
    client.turn(thread, "slow 600 0.5")
    client.note("turn/started")
    now = read(own_gateway)
    names = ("argus_sessions{state=running}", "argus_clients", "argus_links", "argus_open_turns")
    assert [now[name] for name in names] == [1, 1, 1, 1]
    client.close()
    until(lambda: read(own_gateway)["argus_clients"] == 0)


def test_turns_deaths_and_lost_links_are_counted(own_gateway: Gateway) -> None:
    client = own_gateway.client()
    client.turn(client.ready(), "hello")
    client.note("turn/completed")
    os.kill(own_gateway.pids_of("demo.py")[0], 9)
    until(lambda: read(own_gateway)["argus_agent_restarts_total"] == 1)
    os.kill(own_gateway.pids_of("bridge.py")[0], 9)
    until(lambda: read(own_gateway)["argus_links_lost_total"] >= 1)
    assert read(own_gateway)["argus_turns_total"] == 1


def test_latencies_are_by_route_never_by_path(gateway: Gateway) -> None:
    for i in range(3):
        assert gateway.api("GET", f"/sessions/unknown-{i}").status_code == 404
        gateway.api("GET", f"/no/such/path-{i}")
        gateway.api(f"METHOD{i}", "/sessions")
    now = read(gateway)
    assert now["argus_http_request_seconds_count{method=GET,route=/sessions/<id>,status=4xx}"] == 3
    assert now["argus_http_request_seconds_count{method=GET,route=,status=4xx}"] >= 3
    assert now["argus_http_request_seconds_bucket{le=+Inf,method=GET,route=/sessions/<id>,status=4xx}"] == 3
    assert now["argus_store_transactions_total"] >= 3 and now["argus_store_seconds_total"] > 0
    assert now["process_resident_memory_bytes"] > 0
    assert not [name for name in now if "unknown-" in name or "path-" in name or "METHOD" in name]


def test_no_label_names_a_session(gateway: Gateway) -> None:
    client = gateway.client()
    text = gateway.api("GET", "/metrics").text
    assert client.session not in text and re.search(r'argus_build_info\{.*version="', text)
    client.close()
