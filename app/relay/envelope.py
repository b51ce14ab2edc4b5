"""What is read of an app-server's lines: just the fields that routing and stream state need. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)
LONG_LINE = 512  # bytes from which on searching for line ends is cheaper than splitting


class Envelope(msgspec.Struct):
    """What routing needs of a line."""

    method: str | None = None
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Named(msgspec.Struct):
    """Something with an id."""

    id: str = ""


class Params(msgspec.Struct):
    """What stream state needs of a notification or a server request."""

    threadId: str = ""
    turnId: str | None = None
    itemId: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    turn: Named | None = None
    thread: Named | None = None
    requestId: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Life(msgspec.Struct):
    """What the bridge says of a life of its app-server; an app-server may use these names for something else."""

    life: int = 0
    code: int | None = None
    signal: int | None = None
    reason: str = ""
    state: str = ""
    stderr: str = ""


class Note(msgspec.Struct):
    """A line with such params."""

    params: Params = msgspec.field(default_factory=Params)


class LifeNote(msgspec.Struct):
    """A line of the bridge's own, if its mark says so."""

    mark: str = ""
    params: Life = msgspec.field(default_factory=Life)


class AnswerParts(msgspec.Struct):
    """What an answer carries, as written."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_envelope_of = msgspec.json.Decoder(Envelope).decode


def envelope_of(line: bytes) -> Envelope | None:
    """What routing needs of a line; None if it can't be read."""
    try:
        return _envelope_of(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _reader_of(kind: type[T]) -> Callable[[bytes], T]:
    """Reads just these fields of a line that is JSON; an empty one if they have another shape."""
    decode = msgspec.json.Decoder(kind).decode

    def read(line: bytes) -> T:
        try:
            return decode(line)
        except (msgspec.MsgspecError, RecursionError):
            return kind()

    return read


note_of = _reader_of(Note)
life_note_of = _reader_of(LifeNote)
answer_of = _reader_of(AnswerParts)


def question_key(id: bytes) -> bytes:
    """The same for every way to write the same id: a string may be escaped in many."""
    if not id.startswith(b'"'):
        return id
    try:
        return msgspec.json.encode(msgspec.json.decode(id))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return id


def number_of(id: bytes) -> int:
    """A request id of the gateway's own as a number; -1 for any other id."""
    return int(id) if len(id) < 20 and id.isdigit() else -1


def exit_text(params: Life) -> str:
    """How the app-server ended, in words for a person, with the last it said."""
    if params.signal is not None:
        how = f"was killed by signal {params.signal}"
    elif params.code is not None:
        how = f"exited with code {params.code}"
    else:
        how = params.reason
    why = "" if params.reason in ("exited", how) else f" ({params.reason})"
    said = f": {params.stderr.splitlines()[-1][:300]}" if params.stderr.strip() else ""
    return f"the agent's process {how}{why}{said}"


def lines_of(block: bytes) -> list[bytes]:
    """The lines of a block, without their ends."""
    at, end = 0, block.find(b"\n")
    if end < LONG_LINE:
        return block.split(b"\n")[:-1]
    lines, find = [], block.find
    while end >= 0:  # split looks at each byte, find at many at once
        lines.append(block[at:end])
        at = end + 1
        end = find(b"\n", at)
    return lines


def as_utf8(block: bytes) -> bytes:
    """A text frame must be valid UTF-8: what is not is replaced."""
    try:
        block.decode()
    except UnicodeDecodeError:
        return block.decode("utf-8", "replace").encode()
    return block
