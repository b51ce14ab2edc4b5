"""The hostile and the broken: a clear error to who caused it, others undisturbed, memory bounded, nothing lost."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import PATIENCE_S, ROOT, TOKEN, Client, Gateway, running, until

MB = 1 << 20


def rss(pid: int) -> int:
    """Resident memory of a process in bytes."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def bad_agent(*fault: str, **env: str) -> Iterator[Gateway]:
    """A gateway whose agent has a fault."""
    command = " ".join([sys.executable, str(ROOT / "tests/fakes/bad_app_server.py"), *fault])
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=command, **env) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("frame", "code", "says"),
    [
        ("this is not JSON", -32700, "not JSON"),
        ("", -32700, "not JSON"),
        ("[]", -32600, "one JSON object"),
        ('[{"id":1,"method":"thread/list"}]', -32600, "one JSON object"),
        ("7", -32600, "one JSON object"),
        ('{"id":1,\n"method":"thread/list","params":{}}', -32700, "raw newline"),
        ('{"id":5,"method":"x","params":' + "[" * 10_000 + "]" * 10_000 + "}", -32700, "nests deeper"),
        ('{"id":5,"method":"x","params":' + "[" * 101 + "]" * 101 + "}", -32700, "nests deeper"),
        ('{"id":{"a":1},"method":"x"}', -32600, "id must be"),
        ('{"id":5,"method":7}', -32600, "method must be"),
        ("{}", -32600, "must have a method"),
        ('{"id":5,"method":"bridge/restart","params":{}}', -32600, "gateway's own"),
        ('{"id":5,"method":"bridge\\/restart","params":{}}', -32600, "gateway's own"),
        ('{"id":99,"result":{}}', -32600, "not open"),
    ],
)
def test_a_bad_frame_gets_a_clear_error_and_harms_nobody(gateway: Gateway, frame: str, code: int, says: str) -> None:
    client = gateway.client()
    client.ready()
    client.send(frame)
    error = client.wait(lambda m: "error" in m)["error"]
    assert error["code"] == code and says in error["message"]
    assert client.result("thread/list")["data"] is not None


