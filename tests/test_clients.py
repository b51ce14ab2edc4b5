"""The two examples of docs/clients.md as they stand: every message arrives once, whatever breaks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from cutting import Proxy
from fakes.codex_home import codex_binary, write_codex_home
from fakes.model_server import ModelServer
from parts import node_part, require
from support import ROOT, TOKEN, Gateway, running, until

EXAMPLES = {"python": ROOT / "examples" / "client.py", "javascript": ROOT / "examples" / "client.mjs"}
RUN_S = 200  # far more than any of it takes, for a busy machine
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(params=list(EXAMPLES))
def example(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The command of an example, the file itself unchanged."""
    if request.param == "python":
        return [sys.executable, "-W", "error", str(EXAMPLES["python"])]
    modules = node_part("ws", "node").parent
    (tmp_path / "node_modules").symlink_to(modules)
    return ["node", str(shutil.copy(EXAMPLES["javascript"], tmp_path))]


class Run:
    """An example at work."""

    def __init__(self, example: list[str], port: int, *messages: str, token: str = TOKEN, typed: str = "y\n" * 200):
        self.url = f"http://127.0.0.1:{port}"
        address = self.url if example[0] == "node" else f"ws://127.0.0.1:{port}/ws"
        self.process = subprocess.Popen(
            [*example, address, *messages],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "ARGUS_TOKEN": token},
        )
        self.out, self.err = bytearray(), bytearray()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err)),
        ]
        for reader in self._readers:
            reader.start()
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(typed.encode())

    @staticmethod
    def _read(pipe: Any, into: bytearray) -> None:
        while data := pipe.read1(65536):
            into += data
        pipe.close()

    def end(self) -> tuple[str, str]:
        """What it printed, once it has ended."""
        try:
            self.process.wait(RUN_S)
        finally:
            self.process.kill()
            self.process.wait()
            for reader in self._readers:
                reader.join(10)
        return self.out.decode(), self.err.decode()


def history(gateway: Gateway) -> list[dict[str, Any]]:
    """The turns of the only thread in which something was said. Sessions of one Codex see the same threads."""
    found: dict[str, list[dict[str, Any]]] = {}
    for session in gateway.api("GET", "/sessions").json()["sessions"]:
        client = gateway.client(session=session["sessionId"])
        client.result("initialize", {"clientInfo": {"name": "test", "version": "0"}})
        for thread in client.result("thread/list")["data"]:
            with contextlib.suppress(AssertionError):  # Codex: one in which nothing was said cannot be read
                read = client.result("thread/read", {"threadId": thread["id"], "includeTurns": True})
                if read["thread"]["turns"]:
                    found[thread["id"]] = read["thread"]["turns"]
        client.close()
    assert len(found) == 1, found
    return next(iter(found.values()))


def said(turns: list[dict[str, Any]]) -> list[str]:
    """What was said to the agent, in order; each with a mark of its own."""
    items = [item for turn in turns for item in turn["items"] if item["type"] == "userMessage"]
    assert len({item["clientId"] for item in items}) == len(items)
    return ["".join(part.get("text", "") for part in item["content"]) for item in items]


def seed() -> int:
    value = int(os.environ.get("ARGUS_TEST_SEED", time.time_ns() % 2**32))
    print(f"ARGUS_TEST_SEED={value}")
    return value


def saboteur(gateway: Gateway, run: Run, kills: int, rng: random.Random) -> None:
    """Kills the gateway at random moments until the example is done or `kills` are used up."""
    for _ in range(kills):
        until_then = time.monotonic() + rng.random()
        while time.monotonic() < until_then and run.process.poll() is None:
            time.sleep(0.01)
        if run.process.poll() is not None:
            return
        gateway.restart()


def test_an_example_talks_and_asks_before_a_command(example: list[str], gateway: Gateway) -> None:
    messages = ("slow 5 0.01", "run: echo ran-it", "run: echo not-this", "fail")
    out, err = Run(example, gateway.port, *messages, typed="y\nn\n").end()
    assert out.startswith("1 2 3 4 5 \n") and "\nran-it\n" in out and "You declined" in out
    assert "May it? echo ran-it [y/N]" in err and "the turn ended as failed" in err


def test_an_example_ends_with_a_sentence_when_it_is_refused(example: list[str], gateway: Gateway) -> None:
    run = Run(example, gateway.port, "hello", token="not-the-right-token")
    out, err = run.end()
    assert (out, run.process.returncode) == ("", 1) and "refused" in err and "rror" not in err.replace("-W error", "")


def test_an_example_waits_for_a_gateway_that_is_not_there_yet(example: list[str], own_gateway: Gateway) -> None:
    own_gateway.kill()
    run = Run(example, own_gateway.port, "slow 3 0.01")
    until(lambda: b"trying again" in run.err, 30)
    own_gateway.start()
    assert run.end()[0] == "1 2 3 \n"


def test_a_gateway_killed_between_ticket_and_socket_is_no_refusal(example: list[str], own_gateway: Gateway) -> None:
    with Proxy(own_gateway.port) as proxy:
        proxy.before = lambda number: own_gateway.restart() if number == 2 else None
        assert Run(example, proxy.port, "slow 3 0.01").end()[0] == "1 2 3 \n"


