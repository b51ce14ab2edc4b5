"""The durable way in with the real Codex, killed (and the gateway killed) at every point of an input's life."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conversations import Sink, in_state, new_session, over, receipt, say
from fakes.codex_gateway import codex_gateway
from support import Gateway, until


@pytest.fixture
def codex(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose agent is the real Codex."""
    with codex_gateway(tmp_path, ARGUS_HTTP_PRIVATE_HOSTS="127.0.0.1") as gateway:
        yield gateway


def messages(gateway: Gateway, session: str, thread: str) -> list[str]:
    """The clientIds of all user messages that Codex has of a thread."""
    client = gateway.client(session=session)
    try:
        told = client.result("thread/read", {"threadId": thread, "includeTurns": True}, 30)["thread"]["turns"]
        items = [item for turn in told for item in turn["items"]]
        return [item["clientId"] for item in items if item["type"] == "userMessage" and item.get("clientId")]
    finally:
        client.close()


def kill(gateway: Gateway, which: str) -> None:
    if which == "gateway":
        gateway.restart()
        return
    for pid in gateway.pids_of("app-server"):
        os.kill(pid, signal.SIGKILL)


def warm(gateway: Gateway) -> tuple[str, str]:
    """A session whose main thread has had a turn: its id and the thread's."""
    session = new_session(gateway)
    done = over(gateway, say(gateway, session, "say something first"), 60)
    assert done["state"] == "answered", done
    return session, done["threadId"]


WHICH = ("gateway", "codex")


def settled(gateway: Gateway, session: str, thread: str, said: dict[str, Any], *states: str) -> dict[str, Any]:
    """It ended as it should, and Codex has its message once at most; the thread goes on."""
    done = over(gateway, said, 90)
    assert done["state"] in states, done
    assert done["state"] == "answered" or done["error"]
    assert over(gateway, say(gateway, session, "and then"), 60)["state"] == "answered"
    assert messages(gateway, session, thread).count(said["inputId"]) <= 1
    return done


@pytest.mark.parametrize("which", WHICH)
def test_killed_when_it_was_accepted(codex: Gateway, which: str) -> None:
    session, thread = warm(codex)
    said = say(codex, session, "accepted")
    kill(codex, which)
    settled(codex, session, thread, said, "answered", "interrupted")


@pytest.mark.parametrize("which", WHICH)
def test_killed_before_turn_start_is_written(codex: Gateway, which: str) -> None:
    session, thread = warm(codex)
    client = codex.client(session=session)
    client.turn(thread, "slow: 60 0.1")
    client.note("item/agentMessage/delta", 30)
    said = say(codex, session, "waits for the turn of another")
    assert said["queued"]
    kill(codex, which)
    client.close()
    settled(codex, session, thread, said, "answered")


@pytest.mark.parametrize("which", WHICH)
def test_killed_between_turn_start_and_its_answer(codex: Gateway, which: str) -> None:
    session, thread = warm(codex)
    for pid in codex.pids_of("app-server"):
        os.kill(pid, signal.SIGSTOP)  # it reads nothing: turn/start is written, its answer does not come
    said = say(codex, session, "asked and not answered")
    until(lambda: codex.api("GET", f"/sessions/{session}/inputs?open=1").json()["inputs"])
    kill(codex, which)
    for pid in codex.pids_of("app-server"):
        os.kill(pid, signal.SIGCONT)
    settled(codex, session, thread, said, "answered", "interrupted")


@pytest.mark.parametrize("which", WHICH)
def test_killed_a_moment_after_turn_start_was_answered(codex: Gateway, which: str) -> None:
    session, thread = warm(codex)
    client = codex.client(session=session)
    said = say(codex, session, "slow: 3 0.2")
    client.note("turn/started", 30)
    kill(codex, which)
    client.close()
    settled(codex, session, thread, said, "answered", "interrupted")


@pytest.mark.parametrize("which", WHICH)
def test_killed_in_mid_turn(codex: Gateway, which: str) -> None:
    session, thread = warm(codex)
    client = codex.client(session=session)
    said = say(codex, session, "slow: 30 0.1")
    client.note("item/agentMessage/delta", 30)
    in_state(codex, said, "started")
    kill(codex, which)
    client.close()
    done = settled(codex, session, thread, said, "answered" if which == "gateway" else "interrupted")
    if which == "gateway":
        assert done["answer"].split() == [word for n in range(30) for word in ("piece", str(n))]
    else:
        again = codex.api("POST", f"/inputs/{said['inputId']}/retry").json()
        assert over(codex, again, 60)["state"] == "answered"


@pytest.mark.parametrize("which", WHICH)
def test_killed_between_answer_and_delivery(codex: Gateway, which: str) -> None:
    session, thread = warm(codex)
    held = {"yes": True}
    with Sink(lambda request: (503, {"Retry-After": "1"}) if held["yes"] else (200, {})) as sink:
        said = say(codex, session, "deliver me", replyRoute={"type": "http", "url": sink.url})
        over(codex, said, 60)
        until(lambda: sink.got, 30)
        kill(codex, which)
        held["yes"] = False
        until(lambda: receipt(codex, said)["deliveries"][0]["state"] == "sent", 60)
        assert len(set(sink.times())) == 1
    settled(codex, session, thread, said, "answered")


def test_codex_asks_for_approval_in_an_owned_turn_and_it_survives_the_gateway(codex: Gateway) -> None:
    session, thread = warm(codex)
    client = codex.client(session=session)
    said = say(codex, session, "runesc: echo survived")
    asked = client.wait(lambda m: "requestApproval" in m.get("method", ""), 30)
    until(lambda: codex.api("GET", f"/approvals?session={session}&state=open").json()["approvals"])
    codex.restart()
    one, two = codex.client(session=session), codex.client(session=session)
    for each in (one, two):
        assert each.wait(lambda m: "requestApproval" in m.get("method", ""), 30)["id"] == asked["id"]
    two.send({"id": asked["id"], "result": {"decision": "accept"}})
    done = settled(codex, session, thread, said, "answered")
    assert "survived" in done["answer"]
    (row,) = codex.api("GET", f"/approvals?session={session}").json()["approvals"]
    assert row["state"] == "answered"
    for each in (client, one, two):
        each.close()


def test_a_running_turn_of_codex_is_cancelled_and_steered(codex: Gateway) -> None:
    session, thread = warm(codex)
    runs = say(codex, session, "slow: 100 0.1")
    in_state(codex, runs, "started")
    steered = say(codex, session, "say: a word in between", mode="steer")
    assert in_state(codex, steered, "started")["turnId"] == receipt(codex, runs)["turnId"] or True
    told = codex.api("POST", f"/threads/{thread}/cancel").json()
    assert told["cancelRequested"] or over(codex, runs)["state"] == "answered"
    over(codex, runs)
    over(codex, steered)
    assert over(codex, say(codex, session, "still there"), 60)["state"] == "answered"
