"""What a client sends, checked before anything of it reaches an app-server. Pure.

An app-server can be killed or silenced by a bad line (invalid UTF-8 ends Codex, malformed JSON gets no answer), so a
frame must be one JSON object in valid UTF-8, at most 100 levels deep, without a raw newline.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.errors import RPC_INVALID, RPC_PARSE

MAX_DEPTH = 100
MAX_VALUES = 1_000_000  # a value of one byte costs fifty in memory
MAX_ID_BYTES, MAX_METHOD = 1024, 256  # both are kept for as long as a request waits for its answer
_NAMES = {name: msgspec.json.encode(name) for name in ("jsonrpc", "id", "method", "params", "result", "error")}
_top_level = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_whole = msgspec.json.Decoder().decode


class BadFrame(Exception):
    """The frame can't be used; `id` is the request's, as written, where it could be read."""

    def __init__(self, code: int, text: str, id: bytes = b"null") -> None:
        super().__init__(text)
        self.code, self.text, self.id = code, text, id


class Frame:
    """One checked frame: the top level as raw bytes, and the whole as values."""

    __slots__ = ("id", "method", "params", "raw", "value")

    def __init__(self, raw: dict[str, bytes], value: dict[str, Any]) -> None:
        self.raw, self.value = raw, value
        self.method: str | None = value.get("method")
        self.id: bytes | None = raw.get("id")
        params = value.get("params")
        self.params: dict[str, Any] = params if isinstance(params, dict) else {}


def encode(raw: dict[str, bytes]) -> bytes:
    """An object from its top-level parts, each kept to the byte."""
    parts = [b"%s:%s" % (_NAMES.get(key) or msgspec.json.encode(key), part) for key, part in raw.items()]
    return b"{%s}" % b",".join(parts)


def top_level(data: bytes) -> dict[str, bytes]:
    """The parts of an object, each as written."""
    return {key: bytes(part) for key, part in _top_level(data).items()}


def parse(data: bytes) -> Frame:
    """Check one frame. Raises BadFrame with a JSON-RPC code and what is wrong."""
    data = data.strip()
    if 10 in data or 13 in data:  # text mode reads either as a line's end
        raise BadFrame(RPC_PARSE, "a frame must be one JSON object without a raw newline")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise BadFrame(RPC_INVALID, f"the frame has more than {MAX_VALUES} values")
    try:
        value = _whole(data)
    except RecursionError:
        raise BadFrame(RPC_PARSE, f"the frame nests deeper than {MAX_DEPTH}") from None
    except UnicodeDecodeError:
        raise BadFrame(RPC_PARSE, "the frame is not valid UTF-8") from None
    except msgspec.MsgspecError as error:
        raise BadFrame(RPC_PARSE, f"the frame is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadFrame(RPC_INVALID, "a frame must be one JSON object")
    raw = top_level(data)
    id = raw.get("id")
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise BadFrame(RPC_PARSE, f"the frame nests deeper than {MAX_DEPTH}", id or b"null")
    if id is not None and id[:1] in b"{[":
        raise BadFrame(RPC_INVALID, "an id must be a string or a number")
    method = value.get("method")
    if method is not None and not isinstance(method, str):
        raise BadFrame(RPC_INVALID, "method must be a string", id or b"null")
    if method is not None and id is not None and len(id) > MAX_ID_BYTES:
        raise BadFrame(RPC_INVALID, f"the id of a request may have {MAX_ID_BYTES} bytes")
    if method is not None and len(method) > MAX_METHOD:
        raise BadFrame(RPC_INVALID, f"a method may have {MAX_METHOD} characters", id or b"null")
    if method is None and (id is None or not ("result" in value or "error" in value)):
        raise BadFrame(RPC_INVALID, "a frame must have a method, or an id with a result or an error", id or b"null")
    return Frame(raw, value)


def _depth(value: Any) -> int:
    """How deep arrays and objects nest, without recursion."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        if isinstance(item, dict):
            todo.extend((v, level + 1) for v in item.values())
        elif isinstance(item, list):
            todo.extend((v, level + 1) for v in item)
        else:
            continue
        deepest = max(deepest, level)
    return deepest
