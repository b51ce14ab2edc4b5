"""What a client sends, cut into messages; wsproto is the judge of what frames mean."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from relay_kit import STEADY
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed

from app.relay.reader import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PIECE_BYTES,
    PING,
    PONG,
    TEXT,
    TOO_BIG,
    BadFrames,
    Message,
    Reader,
    close_reason,
    unmasked,
)

LIMIT = 1 << 20


def frame(opcode: int, payload: bytes = b"", final: bool = True, mask: bytes = b"\x01\x80\xff\x00") -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes([128 | size])
    else:
        length = struct.pack("!BH", 254, size) if size < 65536 else struct.pack("!BQ", 255, size)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([(128 if final else 0) | opcode]) + length + mask + masked


def read(*pieces: bytes, limit: int = LIMIT) -> list[Message]:
    """All messages that come of these reads."""
    reader, found = Reader(limit), []
    for piece in pieces:
        reader.feed(piece)
        while (message := reader.next()) is not None:
            if message[0] != CONTINUATION:
                found.append(message)
    return found


def judged(data: bytes) -> tuple[list[Message], bool]:
    """What wsproto makes of it: whole messages, and whether it then refused the rest."""
    protocol = FrameProtocol(client=False, extensions=[])
    found: list[Message] = []
    parts: list[str | bytes] = []
    try:
        protocol.receive_bytes(data)
        for each in protocol.received_frames():
            if each.opcode is Opcode.CLOSE:
                found.append((CLOSE, "{} {}".format(*each.payload)))
                break
            if each.opcode in (Opcode.PING, Opcode.PONG):
                found.append((int(each.opcode), bytes(each.payload)))
                continue
            parts.append(each.payload if each.opcode is Opcode.TEXT else bytes(each.payload))
            if each.message_finished:
                nothing = "" if each.opcode is Opcode.TEXT else b""
                found.append((int(each.opcode), nothing.join(parts)))  # type: ignore[arg-type]
                parts = []
    except ParseFailed:
        return found, True
    return found, False


def ours(*pieces: bytes) -> tuple[list[Message], bool]:
    """The same of Reader."""
    reader, found = Reader(LIMIT), []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (message := reader.next()) is not None:
                opcode, payload = message
                if opcode == CLOSE:
                    assert isinstance(payload, bytes)
                    return [*found, (CLOSE, "{} {}".format(*close_reason(payload)))], False
                if opcode != CONTINUATION:
                    found.append(message)
    except BadFrames as error:
        return found, error.code != TOO_BIG  # wsproto has no limit
    return found, False


MASKS = st.binary(min_size=4, max_size=4)
CONTROL = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=MASKS)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message in one to four fragments, with control frames between them."""
    is_text = draw(st.booleans())
    payload = draw(st.text(max_size=200)).encode() if is_text else draw(st.binary(max_size=300))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    out, begins = b"", [0, *cuts]
    for n, (start, end) in enumerate(zip(begins, [*cuts, len(payload)], strict=True)):
        opcode = CONTINUATION if n else TEXT if is_text else BINARY
        out += frame(opcode, payload[start:end], n == len(cuts), draw(MASKS))
        out += draw(st.just(b"") | CONTROL)
    return out


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in some reads."""
    at = [0, *sorted(draw(st.lists(st.integers(0, len(data)), max_size=6))), len(data)]
    return [data[a:b] for a, b in pairwise(at)]


@STEADY
@given(st.data(), st.lists(messages() | CONTROL, max_size=5))
def test_any_cut_of_the_stream_gives_the_messages_that_wsproto_finds(data: st.DataObject, parts: list[bytes]) -> None:
    stream = b"".join(parts)
    found, refused = judged(stream)
    assert not refused and ours(*data.draw(cut(stream))) == (found, False)


@STEADY
@given(st.data(), st.lists(messages() | CONTROL, min_size=1, max_size=3))
def test_what_wsproto_refuses_is_refused_and_nothing_else(data: st.DataObject, parts: list[bytes]) -> None:
    stream = bytearray(b"".join(parts))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    found, refused = judged(bytes(stream))
    code = int(str(found[-1][1]).split()[0]) if found and found[-1][0] == CLOSE else 0
    assume(code < 5000)  # wsproto takes those; no code is assigned there
    mine, early = ours(bytes(stream))
    if refused or early:  # each looks at some things before all of a frame is there: give both the rest
        rest = bytes(LIMIT)
        assert ours(bytes(stream), rest)[0] == judged(bytes(stream) + rest)[0] == found
    else:
        assert mine == found


@pytest.mark.parametrize(
    ("data", "code"),
    [
        *((bytes([128 | opcode, 128, 0, 0, 0, 0]), 1002) for opcode in (3, 7, 11, 15)),
        *((bytes([bits | 129, 128, 0, 0, 0, 0]), 1002) for bits in (16, 32, 64)),
        (b"\x81\x00", 1002),  # not masked
        (frame(PING, final=False), 1002),
        (b"\x89\xfe\x00\x7e", 1002),  # a control frame of 126 bytes
        (frame(CONTINUATION), 1002),
        (frame(TEXT, final=False) + frame(TEXT), 1002),
        (b"\x81\xfe\x00\x7d", 1002),  # 125 in two bytes
        (b"\x81\xff" + struct.pack("!Q", 65535), 1002),
        (b"\x81\xff" + struct.pack("!Q", 1 << 63), 1002),
        (b"\x81\xff" + struct.pack("!Q", LIMIT + 1), 1009),
        (frame(BINARY, b"x" * LIMIT, final=False) + frame(CONTINUATION, b"x")[:2], 1009),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3"), 1007),
        (frame(TEXT, b"\xc3", final=False) + frame(CONTINUATION), 1007),
        (frame(TEXT, b"a\xed\xa0\x80", final=False), 1007),  # bad already, whatever comes
    ],
)
def test_who_breaks_the_rules_is_told_how_by_the_first_byte_that_shows_it(data: bytes, code: int) -> None:
    with pytest.raises(BadFrames) as bad:
        read(data)
    assert bad.value.code == code and bad.value.text


def test_what_is_allowed_at_the_edges_is_taken() -> None:
    assert read(frame(TEXT)) == [(TEXT, "")]
    assert read(frame(BINARY, b"x" * 65535), frame(PING, b"p" * 125)) == [(BINARY, b"x" * 65535), (PING, b"p" * 125)]
    assert read(frame(BINARY, b"x" * LIMIT)) == [(BINARY, b"x" * LIMIT)]
    parts = [frame(TEXT, b"\xc3", final=False), frame(PONG), frame(CONTINUATION, b"\xa9")]
    assert read(*parts) == read(b"".join(parts)) == [(PONG, b""), (TEXT, "\u00e9")]


@pytest.mark.parametrize("size", [0, 1, 3, 4, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES - 1])
def test_unmasking_is_its_own_inverse_at_any_size(size: int) -> None:
    body, mask = bytes(range(256)) * (size // 256 + 1), b"\x00\xff\x10\x01"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(body[:size]))
    assert unmasked(masked, mask) == unmasked(bytearray(masked), mask) == body[:size]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_a_close_code_that_may_not_be_sent_is_refused(code: int) -> None:
    with pytest.raises(BadFrames) as bad:
        close_reason(struct.pack("!H", code))
    assert bad.value.code == 1002


def test_a_close_frame_says_why() -> None:
    assert close_reason(b"") == (1005, "") and close_reason(b"\x03\xe8bye") == (1000, "bye")
    for payload, code in ((b"\x03", 1002), (b"\x03\xe8\xff", 1007)):
        with pytest.raises(BadFrames) as bad:
            close_reason(payload)
        assert bad.value.code == code


def test_nothing_is_kept_of_what_was_read() -> None:
    reader = Reader(LIMIT)
    reader.feed(frame(BINARY, b"x" * 1000) * 3 + frame(TEXT, b"half")[:5])
    while reader.next() is not None:
        pass
    reader.feed(frame(TEXT, b"half")[5:])
    assert reader.next() == (TEXT, "half") and reader.next() is None
    assert not reader._data and reader._message is None