def raw_socket(gateway: Gateway, session: str) -> socket.socket:
    """An upgraded connection whose frames the test makes by hand."""
    sock = socket.create_connection(("127.0.0.1", gateway.port), PATIENCE_S)
    sock.sendall(
        f"GET /ws?token={TOKEN}&session={session} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        byte = sock.recv(1)
        assert byte, answer
        answer += byte
    assert b" 101 " in answer
    return sock


def close_code(sock: socket.socket) -> int:
    """The code of the close frame at the end of what the server sends."""
    data = b""
    while part := sock.recv(65536):
        data += part
    at = data.rindex(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big")


def masked(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (masked(1, b"\xff\xfe"), 1007),
        (masked(2, b"{}"), 1003),
        (b"\x81\x02{}", 1002),
        (b"\xf1\x82\0\0\0\0{}", 1002),
        (b"\x81\xff" + (17 * MB).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * (17 * MB), 1009),
    ],
)
def test_a_broken_websocket_is_closed_with_its_code(gateway: Gateway, data: bytes, code: int) -> None:
    client = gateway.client()
    client.ready()
    sock = raw_socket(gateway, client.session)
    with contextlib.suppress(ConnectionError):
        sock.sendall(data)
    assert close_code(sock) == code
    sock.close()
    assert client.result("thread/list")["data"] is not None


def test_1500_requests_at_once_are_all_answered(gateway: Gateway) -> None:
    client = gateway.client()
    client.ready()
    for n in range(1500):
        client.send(json.dumps({"id": n, "method": "thread/list", "params": {"limit": 1}}))
    answers = [client.wait(lambda m: isinstance(m.get("id"), int)) for _ in range(1500)]
    assert sorted(a["id"] for a in answers) == list(range(1500))
    assert all("result" in a for a in answers)


def test_a_line_without_an_end_restarts_the_agent_and_costs_bounded_memory() -> None:
    with bad_agent("flood") as gateway:
        client = gateway.client()
        other = gateway.client()
        client.ready(), other.ready()
        before = rss(gateway.worker)
        client.send({"id": 1, "method": "turn/start", "params": {"threadId": "th", "input": []}})
        gone = client.note("argus/runtime")
        assert gone["state"] == "restarting" and "line too long" in gone["reason"]
        assert client.wait(lambda m: m.get("id") == 1)["error"]["code"] == -32000
        assert other.result("thread/read")["thread"]
        assert client.note("argus/runtime")["state"] == "running"
        assert client.result("thread/read")["thread"]
        assert rss(gateway.worker) - before < 30 * MB
        assert all(rss(p) < 60 * MB for p in gateway.pids_of("bridge.py"))


def test_an_agent_that_says_for_its_bridge_that_it_died_harms_nothing() -> None:
    with bad_agent("forger") as gateway:
        client = gateway.client()
        client.ready()
        assert client.result("turn/start", {"threadId": "th", "input": []})["turn"]["id"] == "t1"
        assert client.note("turn/completed")["turn"]["status"] == "completed"
        methods = [m.get("method") for m in client.seen if isinstance(m, dict)]
        assert "argus/runtime" not in methods and methods.count("bridge/exited") == 3
        assert client.result("thread/read")["thread"]
        assert gateway.api("GET", f"/sessions/{client.session}").json()["state"] == "running"


def test_garbage_from_an_agent_reaches_clients_as_valid_text() -> None:
    with bad_agent("garbage") as gateway:
        client = gateway.client()
        client.ready()
        client.result("turn/start", {"threadId": "th", "input": []})
        client.note("turn/completed")
        texts = [m for m in client.seen if not isinstance(m, dict | tuple)]
        assert texts == ["this is not JSON", "\ufffd\ufffd\x00 neither", [1, 2]]


def test_an_agent_that_exits_at_once_is_said_with_its_last_words() -> None:
    with bad_agent("exits") as gateway:
        client = gateway.client()
        client.send({"id": 1, "method": "initialize", "params": {}})
        failed = client.wait(lambda m: m.get("params", {}).get("state") == "failed", 60)
        assert "does not want to live" in failed["params"]["reason"]
        assert client.wait(lambda m: m.get("id") == 1)["error"]["code"] == -32000
        assert client.ask("thread/list")["error"]["code"] == -32000
        assert gateway.api("GET", f"/sessions/{client.session}").json()["state"] == "failed"
        late = gateway.client(session=client.session)
        assert "keeps ending" in late.ask("initialize")["error"]["message"]


def test_an_agent_that_never_answers_initialize_is_said() -> None:
    with bad_agent("mute", ARGUS_CONNECT_TIMEOUT_S="6") as gateway:
        client = gateway.client()
        error = client.ask("initialize")["error"]
        assert "did not answer initialize in time" in error["message"]


def test_an_agent_that_never_answers_a_request_costs_its_deadline_only() -> None:
    with bad_agent("deaf", ARGUS_REQUEST_TIMEOUT_S="6") as gateway:
        client = gateway.client()
        client.result("initialize")
        error = client.ask("thread/list")["error"]
        assert error["code"] == -32002 and "thread/list" in error["message"]


def test_an_agent_that_does_not_exist_is_said_on_connect() -> None:
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD="/nowhere/codex app-server") as gateway:
        client = gateway.client()
        failed = client.wait(lambda m: m.get("params", {}).get("state") == "failed", 60)
        assert "/nowhere/codex" in failed["params"]["reason"]


def test_a_flood_of_frames_does_not_starve_the_others(gateway: Gateway) -> None:
    flooder, other = gateway.client(), gateway.client()
    flooder.ready(), other.ready()
    for _ in range(3000):
        flooder.send("garbage")
    assert other.result("argus/ping")["ok"]
    for _ in range(3000):
        flooder.wait(lambda m: "error" in m)


def test_a_client_that_vanishes_without_a_word_leaves_nothing(gateway: Gateway) -> None:
    client = gateway.client()
    thread = client.ready()
    sock = raw_socket(gateway, client.session)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()  # RST
    client.turn(thread, "slow 20 0.01")
    assert client.note("turn/completed")["turn"]["status"] == "completed"


def drained(sock: socket.socket) -> list[int]:
    """All that a fast reader gets of a turn: the numbers of its deltas, in order."""
    data = bytearray()
    while b"turn/completed" not in data[-300:]:
        part = sock.recv(1 << 20)
        assert part, data[-200:]
        data += part
    return [int(n) for n in re.findall(rb'"n": (\d+)', data)]


