"""Frames as bytes, and the ring that keeps them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_kit import STEADY, payloads
from wsproto.frame_protocol import FrameProtocol, Opcode

from app.relay.frames import PING_FRAME, binary_frame, close_frame, payload_of, pong_frame, text_frame
from app.relay.ring import LINE_SHIFT, Ring, each, joined, numbered, position

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 65537)


def read(data: bytes) -> list[Any]:
    """What an independent parser, on the client's side, makes of it."""
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(data)
    return list(protocol.received_frames())


def at(seq: int, body: bytes = b"{}", generation: int = 1, own: int = 0) -> tuple[int, bytes, bool]:
    return position(generation, seq) + own, text_frame(body), not own


@pytest.mark.parametrize("size", SIZES)
def test_a_text_frame_is_read_back_by_another_parser(size: int) -> None:
    (frame,) = read(text_frame(b"x" * size))
    assert (frame.opcode, frame.payload, frame.message_finished) == (Opcode.TEXT, "x" * size, True)


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_gives_its_payload_back(size: int) -> None:
    assert payload_of(text_frame(b"x" * size)) == b"x" * size


def test_a_binary_frame_differs_only_in_its_opcode() -> None:
    (frame,) = read(binary_frame(b"\x00\xff" * 100))
    assert (frame.opcode, bytes(frame.payload)) == (Opcode.BINARY, b"\x00\xff" * 100)


def test_frames_stand_one_after_the_other() -> None:
    bodies = [b"a" * size for size in SIZES if size]
    assert [frame.payload.encode() for frame in read(b"".join(map(text_frame, bodies)))] == bodies
    assert payloads(b"".join(map(text_frame, bodies))) == bodies


def test_a_ping_is_empty_and_a_pong_carries_its_payload() -> None:
    ping, pong = read(PING_FRAME + pong_frame(b"p" * 125))
    assert (ping.opcode, ping.payload, pong.opcode, pong.payload) == (Opcode.PING, b"", Opcode.PONG, b"p" * 125)


def test_a_close_frame_carries_code_and_reason() -> None:
    (frame,) = read(close_frame(1008, "Unknown session"))
    assert (frame.opcode, frame.payload) == (Opcode.CLOSE, (1008, "Unknown session"))


def test_a_close_frame_may_be_without_a_code() -> None:
    (frame,) = read(close_frame(None, "not sent"))
    assert frame.opcode == Opcode.CLOSE and close_frame(None) == b"\x88\x00"


@pytest.mark.parametrize("reason", ["r" * 500, "é" * 200, "漢" * 100, "🧑" * 60, "ab" + "é" * 100])
def test_a_long_reason_is_cut_at_a_characters_border(reason: str) -> None:
    (frame,) = read(close_frame(1011, reason))
    said = frame.payload[1]
    assert reason.startswith(said) and 119 < len(said.encode()) <= 123


def test_positions_are_ordered_by_epoch_then_line_then_own_frames_behind_it() -> None:
    order = [position(1, 0), position(1, 1), position(1, 1) + 1, position(1, 1) + 5000, position(1, 2)]
    order += [position(1, 2**44 - 1), position(2, 0), position(2, 1), position(3, 0)]
    assert order == sorted(set(order))


def test_there_is_room_for_many_own_frames_behind_a_line() -> None:
    assert 1 << LINE_SHIFT >= 1_000_000


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"seq":7}'),
        (b" { } ", b'{ "seq":7}'),
        (b'{"a":1}', b'{"a":1,"seq":7}'),
        (b'\t{"a":{}} ', b'{"a":{},"seq":7}'),
        (b'{"method":"x","params":{"seq":1}}', b'{"method":"x","params":{"seq":1},"seq":7}'),
    ],
)
def test_a_line_gets_its_number_as_a_top_level_seq(body: bytes, expected: bytes) -> None:
    (said,) = payloads(numbered(at(7, body)))
    assert json.loads(said) == json.loads(expected) and said.replace(b" ", b"") == expected.replace(b" ", b"")


def test_a_frame_of_the_gateways_own_gets_no_seq() -> None:
    entry = at(7, b'{"method":"argus/runtime"}', own=1)
    assert numbered(entry) == entry[1]


def test_the_number_is_the_lines_own_in_every_epoch() -> None:
    assert [json.loads(payload_of(numbered(at(seq, generation=9))))["seq"] for seq in (1, 2**40)] == [1, 2**40]


