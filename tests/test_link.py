"""The gateway's end of a link: one session's lines must not hold up the others."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent import socket
from support import PATIENCE_S

from app.relay import link as link_module
from app.relay.link import LEAST_BYTES, READ_BYTES, Link

LINES = b"".join(b"%d\n" % n for n in range(100_000))


def never(block: bytes) -> bool:
    return False


@pytest.fixture
def ends() -> Iterator[tuple[Link, socket.socket]]:
    near, far = socket.socketpair()
    link = Link(near)
    yield link, far
    link.close("the test is over")
    far.close()


def test_lines_that_cost_much_are_read_in_smaller_pieces_with_turns_for_others_between(
    ends: tuple[Link, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "LONG_S", -1.0)  # whatever it takes is long
    link, far = ends
    blocks: list[bytes] = []
    link.start(blocks.append, never, lambda: None)
    far.sendall(LINES)
    with gevent.Timeout(PATIENCE_S):
        while sum(map(len, blocks)) < len(LINES):
            gevent.sleep(0.001)
    assert b"".join(blocks) == LINES
    assert len(blocks) > len(LINES) // READ_BYTES * 4
    assert max(map(len, blocks[8:])) < 2 * LEAST_BYTES


def test_a_link_may_be_closed_while_others_have_their_turn(
    ends: tuple[Link, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "LONG_S", -1.0)
    link, far = ends
    blocks: list[bytes] = []

    def take(block: bytes) -> None:
        blocks.append(block)
        gevent.get_hub().loop.run_callback(link.close, "enough")

    link.start(take, never, lambda: None)
    far.sendall(LINES[: READ_BYTES // 2])
    assert link.closed.wait(PATIENCE_S) and link.why == "enough"
    gevent.sleep(0.01)
    assert len(blocks) == 1


def test_what_begins_a_line_is_offered_on_its_own_and_what_goes_on_in_one_is_not(
    ends: tuple[Link, socket.socket],
) -> None:
    link, far = ends
    offered: list[bytes] = []
    blocks: list[bytes] = []

    def one(block: bytes) -> bool:
        offered.append(block)
        return block == b"taken\n"

    link.start(blocks.append, one, lambda: None)
    for piece, done in (
        (b"taken\n", lambda: offered == [b"taken\n"]),
        (b"half", lambda: offered == [b"taken\n", b"half"]),
        (b"taken\n", lambda: blocks == [b"halftaken\n"]),
        (b"left\n", lambda: blocks == [b"halftaken\n", b"left\n"]),
    ):
        far.sendall(piece)
        with gevent.Timeout(PATIENCE_S):
            while not done():
                gevent.sleep(0.001)
    assert offered == [b"taken\n", b"half", b"left\n"]


def test_a_bug_in_who_takes_lines_ends_that_link_alone(
    ends: tuple[Link, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    link, far = ends
    link.start(lambda block: None, lambda block: 1 / 0 > 0, lambda: None)
    far.sendall(b"x\n")
    assert link.closed.wait(PATIENCE_S) and link.why == "internal error"
    assert "ZeroDivisionError" in caplog.text
