"""The life of an input and of a delivery, as tables. Pure."""

from __future__ import annotations

from dataclasses import dataclass

# What may happen to an input in a state, and what it is then.
INPUT = {
    ("queued", "start"): "started",  # the agent has it
    ("queued", "answer"): "answered",  # found answered after a crash
    ("queued", "interrupt"): "interrupted",
    ("queued", "fail"): "failed",
    ("queued", "remove"): "removed",  # by who said it
    ("started", "answer"): "answered",
    ("started", "interrupt"): "interrupted",
    ("started", "fail"): "failed",
}
INPUT_OVER = ("answered", "interrupted", "failed", "removed")

MAX_ATTEMPTS = 12  # of a delivery that is refused for now: about a day
MAX_UNCERTAIN = 2  # sent once, and once more
UNCERTAIN_WAIT_MS = 30_000
BACKOFF_MS = (1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 7_200_000)
MAX_WAIT_MS = 24 * 3_600_000  # no receiver puts us off for longer


def before(event: str) -> tuple[str, ...]:
    """The states of an input in which this may happen."""
    return tuple(state for state, happens in INPUT if happens == event)


def after(event: str) -> str:
    """The state of an input once this has happened."""
    return next(state for (_, happens), state in INPUT.items() if happens == event)


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt to send: `sent`; `unknown` (it may have arrived); `failed` (it did not, later it may);
    `refused` (it never will)."""

    kind: str
    detail: str = ""
    retry_after_s: float | None = None
    provider_id: str | None = None


@dataclass(frozen=True)
class Next:
    """A delivery's state after an attempt, and when it is to be sent again."""

    state: str
    wait_ms: int | None
    uncertain: int


def delivered(outcome: Outcome, attempts: int, uncertain: int) -> Next:
    """What becomes of a delivery. `attempts` counts this one, `uncertain` the earlier ones of unknown outcome."""
    if outcome.kind == "sent":
        return Next("sent", None, uncertain)
    if outcome.kind == "refused":
        return Next("dead", None, uncertain)
    if outcome.kind == "unknown":
        if uncertain + 1 >= MAX_UNCERTAIN:
            return Next("dead", None, uncertain + 1)
        return Next("uncertain", UNCERTAIN_WAIT_MS, uncertain + 1)
    if attempts >= MAX_ATTEMPTS:
        return Next("dead", None, uncertain)
    wait_ms = BACKOFF_MS[min(attempts, len(BACKOFF_MS)) - 1]
    if outcome.retry_after_s is not None:
        wait_ms = min(max(int(outcome.retry_after_s * 1000), wait_ms), MAX_WAIT_MS)  # 0 must not burn all attempts
    return Next("failed", wait_ms, uncertain)