@STEADY
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4), st.integers(0, 2**44 - 1))
def test_a_numbered_frame_says_the_same_plus_its_seq(value: dict[str, Any], seq: int) -> None:
    for text in (json.dumps(value), " " + json.dumps(value, indent=1).replace("\n", " ") + "\t"):
        (said,) = payloads(numbered(at(seq, text.encode())))
        assert json.loads(said) == {**value, "seq": seq}


def test_entries_are_joined_with_or_without_numbers() -> None:
    entries = [at(1, b'{"a":1}'), at(1, b'{"b":1}', own=1)]
    assert payloads(joined(entries, False)) == [b'{"a":1}', b'{"b":1}']
    assert payloads(joined(entries, True)) == [b'{"a":1,"seq":1}', b'{"b":1}']


# -- the ring


def test_lines_that_came_together_are_given_back_one_by_one() -> None:
    run = (position(1, 5), b"".join(text_frame(b'{"n":%d}' % n) for n in (5, 6, 7)), 3)
    ring = Ring(1000)
    ring.append(run)
    assert joined(ring.after(position(1, 4)), False) == run[1]
    assert payloads(joined(ring.after(position(1, 5)), True)) == [b'{"n":6,"seq":6}', b'{"n":7,"seq":7}']
    assert ring.after(position(1, 7)) == [] and ring.frames == 3
    ring.append(at(8))
    ring.trim(20)
    assert ring.floor == position(1, 7) and ring.frames == 1


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_long_and_short_lines_of_one_run_are_told_apart(size: int) -> None:
    run = (position(1, 1), text_frame(b"a" * size) + text_frame(b"b") + text_frame(b"c" * size), 3)
    assert [payload_of(frame[1]) for frame in each(run)] == [b"a" * size, b"b", b"c" * size]


def test_a_ring_gives_back_what_came_after_a_position() -> None:
    ring = Ring(1000)
    for seq in (2, 3, 7):
        ring.append(at(seq))
    assert [[e[0] for e in ring.after(position(1, n))] for n in (1, 3, 7)] == [
        [position(1, 2), position(1, 3), position(1, 7)],
        [position(1, 7)],
        [],
    ]


def test_a_ring_drops_the_oldest_by_bytes_and_says_from_where_it_is_whole() -> None:
    ring = Ring(30)
    for seq in range(1, 8):
        ring.append(at(seq, b"x" * 8))  # 10 bytes with its header
    assert [e[0] for e in ring.entries] == [position(1, n) for n in (5, 6, 7)]
    assert (ring.bytes, ring.floor) == (30, position(1, 4))


def test_a_ring_drops_the_oldest_by_number() -> None:
    ring = Ring(1 << 20, max_frames=2)
    for seq in range(1, 5):
        ring.append(at(seq))
    assert [e[0] for e in ring.entries] == [position(1, 3), position(1, 4)] and ring.floor == position(1, 2)


def test_the_newest_frame_stays_however_large_it_is() -> None:
    ring = Ring(10)
    ring.append(at(1, b"x" * 100))
    ring.append(at(2, b"y" * 100_000))
    assert [e[0] for e in ring.entries] == [position(1, 2)] and ring.floor == position(1, 1)


def test_trimming_gives_memory_back_and_raises_the_floor() -> None:
    ring = Ring(1000)
    for seq in range(1, 6):
        ring.append(at(seq, b"x" * 8))
    ring.trim(20)
    assert (len(ring.entries), ring.bytes, ring.floor) == (2, 20, position(1, 3))
    ring.trim(-1)
    assert (len(ring.entries), ring.bytes, ring.floor) == (0, 0, position(1, 5))


@STEADY
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 40)), max_size=40), st.integers(0, 120))
def test_a_ring_is_always_the_newest_part_of_the_stream(steps: list[tuple[int, int]], limit: int) -> None:
    ring, stream, seq = Ring(limit, max_frames=10), [], 0
    for skip, size in steps:
        seq += skip
        entry = at(seq, b"x" * size)
        ring.append(entry)
        stream.append(entry)
        kept = list(ring.entries)
        assert kept == stream[-len(kept) :] and kept
        assert len(kept) == 1 or (sum(len(e[1]) for e in kept) <= limit and len(kept) <= 10)
        assert ring.after(ring.floor) == kept
        assert ring.floor == (stream[-len(kept) - 1][0] if len(kept) < len(stream) else 0)
