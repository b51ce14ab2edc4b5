"""The engine itself ends: stopped, killed, with and without live-restore, and the whole host rebooted.

Only an engine that docker_kit started is ended; beside somebody else's containers these tests are skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_kit import DockerGateway, answers, api, docker_running, own_engine, require_docker, start_engine
from support import Client, until

# The SDK leaves the socket of a connection that failed to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(300),
]

ENGINE_DIRECTORY = Path("/run/docker")  # what an engine keeps until the next boot


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    require_docker()
    if not own_engine():
        pytest.skip("the engine of this machine is not the tests' own to end")
    if api().containers(filters={"label": "io.argus.home"}):
        pytest.skip("other sessions run on this engine")
    yield
    start_engine()


def end_engine(number: int) -> None:
    pid = own_engine()
    os.kill(pid, number)
    until(lambda: not own_engine(), 90, "dockerd ends")
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def counted(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.isdigit()]


def works(gateway: DockerGateway, client: Client, thread: str) -> None:
    """The session goes on: its thread is there, and takes a turn."""
    until(lambda: "result" in client.ask("thread/resume", {"threadId": thread}, 60), 120, "the session comes back")
    client.turn(thread, "and on")
    assert client.wait(lambda m: m.get("method") == "turn/completed", 60)["params"]["turn"]["status"] == "completed"


def test_an_engine_that_is_restarted_ends_turns_and_sessions_come_back_by_themselves() -> None:
    with docker_running() as gateway:
        client = gateway.client()
        thread = client.ready()
        client.turn(thread, "slow 600 0.1")
        client.note("item/agentMessage/delta")
        end_engine(signal.SIGTERM)
        assert client.note("turn/completed", 60)["turn"]["status"] == "interrupted"
        told = client.wait(lambda m: m.get("method") == "argus/runtime" and "no Docker runs" in str(m), 60)
        assert "start it" in told["params"]["reason"]
        assert gateway.answers()
        start_engine()
        works(gateway, client, thread)


def test_with_live_restore_an_engine_that_is_killed_is_not_even_noticed() -> None:
    end_engine(signal.SIGTERM)
    start_engine("--live-restore")
    try:
        with docker_running() as gateway:
            client = gateway.client(seq="1")
            thread = client.ready()
            client.turn(thread, "slow 150 0.1")
            client.note("item/agentMessage/delta")
            end_engine(signal.SIGKILL)
            for _ in range(10):  # the agent's words come while there is no engine
                client.note("item/agentMessage/delta")
            assert not answers()
            gateway.kill()
            client.closed()
            newest = max(m["seq"] for m in client.seen if isinstance(m, dict) and "seq" in m)
            cursor = f"{client.hello['cursor'].split(':')[0]}:{newest}"
            gateway.start()  # nor does a gateway that starts meanwhile end anything
            own = {"session": client.session, "client": client.hello["client"], "after": cursor, "seq": "1"}
            back = gateway.client(hello=False, **own)
            start_engine("--live-restore")
            back.note("turn/completed", 60)
            assert counted(client.text() + back.text()) == list(range(1, 151))
    finally:
        end_engine(signal.SIGTERM)
        start_engine()


def test_after_a_reboot_a_session_is_woken_by_who_comes_and_has_its_history() -> None:
    with docker_running() as gateway:
        client = gateway.client()
        thread = client.ready()
        client.turn(thread, "remember the reboot")
        client.note("turn/completed", 30)
        client.turn(thread, "slow 600 0.1")
        client.note("item/agentMessage/delta")
        gateway.kill()
        end_engine(signal.SIGTERM)
        shutil.rmtree(ENGINE_DIRECTORY, ignore_errors=True)
        gateway.start()  # before the engine, as may happen
        assert gateway.api("GET", f"/sessions/{client.session}").json()["state"] in ("stopped", "restarting")
        start_engine()
        again = gateway.client(hello=False, session=client.session)
        again.note("argus/session", 60)
        history = str(again.result("thread/read", {"threadId": thread, "includeTurns": True}, 60))
        assert "remember the reboot" in history
        works(gateway, again, thread)
