"""What clients are told of the questions that are not theirs, and how they make one their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from relay_kit import Session, asks, exited, note, ready, request, turn_completed, turn_started

from app.errors import RPC_INVALID, NotFound
from app.relay.fold import MAX_QUESTIONS

SETTLED = b'{"method":"serverRequest/resolved","params":{"threadId":"t","requestId":0}}'
PARAMS = {"threadId": "t", "turnId": "u", "reason": None}
ABOUT = {"id": 0, "method": "item/x/requestApproval", "threadId": "t", "turnId": "u", "itemId": None}


def news(state: str, client: str | None, **more: Any) -> dict[str, Any]:
    return {**ABOUT, "state": state, "client": client, **more}


def opened(client: str) -> dict[str, Any]:
    return news("open", client, params=PARAMS)


def takes(session: Session, key: str, id: bytes = b"0") -> None:
    session.do(session.core.take(key, id))


def accepts(session: Session, key: str, **result: Any) -> None:
    session.says(key, {"id": 0, "result": {"decision": "accept", **result}})


# -- who is told what


def test_all_but_the_addressee_are_told_of_an_open_question_with_its_params_to_the_byte() -> None:
    session = ready()
    session.attach("c")
    text = b'{ "id" : 0, "method":"m", "params" : {"threadId":"t","turnId":"u","itemId":"i","n":1.50 ,"s":"\\u00e9"} }'
    session.feed(text)
    told = b'"client":"a","params":{"threadId":"t","turnId":"u","itemId":"i","n":1.50 ,"s":"\\u00e9"}}}'
    assert session.inbox["a"] == [text] and session.inbox["b"] == session.inbox["c"]
    assert session.inbox["b"][0].endswith(told) and session.told("b")[0]["itemId"] == "i"


@pytest.mark.parametrize("more", [b"", b',"params":null', b',"params":[1]', b',"params":{"threadId":5,"itemId":7}'])
def test_a_question_without_proper_params_is_told_of_too(more: bytes) -> None:
    session = ready()
    session.feed(b'{"id":"q","method":"m"%s}' % more)
    (told,) = session.told("b")
    assert told["params"] == json.loads(b"{%s}" % more[1:]).get("params")
    assert (told["id"], told["threadId"], told["turnId"], told["client"]) == ("q", None, None, "a")


def test_all_are_told_of_the_answer_the_addressee_too() -> None:
    session = ready()
    session.feed(asks(0))
    session.told("b")
    accepts(session, "a")
    assert session.told("a") == session.told("b") == [news("answered", "a", decision="accept")]


@pytest.mark.parametrize(
    ("body", "decision"),
    [
        ({"result": {"decision": {"acceptWith": ["x"]}}}, {"acceptWith": ["x"]}),
        ({"result": {}}, None),
        ({"result": "yes"}, None),
        ({"error": {"code": 1, "message": "no"}}, None),
    ],
)
def test_an_answers_decision_is_told_as_it_is_or_as_null(body: dict[str, Any], decision: Any) -> None:
    session = ready()
    session.feed(asks(0))
    session.says("a", {"id": 0, **body})
    assert session.told("a") == [news("answered", "a", decision=decision)]


OVER = {
    "turn": turn_completed(),
    "resolved": note("serverRequest/resolved", threadId="t", requestId=0),
    "exit": exited(),
}


@pytest.mark.parametrize("over", OVER.values(), ids=OVER)
def test_all_are_told_that_a_question_closed_unanswered(over: bytes) -> None:
    session = ready()
    session.feed(asks(0), over)
    assert session.told("a") == [news("closed", "a")]
    assert session.told("b") == [opened("a"), news("closed", "a")]


@pytest.mark.parametrize("over", OVER.values(), ids=OVER)
def test_of_an_answered_question_no_end_is_told(over: bytes) -> None:
    session = ready()
    session.feed(asks(0))
    accepts(session, "a")
    session.told("b")
    session.feed(over)
    assert session.told("b") == []


@pytest.mark.parametrize("end", ["lost", "replaced", "gap"])
def test_a_question_closes_with_the_runtime_or_the_lines_that_were_lost(end: str) -> None:
    session = ready()
    session.feed(asks(0))
    session.told("b")
    if end == "lost":
        session.do(session.core.lost("gone", "restarting"))
    elif end == "replaced":
        session.up("another epoch")
    else:
        session.up(link=2, seq=session.core.fold.seq + 5)
    assert session.told("a") == session.told("b") == [news("closed", "a")]


def test_the_next_life_may_use_the_id_of_a_dead_ones_question() -> None:
    session = ready()
    session.feed(asks(0))
    accepts(session, "a")
    session.feed(exited(), note("bridge/started", life=2), asks(0, turn="v"))
    *_, told = session.told("b")
    assert (told["state"], told["turnId"]) == ("open", "v") and session.asked_of == {b"0": "a"}


def test_another_question_under_an_open_ones_id_is_told_as_a_new_one() -> None:
    session = ready()
    session.feed(asks(0))
    session.feed(asks(0, turn="v"))
    assert session.got("a") == [asks(0), SETTLED, asks(0, turn="v")]
    assert [(n["state"], n["turnId"]) for n in session.told("b")] == [("open", "u"), ("closed", "u"), ("open", "v")]


def test_an_answered_question_whose_id_is_used_again_for_another_is_asked_in_the_new_words() -> None:
    session = ready()
    session.feed(asks(0))
    accepts(session, "a")
    session.feed(asks(0, turn="v"))
    assert session.got("a") == [asks(0), asks(0, turn="v")]


def test_questions_beyond_the_bound_are_closed_for_all() -> None:
    session = ready()
    session.feed(*(asks(n) for n in range(MAX_QUESTIONS + 1)))
    assert session.got("a")[-2:] == [SETTLED, asks(MAX_QUESTIONS)]
    assert session.told("b")[-2:] == [news("closed", "a"), {**opened("a"), "id": MAX_QUESTIONS}]


def test_an_answer_that_was_lost_with_the_link_opens_the_question_again_for_all() -> None:
    session = ready()
    session.feed(asks(0))
    accepts(session, "a")
    session.do(session.core.unlinked("broke"))
    session.told("b")
    session.up(link=2)
    session.shake()
    assert session.told("b") == [opened("a")]


# -- who comes and goes


def test_who_attaches_learns_behind_the_replay_of_each_open_question_of_others() -> None:
    session = ready()
    session.feed(note("x"), asks(0))
    session.attach("c", cursor="e:0")
    assert session.inbox["c"][0] == note("x") and session.told("c") == [opened("a")]
    accepts(session, "a")
    session.attach("d")
    assert session.told("d") == []


def test_when_a_question_moves_the_others_are_told_whose_it_is_now() -> None:
    session = ready()
    session.attach("c")
    session.feed(asks(0))
    for key in "bc":
        session.told(key)
    session.detach("a")
    assert session.got("b") == [asks(0)] and session.told("b") == []
    assert session.told("c") == [opened("b")]


# -- taking one over


def test_who_takes_a_question_is_asked_and_the_others_are_told() -> None:
    session = ready()
    session.attach("c")
    session.feed(asks(0))
    for key in "abc":
        session.got_all(key)
    takes(session, "b")
    assert session.got_all("b") == [asks(0)]
    first, second = session.got_all("a")
    assert first == SETTLED and json.loads(second)["params"] == opened("b") == session.told("c")[0]
    accepts(session, "a")
    assert session.codes("a") == [(None, RPC_INVALID)] and session.sent() == []
    accepts(session, "b")
    assert len(session.sent()) == 1 and session.told("a") == [news("answered", "b", decision="accept")]


def test_who_has_a_question_already_may_take_it_and_is_not_asked_twice() -> None:
    session = ready()
    session.feed(asks(0))
    takes(session, "a")
    assert session.got("a") == [asks(0)] and len(session.told("b")) == 1


def test_a_taken_question_stays_taken_when_its_owner_or_others_come_and_go() -> None:
    session = ready()
    session.says("a", request(1, "turn/start", threadId="t"))
    session.feed(turn_started(), asks(0))
    takes(session, "b")
    session.detach("a")
    session.attach("a")
    session.attach("c")
    assert session.asked_of == {b"0": "b"}
    session.detach("b")
    assert session.asked_of == {b"0": "a"}


def test_a_taken_question_is_asked_again_of_who_took_it() -> None:
    session = ready()
    session.feed(asks(0))
    takes(session, "b")
    accepts(session, "b")
    session.do(session.core.unlinked("broke"))
    session.up(link=2)
    session.shake()
    assert session.asked_of == {b"0": "b"}


@pytest.mark.parametrize("id", [b"1", b'"0"', b"null", b"-0"])
def test_only_an_open_question_can_be_taken(id: bytes) -> None:
    session = ready()
    session.feed(asks(0))
    with pytest.raises(NotFound):
        takes(session, "b", id)
    accepts(session, "a")
    with pytest.raises(NotFound):
        takes(session, "b")


def test_a_string_id_is_taken_however_it_is_escaped() -> None:
    session = ready()
    session.feed(b'{"id":"caf\\u00e9\\/1","method":"m"}')
    takes(session, "b", b'"caf\xc3\xa9/1"')
    assert list(session.asked_of.values()) == ["b"]
