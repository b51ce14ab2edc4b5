"""The gateway's own requests and turns on a session: the relay's one door for services that own turns. Pure.

A request stands in the same line as the clients' and has the same deadline; what became of it comes as an event
`reply`. A turn that the gateway owns belongs to no client: its questions go to all that are attached, the first answer
wins, and the service is told of them (`heard`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from app.errors import NotFound
from app.relay.adapt import adapt
from app.relay.envelope import answer_of, question_key
from app.relay.fold import Answer, Event, ServerRequest
from app.relay.frames import payload_of
from app.relay.heard import Heard, Reply
from app.relay.inbound import Frame, top_level
from app.relay.messages import Out, Waiting
from app.relay.questions import GATEWAY

if TYPE_CHECKING:
    from app.relay.core import Core


def request(
    core: Core, method: str, params: dict[str, Any], now: float, timeout_s: float, reply: Callable[[Reply], None]
) -> Out:
    """Ask the agent; `reply` comes back as an event, once."""
    out, thread = Out(), params.get("threadId", "")
    raw = {
        "method": msgspec.json.encode(method),
        "params": msgspec.json.encode({**params, **adapt(method, params, core.traits)}),
    }
    waiting = Waiting(None, b"", method, now + timeout_s, raw, thread, reply=reply)
    if core._enqueue(waiting, out) and method == "turn/start":
        core.questions.began(thread, GATEWAY)
    return out


def replied(waiting: Waiting, answer: Answer) -> Event:
    """An answer of the app-server's to a request of the gateway's own."""
    parts = answer_of(answer.line)
    try:
        if parts.error is msgspec.UNSET:
            return Event("reply", (waiting.reply, Reply("result", msgspec.json.decode(parts.result))))
        error = msgspec.json.decode(parts.error)
    except (msgspec.MsgspecError, TypeError, RecursionError):
        return Event("reply", (waiting.reply, Reply("unknown", "the agent's answer can't be read")))
    said, code = (error.get("message"), error.get("code")) if isinstance(error, dict) else (None, None)
    text = said[:2000] if isinstance(said, str) and said else "the agent refused and gave no reason"
    return Event("reply", (waiting.reply, Reply("error", text, code if isinstance(code, int) else 0)))


def unanswered(waiting: Waiting, text: str) -> Event:
    """A request of the gateway's own that gets no answer."""
    return Event("reply", (waiting.reply, Reply("unknown" if waiting.sent else "unsent", text)))


def idle(core: Core, thread: str) -> bool:
    """Whether no turn runs on the thread and none is asked for: a turn/start would begin one and steer none."""
    asked = (w for w in (*core.waiting.values(), *core.queue) if w.method == "turn/start")
    return thread not in core.fold.turns and not any(w.thread == thread for w in asked)


def own(core: Core, thread: str) -> Out:
    """The thread's running turn is the gateway's (found out after a restart): its questions are put to all."""
    out = Out()
    core.questions.began(thread, GATEWAY)
    core.questions.reassign(out)
    out.events += [heard_question(each, "question_again") for each in open_questions(core) if each.thread == thread]
    return out


def is_ours(core: Core, request: ServerRequest) -> bool:
    """Whether it is a question of a turn that the gateway owns, whoever answered it."""
    return request.to == GATEWAY or core.questions.owners.get(request.thread) == GATEWAY


def open_questions(core: Core) -> list[ServerRequest]:
    """The open questions of the gateway's own turns."""
    return [each for each in core.fold.requests.values() if not each.answered and is_ours(core, each)]


def heard_question(request: ServerRequest, what: str = "question") -> Event:
    """A question of a gateway-owned turn is open, or over."""
    return Event("heard", Heard(what, request.thread, request.turn or "", about=request))


def asks(request: ServerRequest) -> tuple[str, str]:
    """Method and params of a question, the params as the agent wrote them: what it is about, whatever its id."""
    return request.method, top_level(payload_of(request.frame)).get("params", b"null").decode()


def answer(core: Core, id: bytes, turn: str, about: tuple[str, str], said: dict[str, Any]) -> Out:
    """The gateway itself answers an open question; `said` is `{"result"}` or `{"error"}`.

    Raises NotFound if it is not open, or can't be answered now. Its turn and what it is `about` are part of the name:
    an agent counts its ids from the start in each of its lives, and a yes must not reach another question.
    """
    asked = core.fold.requests.get(question_key(id))
    if asked is None or asked.answered or (asked.turn or "") != turn or not core.ready or core.blocked:
        raise NotFound(f"server request {id.decode()} can't be answered now")
    if asks(asked) != about:
        raise NotFound(f"server request {id.decode()} is another question by now")
    out = Out()
    raw = {name: msgspec.json.encode(value) for name, value in said.items()}
    core.questions.answer(Frame({"id": asked.id, **raw}, said), out, GATEWAY)
    return out
