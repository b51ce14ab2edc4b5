"""Two pipes of JSON objects with a deadline: a WebSocket (wsproto does the protocol), and lines over a plain socket."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

BLOCK = 65536
CLOSE_TIMEOUT_S = 1.0


class PipeEnded(Exception):
    """The other side is gone, was never there, or speaks something else. The text says which."""


class Pipe:
    """A connected socket and the moment (time.monotonic) at which everything on it must be over."""

    def __init__(self, connect: Callable[[float], socket.socket], deadline: float) -> None:
        self.deadline = deadline
        try:
            self.socket = connect(self._left())
        except TimeoutError:
            raise PipeEnded("it took too long to connect") from None
        except OSError as error:
            raise PipeEnded(f"it could not be reached ({error.strerror or error})") from None

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise PipeEnded("it took too long")
        return left

    def _write(self, data: bytes) -> None:
        try:
            self.socket.settimeout(self._left())
            self.socket.sendall(data)
        except TimeoutError:
            raise PipeEnded("it took too long") from None
        except OSError as error:
            raise PipeEnded(f"the connection broke ({error.strerror})") from None

    def _read(self) -> bytes:
        """The next bytes; b"" at the end."""
        try:
            self.socket.settimeout(self._left())
            return self.socket.recv(BLOCK)
        except TimeoutError:
            raise PipeEnded("it took too long") from None
        except OSError as error:
            raise PipeEnded(f"the connection broke ({error.strerror})") from None

    def close(self) -> None:
        """Ends it without a word; may be called again."""
        self.socket.close()

    @staticmethod
    def _object(text: str | bytes) -> dict[str, Any]:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise PipeEnded("it sent something that is no JSON object")
        return message


class Lines(Pipe):
    """One JSON object a line, over TCP or a Unix socket."""

    def __init__(self, connect: Callable[[float], socket.socket], deadline: float) -> None:
        super().__init__(connect, deadline)
        self._buffer = b""

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one message as a line."""
        self._write(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """The next message; waits for it."""
        while b"\n" not in self._buffer:
            block = self._read()
            if not block:
                raise PipeEnded("it closed the connection")
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return self._object(line)


class WebSocket(Pipe):
    """One JSON object a text message. Connecting includes the handshake."""

    def __init__(self, url: str, headers: Mapping[str, str], deadline: float) -> None:
        parts = urlsplit(url)
        super().__init__(lambda timeout: socket.create_connection((parts.hostname, parts.port), timeout), deadline)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._text: list[str] = []
        self._messages: list[dict[str, Any]] = []
        self._open = False
        extra = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._write(self._protocol.send(Request(host=parts.netloc, target=parts.path, extra_headers=extra)))
        while not self._open:
            self._take()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message as a text frame."""
        self._write(self._protocol.send(TextMessage(data=json.dumps(message))))

    def receive(self) -> dict[str, Any]:
        """The next message; waits for it."""
        while not self._messages:
            self._take()
        return self._messages.pop(0)

    def close(self) -> None:
        """The closing handshake, if the other side has a second for it."""
        self.deadline = time.monotonic() + CLOSE_TIMEOUT_S
        with contextlib.suppress(PipeEnded, ProtocolError):
            self._write(self._protocol.send(CloseConnection(code=1000)))
            while True:
                self._take()
        super().close()

    def _take(self) -> None:
        """Whatever comes next from the network."""
        try:
            self._protocol.receive_data(self._read() or None)
            for event in self._protocol.events():
                self._on(event)
        except ProtocolError as error:
            raise PipeEnded(f"it broke the WebSocket protocol ({error})") from None

    def _on(self, event: Any) -> None:
        match event:
            case AcceptConnection():
                self._open = True
            case TextMessage():
                self._text.append(event.data)
                if event.message_finished:
                    self._messages.append(self._object("".join(self._text)))
                    self._text.clear()
            case Ping():
                self._write(self._protocol.send(event.response()))
            case RejectConnection():
                raise PipeEnded(f"it refused the connection with HTTP {event.status_code}")
            case CloseConnection():
                raise PipeEnded(f"it closed the connection ({event.code}{f': {event.reason}' if event.reason else ''})")
            case RejectData():
                pass
