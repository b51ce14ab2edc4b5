"""WebSocket frames from server to client, as bytes (RFC 6455 section 5). No sockets."""

from __future__ import annotations

import struct

# What stands before a text payload of so many bytes.
HEADERS = [bytes((0x81, n)) if n < 126 else bytes((0x81, 126, n >> 8, n & 255)) for n in range(2048)]
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack
PING_FRAME = b"\x89\x00"


def text_frame(payload: bytes) -> bytes:
    """One unfragmented text frame around UTF-8 bytes."""
    return header(len(payload)) + payload


def header(size: int) -> bytes:
    """What stands before a text payload of this size."""
    if size < len(HEADERS):
        return HEADERS[size]
    if size < 65536:
        return _MEDIUM(0x81, 126, size)
    return _LONG(0x81, 127, size)


def frame_size(data: bytes, at: int) -> int:
    """How long the text frame is that begins at this offset."""
    size = data[at + 1]
    if size < 126:
        return size + 2
    if size == 126:
        return int.from_bytes(data[at + 2 : at + 4], "big") + 4
    return int.from_bytes(data[at + 2 : at + 10], "big") + 10


def binary_frame(payload: bytes) -> bytes:
    """One unfragmented binary frame."""
    return b"\x82" + text_frame(payload)[1:]


def payload_of(frame: bytes) -> bytes:
    """The payload of a frame that text_frame made."""
    size = frame[1]
    return frame[2 if size < 126 else 4 if size == 126 else 10 :]


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping, with its payload (at most 125 bytes)."""
    return bytes((0x8A, len(payload))) + payload


def close_frame(code: int | None, reason: str = "") -> bytes:
    """A close frame; the reason is cut to the 123 bytes that fit, at a character's border."""
    if code is None:
        return b"\x88\x00"
    text = reason.encode()[:123].decode("utf-8", "ignore").encode()
    return bytes((0x88, len(text) + 2)) + struct.pack("!H", code) + text
