"""What a sender may say, checked before anything is stored. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from app.errors import BadRequest

MODES = ("queue", "steer", "interrupt")
TEXT_MAX_BYTES = 512 << 10
KEY_MAX, ID_MAX, SMALL_JSON, ATTACHMENTS_MAX = 200, 200, 4096, 20
ENQUEUE = ("text", "threadId", "target", "source", "replyRoute", "attachments", "mode", "idempotencyKey")


@dataclass(frozen=True)
class Said:
    """Something said to an agent. `thread` None: the session's main thread. `route`: where the answer is to go."""

    text: str
    thread: str | None = None
    source: dict[str, Any] | None = None
    route: dict[str, Any] | None = None
    attachments: list[dict[str, Any]] = field(default_factory=list)
    mode: str = "queue"
    key: str | None = None


def said(params: dict[str, Any]) -> Said:
    """The params of argus/input/enqueue, which are the body of POST /sessions/ID/inputs too. Raises BadRequest."""
    text = params.get("text")
    if not isinstance(text, str) or not text.strip():
        raise BadRequest("Missing 'text'")
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX_BYTES:
        raise BadRequest(f"text is longer than {TEXT_MAX_BYTES >> 10} KiB; put it into a file of the workspace")
    if text.encode("utf-8", "replace").decode() != text:
        raise BadRequest("text holds a lone surrogate, which is no character")
    mode = _word(params, "mode", KEY_MAX) or "queue"
    if mode not in MODES:
        raise BadRequest(f"mode must be one of {', '.join(MODES)}")
    target, thread = _word(params, "target", KEY_MAX), _word(params, "threadId", ID_MAX)
    if target not in (None, "main"):
        raise BadRequest("target must be main, or absent with a threadId")
    return Said(
        text.strip(),
        None if target == "main" else thread,
        _object(params, "source"),
        _object(params, "replyRoute"),
        _attachments(params.get("attachments")),
        mode,
        _word(params, "idempotencyKey", KEY_MAX),
    )


def _word(params: dict[str, Any], name: str, longest: int) -> str | None:
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise BadRequest(f"{name} must be a text of 1 to {longest} characters")
    return value


def _object(params: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, dict) or _size(value) > SMALL_JSON:
        raise BadRequest(f"{name} must be an object of at most {SMALL_JSON} bytes")
    return value


def _attachments(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > ATTACHMENTS_MAX:
        raise BadRequest(f"attachments must be a list of at most {ATTACHMENTS_MAX}")
    for each in value:
        good = isinstance(each, dict) and isinstance(each.get("path"), str) and _size(each) <= SMALL_JSON
        if not good or not each["path"].isprintable():
            raise BadRequest('an attachment is {"path", "name"?, "mime"?}: a file that the agent can read')
    return value


def _size(value: Any) -> int:
    try:
        return len(json.dumps(value, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        return SMALL_JSON + 1
