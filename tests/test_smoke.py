"""./argus smoke straight at a runtime that no gateway holds. The peer is a real one, with one fault."""

import json
import socket
import threading
from collections.abc import Callable

import pytest
from launched import Tree
from support import free_port


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Tree:
    made = Tree(tmp_path_factory.mktemp("tree"))
    made.borrow_venv()
    return made


def peer(script: Callable[[socket.socket, list[dict]], None]) -> tuple[str, list[dict]]:
    """A server for one connection that runs `script`; its HOST:PORT, and what it hears."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[dict] = []

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.settimeout(20)
            script(connection, heard)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}", heard


def app_server(connection: socket.socket, heard: list[dict], status: str = "completed", error: str = "") -> None:
    """One turn that asks for an approval and says in two pieces what was decided."""

    def say(message: dict) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    for line in connection.makefile("rb"):
        message = json.loads(line)
        heard.append(message)
        method, here = message.get("method"), {"threadId": "t"}
        if method == "thread/start":
            say({"method": "thread/started", "params": here})
        if "id" in message and method:
            say({"id": message["id"], "result": {"thread": {"id": "t"}}})
        if method == "turn/start":
            say({"method": "item/agentMessage/delta", "params": {"threadId": "another", "delta": "not mine"}})
            say({"method": "item/commandExecution/requestApproval", "id": 0, "params": here})
        if message.get("id") == 0:
            for delta in ("it is ", message["result"]["decision"]):
                say({"method": "item/agentMessage/delta", "params": {**here, "itemId": "i", "delta": delta}})
            say({"method": "item/completed", "params": {**here, "item": {"type": "agentMessage", "id": "i"}}})
            turn = {"status": status, "error": {"message": error} if error else None}
            say({"method": "turn/completed", "params": {**here, "turn": turn}})


@pytest.mark.parametrize(("extra", "decision"), [((), "decline"), (("--auto-approve",), "accept")])
def test_smoke_runs_one_turn_on_a_runtime(tree, extra, decision):
    where, heard = peer(app_server)
    done = tree.run("smoke", where, "--prompt", "hi", *extra)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"it is {decision}\n", "")
    assert [m["method"] for m in heard if "method" in m] == ["initialize", "initialized", "thread/start", "turn/start"]
    assert heard[3]["params"]["input"] == [{"type": "text", "text": "hi"}]


def test_smoke_shows_its_secret_first(tree):
    where, heard = peer(app_server)
    assert tree.run("smoke", where, "--secret", "s3cret").returncode == 0
    assert heard[0] == {"id": 1, "method": "bridge/plain", "params": {"secret": "s3cret"}}


def closes(connection: socket.socket, heard: list[dict]) -> None:
    connection.recv(65536)


def refuses(connection: socket.socket, heard: list[dict]) -> None:
    connection.recv(65536)
    connection.sendall(b'{"id":1,"error":{"code":-32600,"message":"not with me"}}\n')


def babbles(connection: socket.socket, heard: list[dict]) -> None:
    connection.sendall(b"\xff\xfe no JSON\n")


def is_silent(connection: socket.socket, heard: list[dict]) -> None:
    while connection.recv(65536):
        pass


def fails(connection: socket.socket, heard: list[dict]) -> None:
    app_server(connection, heard, status="failed", error="no model")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (closes, "it closed the connection"),
        (refuses, "initialize was refused: not with me"),
        (babbles, "no JSON object"),
        (is_silent, "it took too long"),
        (fails, "the turn ended as failed: no model"),
    ],
)
def test_smoke_tells_what_went_wrong(tree, script, words):
    where, _ = peer(script)
    timeout = "1" if script is is_silent else "20"
    done = tree.run("smoke", where, "--timeout", timeout)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    assert words in done.stderr and where in done.stderr


def test_smoke_of_nothing_is_told(tree, tmp_path):
    assert "could not be reached" in tree.refused("smoke", str(tmp_path / "no.sock"), code=2)
    assert "could not be reached" in tree.refused("smoke", f"127.0.0.1:{free_port()}", code=2)
    assert "neither HOST:PORT nor" in tree.refused("smoke", "host:port", code=2)
