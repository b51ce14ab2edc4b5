"""Runtimes that somebody else runs: plain app-servers and bridges over TCP."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, Gateway, free_port, running, until

DEMO = [sys.executable, str(ROOT / "runtime/adapters/demo.py")]


class AppServerPort:
    """A TCP port where every connection gets a demo agent of its own, as socat would give it."""

    def __init__(self, state: Path) -> None:
        self.state, self.lives = state, []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                conn = self.server.accept()[0]
            except OSError:
                return
            env = {"ARGUS_AGENT_STATE": str(self.state), "PATH": "/usr/bin:/bin"}
            self.lives.append(subprocess.Popen(DEMO, stdin=conn, stdout=conn, stderr=subprocess.DEVNULL, env=env))
            conn.close()

    def close(self) -> None:
        self.server.close()
        for life in self.lives:
            life.kill()
            life.wait()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[AppServerPort]:
    made = AppServerPort(tmp_path)
    yield made
    made.close()


@pytest.fixture
def plain(port: AppServerPort) -> Iterator[Gateway]:
    with running(ARGUS_PROVISION_MODE="static", ARGUS_TCP_PORT=str(port.port)) as gateway:
        yield gateway


def test_each_session_has_a_link_of_its_own_with_full_session_semantics(plain: Gateway, port: AppServerPort) -> None:
    one, other = plain.client(seq="1"), plain.client()
    assert one.hello["mode"] == "static" and one.session != other.session
    thread = one.ready(approvalPolicy="untrusted")
    other.ready()
    assert len(port.lives) == 2
    shared = plain.client(session=one.session)
    one.turn(thread, "slow 5 0.01")
    for client in (one, shared):
        client.note("turn/completed")
        assert client.text() == "1 2 3 4 5 "
    assert other.text() == ""
    shared.turn(thread, "run: echo shared")
    request = shared.wait(lambda m: "requestApproval" in m.get("method", ""))
    shared.send({"id": request["id"], "result": {"decision": "accept"}})
    shared.note("turn/completed")
    epoch, start = one.hello["cursor"].split(":")
    again = plain.client(session=one.session, seq="1", after=f"{epoch}:{start}")
    assert again.hello["resume"] == "ok"
    again.note("turn/completed")
    assert again.text() == "1 2 3 4 5 "


def test_when_the_upstream_ends_clients_are_told_and_it_is_dialled_again(plain: Gateway, port: AppServerPort) -> None:
    client = plain.client()
    thread = client.ready()
    turn = client.turn(thread, "slow 100 0.1")
    client.note("item/agentMessage/delta")
    port.lives[0].kill()
    assert client.note("argus/runtime")["state"] == "restarting"
    done = client.note("turn/completed")["turn"]
    assert (done["id"], done["status"]) == (turn, "interrupted")
    assert client.note("argus/runtime")["state"] == "running"
    client.turn(thread, "slow 2 0.01")
    assert client.note("turn/completed")["turn"]["status"] == "completed"


def test_an_upstream_that_nobody_serves_is_said() -> None:
    with running(ARGUS_PROVISION_MODE="static", ARGUS_TCP_PORT=str(free_port())) as gateway:
        closed = gateway.client(hello=False).closed()
        assert closed.code == 1011
        assert closed.reason.startswith("Failed to provision upstream container: nothing answers at tcp:127.0.0.1:")
        assert gateway.api("GET", "/sessions").json()["sessions"] == []


def test_a_line_over_the_limit_ends_a_plain_link_with_a_clear_reason(tmp_path: Path) -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server.accept()[0] as conn:
            conn.recv(65536)
            conn.sendall(b'{"id":1000000000,"result":{"userAgent":"x"}}\n')
            conn.sendall(b"x" * (1 << 20))
            conn.recv(65536)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    env = {"ARGUS_PROVISION_MODE": "static", "ARGUS_TCP_PORT": str(server.getsockname()[1])}
    with running(**env, ARGUS_JSONL_LINE_LIMIT_BYTES="65536") as gateway:
        client = gateway.client()
        told = client.note("argus/runtime")
        assert "ARGUS_JSONL_LINE_LIMIT_BYTES" in told["reason"]
    server.close()


def test_several_upstreams_are_chosen_by_id(port: AppServerPort, tmp_path: Path) -> None:
    second = AppServerPort(tmp_path / "second")
    table = json.dumps({"one": {"port": port.port}, "two": {"host": "127.0.0.1", "port": second.port}})
    with running(ARGUS_PROVISION_MODE="static", ARGUS_UPSTREAMS_JSON=table) as gateway:
        gateway.client(id="two").ready()
        assert (len(port.lives), len(second.lives)) == (0, 1)
        for query in ({}, {"id": "three"}):
            closed = gateway.client(hello=False, **query).closed()
            assert (closed.code, closed.reason) == (1008, "Unknown upstream id")
        assert gateway.api("POST", "/sessions", json={}).status_code == 404
    second.close()


BRIDGE = ROOT / "runtime/bridge.py"


@contextlib.contextmanager
def bridge_on_tcp(folder: Path, program: Path = BRIDGE) -> Iterator[int]:
    """A bridge as a container has it; its port."""
    number = free_port()
    config = {"listen": f"tcp:127.0.0.1:{number}", "secret": "bridge-secret", "command": DEMO, "cwd": str(folder)}
    (folder / "bridge.json").write_text(json.dumps(config))
    process = subprocess.Popen([sys.executable, str(program), str(folder / "bridge.json")])

    def listens() -> bool:
        assert process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", number)) == 0

    try:
        until(listens)
        yield number
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[int]:
    with bridge_on_tcp(tmp_path) as number:
        yield number


def test_a_bridge_of_before_there_were_marks_is_believed(tmp_path: Path) -> None:
    old = BRIDGE.read_text().replace(', "mark": self.mark', "").replace(", mark=self.mark", "")
    assert old.count("self.mark") == 1  # nothing says it any more
    (tmp_path / "old_bridge.py").write_text(old)
    with bridge_on_tcp(tmp_path, tmp_path / "old_bridge.py") as number:
        table = json.dumps({"box": {"port": number, "bridge": True, "secret": "bridge-secret"}})
        with running(ARGUS_PROVISION_MODE="static", ARGUS_UPSTREAMS_JSON=table) as gateway:
            client = gateway.client()
            thread = client.ready()
            client.turn(thread, "run: kill -9 $PPID", approvalPolicy="never")
            assert client.note("argus/runtime")["state"] == "restarting"
            assert client.note("turn/completed")["turn"]["status"] == "interrupted"
            assert client.note("argus/runtime")["state"] == "running"


def test_an_upstream_that_is_a_bridge_has_one_session_that_survives_the_gateway(bridge: int) -> None:
    table = json.dumps({"box": {"port": bridge, "bridge": True, "secret": "bridge-secret"}})
    with running(ARGUS_PROVISION_MODE="static", ARGUS_UPSTREAMS_JSON=table) as gateway:
        one = gateway.client(seq="1")
        thread = one.ready()
        two = gateway.client()
        assert two.session == one.session and not two.hello["created"]
        one.turn(thread, "slow 60 0.05")
        one.note("item/agentMessage/delta")
        newest = max(m["seq"] for m in one.seen if isinstance(m, dict) and "seq" in m)
        gateway.restart()
        epoch = one.hello["cursor"].split(":")[0]
        back = gateway.client(session=one.session, seq="1", after=f"{epoch}:{newest}")
        back.note("turn/completed")
        expected = "".join(f"{n} " for n in range(1, 61))
        assert one.text() + back.text() == expected


def test_a_bridge_with_another_secret_refuses_and_it_is_said(bridge: int) -> None:
    table = json.dumps({"box": {"port": bridge, "bridge": True, "secret": "wrong"}})
    with running(ARGUS_PROVISION_MODE="static", ARGUS_UPSTREAMS_JSON=table) as gateway:
        closed = gateway.client(hello=False).closed()
        assert closed.code == 1011 and "the bridge refused the link" in closed.reason
