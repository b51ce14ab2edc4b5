"""Clients that know nothing of Argus' own cursors and keys: the flow of docs/compatibility.md, over two WebSocket
libraries of other makes, and over a plain socket."""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from bridges import Bridge
from parts import node_part
from support import ROOT, TOKEN, Client, Closed, Gateway, free_port, until

from app.agents import demo

CLIENT_INFO = {"clientInfo": {"name": "another", "title": "Another client", "version": "1"}}


class NodeClient(Client):
    """The same client on npm's ws."""

    def __init__(self, gateway: Gateway, folder: Path, token: str = TOKEN, in_url: bool = False, **query: str) -> None:
        self.seen, self.read, self.ids, self.session, self.hello = [], 0, 0, "", {}
        args = {**query, **({"token": token} if in_url else {})}
        url = f"ws://127.0.0.1:{gateway.port}/ws?" + "&".join(f"{k}={v}" for k, v in args.items())
        command = ["node", str(folder / "ws_peer.mjs"), url, *([] if in_url else [token])]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def send(self, message: Any) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def recv(self, timeout_s: float = 15.0) -> Any:
        line = self.lines.get(timeout=timeout_s)
        if line is None:
            raise Closed(None, "")
        message = json.loads(line)
        if "closed" in message:
            raise Closed(*message["closed"])
        self.seen.append(message)
        return message

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()


