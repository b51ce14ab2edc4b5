"""The baseline: the relay as one first writes it with plain Flask-Sock.

Clients without ?session= get a session of their own, with one TCP link to the app-server; those
with ?session= share it. A greenlet per session reads lines, parses each with json and passes it to
every client with ws.send. Ids of requests are replaced on the way up and restored on the way down.
There is no authentication, no replay and no care for slow readers: a floor to compare with.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import uuid

import gevent
from flask import Flask, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed

app = Flask(__name__)
sock = Sock(app)
sessions: dict[str, Session] = {}


class Session:
    def __init__(self) -> None:
        address = ("127.0.0.1", int(os.environ["BENCH_UPSTREAM_PORT"]))
        self.link = socket.create_connection(address)
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.clients: list = []
        self.asked: dict[int, tuple] = {}  # our id -> (who asked, the id it used)
        self.ids = itertools.count(1_000_000_000)
        gevent.spawn(self.read_link)

    def read_link(self) -> None:
        for line in self.link.makefile("r", encoding="utf-8"):
            message = json.loads(line)
            if "id" in message and "method" not in message:
                client, message["id"] = self.asked.pop(message["id"])
                self.tell(client, json.dumps(message))
                continue
            for client in list(self.clients):
                self.tell(client, line.rstrip("\n"))

    def tell(self, client, text: str) -> None:
        try:
            client.send(text)
        except (ConnectionClosed, OSError):
            self.leave(client)

    def leave(self, client) -> None:
        if client in self.clients:
            self.clients.remove(client)

    def ask(self, client, text: str) -> None:
        message = json.loads(text)
        if "id" in message and "method" in message:
            number = next(self.ids)
            self.asked[number] = (client, message["id"])
            message["id"] = number
        self.link.sendall(json.dumps(message).encode() + b"\n")


@app.get("/healthz")
def healthz() -> dict[str, bool]:
    return {"ok": True}


@sock.route("/ws")
def relay(ws) -> None:
    name = request.args.get("session") or uuid.uuid4().hex[:12]
    session = sessions.get(name)
    if session is None:
        session = sessions[name] = Session()
    session.clients.append(ws)
    try:
        ws.send(json.dumps({"method": "argus/session", "params": {"id": name}}))
        while True:
            session.ask(ws, ws.receive())
    finally:
        session.leave(ws)
