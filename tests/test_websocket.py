"""Our WebSocket object where no conformance suite looks: handlers that fail, silent peers, busy neighbours."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import gevent.socket
import pytest
from echo_app import echo_server
from simple_websocket import ConnectionClosed
from support import PATIENCE_S, Gateway
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from app.relay.frames import PING_FRAME, text_frame
from app.relay.websocket import CLOSE_WAIT_S, PING_AFTER_S, WebSocket

PONG = b"\x8a\x80\0\0\0\0"


def test_a_handler_that_fails_closes_with_1011_and_sends_no_http_into_the_stream(tmp_path: Path) -> None:
    with echo_server(tmp_path) as (port, log):
        with connect(f"ws://127.0.0.1:{port}/fails", compression=None, proxy=None, ping_interval=None) as ws:
            ws.send("x")
            assert ws.recv(PATIENCE_S) == "x"
            with pytest.raises(ConnectionClosedError) as closed:
                ws.recv(PATIENCE_S)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "internal error")
        said = log.read_text()
        assert "a bug" in said and "Error handling request" not in said


@pytest.fixture
def pair() -> Iterator[tuple[WebSocket, socket.socket]]:
    """A socket object of ours and the plain end of its peer."""
    ours, peer = gevent.socket.socketpair()
    peer.settimeout(PATIENCE_S)
    with ours, peer:
        yield WebSocket(ours), peer


def reads(ws: WebSocket) -> gevent.Greenlet:
    """Its handler: receives until it is over; the close code is the value."""

    def handler() -> int | None:
        try:
            while True:
                ws.receive()
        except ConnectionClosed:
            return ws.close_code

    return gevent.spawn(handler)


def test_half_a_message_is_let_go_with_its_socket(pair) -> None:
    ws, peer = pair
    ws.on_overflow = lambda: ws.close(1013)  # a cycle, as the relay makes one
    handler = reads(ws)
    peer.sendall(b"\x01\xff" + (1 << 20).to_bytes(8, "big") + bytes(4) + b"x" * 100_000)
    gevent.sleep(0.05)
    peer.close()
    handler.join(PATIENCE_S)
    assert len(ws._reader._data) > 90_000
    ws.finish()
    assert not ws._reader._data and ws._reader._message is None and ws.on_overflow is None


def test_an_idle_peer_is_pinged_once_and_dropped_when_it_does_not_answer(pair) -> None:
    ws, peer = pair
    handler, now = reads(ws), time.monotonic()
    ws.tick(now + PING_AFTER_S / 2)
    ws.tick(now + PING_AFTER_S + 1)
    ws.tick(now + PING_AFTER_S + 2)
    assert peer.recv(100) == PING_FRAME
    ws.tick(now + 2 * PING_AFTER_S)
    assert not handler.ready()
    ws.tick(now + 3 * PING_AFTER_S)
    assert handler.get(timeout=PATIENCE_S) == 1006 and peer.recv(100) == b""


def test_a_peer_that_answers_its_ping_stays(pair) -> None:
    ws, peer = pair
    handler, now = reads(ws), time.monotonic()
    for _ in range(3):
        ws.tick(now + PING_AFTER_S + 1)
        assert peer.recv(100) == PING_FRAME
        peer.sendall(PONG)
        with gevent.Timeout(PATIENCE_S):
            while ws._pinged:
                gevent.sleep(0.001)
    ws.tick(now + PING_AFTER_S / 2)
    assert not handler.ready()
    ws.send("still there")
    assert peer.recv(100) == text_frame(b"still there")


def test_a_peer_that_does_not_answer_a_close_is_let_go(pair) -> None:
    ws, _ = pair
    handler = reads(ws)
    ws.close(1000)
    gevent.sleep(0)
    assert not handler.ready()
    ws.tick(time.monotonic() + CLOSE_WAIT_S + 1)
    assert handler.get(timeout=PATIENCE_S) == 1000


def test_requests_without_a_pause_on_one_connection_leave_the_others_their_time(gateway: Gateway) -> None:
    """The next request is always there already, so that its connection's loop would never wait."""
    client = gateway.client()
    request = b"GET /robots.txt HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"  # one that waits for nothing
    over = threading.Event()
    with socket.create_connection(("127.0.0.1", gateway.port), PATIENCE_S) as sock:

        def ask() -> None:
            try:
                while not over.is_set():
                    sock.sendall(request * 50)
            except OSError:
                over.set()

        def read() -> None:
            try:
                while sock.recv(1 << 20):
                    pass
            except OSError:
                over.set()

        threads = [threading.Thread(target=work, daemon=True) for work in (ask, read)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            assert client.result("argus/ping")["ok"]
        assert not over.is_set()
        over.set()
        sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE_S)
