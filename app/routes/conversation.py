"""What was said and what became of it, over HTTP: inputs, cancel, deliveries, approvals, usage."""

from __future__ import annotations

from typing import Any

from flask import g, request

from app.errors import BadRequest
from app.routes import conversation_models as models
from app.routes.api import IdPath, answer, blueprint
from app.routes.policy import services
from app.services.conversation.checks import KEY_MAX, said
from app.services.conversation.service import Accepted, Conversation
from app.services.conversation.shown import shown, shown_approval, shown_delivery

bp = blueprint("conversation")


@bp.post("/sessions/<id>/inputs", responses={202: models.AcceptedInput})
def say(path: IdPath, body: models.NewInput) -> Any:
    """202: stored; it will be answered once. The `Idempotency-Key` header means the same as the field: the same key and
    content get the same answer and one turn; the same key and other content 409."""
    params = body.model_dump(by_alias=True, exclude_none=True)
    key = request.headers.get("Idempotency-Key")
    if key is not None and params.setdefault("idempotencyKey", key) != key:
        raise BadRequest("the Idempotency-Key header and idempotencyKey differ; send one of them")
    if key is not None and not 0 < len(key) <= KEY_MAX:
        raise BadRequest(f"Idempotency-Key must have 1 to {KEY_MAX} characters")
    return _accepted(_conversation().accept(g.principal, path.id, said(params)))


@bp.get("/sessions/<id>/inputs", responses={200: models.Inputs})
def list_inputs(path: IdPath, query: models.InputsQuery) -> Any:
    """The session's inputs, the newest first."""
    rows = _conversation().list(path.id, query.thread, query.open == "1")
    return answer(models.Inputs(inputs=[models.Input(**shown(row)) for row in rows]))


@bp.get("/inputs/<id>", responses={200: models.Receipt})
def receipt(path: IdPath) -> Any:
    """The ledger of an input: its state, each step with its time, its answer, deliveries and approvals."""
    return answer(models.Receipt(**_conversation().receipt(path.id)))


@bp.delete("/inputs/<id>", responses={200: models.InputDone})
def remove(path: IdPath) -> Any:
    """Take an input back that waits still; 409 once it was begun."""
    return answer(models.InputDone(input_id=_conversation().remove(path.id).id))


@bp.patch("/inputs/<id>", responses={200: models.InputDone})
def edit(path: IdPath, body: models.EditedInput) -> Any:
    """Another text for an input that waits still, in its place; 409 once it was begun."""
    return answer(models.InputDone(input_id=_conversation().edit(path.id, body.text).id))


@bp.post("/inputs/<id>/retry", responses={202: models.AcceptedInput})
def retry(path: IdPath) -> Any:
    """Say again what was interrupted or failed, as a new input (202); the same retry twice is one."""
    return _accepted(_conversation().retry(g.principal, path.id))


@bp.post("/threads/<id>/cancel", responses={200: models.Cancelled})
def cancel(path: IdPath, query: models.SessionQuery) -> Any:
    """Stop the turn that runs on this thread, within a second; says what was stopped."""
    session = query.session or _conversation().session_of(path.id)
    return answer(models.Cancelled(**_conversation().cancel(session, path.id)))


@bp.get("/deliveries", responses={200: models.Deliveries})
def list_deliveries(query: models.DeliveriesQuery) -> Any:
    """What was or is to be sent, the newest first."""
    rows = _conversation().outbox.list(query.state, query.session)
    return answer(models.Deliveries(deliveries=[models.Delivery(**shown_delivery(row)) for row in rows]))


@bp.post("/deliveries/<id>/retry", responses={202: models.Delivery})
def retry_delivery(path: IdPath) -> Any:
    """Send a dead delivery again (202)."""
    return answer(models.Delivery(**shown_delivery(_conversation().outbox.retry(path.id))), 202)


@bp.get("/approvals", responses={200: models.Approvals})
def list_approvals(query: models.ApprovalsQuery) -> Any:
    """Questions of gateway-owned turns, the newest first."""
    rows = _conversation().desk.approvals.list(query.session, query.state)
    return answer(models.Approvals(approvals=[models.Approval(**shown_approval(row)) for row in rows]))


@bp.post("/approvals/<id>", responses={200: models.Approval})
def decide(path: IdPath, body: models.Decision) -> Any:
    """Answer a question; the first answer counts, then 409."""
    row = _conversation().desk.approvals.decide(path.id, body.decision, g.principal.name)
    return answer(models.Approval(**shown_approval(row)))


@bp.get("/usage", responses={200: models.Usage})
def usage(query: models.UsageQuery) -> Any:
    """Tokens in all, by session, by thread, by day, and of the newest turns."""
    return answer(models.Usage(**_conversation().desk.usage.report(query.session, query.since_ms, query.zone_minutes)))


def _conversation() -> Conversation:
    return services().conversation


def _accepted(accepted: Accepted) -> Any:
    row = accepted.row
    about = {"input_id": row.id, "session_id": row.session_id, "queued": accepted.queued, "followup_depth": row.depth}
    return answer(models.AcceptedInput(**about), 202)