def test_one_slow_client_of_three_delays_nobody() -> None:
    with bad_agent("big", "12") as gateway:
        one = gateway.client()
        thread = one.ready()
        socks = [raw_socket(gateway, one.session) for _ in range(3)]
        one.close()
        before = rss(gateway.worker)
        with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
            for sock in socks:
                stack.enter_context(sock)
            readers = [pool.submit(drained, sock) for sock in socks[:2]]
            start = {"id": 1, "method": "turn/start", "params": {"threadId": thread, "input": []}}
            socks[2].sendall(masked(1, json.dumps(start).encode()))  # the third never reads
            assert [reader.result() for reader in readers] == [list(range(192))] * 2
        assert rss(gateway.worker) - before < 40 * MB


def test_sixteen_megabytes_reach_a_slow_reader_within_its_bound() -> None:
    with bad_agent("big", "16", ARGUS_CLIENT_BUFFER_BYTES=str(32 * MB)) as gateway:
        fast, slow = _fast_and_slow(gateway)
        assert _numbers(slow) == list(range(256))
        assert fast.session == slow.session


def test_over_its_bound_a_slow_reader_is_cut_and_resumes_by_cursor() -> None:
    # More than its bound and all that the kernel may keep; the ring has what it was not given.
    with bad_agent("big", "32", ARGUS_RING_BYTES=str(64 * MB)) as gateway:
        _, slow = _fast_and_slow(gateway)
        closed = slow.closed()
        assert closed.code == 1013
        epoch = slow.hello["cursor"].split(":")[0]
        newest = max(m["seq"] for m in slow.seen if "seq" in m)
        back = gateway.client(session=slow.session, seq="1", after=f"{epoch}:{newest}", client=slow.hello["client"])
        assert back.hello["resume"] == "ok"
        back.note("turn/completed")
        slow.seen += back.seen
        assert _numbers(slow) == list(range(512))


def _fast_and_slow(gateway: Gateway) -> tuple[Client, Client]:
    """One client that reads at once, and one that begins to read only when the turn is over."""
    fast = gateway.client()
    thread = fast.ready()
    slow = gateway.client(session=fast.session, seq="1")
    fast.turn(thread, "go")
    fast.note("turn/completed")
    return fast, slow


def _numbers(client: Client) -> list[int]:
    if not any(m.get("method") == "turn/completed" for m in client.seen if isinstance(m, dict)):
        with contextlib.suppress(Exception):
            client.note("turn/completed")
    return [m["params"]["n"] for m in client.seen if isinstance(m, dict) and "delta" in m.get("method", "")]


def test_a_slow_reader_is_found_out_by_the_gateway_not_by_luck() -> None:
    with bad_agent("big", "32") as gateway:
        fast, slow = _fast_and_slow(gateway)
        until(lambda: "too slow" in gateway.said() or slow.closed().code == 1013)
        assert fast.result("argus/ping")["ok"]


def test_a_flood_of_tiny_fragments_leaves_the_others_their_time(gateway: Gateway) -> None:
    client = gateway.client()
    client.ready()
    tiny = b"\x01\x80\0\0\0\0" + b"\x00\x81\0\0\0\0x" * 200_000 + b"\x80\x80\0\0\0\0"

    def flood(sock: socket.socket) -> bytes:
        sock.sendall(tiny)
        data = b""
        while b"not JSON" not in data:
            part = sock.recv(65536)
            assert part, data[-200:]
            data += part
        return data

    with raw_socket(gateway, client.session) as sock, ThreadPoolExecutor() as pool:
        flooded, answered = pool.submit(flood, sock), 0
        while not flooded.done():
            answered += client.result("argus/ping")["ok"]
        assert flooded.result()
    assert answered > 20  # a read's worth of fragments at a time would leave room for two or three


def test_a_socket_ends_without_an_http_answer_or_a_word_in_the_log(own_gateway: Gateway) -> None:
    client = own_gateway.client()
    with raw_socket(own_gateway, client.session) as sock:
        sock.sendall(masked(8, b"\x03\xe8"))
        data = b""
        while part := sock.recv(65536):
            data += part
    assert b"HTTP/1.1" not in data and data.endswith(b"\x88\x02\x03\xe8")
    client.close()
    own_gateway.stop()
    assert "Error" not in own_gateway.said() and "Traceback" not in own_gateway.said()
