"""The durable way in on /ws: `argus/input/…`, `argus/thread/main/ensure`, `argus/turn/cancel`, `argus/receipt`."""

from __future__ import annotations

from typing import Any

from app.errors import BadRequest, NotFound, Unavailable
from app.rpc import Call, method
from app.services.conversation.checks import ID_MAX, said
from app.services.conversation.service import Accepted
from app.services.conversation.shown import shown

STARTED_WITHIN_S = 10.0  # how long an answer waits for the turn to begin


@method("argus/input/enqueue")
def enqueue(call: Call, params: dict[str, Any]) -> Any:
    """Store what is said, in the order of the frames; the answer comes once its turn has begun, or at once if it waits.

    Started: `{"ok", "inputId", "threadId", "queued": false, "started": true, "turnId"}`; behind others: `{"ok",
    "inputId", "threadId", "queued": true, "started": false, "followupDepth"}`.
    """
    accepted = call.conversation.accept(call.principal, call.session, said(params))
    return lambda: _told(call, accepted)


def _told(call: Call, accepted: Accepted) -> dict[str, Any]:
    row = accepted.row
    if not accepted.queued or row.mode != "queue":
        row = call.conversation.wait_started(accepted, STARTED_WITHIN_S)
    if row.state == "failed":
        raise Unavailable(row.error)
    thread = row.thread_id or accepted.lane.thread(make=False)
    about = {"ok": True, "inputId": row.id, "threadId": thread}
    if row.turn_id:
        return {**about, "queued": False, "started": True, "turnId": row.turn_id}
    return {**about, "queued": True, "started": False, "followupDepth": max(1, accepted.row.depth)}


@method("argus/input/list")
def list_inputs(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    """`{"threadId"?, "open"?}` → `{"inputs"}`, the newest first; `open`: only what waits or runs."""
    rows = call.conversation.list(call.session, _thread(call, params), params.get("open") is True)
    return {"inputs": [shown(row) for row in rows]}


@method("argus/input/remove")
def remove_input(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    """`{"inputId"}` of one that waits → `{"ok", "inputId"}`."""
    row = call.conversation.remove(_own_input(call, params))
    return {"ok": True, "inputId": row.id}


@method("argus/receipt")
def receipt(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    """`{"inputId"}` → the whole story of an input."""
    return call.conversation.receipt(_own_input(call, params))


@method("argus/thread/main/ensure")
def ensure_main(call: Call, params: dict[str, Any]) -> Any:
    """`{"threadId"}` of the session's main thread, which is loaded, or made."""
    return lambda: {"threadId": call.conversation.ensure_main(call.session)}


@method("argus/turn/cancel")
def cancel(call: Call, params: dict[str, Any]) -> Any:
    """`{"threadId"?, "target"?}`: stop the turn that runs there, within a second; says what was stopped."""
    thread = _thread(call, params)
    return lambda: call.conversation.cancel(call.session, thread)


def _thread(call: Call, params: dict[str, Any]) -> str | None:
    thread = params.get("threadId")
    if params.get("target") == "main" or thread is None:
        return None
    if not isinstance(thread, str) or not 0 < len(thread) <= ID_MAX:
        raise BadRequest("threadId must be a thread's id")
    return thread


def _own_input(call: Call, params: dict[str, Any]) -> str:
    """The id of an input of this session. Raises BadRequest, NotFound."""
    id = params.get("inputId")
    if not isinstance(id, str) or not id:
        raise BadRequest("inputId is missing")
    if call.conversation.get(id).session_id != call.session:
        raise NotFound("there is no such input")
    return id
