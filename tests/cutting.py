"""A TCP proxy that cuts connections where it is told to, as a bad network does."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Pair:
    """A connection and its other half; how many bytes each way before it is cut."""

    near: socket.socket
    far: socket.socket
    left: dict[str, float] = field(default_factory=dict)

    def cut(self) -> None:
        """Both ends see a reset; what was on its way is gone."""
        for end in (self.near, self.far):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Passes connections on to a port of this machine, and cuts the first `cuts` of them at random bytes."""

    def __init__(self, port: int, seed: int = 0, cuts: int = 0, budget: tuple[int, int] = (300, 3000)) -> None:
        self.target, self.rng, self.cuts, self.budget = port, random.Random(seed), cuts, budget
        self.closed = False  # while true, whoever connects is cut at once
        self.before: Callable[[int], None] = lambda number: None  # called before the connection of this number goes on
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all that is open now."""
        for pair in list(self._pairs):
            self._pairs.discard(pair)
            pair.cut()

    def _accept(self) -> None:
        for number in itertools.count(1):
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.before(number)
            far = socket.socket()
            pair = _Pair(near, far, {"up": float("inf"), "down": float("inf")})
            try:
                if self.closed:
                    raise OSError
                far.connect(("127.0.0.1", self.target))
            except OSError:
                pair.cut()
                continue
            if self.cuts > 0:
                self.cuts -= 1
                pair.left[self.rng.choice(["up", "down"])] = self.rng.randint(*self.budget)
            self._pairs.add(pair)
            for way, source, sink in (("up", near, far), ("down", far, near)):
                threading.Thread(target=self._pump, args=(pair, way, source, sink), daemon=True).start()

    def _pump(self, pair: _Pair, way: str, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data[: int(min(len(data), pair.left[way]))])
                pair.left[way] -= len(data)
                if pair.left[way] <= 0:
                    break
        self._pairs.discard(pair)
        pair.cut()
