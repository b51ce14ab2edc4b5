"""Whatever is killed, whenever: every word arrives, once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time

import pytest
from bridges import lives
from support import PATIENCE_S, Client, Gateway, running, until

NUMBERS = "".join(f"{n} " for n in range(1, 61))


def cursor(client: Client) -> str:
    """Where a client that asked for seq stands."""
    epoch, first = client.hello["cursor"].split(":")
    return f"{epoch}:{max([int(first)] + [m['seq'] for m in client.seen if isinstance(m, dict) and 'seq' in m])}"


def returns(gateway: Gateway, client: Client) -> Client:
    """The same client on a new connection, at its cursor."""
    back = gateway.client(session=client.session, seq="1", after=cursor(client), client=client.hello["client"])
    assert back.hello["resume"] == "ok", back.hello
    return back


def statuses(*clients: Client) -> list[str]:
    notes = [m for c in clients for m in c.seen if isinstance(m, dict) and m.get("method") == "turn/completed"]
    return [m["params"]["turn"]["status"] for m in notes]


def test_a_gateway_killed_in_mid_turn_loses_and_doubles_nothing(own_gateway: Gateway) -> None:
    current = own_gateway.client(seq="1")
    thread = current.ready()
    slow = own_gateway.client(session=current.session, seq="1")
    turn = current.turn(thread, "slow 60 0.1")
    for _ in range(10):
        slow.wait(lambda m: m.get("method") == "item/agentMessage/delta")
    until(lambda: _read_on(current, 30))  # `slow` has not been read for two seconds by now
    own_gateway.restart()
    late = own_gateway.client(session=current.session)
    back, slow_back = returns(own_gateway, current), returns(own_gateway, slow)
    for client in (back, slow_back, late):
        assert client.note("turn/completed")["turn"]["id"] == turn
    assert current.text() + back.text() == NUMBERS
    assert slow.text() + slow_back.text() == NUMBERS
    assert late.text() and NUMBERS.endswith(late.text())
    for client in (back, slow_back, late):
        assert statuses(client) == ["completed"]
    assert back.result("initialize", {"clientInfo": {"name": "x", "version": "0"}})["userAgent"]
    assert back.result("thread/read", {"threadId": thread, "includeTurns": True})["thread"]["turns"]
    back.turn(thread, "run: echo after", approvalPolicy="untrusted")
    request = back.wait(lambda m: "requestApproval" in m.get("method", ""))
    back.send({"id": request["id"], "result": {"decision": "accept"}})
    assert back.note("turn/completed")["turn"]["status"] == "completed"


def kill(*pids: int) -> None:
    """kill -9 of each."""
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _read_on(client: Client, number: int) -> bool:
    client.recv()
    return f"{number} " in client.text()


def test_an_approval_that_waited_through_the_gateways_death_can_be_answered(own_gateway: Gateway) -> None:
    one = own_gateway.client()
    thread = one.ready()
    one.turn(thread, "run: echo approved", approvalPolicy="untrusted")
    asked = one.wait(lambda m: "requestApproval" in m.get("method", ""))
    until(lambda: _owner_is_stored(own_gateway, one.session, thread))
    own_gateway.restart()
    other = own_gateway.client(session=one.session)
    first = other.wait(lambda m: "requestApproval" in m.get("method", ""))
    assert first["id"] == asked["id"]
    owner = own_gateway.client(session=one.session, client=one.hello["client"])
    request = owner.wait(lambda m: "requestApproval" in m.get("method", ""))
    assert other.note("serverRequest/resolved")["requestId"] == asked["id"]
    owner.send({"id": request["id"], "result": {"decision": "accept"}})
    item = owner.wait(
        lambda m: m.get("method") == "item/completed" and m["params"]["item"]["type"] == "commandExecution"
    )
    assert item["params"]["item"]["aggregatedOutput"] == "approved\n"


def _owner_is_stored(gateway: Gateway, session: str, thread: str) -> bool:
    with sqlite3.connect(gateway.home / "gateway" / "argus.db") as db:
        rows = db.execute("SELECT owner FROM threads WHERE session_id=? AND thread_id=?", (session, thread)).fetchall()
    db.close()
    return bool(rows and rows[0][0])


def test_a_dead_agent_is_said_and_comes_back_with_its_threads(own_gateway: Gateway) -> None:
    client = own_gateway.client()
    thread = client.ready()
    turn = client.turn(thread, "slow 100 0.1")
    client.note("item/agentMessage/delta")
    client.send({"id": "flying", "method": "turn/steer", "params": {}})
    client.wait(lambda m: m.get("id") == "flying")
    kill(*own_gateway.pids_of("demo.py"))
    assert client.note("argus/runtime")["state"] == "restarting"
    done = client.note("turn/completed")
    assert done["turn"]["id"] == turn and done["turn"]["status"] == "interrupted"
    assert client.note("argus/runtime")["state"] == "running"
    client.turn(thread, "slow 3 0.01")
    assert client.note("turn/completed")["turn"]["status"] == "completed"
    assert client.text().endswith("1 2 3 ")


def test_a_dead_bridge_is_replaced_and_clients_stay(own_gateway: Gateway) -> None:
    client = own_gateway.client(seq="1")
    thread = client.ready()
    turn = client.turn(thread, "slow 100 0.1")
    client.note("item/agentMessage/delta")
    kill(*own_gateway.pids_of("bridge.py"))
    done = client.note("turn/completed")
    assert done["turn"]["id"] == turn and done["turn"]["status"] == "interrupted"
    client.turn(thread, "slow 3 0.01")
    assert client.note("turn/completed")["turn"]["status"] == "completed"
    until(lambda: len(own_gateway.pids_of("bridge.py")) == len(own_gateway.pids_of("demo.py")) == 1)


def test_sigterm_closes_with_1012_within_a_second_and_leaves_the_turn_running(own_gateway: Gateway) -> None:
    client = own_gateway.client(seq="1")
    thread = client.ready()
    client.turn(thread, "slow 60 0.05")
    client.note("item/agentMessage/delta")
    own_gateway.process.send_signal(signal.SIGTERM)
    closed = client.closed()
    assert closed.code == 1012
    assert own_gateway.process.wait(PATIENCE_S) == 0
    assert own_gateway.pids_of("demo.py")
    own_gateway.start()
    back = returns(own_gateway, client)
    back.note("turn/completed")
    assert client.text() + back.text() == NUMBERS


def test_ctrl_c_ends_the_runtimes_too(own_gateway: Gateway) -> None:
    client = own_gateway.client()
    client.ready()
    os.killpg(own_gateway.process.pid, signal.SIGINT)
    own_gateway.process.wait(PATIENCE_S)
    until(lambda: own_gateway.runtime_pids() == [])


@pytest.mark.timeout(400)
def test_twenty_kills_at_random_moments_lose_and_double_nothing(own_gateway: Gateway) -> None:
    seed = int(os.environ.get("ARGUS_TEST_SEED", time.time_ns() % 2**32))
    print(f"ARGUS_TEST_SEED={seed}")
    rng = random.Random(seed)
    client = own_gateway.client(seq="1")
    thread = client.ready()
    client.turn(thread, "slow 400 0.06")
    everything = [client]
    for _ in range(20):
        until(lambda: time.monotonic() > deadline, 5) if (deadline := time.monotonic() + rng.random() * 0.5) else None
        _drain_some(everything[-1], rng.randrange(12))
        own_gateway.restart()
        everything.append(returns(own_gateway, everything[-1]))
    everything[-1].note("turn/completed")
    assert "".join(c.text() for c in everything) == "".join(f"{n} " for n in range(1, 401))
    assert statuses(*everything) == ["completed"]
    seqs = [m["seq"] for c in everything for m in c.seen if isinstance(m, dict) and "seq" in m]
    assert len(seqs) == len(set(seqs)) and seqs == sorted(seqs)


def _drain_some(client: Client, frames: int) -> None:
    for _ in range(frames):
        client.recv()


@pytest.mark.timeout(300)
def test_a_hundred_sessions_are_attached_again_after_a_kill() -> None:
    with running() as gateway:
        ids = [gateway.api("POST", "/sessions").json()["sessionId"] for _ in range(20)]
        for id in ids:
            client = gateway.client(session=id)
            client.result("initialize", {})
            client.close()
        before = gateway.pids_of("bridge.py")
        gateway.restart()
        until(lambda: all(_running(gateway, id) for id in ids), 60)
        assert sorted(gateway.pids_of("bridge.py")) == sorted(before)


def _running(gateway: Gateway, id: str) -> bool:
    return gateway.api("GET", f"/sessions/{id}").json()["state"] == "running"


@pytest.mark.parametrize("which", ["worker", "master"])
def test_half_a_gateway_killed_comes_back_or_goes_whole(own_gateway: Gateway, which: str) -> None:
    client = own_gateway.client(seq="1")
    thread = client.ready()
    client.turn(thread, "slow 60 0.1")
    client.note("item/agentMessage/delta")
    worker = own_gateway.worker
    os.kill(worker if which == "worker" else own_gateway.process.pid, signal.SIGKILL)
    if which == "master":
        own_gateway.process.wait(PATIENCE_S)
        until(lambda: not lives(worker), 60, "the worker sees that its master is gone")
        own_gateway.start()
    else:
        until(lambda: own_gateway.worker not in (0, worker) and own_gateway.answers(), 60)
    client.closed()
    back = returns(own_gateway, client)
    back.note("turn/completed")
    assert client.text() + back.text() == NUMBERS


def test_a_session_killed_before_its_start_was_stored_is_taken_up(own_gateway: Gateway) -> None:
    client = own_gateway.client()
    client.ready()
    before = own_gateway.pids_of("bridge.py")
    own_gateway.kill()
    with sqlite3.connect(own_gateway.home / "gateway" / "argus.db") as db:
        db.execute("UPDATE sessions SET handle=NULL, state='created', initialize=NULL")
    db.close()
    own_gateway.start()
    until(lambda: _running(own_gateway, client.session))
    assert own_gateway.client(session=client.session).result("thread/list")["data"]
    assert own_gateway.pids_of("bridge.py") == before
