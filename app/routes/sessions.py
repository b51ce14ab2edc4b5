"""Sessions over HTTP."""

from __future__ import annotations

from typing import Any, Literal

from flask import g
from pydantic import Field

from app.errors import BadRequest
from app.routes.api import Body, IdPath, Model, OptionalBody, SessionDone, answer, blueprint
from app.routes.policy import services
from app.services.options import MAX_MOUNTS, Options, approvals_of
from app.services.sessions import TITLE_MAX
from app.store.sessions import SessionRow

bp = blueprint("sessions")

# What the reference's clients read of a container's state.
STATUS = {"running": "running", "restarting": "running", "created": "created"}
Policy = Literal["ask", "decline", "accept"]


class Session(Model):
    """A session; the first five fields are the reference's."""

    session_id: str
    container_id: str | None = None
    name: str
    status: Literal["running", "exited", "created"]
    runtime_layout: str | None = None
    agent: str
    title: str
    state: Literal["created", "running", "restarting", "failed", "stopped"]
    reason: str
    open_turns: int = Field(description="turns that run now")
    open_questions: int = Field(description="approvals that wait for a person")
    approvals: Policy | None = Field(None, description="what answers questions of its turns; null: ARGUS_APPROVALS")
    created_at_ms: int
    last_active_at_ms: int


class SessionWithThreads(Session):
    """One session, with the ids of its threads, the latest used first."""

    threads: list[str]


class Sessions(Model):
    """Running ones first, then the latest active."""

    sessions: list[Session]
    default_agent: str = Field(description="of a new session that names none; `upstream`: somebody else runs them")


class Mount(Body):
    """A folder of the host, which the operator has allowed (ARGUS_RUNTIME_MOUNT_ALLOW), in a session's container."""

    source: str = Field(max_length=4096)
    target: str = Field(max_length=1000)
    read_only: bool = True


class NewSession(OptionalBody):
    """What a session is made with."""

    agent: str | None = Field(None, description="the gateway's own choice if left out")
    title: str = Field("", max_length=TITLE_MAX)
    mounts: list[Mount] = Field(default_factory=list, max_length=MAX_MOUNTS)
    env: dict[str, str] = Field(default_factory=dict, description="variables of its runtime")
    approvals: Policy | None = Field(None, description="instead of ARGUS_APPROVALS")


class Change(Body):
    """What is left out stays."""

    title: str = Field("", max_length=TITLE_MAX, description="it must show something")
    approvals: Policy | None = Field(None, description="null: as ARGUS_APPROVALS says")


def shown(row: SessionRow) -> dict[str, Any]:
    """The fields of a `Session`."""
    state = services().sessions.state_of(row)
    turns, questions = services().sessions.busy(row.id)
    handle = services().sessions.handle_of(row)
    return {
        "session_id": row.id,
        "container_id": handle.get("container"),
        "name": handle.get("name") or row.title or row.id,
        "status": STATUS.get(state, "exited"),
        "runtime_layout": handle.get("layout"),
        "agent": row.agent,
        "title": row.title,
        "state": state,
        "reason": row.reason,
        "open_turns": turns,
        "open_questions": questions,
        "approvals": approvals_of(row.options),
        "created_at_ms": row.created_at_ms,
        "last_active_at_ms": row.active_at_ms,
    }


@bp.get("/sessions", responses={200: Sessions})
def list_sessions() -> Any:
    """All sessions: running ones first, then the latest active."""
    found = [Session(**shown(row)) for row in services().sessions.list()]
    found.sort(key=lambda session: session.status != "running")
    return answer(Sessions(sessions=found, default_agent=services().sessions.default_agent()))


@bp.post("/sessions", responses={201: Session})
def create_session(body: NewSession) -> Any:
    """A new session. Its runtime starts when it is first used. 429 at ARGUS_MAX_SESSIONS, 400 for a mount that is not
    allowed."""
    options = Options([mount.model_dump(by_alias=True) for mount in body.mounts], body.env, body.approvals)
    row = services().sessions.create(g.principal, body.agent, body.title, options=options)
    return answer(Session(**shown(row)), 201)


@bp.get("/sessions/<id>", responses={200: SessionWithThreads})
def get_session(path: IdPath) -> Any:
    """One session with the ids of its threads. 404 `Unknown session`."""
    row = services().sessions.get(path.id)
    return answer(SessionWithThreads(**shown(row), threads=services().sessions.threads(path.id)))


@bp.patch("/sessions/<id>", responses={200: Session})
def change_session(path: IdPath, body: Change) -> Any:
    """Give it another title (400 for one that shows nothing), or say who answers the questions that come after."""
    sessions, told = services().sessions, body.model_fields_set
    if not told:
        raise BadRequest("say what to change: title, approvals, or both")
    row = sessions.rename(path.id, body.title) if "title" in told else sessions.get(path.id)
    if "approvals" in told:
        row = sessions.set_approvals(path.id, body.approvals)
    return answer(Session(**shown(row)))


@bp.post("/sessions/<id>/restart", responses={202: SessionDone})
def restart_session(path: IdPath) -> Any:
    """202: a fresh agent is being started. Clients are told by `argus/runtime`; open turns end as interrupted."""
    services().sessions.restart(path.id)
    return answer(SessionDone(session_id=path.id), 202)


@bp.post("/sessions/<id>/stop", responses={200: Session})
def stop_session(path: IdPath) -> Any:
    """Stops its runtime; sockets stay open, turns end as interrupted. The next message, or client, starts it again."""
    services().sessions.stop(path.id)
    return answer(Session(**shown(services().sessions.get(path.id))))


@bp.post("/sessions/<id>/start", responses={200: Session})
def start_session(path: IdPath) -> Any:
    """Starts its runtime if it does not run, and answers once the agent is reached. 503 with why it can't be."""
    services().sessions.start(path.id)
    return answer(Session(**shown(services().sessions.get(path.id))))


@bp.delete("/sessions/<id>", responses={200: SessionDone})
def delete_session(path: IdPath) -> Any:
    """Ends its runtime, closes its sockets (1000 `Session deleted`), removes its own files, never shared ones."""
    services().sessions.delete(path.id)
    return answer(SessionDone(session_id=path.id))
