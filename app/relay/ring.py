"""The newest broadcast frames of a session, kept for replay. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from app.relay.frames import frame_size, payload_of, text_frame

# A position: which epoch of this gateway life, line number in it, and 0 for the line itself or a count for the frames
# of the gateway's own that came behind it: room for 2**44 lines, and 2**20 frames behind each (a runtime that stays
# away gets one at every attempt to reach it).
EPOCH_SHIFT, LINE_SHIFT = 64, 20
NEXT, IN_EPOCH = 1 << LINE_SHIFT, (1 << EPOCH_SHIFT) - 1  # one line further; the part that counts inside an epoch

# What is kept: the position of the first frame, the frames one after the other, and how many upstream lines they are,
# numbered in a row. 0: one frame that may carry no `seq`, the gateway's own or no JSON object.
Entry = tuple[int, bytes, int]


def position(generation: int, seq: int) -> int:
    """Where a line stands, comparable over all epochs that this gateway life has seen."""
    return generation << EPOCH_SHIFT | seq << LINE_SHIFT


def each(entry: Entry) -> Iterator[Entry]:
    """The frames of an entry, one by one."""
    where, data, lines = entry
    if lines < 2:
        yield entry
        return
    at = 0
    while at < len(data):
        size = frame_size(data, at)
        yield where, data[at : at + size], 1
        at += size
        where += NEXT


def last(entry: Entry) -> int:
    """The position of an entry's last frame."""
    return entry[0] + (max(1, entry[2]) - 1) * NEXT


def numbered(entry: Entry) -> bytes:
    """The frames with their line numbers as a top-level `seq`; as they are when they have none."""
    if not entry[2]:
        return entry[1]
    out = []
    for where, frame, _ in each(entry):
        body = payload_of(frame).strip()
        comma = b"" if body[:-1].rstrip() == b"{" else b","
        seq = (where & IN_EPOCH) >> LINE_SHIFT
        out.append(text_frame(b'%s%s"seq":%d}' % (body[:-1], comma, seq)))
    return b"".join(out)


def joined(entries: list[Entry], with_seq: bool) -> bytes:
    """The frames of these entries, one after the other."""
    if len(entries) == 1:
        return numbered(entries[0]) if with_seq else entries[0][1]
    return b"".join([numbered(e) for e in entries] if with_seq else [e[1] for e in entries])


class Ring:
    """Frames in order of position, bounded in bytes and number; remembers from where on it is whole.

    What came in one read stays and goes together, so that keeping it costs next to nothing.
    """

    __slots__ = ("bytes", "entries", "floor", "frames", "max_bytes", "max_frames")

    def __init__(self, max_bytes: int, max_frames: int = 20_000) -> None:
        self.max_bytes, self.max_frames = max_bytes, max_frames
        self.entries: deque[Entry] = deque()
        self.bytes = self.frames = 0
        self.floor = 0  # every frame after this position is here

    def append(self, entry: Entry) -> None:
        """Keep frames; the oldest go when there are too many. The newest always stay."""
        self.entries.append(entry)
        size = self.bytes = self.bytes + len(entry[1])
        frames = self.frames = self.frames + (entry[2] or 1)
        if size > self.max_bytes or frames > self.max_frames:
            self.shrink()

    def shrink(self) -> None:
        """Let the oldest go until it is within its bounds."""
        while (self.bytes > self.max_bytes or self.frames > self.max_frames) and len(self.entries) > 1:
            self._drop()

    def trim(self, to_bytes: int) -> None:
        """Give memory back while the session is idle."""
        while self.entries and self.bytes > to_bytes:  # -1 empties it
            self._drop()

    def _drop(self) -> None:
        entry = self.entries.popleft()
        self.bytes -= len(entry[1])
        self.frames -= entry[2] or 1
        self.floor = last(entry)

    def after(self, where: int) -> list[Entry]:
        """The frames after this position."""
        found: list[Entry] = []
        for entry in reversed(self.entries):
            if entry[0] > where:
                found.append(entry)
                continue
            if last(entry) > where:
                found.extend(reversed([frame for frame in each(entry) if frame[0] > where]))
            break
        found.reverse()
        return found
