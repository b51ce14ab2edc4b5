"""What a client sends, cut into messages (RFC 6455, the server's side, no extensions). No sockets.

A message is mostly one small frame in one read; that costs a tenth of what a general parser takes. Memory is bounded by
the limit of a message and what one read brings.
"""

from __future__ import annotations

import codecs

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_CONTROL = 125
PIECE_BYTES = 64 << 10  # unmasked at a time: the numbers in between are as large
NORMAL, PROTOCOL, NOT_UTF8, TOO_BIG, NO_CODE = 1000, 1002, 1007, 1009, 1005
_utf8 = codecs.getincrementaldecoder("utf-8")

Message = tuple[int, str | bytes]  # its opcode; text as str, all else as bytes


class BadFrames(Exception):
    """The peer broke the rules; `code` is the close code that says how."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Reader:
    """Feed it what was read, then ask for `next` until it says None. `limit`: bytes of a message."""

    __slots__ = ("_at", "_data", "_decoder", "_kind", "_message", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data: bytes | bytearray = b""
        self._at = 0  # what lies before is done with
        self._kind = 0  # opcode of the message whose fragments are coming
        self._message: bytearray | None = None
        self._decoder: codecs.IncrementalDecoder | None = None  # finds bad text before its last fragment is there

    def feed(self, data: bytes) -> None:
        """More from the peer."""
        if self._at < len(self._data):
            rest = self._data if isinstance(self._data, bytearray) else bytearray(self._data)
            del rest[: self._at]
            rest += data
            self._data = rest
        else:
            self._data = data
        self._at = 0

    def next(self) -> Message | None:
        """The next message or control frame; CONTINUATION for a fragment with more to come (so that a caller may let
        others on between them); None: more is needed. Raises BadFrames."""
        frame = self._frame()
        if frame is None:
            return None
        first, payload = frame
        opcode, final = first & 15, first & 128
        if opcode >= CLOSE:
            return opcode, payload
        if final and opcode:
            return opcode, _text(payload) if opcode == TEXT else payload
        return self._joined(opcode, payload, bool(final))

    def _frame(self) -> tuple[int, bytes] | None:
        """First byte and payload of the next frame, if all of it is there."""
        data, at = self._data, self._at
        left = len(data) - at
        if left < 2:
            if not left:
                self._data, self._at = b"", 0  # nothing of it is kept while the next is waited for
            return None
        first, size = data[at], data[at + 1]
        self._check(first, size)
        size, head = size & 127, 6
        if size > MAX_CONTROL:
            head = 8 if size == 126 else 14
            if left < head - 4:
                return None
            least = 126 if size == 126 else 65536
            size = int.from_bytes(data[at + 2 : at + head - 4], "big")
            if size < least or size >> 63:
                raise BadFrames(PROTOCOL, "a frame's length is not written in the shortest way")
        if size + len(self._message or b"") > self.limit and first & 15 < CLOSE:
            raise BadFrames(TOO_BIG, f"a message may have {self.limit} bytes")
        end = at + head + size
        if len(data) < end:
            return None
        self._at = end
        return first, unmasked(data[at + head : end], bytes(data[at + head - 4 : at + head]))

    def _check(self, first: int, second: int) -> None:
        opcode = first & 15
        if first & 0x70:
            raise BadFrames(PROTOCOL, "reserved bits are set, and no extension was agreed on")
        if not second & 128:
            raise BadFrames(PROTOCOL, "a client's frames must be masked")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise BadFrames(PROTOCOL, f"there is no opcode {opcode}")
            if not first & 128 or second & 127 > MAX_CONTROL:
                raise BadFrames(PROTOCOL, "a control frame must be whole and have at most 125 bytes")
        elif opcode > BINARY:
            raise BadFrames(PROTOCOL, f"there is no opcode {opcode}")
        elif bool(opcode) is bool(self._kind):
            what = "goes on that did not begin" if not opcode else "begins before the last one ended"
            raise BadFrames(PROTOCOL, f"a message {what}")

    def _joined(self, opcode: int, payload: bytes, final: bool) -> Message:
        """Keep a fragment; the whole message with its last one."""
        if opcode:
            self._kind, self._message = opcode, bytearray()
            self._decoder = _utf8() if opcode == TEXT else None
        assert self._message is not None
        self._message += payload
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, final)
            except UnicodeDecodeError:
                raise BadFrames(NOT_UTF8, "the text is not valid UTF-8") from None
        if not final:
            return CONTINUATION, b""
        kind, message = self._kind, bytes(self._message)
        self._kind, self._message, self._decoder = 0, None, None
        return kind, message.decode() if kind == TEXT else message


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise BadFrames(NOT_UTF8, "the text is not valid UTF-8") from None


def unmasked(body: bytes | bytearray, mask: bytes) -> bytes:
    """A payload as it was before it was masked with these four bytes."""
    size = len(body)
    if size <= PIECE_BYTES:
        key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
        return (int.from_bytes(body, "little") ^ key).to_bytes(size, "little")
    key, out = int.from_bytes(mask * (PIECE_BYTES // 4), "little"), bytearray()
    whole = size - size % PIECE_BYTES
    for at in range(0, whole, PIECE_BYTES):
        out += (int.from_bytes(body[at : at + PIECE_BYTES], "little") ^ key).to_bytes(PIECE_BYTES, "little")
    return bytes(out + unmasked(body[whole:], mask))


def close_reason(payload: bytes) -> tuple[int, str]:
    """Code and text of a close frame; 1005 where it has none. Raises BadFrames."""
    if not payload:
        return NO_CODE, ""
    code = int.from_bytes(payload[:2], "big")
    registered = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(payload) < 2 or not (registered or 3000 <= code <= 4999):
        raise BadFrames(PROTOCOL, "a close frame has no code that may be sent")
    return code, _text(payload[2:])
