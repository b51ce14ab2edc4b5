"""The relay's door for services: requests of the gateway's own, what they hear, questions of turns they own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from relay_kit import Session, asks, exited, line, note, ready, turn_completed, turn_started

from app.errors import NotFound
from app.relay import owned
from app.relay.adapt import Traits
from app.relay.core import Core
from app.relay.heard import MAX_COUNT, Heard, Reply
from app.relay.inbound import parse
from app.relay.live import Live
from app.relay.questions import GATEWAY

ABOUT = ("item/x/requestApproval", json.dumps({"threadId": "t", "turnId": "u", "reason": None}))
ACCEPT = {"result": {"decision": "accept"}}


class Asker:
    """Who asks over the door, and what it is told."""

    def __init__(self, session: Session) -> None:
        self.session, self.replies = session, []

    def ask(self, method: str = "m", now: float = 0.0, timeout_s: float = 60.0, **params: Any) -> None:
        self.session.do(owned.request(self.session.core, method, params, now, timeout_s, self.replies.append))

    def tell(self) -> list[Reply]:
        for event in self.session.events:
            if event.name == "reply":
                event.value[0](event.value[1])
        self.session.events = [event for event in self.session.events if event.name != "reply"]
        found, self.replies[:] = list(self.replies), []
        return found

    def starts_turn(self, thread: str = "t", turn: str = "u") -> None:
        self.ask("turn/start", threadId=thread)
        asked = self.session.sent_json()[-1]["id"]
        self.session.feed({"id": asked, "result": {"turn": {"id": turn}}}, turn_started(thread, turn))
        self.session.events.clear()
        for key in self.session.inbox:
            self.session.got(key)


def heard(session: Session) -> list[Heard]:
    found = [event.value for event in session.events if event.name == "heard"]
    session.events.clear()
    return found


def test_a_request_is_sent_and_its_result_comes_back_to_no_client() -> None:
    session = ready()
    asker = Asker(session)
    asker.ask("thread/read", threadId="t")
    (sent,) = session.sent_json()
    assert (sent["method"], sent["params"]) == ("thread/read", {"threadId": "t"})
    session.feed({"id": sent["id"], "result": {"a": [1]}})
    assert asker.tell() == [Reply("result", {"a": [1]})]
    assert session.got("a") == session.got("b") == []


def test_what_the_agent_refuses_comes_back_with_its_code() -> None:
    session = ready()
    asker = Asker(session)
    asker.ask()
    id = session.sent_json()[0]["id"]
    session.feed(b'{"error":{"code":-32600,"message":"thread not found: t"},"id":%d}' % id)
    assert asker.tell() == [Reply("error", "thread not found: t", -32600)]


@pytest.mark.parametrize("body", [b'"error":7', b'"error":{"message":3}', b'"error":{"code":"x"}'])
def test_an_error_that_makes_no_sense_is_an_error_without_a_reason(body: bytes) -> None:
    session = ready()
    asker = Asker(session)
    asker.ask()
    id = session.sent_json()[0]["id"]
    session.feed(b'{"id":%d,%s}' % (id, body))
    assert asker.tell() == [Reply("error", "the agent refused and gave no reason", 0)]


def test_paths_are_mapped_as_for_clients() -> None:
    session = Session(traits=Traits(workspace="/home/w"))
    Asker(session).ask("turn/start", threadId="t", cwd="/root/.argus/workspace")
    assert session.sent_json()[0]["params"]["cwd"] == "/home/w"


def test_a_request_that_went_and_got_no_answer_is_unknown() -> None:
    session = ready()
    asker = Asker(session)
    asker.ask(timeout_s=5)
    session.expire(6)
    asker.ask()
    session.do(session.core.unlinked("the link broke"))
    assert [reply.kind for reply in asker.tell()] == ["unknown", "unknown"]


def test_a_request_that_never_went_is_unsent() -> None:
    session = Session(ready=False)
    asker = Asker(session)
    asker.ask(timeout_s=5)
    session.expire(6)
    session.do(session.core.lost("it is gone", "failed"))
    asker.ask()
    assert [reply.kind for reply in asker.tell()] == ["unsent", "unsent"] and session.sent() == []


def test_a_death_of_the_agent_leaves_the_outcome_open() -> None:
    session = ready()
    asker = Asker(session)
    asker.ask("turn/start", threadId="t")
    session.feed(exited())
    assert [reply.kind for reply in asker.tell()] == ["unknown"]


def test_a_thread_is_idle_when_no_turn_runs_and_none_is_asked_for() -> None:
    session = ready()
    core = session.core
    assert owned.idle(core, "t")
    session.says("a", {"id": 1, "method": "turn/start", "params": {"threadId": "t"}})
    assert not owned.idle(core, "t") and owned.idle(core, "other")
    session.answer(1, b'"result":{"turn":{"id":"u"}}')
    session.feed(turn_started())
    assert not owned.idle(core, "t")
    session.feed(turn_completed())
    assert owned.idle(core, "t")


# -- hearing


def test_the_lines_that_make_a_turn_are_heard_in_order() -> None:
    session = ready()
    said = {"type": "agentMessage", "id": "i", "text": "yes"}
    asked = {"type": "userMessage", "id": "j", "clientId": "m", "content": []}
    used = {"total": {"totalTokens": 9}, "last": {"totalTokens": 5, "inputTokens": 3, "outputTokens": 2}}
    failed = {"id": "u", "status": "failed", "error": {"message": "no model"}}
    session.feed(
        turn_started(),
        note("item/completed", threadId="t", turnId="u", item=asked),
        note("item/completed", threadId="t", turnId="u", item={"type": "reasoning", "id": "r", "summary": []}),
        note("item/completed", threadId="t", turnId="u", item=said),
        note("thread/tokenUsage/updated", threadId="t", turnId="u", tokenUsage=used),
        note("thread/compacted", threadId="t", turnId="u"),
        note("turn/completed", threadId="t", turn=failed),
    )
    got = heard(session)
    assert [each.what for each in got] == ["turn_started", "user", "agent", "usage", "compacted", "turn_completed"]
    assert {(each.thread, each.turn) for each in got} == {("t", "u")}
    assert got[1].message == "m" and got[2].text == "yes" and got[3].counts["total_tokens"] == 5
    assert (got[5].status, got[5].error) == ("failed", "no model")


@pytest.mark.parametrize("params", [{"item": 3}, {"item": {"type": "agentMessage", "text": 3}}, {"tokenUsage": []}])
def test_a_line_of_another_shape_is_passed_on_and_not_heard(params: dict[str, Any]) -> None:
    session = ready()
    text = line({"method": "item/completed", "params": {"threadId": "t", "turnId": "u", **params}})
    session.feed(text)
    assert heard(session) == [] and session.got("a") == [text]


def test_what_no_database_takes_is_heard_all_the_same() -> None:
    session = ready()
    said = {"type": "agentMessage", "id": "i", "text": "half \ud83d of a smile"}
    used = {"total": {"totalTokens": 2**63}, "last": {"totalTokens": 2**63, "inputTokens": -5}}
    session.feed(
        note("item/completed", threadId="t", turnId="u", item=said),
        note("thread/tokenUsage/updated", threadId="t", turnId="u", tokenUsage=used),
    )
    text, counts = heard(session)
    assert text.text == "half ? of a smile"
    assert (counts.counts["total_tokens"], counts.counts["input_tokens"]) == (MAX_COUNT, 0)
    asker = Asker(session)
    asker.ask("thread/read", threadId="t")
    session.feed(line({"id": session.sent_json()[-1]["id"], "result": {"text": "\ud83d"}}))
    assert asker.tell() == [Reply("result", {"text": "?"})]


def test_a_death_ends_turns_for_who_hears_too() -> None:
    session = ready()
    session.feed(turn_started())
    session.events.clear()
    session.feed(exited(code=3))
    (end,) = heard(session)
    assert (end.what, end.turn, end.status) == ("turn_completed", "u", "interrupted") and "code 3" in end.error
    session.shake()
    session.feed(turn_started("t", "v"))
    session.events.clear()
    session.do(session.core.lost("the runtime is gone", "restarting"))
    assert [(each.turn, each.status) for each in heard(session)] == [("v", "interrupted")]


# -- questions of a turn that the gateway owns


def test_its_questions_go_to_all_and_the_first_answer_counts() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(asks(0))
    assert session.got("a") == session.got("b") == [asks(0)]
    session.says("b", {"id": 0, "result": {"decision": "accept"}})
    assert session.sent_json() == [{"id": 0, "result": {"decision": "accept"}}]
    (told,) = session.told("a")
    assert (told["state"], told["client"], told["decision"]) == ("answered", "b", "accept")
    session.says("a", {"id": 0, "result": {"decision": "decline"}})
    assert session.sent() == [] and "not open" in session.got_json("a")[0]["error"]["message"]


def test_who_comes_later_is_asked_too_and_who_leaves_takes_nothing_along() -> None:
    session = Session()
    Asker(session).starts_turn()
    session.feed(asks(0))
    session.attach("c")
    assert session.got("c")[-1] == asks(0)
    session.detach("c")
    session.attach("d")
    assert session.got("d")[-1] == asks(0) and session.asked_of == {b"0": GATEWAY}


def test_the_service_hears_of_its_questions_and_of_their_end() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(asks(0))
    (question,) = heard(session)
    assert (question.what, question.thread, question.turn, question.about.id) == ("question", "t", "u", b"0")
    session.feed(b'{"method":"serverRequest/resolved","params":{"threadId":"t","requestId":0}}')
    assert [each.what for each in heard(session)] == ["question_over"]


def test_the_gateway_answers_in_time_and_only_what_is_open() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(asks(0))
    session.do(owned.answer(session.core, b"0", "u", ABOUT, {"result": {"decision": "decline"}}))
    assert session.sent_json() == [{"id": 0, "result": {"decision": "decline"}}]
    assert session.told("a")[-1]["client"] == GATEWAY
    with pytest.raises(NotFound):
        owned.answer(session.core, b"0", "u", ABOUT, {"result": {}})
    with pytest.raises(NotFound):
        owned.answer(session.core, b"7", "u", ABOUT, {"result": {}})


def test_a_yes_to_an_older_turns_question_does_not_reach_a_new_one_under_its_id() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(asks(0))
    with pytest.raises(NotFound):
        owned.answer(session.core, b"0", "a turn before the agent died", ABOUT, ACCEPT)
    assert session.sent() == []


def test_a_yes_does_not_reach_another_question_under_the_same_name() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(asks(0))
    for other in (("item/y/requestApproval", ABOUT[1]), (ABOUT[0], ABOUT[1].replace("null", "1"))):
        with pytest.raises(NotFound, match="another question"):
            owned.answer(session.core, b"0", "u", other, ACCEPT)
    assert session.sent() == []


def test_what_no_decision_answers_is_answered_with_an_error() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(asks(0))
    session.do(owned.answer(session.core, b"0", "u", ABOUT, {"error": {"code": -32601, "message": "nobody"}}))
    assert session.sent_json() == [{"id": 0, "error": {"code": -32601, "message": "nobody"}}]


def test_a_turn_found_to_be_the_gateways_puts_its_open_questions_to_all() -> None:
    session = ready()
    session.feed(turn_started(), asks(0))
    assert session.got("b")[-1] != asks(0)
    session.events.clear()
    session.do(owned.own(session.core, "t"))
    assert session.got("b")[-1] == asks(0) and [each.what for each in heard(session)] == ["question_again"]


def test_an_answer_lost_with_the_link_leaves_the_question_to_all() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(asks(0))
    session.says("a", {"id": 0, "result": {"decision": "accept"}})
    session.do(session.core.unlinked("the link broke"))
    session.up(link=2)
    session.do(session.core.initialized(b"{}", [], 0.0))
    assert session.asked_of == {b"0": GATEWAY} and json.loads(session.got("b")[-1])["id"] == 0


def test_a_clients_turn_on_the_same_thread_is_its_own_again() -> None:
    session = ready()
    Asker(session).starts_turn()
    session.feed(turn_completed())
    session.says("b", {"id": 1, "method": "turn/start", "params": {"threadId": "t"}})
    session.feed(turn_started("t", "v"), asks(5, turn="v"))
    assert session.asked_of == {b"5": "b"}


def test_the_service_learns_that_a_question_was_put_away_for_another() -> None:
    session = ready()
    asker = Asker(session)
    asker.starts_turn()
    session.feed(asks(7))
    session.events.clear()
    session.feed(asks(7, method="item/y/requestApproval"))
    assert [(each.what, each.about.method) for each in heard(session)] == [
        ("question_over", "item/x/requestApproval"),
        ("question", "item/y/requestApproval"),
    ]


def test_a_turn_that_was_promised_to_a_client_makes_the_thread_busy_before_it_has_begun() -> None:
    core = Core(1 << 20)
    live = Live("s", core, 30.0, lambda event: None)
    live.perform(core.linked("e", 1, 0, 0, 0))
    live.perform(core.handshake(0.0))
    live.perform(core.initialized(b"{}", [], 0.0))
    core.attach("a", False, None)
    live.perform(core.frame("a", parse(b'{"id":1,"method":"turn/start","params":{"threadId":"t"}}'), 0.0, 30.0))
    (id,) = [id for id, waiting in core.waiting.items() if waiting.method == "turn/start"]
    assert not live.idle("t")
    live.perform(core.feed(b'{"id":%d,"result":{"turn":{"id":"u"}}}\n' % id))
    assert (
        live.busy("t") and not live.idle("t") and live.idle("other")
    )  # a turn/start would steer what is about to begin
    live.perform(core.feed(turn_started("t", "u") + b"\n" + turn_completed("t", "u") + b"\n"))
    assert live.idle("t")
