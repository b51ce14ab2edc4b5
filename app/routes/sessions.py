"""Sessions over HTTP."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, g, jsonify

from app.errors import BadRequest
from app.routes.auth import json_body
from app.routes.policy import services
from app.store.sessions import SessionRow

bp = Blueprint("sessions", __name__)

# What the reference's clients read of a container's state.
STATUS = {"running": "running", "restarting": "running", "created": "created"}


def shown(row: SessionRow) -> dict[str, Any]:
    """A session as the API shows it: the reference's five fields first."""
    state = services().sessions.state_of(row)
    turns, questions = services().sessions.busy(row.id)
    return {
        "sessionId": row.id,
        "containerId": None,
        "name": row.title or row.id,
        "status": STATUS.get(state, "exited"),
        "runtimeLayout": None,
        "agent": row.agent,
        "title": row.title,
        "state": state,
        "reason": row.reason,
        "openTurns": turns,
        "openQuestions": questions,
        "createdAtMs": row.created_at_ms,
        "lastActiveAtMs": row.active_at_ms,
    }


@bp.get("/sessions")
def list_sessions() -> Any:
    """`{"sessions": [session…]}`: running ones first, then the latest active."""
    found = [shown(row) for row in services().sessions.list()]
    found.sort(key=lambda s: s["status"] != "running")
    return jsonify(sessions=found)


@bp.post("/sessions")
def create_session() -> Any:
    """`{"agent"?, "title"?}` → 201 session. Its runtime starts when it is first used. 429 at ARGUS_MAX_SESSIONS."""
    body = json_body(agent=str, title=str)
    row = services().sessions.create(g.principal, body.get("agent"), body.get("title", ""))
    return jsonify(shown(row)), 201


@bp.get("/sessions/<id>")
def get_session(id: str) -> Any:
    """One session with `threads`, the ids of its threads, the latest used first. 404 `Unknown session`."""
    row = services().sessions.get(id)
    return jsonify(**shown(row), threads=services().sessions.threads(id))


@bp.patch("/sessions/<id>")
def rename_session(id: str) -> Any:
    """`{"title"}` → the session. 400 for a title that shows nothing."""
    title = json_body(title=str).get("title")
    if title is None:
        raise BadRequest("title is missing")
    return jsonify(shown(services().sessions.rename(id, title)))


@bp.post("/sessions/<id>/restart")
def restart_session(id: str) -> Any:
    """202: a fresh agent is being started. Clients are told by `argus/runtime`; open turns end as interrupted."""
    json_body()
    services().sessions.restart(id)
    return jsonify(ok=True, sessionId=id), 202


@bp.delete("/sessions/<id>")
def delete_session(id: str) -> Any:
    """Ends its runtime, closes its sockets (1000 `Session deleted`), removes its own files, never shared ones."""
    services().sessions.delete(id)
    return jsonify(ok=True, sessionId=id)
