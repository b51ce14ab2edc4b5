"""What to do with an input whose way to the agent was cut: by a crash of the gateway, of the agent, or of the link
between them. One pure function of what is stored and what the agent says of the thread.

The rule behind every row: an input whose message the agent has is never sent again, because tools may have acted; one
that the agent does not have is sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stored:
    """What the store says of the input. `turn` is known once turn/start was answered or its message came back."""

    state: str  # queued, started
    message: str
    turn: str | None = None


@dataclass(frozen=True)
class TurnSeen:
    """One turn of the thread, as thread/read tells it."""

    id: str
    status: str  # inProgress, completed, interrupted, failed
    messages: tuple[str, ...] = ()  # clientIds of its user messages
    texts: tuple[str, ...] = ()  # its agent messages
    error: str = ""
    items: int = 1  # how many there are at all: a turn that has just begun may have none yet


@dataclass(frozen=True)
class Seen:
    """What the agent says: its turns, the oldest first; None if there is no such thread. `running` is the turn that
    the stream says runs now."""

    turns: tuple[TurnSeen, ...] | None = ()
    running: str | None = None


@dataclass(frozen=True)
class Action:
    """`send`, `read` (once more, a moment later), `wait` (it runs), `answered`, `interrupted` or `failed`."""

    what: str
    turn: str | None = None
    texts: tuple[str, ...] = field(default=())
    why: str = ""


GONE = "the agent ended before it had answered; what it had begun may have had effects"
STOPPED = "the turn was stopped before it had answered"
LOST = "the agent does not know the turn any more; what it had begun may have had effects"


def decide(stored: Stored, seen: Seen) -> Action:
    """What to do with this input now."""
    found = _find(stored, seen.turns or ())
    if found is not None:
        return _of_turn(found, seen)
    if stored.state == "started":
        return Action("interrupted", stored.turn, why=LOST)
    if seen.turns and not seen.turns[-1].items and seen.turns[-1].status == "inProgress":
        return Action("read")  # the newest turn may be this input's: its message is not written yet
    return Action("send")


def _find(stored: Stored, turns: tuple[TurnSeen, ...]) -> TurnSeen | None:
    for turn in reversed(turns):
        if stored.message in turn.messages or (stored.turn is not None and turn.id == stored.turn):
            return turn
    return None


def _of_turn(turn: TurnSeen, seen: Seen) -> Action:
    if turn.status == "completed":
        return Action("answered", turn.id, turn.texts)
    if turn.status == "failed":
        return Action("failed", turn.id, turn.texts, turn.error or "the turn failed")
    if turn.status == "inProgress":
        if seen.running is not None and seen.running != turn.id:
            return Action("interrupted", turn.id, turn.texts, GONE)  # another one runs: this one was cut off
        return Action("wait", turn.id)
    return Action("interrupted", turn.id, turn.texts, GONE)