@pytest.fixture(params=["websockets", "ws"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Opens a connection with one of two libraries. The hello is not read: a client may not rely on its being first."""
    opened: list[Client] = []
    if request.param == "ws":
        (tmp_path / "node_modules").symlink_to(node_part("ws", "node").parent)
        shutil.copy(ROOT / "tests" / "fakes" / "ws_peer.mjs", tmp_path)

    def made(gateway: Gateway, **options: Any) -> Client:
        if request.param == "ws":
            opened.append(NodeClient(gateway, tmp_path, **options))
        else:
            options.pop("in_url", None)  # this one's token is always in the URL
            opened.append(Client(gateway, hello=False, **options))
        return opened[-1]

    yield made
    for client in opened:
        client.close()


def handshake(client: Client) -> dict[str, Any]:
    """argus/session's params, after initialize and initialized."""
    hello = client.note("argus/session", 40)
    assert client.result("initialize", CLIENT_INFO)["userAgent"]
    client.send({"method": "initialized"})
    return hello


def methods(client: Client) -> list[str]:
    return [message["method"] for message in client.seen if isinstance(message, dict) and "method" in message]


def test_a_new_session_runs_a_turn(connect: Callable[..., Client], gateway: Gateway) -> None:
    client = connect(gateway)
    hello = handshake(client)
    assert (hello["attached"], hello["created"], len(hello["id"])) == (False, True, 12)
    thread = client.result("thread/start", {"cwd": "/root/.argus/workspace", "approvalPolicy": "never"})["thread"]["id"]
    turn = client.turn(thread, "good morning")
    assert client.note("turn/completed")["turn"]["id"] == turn
    order = [m for m in methods(client) if m in ("turn/started", "item/started", "item/completed", "turn/completed")]
    assert order[0] == "turn/started" and order[-1] == "turn/completed" and "item/completed" in order
    assert "good morning" in client.text()


def test_ids_of_any_json_type_come_back_as_they_were(connect: Callable[..., Client], gateway: Gateway) -> None:
    client = connect(gateway)
    handshake(client)
    for id in (7, "seven", 1_000_000_000, "é\n"):
        client.send({"id": id, "method": "thread/list", "params": {}})
        answer = client.wait(lambda m: "result" in m)
        assert answer["id"] == id and type(answer["id"]) is type(id)


def test_a_second_client_sees_all_and_is_asked_nothing(connect: Callable[..., Client], gateway: Gateway) -> None:
    one = connect(gateway)
    session = handshake(one)["id"]
    two = connect(gateway, session=session, in_url=True)
    hello = handshake(two)
    assert (hello["attached"], hello["created"], hello["id"]) == (True, False, session)
    thread = one.result("thread/start", {"approvalPolicy": "untrusted"})["thread"]["id"]
    one.turn(thread, "run: echo seen-by-both")
    asked = one.wait(lambda m: m.get("method", "").endswith("/requestApproval"))
    assert asked["params"]["threadId"] == thread
    one.send({"id": asked["id"], "result": {"decision": "accept"}})
    for client in (one, two):
        assert client.note("turn/completed")["turn"]["status"] == "completed"
    assert not any(method.endswith("/requestApproval") for method in methods(two))
    answers = [m for m in two.seen if isinstance(m, dict) and "method" not in m]
    assert answers == []  # only what it asked itself


def test_who_comes_when_the_asked_one_is_gone_is_asked_again(connect: Callable[..., Client], gateway: Gateway) -> None:
    one = connect(gateway)
    session = handshake(one)["id"]
    thread = one.result("thread/start", {"approvalPolicy": "untrusted"})["thread"]["id"]
    one.turn(thread, "run: echo late")
    asked = one.wait(lambda m: m.get("method", "").endswith("/requestApproval"))
    one.close()
    other = connect(gateway, session=session)
    handshake(other)
    again = next((m for m in other.seen if m.get("method") == asked["method"]), None) or other.wait(
        lambda m: m.get("method") == asked["method"]
    )
    assert again["id"] == asked["id"]
    other.send({"id": again["id"], "result": {"decision": "accept"}})
    assert other.note("turn/completed")["turn"]["status"] == "completed"


def test_what_nobody_saw_comes_to_who_comes_next(connect: Callable[..., Client], gateway: Gateway) -> None:
    one = connect(gateway)
    session = handshake(one)["id"]
    thread = one.result("thread/start", {})["thread"]["id"]
    one.turn(thread, "slow 20 0.05")
    one.wait(lambda m: m.get("method") == "item/agentMessage/delta")
    one.close()
    until(lambda: re.search(rf"session {session}: client \S+ left", gateway.said()), what="the gateway notices")
    until(lambda: gateway.api("GET", f"/sessions/{session}").json()["openTurns"] == 0, 30)
    two = connect(gateway, session=session)
    handshake(two)
    if "turn/completed" not in methods(two):
        two.note("turn/completed")
    assert two.text().endswith("19 20 ")
    resumed = two.result("thread/resume", {"threadId": thread})["thread"]
    assert resumed["id"] == thread
    read = two.result("thread/read", {"threadId": thread, "includeTurns": True})["thread"]["turns"]
    assert [turn["status"] for turn in read] == ["completed"]


def test_a_refused_client_gets_a_close_code(connect: Callable[..., Client], gateway: Gateway) -> None:
    wrong = connect(gateway, token="a-token-that-opens-nothing").closed(30)
    assert (wrong.code, wrong.reason) == (1008, "Unauthorized")
    unknown = connect(gateway, session="000000000000").closed(30)
    assert (unknown.code, unknown.reason) == (1008, "Unknown session")


def test_the_http_edge_is_as_the_page_says(gateway: Gateway) -> None:
    assert gateway.api("HEAD", "/healthz").status_code == 200
    assert gateway.api("GET", "/sessions/", allow_redirects=False).status_code == 200
    missing = gateway.api("DELETE", "/sessions/000000000000")
    assert missing.status_code == 404 and set(missing.json()) == {"detail", "code"}
    for path in ("/docs", "/redoc", "/openapi.json", "/sessions"):
        assert requests.get(gateway.url + path, timeout=10).status_code in (401, 404)
    row = gateway.api("POST", "/sessions").json()
    assert {"sessionId", "containerId", "name", "status", "runtimeLayout"} <= set(row)
    foreign = requests.get(gateway.url + "/healthz", headers={"Origin": "http://elsewhere.example"}, timeout=10)
    assert foreign.status_code == 403 and "Access-Control-Allow-Origin" not in foreign.headers


# Straight to a runtime, as a smoke client does it on a bridge that asks for no secret


@pytest.mark.parametrize(("decision", "ran"), [("accept", True), ("decline", False)])
def test_a_bridge_without_a_secret_is_a_plain_pipe_of_lines(tmp_path: Path, decision: str, ran: bool) -> None:
    port = free_port()
    with Bridge(tmp_path, demo.command(), f"tcp:127.0.0.1:{port}", secret="") as bridge:
        peer = bridge.connect()
        peer.send({"method": "initialize", "id": 1, "params": CLIENT_INFO})
        assert json.loads(peer.wait('"id":1'))["result"]["userAgent"]
        peer.send({"method": "initialized"})
        start = {"cwd": str(tmp_path), "approvalPolicy": "untrusted", "sandbox": "workspace-write"}
        peer.send({"method": "thread/start", "id": 2, "params": start})
        thread = json.loads(peer.wait('"id":2'))["result"]["thread"]["id"]
        words = [{"type": "text", "text": "run: touch made-here"}]
        peer.send({"method": "turn/start", "id": 3, "params": {"threadId": thread, "input": words}})
        request = json.loads(peer.wait("/requestApproval"))
        peer.send({"id": request["id"], "result": {"decision": decision}})
        done = json.loads(peer.wait('"turn/completed"'))
        assert done["params"]["turn"]["status"] == "completed"
        assert (tmp_path / "made-here").exists() is ran
