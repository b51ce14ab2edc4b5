"""What a service that owns turns hears of a session's stream: a few lines a turn, never a delta. Pure.

Every line is told once in a gateway's life, also those that a bridge kept while no gateway was there; what is done
with it must be idempotent all the same, because the next gateway is told again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import msgspec

SURROGATE = re.compile(rb"[\\]u[dD][89a-fA-F]")
MAX_COUNT = 1 << 40  # tokens; what an agent says is summed up and stored, in columns of 64 bits


@dataclass(slots=True)
class Heard:
    """`turn_started`, `turn_completed` (`status`, `error`), `user` (`message`: its clientId), `agent` (`text`),
    `usage` (`counts`), `compacted`; of a gateway-owned turn also `question`, `question_again` (found open after a
    restart or a lost link) and `question_over` (`about`: the server request)."""

    what: str
    thread: str
    turn: str = ""
    status: str = ""
    error: str = ""
    item: str = ""
    text: str = ""
    message: str = ""
    counts: dict[str, int] | None = None
    about: Any = None


@dataclass(slots=True)
class Reply:
    """What became of a request of the gateway's own: `result`; `error` (the agent's own); `unsent` (it never went);
    `unknown` (it went, and no answer came)."""

    kind: str
    value: Any = None  # the result, or what was wrong in words
    code: int = 0


class _Error(msgspec.Struct):
    message: str = ""


class _Turn(msgspec.Struct):
    id: str = ""
    status: str = ""
    error: _Error | None = None


class _Item(msgspec.Struct):
    type: str = ""
    id: str = ""
    text: str | None = None
    clientId: str | None = None


class _Counts(msgspec.Struct):
    totalTokens: int = 0
    inputTokens: int = 0
    cachedInputTokens: int = 0
    outputTokens: int = 0
    reasoningOutputTokens: int = 0


class _Used(msgspec.Struct):
    total: _Counts = msgspec.field(default_factory=_Counts)
    last: _Counts = msgspec.field(default_factory=_Counts)


class _Params(msgspec.Struct):
    threadId: str = ""
    turnId: str | None = None
    turn: _Turn | None = None
    item: _Item | None = None
    tokenUsage: _Used | None = None


class _Line(msgspec.Struct):
    params: _Params = msgspec.field(default_factory=_Params)


_line_of = msgspec.json.Decoder(_Line).decode


def readable(line: bytes) -> bytes:
    """What to read of a line that could not be: the same JSON with a question mark for each lone surrogate, which no
    strict reader and no database takes. Raises ValueError, RecursionError."""
    if SURROGATE.search(line) is None:
        raise ValueError("it has no surrogates")
    return json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace")


def hear(method: str, line: bytes) -> Heard | None:
    """What this notification says; None if it says nothing that counts, or has another shape."""
    try:
        params = _line_of(line).params
    except (msgspec.MsgspecError, RecursionError):
        return None
    turn = params.turnId or (params.turn.id if params.turn else "")
    if not params.threadId:
        return None
    if method == "turn/completed":
        ended = params.turn or _Turn(turn)
        error = ended.error.message[:2000] if ended.error else ""
        return Heard("turn_completed", params.threadId, turn, ended.status, error)
    if method == "turn/started":
        return Heard("turn_started", params.threadId, turn)
    if method == "thread/compacted":
        return Heard("compacted", params.threadId, turn)
    if method == "thread/tokenUsage/updated" and params.tokenUsage:
        return Heard("usage", params.threadId, turn, counts=_counts(params.tokenUsage))
    return _of_item(params, turn)


def _of_item(params: _Params, turn: str) -> Heard | None:
    item = params.item
    if item is None:
        return None
    if item.type == "userMessage" and item.clientId:
        return Heard("user", params.threadId, turn, item=item.id, message=item.clientId)
    if item.type == "agentMessage" and item.text:
        return Heard("agent", params.threadId, turn, item=item.id, text=item.text)
    return None


def _counts(used: _Used) -> dict[str, int]:
    last = used.last
    counts = {
        "input_tokens": last.inputTokens,
        "cached_tokens": last.cachedInputTokens,
        "output_tokens": last.outputTokens,
        "reasoning_tokens": last.reasoningOutputTokens,
        "total_tokens": last.totalTokens,
        "thread_total": used.total.totalTokens,
    }
    return {name: min(max(count, 0), MAX_COUNT) for name, count in counts.items()}
