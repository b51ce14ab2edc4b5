"""./argus smoke: says one thing to an agent and prints the answer as it comes.

Exit code 0: the turn was completed; 2: it was not (refused, closed, failed, too late), with one sentence on stderr.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from argparse import Namespace
from typing import Any, TextIO

from app import VERSION, settings
from app.cli import gateway
from app.cli.ws_client import Lines, Pipe, PipeEnded, WebSocket
from app.errors import ArgusError

CLIENT = {"name": "argus_smoke", "title": "Argus smoke test", "version": VERSION}


class SmokeFailed(Exception):
    """The turn did not come to its end. The text says why."""


def run(args: Namespace) -> int:
    """One turn, through the gateway of this home or, with a target, straight to a runtime."""
    current = settings.load()
    deadline = time.monotonic() + args.timeout
    whom = args.target or "the gateway"
    try:
        if args.target:
            _direct(args, deadline)
        else:
            found = gateway.need(current, args)
            whom = f"the gateway at {found.url}"
            _through_gateway(args, current, found, deadline)
    except (PipeEnded, SmokeFailed) as error:
        print(f"argus: smoke test of {whom}: {error}.", file=sys.stderr)
        return 2
    return 0


def _through_gateway(args: Namespace, current: settings.Settings, found: gateway.Running, deadline: float) -> None:
    url = "ws" + found.url.removeprefix("http") + "/ws"
    pipe = WebSocket(url, gateway.headers(current), deadline)
    turn = Turn(pipe, sys.stdout, args.auto_approve)
    try:
        turn.run(args.prompt)
    finally:
        pipe.close()
        # Only what this connection made; a session that somebody else runs stays.
        if turn.session.get("created") and turn.session.get("id"):
            _delete(current, found, str(turn.session["id"]))


def _delete(current: settings.Settings, found: gateway.Running, session: str) -> None:
    try:
        gateway.ask(current, found, "DELETE", f"/sessions/{session}")
    except ArgusError as error:
        print(f"argus: the session {session} of the smoke test stays: {error.text}", file=sys.stderr)


def _direct(args: Namespace, deadline: float) -> None:
    pipe = Lines(lambda timeout: _connect(args.target, timeout), deadline)
    try:
        turn = Turn(pipe, sys.stdout, args.auto_approve)
        if args.secret:
            turn.request("bridge/plain", {"secret": args.secret})
        turn.run(args.prompt)
    finally:
        pipe.close()


def _connect(target: str, timeout: float) -> socket.socket:
    """HOST:PORT (host may be left out, or be IPv6 in brackets), or the path of a Unix socket."""
    host, colon, port = target.rpartition(":")
    if "/" in target or not colon:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(os.path.expanduser(target))
        except BaseException:
            connection.close()
            raise
        return connection
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise SmokeFailed(f"{target!r} is neither HOST:PORT nor the path of a socket")
    return socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout)


class Turn:
    """One client's side of one turn in the app-server protocol, over any pipe of JSON objects."""

    def __init__(self, pipe: Pipe, out: TextIO, auto_approve: bool) -> None:
        self.session: dict[str, Any] = {}
        self._pipe = pipe
        self._out = out
        self._auto_approve = auto_approve
        self._last_id = 0
        self._thread = ""
        self._ended: dict[str, Any] | None = None
        self._streamed: set[str] = set()
        self._error = ""

    def run(self, prompt: str) -> None:
        """Hello, thread, turn; returns when the turn is completed, raises SmokeFailed if it ended otherwise."""
        try:
            self.request("initialize", {"clientInfo": CLIENT})
        except SmokeFailed as error:
            # A runtime that served somebody before stays initialized.
            if "already initialized" not in str(error).lower():
                raise
        self._pipe.send({"method": "initialized"})
        self._thread = (self.request("thread/start", {}).get("thread") or {}).get("id", "")
        if not self._thread:
            raise SmokeFailed("thread/start was answered without a thread")
        text = {"type": "text", "text": prompt}
        self.request("turn/start", {"threadId": self._thread, "input": [text]})
        while self._ended is None:
            self._on(self._pipe.receive())
        if self._ended.get("status") != "completed":
            why = (self._ended.get("error") or {}).get("message") or self._error
            raise SmokeFailed(f"the turn ended as {self._ended.get('status')}" + (f": {why}" if why else ""))

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result; what comes in between is handled. Raises SmokeFailed on an error."""
        self._last_id += 1
        self._pipe.send({"id": self._last_id, "method": method, "params": params})
        while True:
            message = self._pipe.receive()
            if "method" in message or message.get("id") not in (self._last_id, None):
                self._on(message)
            elif "error" in message:
                error = message["error"]
                said = error.get("message", error) if isinstance(error, dict) else error
                raise SmokeFailed(f"{method} was refused: {str(said).rstrip('.')}")
            else:
                return message.get("result") or {}

    def _on(self, message: dict[str, Any]) -> None:
        method, params = message.get("method", ""), message.get("params")
        if not isinstance(params, dict):
            params = {}
        if "id" in message and method:
            self._pipe.send({"id": message["id"], **self._answer(method)})
        elif method == "argus/session":
            self.session = params
        elif method == "argus/runtime" and params.get("state") == "failed":
            raise SmokeFailed(f"the runtime failed: {params.get('reason')}")
        elif params.get("threadId") == self._thread:
            self._on_thread(method, params)

    def _on_thread(self, method: str, params: dict[str, Any]) -> None:
        item = params.get("item") or {}
        if method == "item/agentMessage/delta":
            self._streamed.add(params.get("itemId", ""))
            print(params.get("delta", ""), end="", file=self._out, flush=True)
        elif method == "item/completed" and item.get("type") == "agentMessage":
            # The end of the line; and the whole text, if it did not come in pieces.
            print("" if item.get("id") in self._streamed else item.get("text", ""), file=self._out, flush=True)
        elif method == "error":
            self._error = (params.get("error") or {}).get("message", "")
        elif method == "turn/completed":
            self._ended = params.get("turn") or {}

    def _answer(self, method: str) -> dict[str, Any]:
        """What the agent is told when it asks."""
        if method.endswith("/requestApproval"):
            return {"result": {"decision": "accept" if self._auto_approve else "decline"}}
        if method == "mcpServer/elicitation/request":
            yes: dict[str, Any] = {"action": "accept", "content": {}}
            return {"result": yes if self._auto_approve else {"action": "decline"}}
        return {"error": {"code": -32601, "message": f"the smoke test does not answer {method}"}}
