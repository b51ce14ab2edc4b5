"""What was said and what became of it, over HTTP: inputs, cancel, deliveries, approvals, usage."""

from __future__ import annotations

import re
from typing import Any

from flask import Blueprint, g, jsonify, request

from app.errors import BadRequest
from app.routes.auth import json_body
from app.routes.policy import services
from app.services.conversation.checks import KEY_MAX, said
from app.services.conversation.service import Accepted
from app.services.conversation.shown import shown, shown_approval, shown_delivery

bp = Blueprint("conversation", __name__)

STATES = ("pending", "sent", "uncertain", "failed", "dead")


@bp.post("/sessions/<id>/inputs")
def say(id: str) -> Any:
    """`{"text", "threadId"?, "target"?, "source"?, "replyRoute"?, "attachments"?, "mode"?, "idempotencyKey"?}` → 202
    `{"ok", "inputId", "sessionId", "queued", "followupDepth"}`. The `Idempotency-Key` header means the same as the
    field: the same key and text get the same answer and one turn; the same key and another text 409."""
    kinds = {"text": str, "threadId": str, "target": str, "mode": str, "idempotencyKey": str}
    body = json_body(**kinds, source=dict, replyRoute=dict, attachments=list)
    key = request.headers.get("Idempotency-Key")
    if key is not None and body.setdefault("idempotencyKey", key) != key:
        raise BadRequest("the Idempotency-Key header and idempotencyKey differ; send one of them")
    if key is not None and not 0 < len(key) <= KEY_MAX:
        raise BadRequest(f"Idempotency-Key may have {KEY_MAX} characters")
    return _accepted(services().conversation.accept(g.principal, id, said(body)))


@bp.get("/sessions/<id>/inputs")
def list_inputs(id: str) -> Any:
    """`{"inputs"}`: the session's, the newest first. `?open=1`: only what waits or runs; `?thread=`: of one thread."""
    rows = services().conversation.list(id, request.args.get("thread"), request.args.get("open") == "1")
    return jsonify(inputs=[shown(row) for row in rows])


@bp.get("/inputs/<id>")
def receipt(id: str) -> Any:
    """The ledger of an input: its state, each step with its time, its answer, deliveries and approvals."""
    return jsonify(services().conversation.receipt(id))


@bp.delete("/inputs/<id>")
def remove(id: str) -> Any:
    """Take an input back that waits still; 409 once it was begun."""
    row = services().conversation.remove(id)
    return jsonify(ok=True, inputId=row.id)


@bp.post("/inputs/<id>/retry")
def retry(id: str) -> Any:
    """Say again what was interrupted or failed, as a new input (202); the same retry twice is one."""
    json_body()
    return _accepted(services().conversation.retry(g.principal, id))


@bp.post("/threads/<id>/cancel")
def cancel(id: str) -> Any:
    """Stop the turn that runs on this thread, within a second; says what was stopped. `?session=` where several share
    the thread."""
    json_body()
    conversation = services().conversation
    return jsonify(conversation.cancel(request.args.get("session") or conversation.session_of(id), id))


@bp.get("/deliveries")
def list_deliveries() -> Any:
    """`{"deliveries"}`, the newest first. `?state=`, `?session=`."""
    state = request.args.get("state")
    if state is not None and state not in STATES:
        raise BadRequest(f"state must be one of {', '.join(STATES)}")
    rows = services().conversation.outbox.list(state, request.args.get("session"))
    return jsonify(deliveries=[shown_delivery(row) for row in rows])


@bp.post("/deliveries/<id>/retry")
def retry_delivery(id: str) -> Any:
    """Send a dead delivery again (202)."""
    json_body()
    return jsonify(shown_delivery(services().conversation.outbox.retry(id))), 202


@bp.get("/approvals")
def list_approvals() -> Any:
    """`{"approvals"}` of gateway-owned turns, the newest first. `?state=open`, `?session=`."""
    rows = services().conversation.desk.approvals.list(request.args.get("session"), request.args.get("state"))
    return jsonify(approvals=[shown_approval(row) for row in rows])


@bp.post("/approvals/<id>")
def decide(id: str) -> Any:
    """`{"decision": "accept" | "acceptForSession" | "decline" | "cancel"}`; the first answer counts, then 409."""
    decision = json_body(decision=str).get("decision", "")
    row = services().conversation.desk.approvals.decide(id, decision, g.principal.name)
    return jsonify(shown_approval(row))


@bp.get("/usage")
def usage() -> Any:
    """`{"total", "sessions", "turns"}`: tokens in all, by session, of the newest turns. `?session=`, `?sinceMs=`."""
    since = request.args.get("sinceMs", "0")
    if not re.fullmatch(r"[0-9]{1,15}", since):
        raise BadRequest("sinceMs must be a time in milliseconds")
    return jsonify(services().conversation.desk.usage.report(request.args.get("session"), int(since)))


def _accepted(accepted: Accepted) -> Any:
    row = accepted.row
    about = {"ok": True, "inputId": row.id, "sessionId": row.session_id}
    return jsonify(**about, queued=accepted.queued, followupDepth=row.depth), 202
