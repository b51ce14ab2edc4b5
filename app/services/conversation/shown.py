"""How inputs, deliveries and approvals look to callers. Pure."""

from __future__ import annotations

import json
from typing import Any

from app.services.conversation.states import INPUT_OVER
from app.store.approvals import ApprovalRow
from app.store.deliveries import WAITING, DeliveryRow
from app.store.inputs import InputRow


def shown(row: InputRow) -> dict[str, Any]:
    """An input as the API shows it."""
    return {
        "inputId": row.id,
        "sessionId": row.session_id,
        "threadId": row.thread_id or (None if row.lane == "main" else row.lane),
        "turnId": row.turn_id,
        "messageId": row.message_id,
        "state": row.state,
        "text": row.text,
        "source": json.loads(row.source) if row.source else None,
        "mode": row.mode,
        "error": row.error,
        "retryOf": row.retry_of,
        "acceptedAtMs": row.accepted_at_ms,
        "startedAtMs": row.started_at_ms,
        "endedAtMs": row.ended_at_ms,
    }


def shown_delivery(row: DeliveryRow) -> dict[str, Any]:
    """A delivery as the API shows it."""
    return {
        "deliveryId": row.id,
        "inputId": row.input_id,
        "sessionId": row.session_id,
        "route": json.loads(row.route),
        "state": row.state,
        "attempts": row.attempts,
        "uncertain": row.uncertain,
        "error": row.error,
        "createdAtMs": row.created_at_ms,
        "sentAtMs": row.sent_at_ms,
        "nextAtMs": row.next_at_ms if row.state in WAITING else None,
    }


def shown_approval(row: ApprovalRow) -> dict[str, Any]:
    """An approval as the API shows it."""
    return {
        "approvalId": row.id,
        "sessionId": row.session_id,
        "threadId": row.thread_id,
        "turnId": row.turn_id,
        "method": row.method,
        "params": row.asked,
        "state": row.state,
        "decision": row.decision,
        "answeredBy": row.answered_by,
        "askedAtMs": row.asked_at_ms,
        "expiresAtMs": row.expires_at_ms,
    }


def story(
    row: InputRow, sent: list[DeliveryRow], asked: list[ApprovalRow], retried: str | None, why: str
) -> dict[str, Any]:
    """An input with all its steps. `why`: what it waits for, in words."""
    steps = [{"step": "stored", "atMs": row.accepted_at_ms}]
    if row.started_at_ms:
        steps.append({"step": "started", "atMs": row.started_at_ms})
    if row.state in INPUT_OVER:
        steps.append({"step": row.state, "atMs": row.ended_at_ms})
    steps += [{"step": "delivered", "atMs": each.sent_at_ms} for each in sent if each.state == "sent"]
    return {
        **shown(row),
        "answer": row.answer,
        "retriedAs": retried,
        "waitsFor": why,
        "steps": steps,
        "deliveries": [shown_delivery(each) for each in sent],
        "approvals": [
            {"approvalId": a.id, "method": a.method, "state": a.state, "decision": a.decision, "by": a.answered_by}
            for a in asked
        ],
    }
