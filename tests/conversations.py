"""Saying things to agents in tests, and a real HTTP server that answers are delivered to."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support import Gateway, until

OVER = ("answered", "interrupted", "failed", "removed")


class Sink:
    """Keeps every POST it gets. `answer(request)` may give (status, headers), or None to hang up without a word."""

    def __init__(self, answer: Any = None) -> None:
        self.got: list[dict[str, Any]] = []
        self.places: dict[str, set[str]] = defaultdict(set)  # path -> keys that came there
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = {"path": self.path, "headers": dict(self.headers), "body": body}
                request["json"], request["key"] = json.loads(body), self.headers["Idempotency-Key"]
                sink.got.append(request)
                sink.places[self.path].add(request["key"])
                said = (200, {}) if answer is None else answer(request)
                if said is None:
                    self.close_connection = True
                    return
                self.send_response(said[0])
                for name, value in said[1].items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 512

            def handle_error(self, request: Any, address: Any) -> None:
                pass  # the gateway was killed while it was answered

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.server.shutdown()
        self.server.server_close()

    def texts(self) -> list[str]:
        """What was said, in the order in which it came; the demo agent's advertisement cut off."""
        return [own(request["json"]["text"]) for request in list(self.got)]

    def times(self) -> Counter[str]:
        """How often each delivery came."""
        return Counter(request["key"] for request in list(self.got))


def own(text: str) -> str:
    """An answer of the demo agent without what it says of itself."""
    return text.partition("\n\nThis is the built-in demo agent")[0]


def new_session(gateway: Gateway) -> str:
    return gateway.api("POST", "/sessions", json={}).json()["sessionId"]


def say(gateway: Gateway, session: str, text: str, key: str | None = None, **body: Any) -> dict[str, Any]:
    """Say something over HTTP; the answer, which must be 202."""
    headers = {"Idempotency-Key": key} if key else {}
    answer = gateway.api("POST", f"/sessions/{session}/inputs", json={"text": text, **body}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


def receipt(gateway: Gateway, input: str | dict[str, Any]) -> dict[str, Any]:
    id = input if isinstance(input, str) else input["inputId"]
    return gateway.api("GET", f"/inputs/{id}").json()


def over(gateway: Gateway, input: str | dict[str, Any], timeout_s: float = 30) -> dict[str, Any]:
    """The receipt of an input once it is over."""

    def ended() -> dict[str, Any] | None:
        told = receipt(gateway, input)
        return told if told["state"] in OVER else None

    return until(ended, timeout_s, f"{input} is over; log: {gateway.log}")


def in_state(gateway: Gateway, input: str | dict[str, Any], state: str, timeout_s: float = 30) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        told = receipt(gateway, input)
        return told if told["state"] == state else None

    return until(there, timeout_s, f"{input} is {state}; log: {gateway.log}")
