"""A server that says again what it hears, on the WebSocket object of the gateway: the peer of a conformance suite."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import requests
from flask import Flask
from support import ROOT, until

from app.routes.sock import Sock

app = Flask(__name__)
sock = Sock(app)


@sock.route("/echo")
def echo(ws):
    """Every message back, text as text and binary as binary, until the peer closes."""
    while True:
        ws.send(ws.receive())


@sock.route("/fails")
def fails(ws):
    """A handler with a bug."""
    ws.send(ws.receive())
    raise RuntimeError("a bug")


@contextlib.contextmanager
def echo_server(place: Path) -> Iterator[tuple[int, Path]]:
    """A gunicorn with this app on a listening socket that was made here, so that no port can be lost: port and log."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        options = ["-c", os.devnull, "-k", "gevent", "--no-control-socket", "--bind", f"fd://{listener.fileno()}"]
        with (place / "log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *options, "echo_app:app"],
                pass_fds=[listener.fileno()],
                cwd=place,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "HOME": str(place)},
                stdout=log,
                stderr=log,
            )
        port = listener.getsockname()[1]
    try:
        until(lambda: answers(port) or server.poll() is not None, 30, "the echo app answers")
        assert server.poll() is None, (place / "log").read_text()
        yield port, place / "log"
        server.send_signal(signal.SIGTERM)
        server.wait(15)
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    """Is there a worker that speaks HTTP?"""
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=2).status_code == 404
    except requests.RequestException:
        return False
