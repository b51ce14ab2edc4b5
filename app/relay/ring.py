"""The newest broadcast frames of a session, kept for replay. Pure."""

from __future__ import annotations

from collections import deque

from app.relay.frames import payload_of, text_frame

# A position: which epoch of this gateway life, line number in it, and 0 for the line itself or a count for the frames
# of the gateway's own that came behind it: room for 2**44 lines, and 2**20 frames behind each (a runtime that stays
# away gets one at every attempt to reach it).
EPOCH_SHIFT, LINE_SHIFT = 64, 20

# A kept frame: its position, its bytes, and whether it is an upstream line that may carry `seq`.
Entry = tuple[int, bytes, bool]


def position(generation: int, seq: int) -> int:
    """Where a line stands, comparable over all epochs that this gateway life has seen."""
    return generation << EPOCH_SHIFT | seq << LINE_SHIFT


def numbered(entry: Entry) -> bytes:
    """The frame with its line number as a top-level `seq`; as it is when it has none."""
    where, frame, is_line = entry
    if not is_line:
        return frame
    body = payload_of(frame).strip()
    comma = b"" if body[:-1].rstrip() == b"{" else b","
    seq = (where & ((1 << EPOCH_SHIFT) - 1)) >> LINE_SHIFT
    return text_frame(b'%s%s"seq":%d}' % (body[:-1], comma, seq))


def joined(entries: list[Entry], with_seq: bool) -> bytes:
    """The frames of these entries, one after the other."""
    return b"".join([numbered(e) for e in entries] if with_seq else [e[1] for e in entries])


class Ring:
    """Frames in order of position, bounded in bytes and number; remembers from where on it is whole."""

    def __init__(self, max_bytes: int, max_entries: int = 20_000) -> None:
        self.max_bytes, self.max_entries = max_bytes, max_entries
        self.entries: deque[Entry] = deque()
        self.bytes = 0
        self.floor = 0  # every frame after this position is here

    def append(self, entry: Entry) -> None:
        """Keep a frame; the oldest go when there are too many. The newest always stays."""
        self.entries.append(entry)
        self.bytes += len(entry[1])
        while self.bytes > self.max_bytes or len(self.entries) > self.max_entries:
            if len(self.entries) == 1:
                break
            self._drop()

    def trim(self, to_bytes: int) -> None:
        """Give memory back while the session is idle."""
        while self.entries and self.bytes > to_bytes:  # -1 empties it
            self._drop()

    def _drop(self) -> None:
        where, frame, _ = self.entries.popleft()
        self.bytes -= len(frame)
        self.floor = where

    def after(self, where: int) -> list[Entry]:
        """The frames after this position."""
        found: list[Entry] = []
        for entry in reversed(self.entries):
            if entry[0] <= where:
                break
            found.append(entry)
        found.reverse()
        return found
