"""The real Codex behind the real gateway, its model a local server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.codex_gateway import codex_gateway
from support import Client, Gateway


@pytest.fixture
def codex(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose agent is the real Codex."""
    with codex_gateway(tmp_path) as gateway:
        yield gateway


def cursor(client: Client) -> str:
    epoch, first = client.hello["cursor"].split(":")
    return f"{epoch}:{max([int(first)] + [m['seq'] for m in client.seen if isinstance(m, dict) and 'seq' in m])}"


def chunks(number: int) -> list[str]:
    return [str(n) for n in range(number)]


def test_a_turn_streams_from_codex_to_two_clients(codex: Gateway) -> None:
    one = codex.client()
    thread = one.ready(cwd="/workspace")
    two = codex.client(session=one.session)
    assert "argus_gateway" in two.result("initialize")["userAgent"]
    one.turn(thread, "hello from the test")
    for client in (one, two):
        assert client.note("turn/completed", 30)["turn"]["status"] == "completed"
        assert "hello from the test" in client.text()


def test_a_command_is_approved_by_the_client_whose_turn_it_is(codex: Gateway) -> None:
    one = codex.client()
    thread = one.ready(cwd="/workspace", approvalPolicy="untrusted")
    two = codex.client(session=one.session)
    two.turn(thread, "run: touch made-by-codex && echo OK42")
    request = two.wait(lambda m: "requestApproval" in m.get("method", ""), 30)
    assert not [m for m in one.seen if isinstance(m, dict) and "requestApproval" in m.get("method", "")]
    two.send({"id": request["id"], "result": {"decision": "accept"}})
    ran = two.wait(lambda m: m.get("params", {}).get("item", {}).get("aggregatedOutput"), 30)["params"]["item"]
    assert ran["aggregatedOutput"] == "OK42\n" and ran["exitCode"] == 0
    assert two.note("turn/completed", 30)["turn"]["status"] == "completed"
    assert (codex.home / "workspace" / "made-by-codex").exists()


def test_a_running_turn_is_interrupted(codex: Gateway) -> None:
    client = codex.client()
    thread = client.ready(cwd="/workspace")
    turn = client.turn(thread, "slow: 100 0.1")
    client.note("item/agentMessage/delta", 30)
    client.result("turn/interrupt", {"threadId": thread, "turnId": turn})
    assert client.note("turn/completed")["turn"]["status"] == "interrupted"


def test_the_gateway_is_killed_in_mid_turn_and_no_word_is_lost(codex: Gateway) -> None:
    client = codex.client(seq="1")
    thread = client.ready(cwd="/workspace")
    client.turn(thread, "slow: 40 0.05")
    client.note("item/agentMessage/delta", 30)
    codex.restart()
    back = codex.client(session=client.session, seq="1", after=cursor(client), client=client.hello["client"])
    done = back.note("turn/completed", 30)
    whole = done["turn"]["items"][-1]["text"]
    assert client.text() + back.text() == whole
    back.turn(thread, "run: echo again", approvalPolicy="untrusted")
    request = back.wait(lambda m: "requestApproval" in m.get("method", ""), 30)
    back.send({"id": request["id"], "result": {"decision": "accept"}})
    assert back.note("turn/completed", 30)["turn"]["status"] == "completed"


def test_an_approval_of_codex_survives_the_gateways_death(codex: Gateway) -> None:
    client = codex.client()
    thread = client.ready(cwd="/workspace", approvalPolicy="untrusted")
    client.turn(thread, "run: echo survived")
    asked = client.wait(lambda m: "requestApproval" in m.get("method", ""), 30)
    codex.restart()
    other = codex.client(session=client.session)
    request = other.wait(lambda m: "requestApproval" in m.get("method", ""), 30)
    assert request["id"] == asked["id"]
    other.send({"id": request["id"], "result": {"decision": "accept"}})
    assert other.note("turn/completed", 30)["turn"]["status"] == "completed"


def test_codex_is_killed_in_mid_turn_and_the_thread_goes_on(codex: Gateway) -> None:
    client = codex.client()
    thread = client.ready(cwd="/workspace")
    client.turn(thread, "say something first")
    client.note("turn/completed", 30)
    turn = client.turn(thread, "slow: 100 0.1")
    client.note("item/agentMessage/delta", 30)
    for pid in codex.pids_of("app-server"):
        os.kill(pid, signal.SIGKILL)
    done = client.note("turn/completed", 30)
    assert done["turn"]["id"] == turn and done["turn"]["status"] == "interrupted"
    client.turn(thread, "are you there")
    assert client.note("turn/completed", 30)["turn"]["status"] == "completed"
    assert "are you there" in client.text()
    turns = client.result("thread/read", {"threadId": thread, "includeTurns": True})["thread"]["turns"]
    assert [t["status"] for t in turns] == ["completed", "interrupted", "completed"]
