"""Reads what an app-server says of a thread's turns. Pure: whatever stands there, nothing raises."""

from __future__ import annotations

from typing import Any

from app.services.conversation.decide import TurnSeen


def turns_of(turns: Any) -> tuple[TurnSeen, ...]:
    """Turns of a thread/read answer (`thread.turns`), the oldest first."""
    return tuple(_turn(turn) for turn in _list(turns) if isinstance(turn, dict))


def _turn(turn: dict[str, Any]) -> TurnSeen:
    items = [item for item in _list(turn.get("items")) if isinstance(item, dict)]
    messages = [item.get("clientId") for item in items if item.get("type") == "userMessage"]
    texts = [item.get("text") for item in items if item.get("type") == "agentMessage"]
    return TurnSeen(
        str(turn.get("id") or ""),
        str(turn.get("status") or ""),
        tuple(message for message in messages if isinstance(message, str)),
        tuple(text for text in texts if isinstance(text, str) and text),
        error_text(turn.get("error")),
        len(items),
    )


def error_text(error: Any) -> str:
    """A turn's error, or an error answer's, in words; empty if there is none."""
    if not error:
        return ""
    said = error.get("message") if isinstance(error, dict) else None
    return said[:2000] if isinstance(said, str) and said else "the agent gave no reason"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
