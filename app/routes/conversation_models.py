"""What goes over the wire of routes/conversation.py."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.routes.api import Body, Done, Model

State = Literal["queued", "started", "answered", "interrupted", "failed", "removed"]
DeliveryState = Literal["pending", "sent", "uncertain", "failed", "dead"]


class NewInput(Body):
    """Something said to an agent; docs/conversation.md has the fields."""

    text: str
    thread_id: str | None = None
    target: str | None = Field(None, description="`main`, or absent")
    source: dict[str, Any] | None = Field(None, description='where it came from: {"channel", "chatKey", …}')
    reply_route: dict[str, Any] | None = Field(None, description='where the answer goes: {"type": "http", "url"}')
    attachments: list[Any] | None = Field(None, description='[{"path", "name"?, "mime"?}]')
    mode: str | None = Field(None, description="`queue`, `steer` or `interrupt`")
    idempotency_key: str | None = None


class EditedInput(Body):
    """Another text for what waits."""

    text: str


class AcceptedInput(Done):
    """It is stored. The same key and content get the same answer."""

    input_id: str
    session_id: str
    queued: bool = Field(description="something was before it")
    followup_depth: int


class Input(Model):
    """An input."""

    input_id: str
    session_id: str
    thread_id: str | None
    turn_id: str | None
    message_id: str = Field(description="the `clientId` of its user message; several merged ones share it")
    state: State
    text: str
    source: dict[str, Any] | None
    mode: str
    error: str = Field(description="why it was not answered")
    retry_of: str | None
    accepted_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None


class Inputs(Model):
    """The newest first."""

    inputs: list[Input]


class InputDone(Done):
    """It was done to this input."""

    input_id: str


class Step(Model):
    """Something that happened to an input."""

    step: str
    at_ms: int | None


class Delivery(Model):
    """A delivery."""

    delivery_id: str
    input_id: str
    session_id: str
    route: dict[str, Any]
    state: DeliveryState
    attempts: int
    uncertain: int = Field(description="attempts whose outcome is not known")
    error: str
    created_at_ms: int
    sent_at_ms: int | None
    next_at_ms: int | None


class Deliveries(Model):
    """The newest first."""

    deliveries: list[Delivery]


class Asked(Model):
    """An approval in a receipt."""

    approval_id: str
    method: str
    state: str
    decision: str
    by: str


class Receipt(Input):
    """The ledger of an input."""

    answer: str | None
    retried_as: str | None
    waits_for: str = Field(description="why it waits, if not just for its turn")
    steps: list[Step]
    deliveries: list[Delivery]
    approvals: list[Asked]


class Approval(Model):
    """A question of a gateway-owned turn."""

    approval_id: str
    session_id: str
    thread_id: str
    turn_id: str
    method: str
    params: Any
    state: Literal["open", "answered", "expired", "settled"]
    decision: str
    answered_by: str
    asked_at_ms: int
    expires_at_ms: int


class Approvals(Model):
    """The newest first."""

    approvals: list[Approval]


class Decision(Body):
    """The answer to a question."""

    decision: str = Field(description="`accept`, `acceptForSession`, `decline` or `cancel`")


class Cancelled(Model):
    """What became of a wish to stop a turn."""

    ok: bool
    cancel_requested: bool
    thread_id: str | None
    turn_id: str | None = None
    already_requested: bool | None = None
    cancel_id: str | None = None
    stopped: str | None = Field(None, description="what was ended, in words")
    reason: str | None = None


class Usage(Model):
    """Tokens in all, by session, and of the newest turns."""

    total: dict[str, int]
    sessions: list[dict[str, Any]]
    threads: list[dict[str, Any]] = Field(description="the latest used first, 200 at most")
    days: list[dict[str, Any]] = Field(description="of the caller's zone, the newest first, 200 at most")
    turns: list[dict[str, Any]]


class InputsQuery(Model):
    """Which inputs."""

    open: str | None = Field(None, description="1: only what waits or runs")
    thread: str | None = None


class SessionQuery(Model):
    """Of which session."""

    session: str | None = None


class DeliveriesQuery(SessionQuery):
    """Which deliveries."""

    state: DeliveryState | None = None


class ApprovalsQuery(SessionQuery):
    """Which approvals."""

    state: Literal["open", "answered", "expired", "settled"] | None = None


class UsageQuery(SessionQuery):
    """Since when."""

    since_ms: int = Field(0, ge=0, le=10**15)
    zone_minutes: int = Field(0, ge=-900, le=900, description="of the caller's zone, east of Greenwich; for days")