def test_kills_and_cuts_lose_and_double_nothing(example: list[str], own_gateway: Gateway) -> None:
    rng = random.Random(seed())
    messages = [f"slow {n} 0.02" for n in range(5, 17)]
    with Proxy(own_gateway.port, rng.randrange(2**32), cuts=15) as proxy:
        run = Run(example, proxy.port, *messages)
        try:
            saboteur(own_gateway, run, 4, rng)
        finally:
            out, err = run.end()
    print(err)
    assert out == "".join("".join(f"{i} " for i in range(1, n + 1)) + "\n" for n in range(5, 17))
    assert said(history(own_gateway)) == messages
    assert err.count("trying again") >= 3


def test_what_was_missed_for_good_is_read_from_the_history(example: list[str]) -> None:
    with running(ARGUS_RING_BYTES="65536") as gateway, Proxy(gateway.port) as proxy:
        run = Run(example, proxy.port, "slow 30 0.05", "big 300000", "slow 3 0.01")
        until(lambda: b"5 6 " in run.out, 60)
        proxy.closed = True
        proxy.cut()
        session = gateway.api("GET", "/sessions").json()["sessions"][0]["sessionId"]
        other = gateway.client(session=session)
        other.result("initialize")
        thread = other.result("thread/list")["data"][0]["id"]
        until(lambda: turns(other, thread)[0]["status"] == "completed", 30)
        other.turn(other.result("thread/start")["thread"]["id"], "big 200000")  # pushes the answer out of the ring
        other.note("turn/completed", 30)
        proxy.closed = False
        out, _ = run.end()
        answers = [turn["items"][-1]["text"] for turn in turns(other, thread)]
    assert [len(answer) for answer in answers] == [len("".join(f"{i} " for i in range(1, 31))), 300000, 6]
    assert out == "".join(f"{answer}\n" for answer in answers)


def turns(client: Any, thread: str) -> list[dict[str, Any]]:
    return client.result("thread/read", {"threadId": thread, "includeTurns": True})["thread"]["turns"]


def test_a_turn_that_died_with_its_agent_is_told_and_not_said_again(example: list[str], own_gateway: Gateway) -> None:
    run = Run(example, own_gateway.port, "slow 100 0.1", "slow 3 0.01")
    until(lambda: b"3 4 " in run.out, 30)
    for pid in own_gateway.pids_of("demo.py"):
        os.kill(pid, signal.SIGKILL)
    out, err = run.end()
    assert out.endswith("1 2 3 \n") and "the turn ended as interrupted" in err
    assert said(history(own_gateway)) == ["slow 100 0.1", "slow 3 0.01"]


# The real Codex


@pytest.fixture
def codex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    binary = codex_binary()
    require("codex", binary is not None, "./argus up --agent codex installs it")
    place = tmp_path_factory.mktemp("codex")
    with ModelServer() as model:
        home = write_codex_home(place / "codex-home", model.url)
        own = {"CODEX_HOME": str(home), "HOME": str(place)}
        with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=f"{binary} app-server", **own) as made:
            yield made


def test_kills_and_cuts_lose_and_double_nothing_with_codex(example: list[str], codex: Gateway) -> None:
    rng = random.Random(seed())
    messages = [f"message number {n}" for n in range(6)] + ["slow: 20 0.05", "run: echo approved"]
    with Proxy(codex.port, rng.randrange(2**32), cuts=8) as proxy:
        run = Run(example, proxy.port, *messages)
        try:
            saboteur(codex, run, 2, rng)
        finally:
            out, err = run.end()
    print(err)
    expected = [f"echo: message number {n}" for n in range(6)] + ["".join(f"piece {n} " for n in range(20))]
    assert out.split("\n")[:7] == expected and out.split("\n")[7].startswith("done: ") and "approved" in out
    assert said(history(codex)) == messages


def test_a_thread_that_died_before_its_first_turn_is_replaced(codex: Gateway) -> None:
    client = load(EXAMPLES["python"]).Client(f"ws://127.0.0.1:{codex.port}/ws", TOKEN)
    client.open()
    empty = client.thread
    for pid in codex.pids_of("app-server"):
        os.kill(pid, signal.SIGKILL)
    while client.take(message := client.receive()) or (message.get("params") or {}).get("state") != "running":
        pass
    assert client.say("are you there")["status"] == "completed"
    assert client.thread != empty
    client.socket.close()


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The guide


def test_the_guide_shows_the_examples_as_they_are() -> None:
    guide = (ROOT / "docs" / "clients.md").read_text("utf-8")
    for language, path in EXAMPLES.items():
        assert f"```{language}\n{path.read_text('utf-8')}```" in guide, f"docs/clients.md does not show {path.name}"


def test_the_guide_asks_for_nothing_that_is_not_there(gateway: Gateway) -> None:
    guide = (ROOT / "docs" / "clients.md").read_text("utf-8")
    for method, path in re.findall(r"`(GET|POST|DELETE) (/[\w/]*)`", guide):
        assert requests.request(method, gateway.url + path, timeout=10).status_code != 404, path
