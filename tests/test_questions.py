"""Server requests: whom they are put to, who may answer, and when they are over."""

from __future__ import annotations

import json
from typing import Any

import pytest
from relay_kit import Session, asks, exited, ids, note, ready, request, turn_completed, turn_started

from app.errors import RPC_INVALID

RESOLVED = b'{"method":"serverRequest/resolved","params":{"threadId":"t","requestId":0}}'


def starts_turn(session: Session, key: str, thread: str = "t", turn: str = "u") -> None:
    """The client starts a turn, which begins."""
    session.says(key, request("start", "turn/start", threadId=thread))
    asked = session.sent_json()[-1]["id"]
    session.feed({"id": asked, "result": {"turn": {"id": turn}}}, turn_started(thread, turn))
    for each in session.inbox:
        session.got(each)


def answers(session: Session, key: str, id: Any = 0) -> None:
    session.says(key, {"id": id, "result": {"decision": "accept"}})


# -- to whom


def test_a_question_goes_to_the_owner_of_the_turn_alone_and_to_the_byte() -> None:
    session = ready()
    starts_turn(session, "b")
    text = b' { "params":{"threadId":"t","turnId":"u","n":1.50} , "id":0,"method":"item/x" }'
    session.feed(text)
    assert session.got("b") == [text] and session.got("a") == []


def test_without_an_owner_it_goes_to_who_attached_first() -> None:
    session = ready()
    session.feed(asks(0))
    assert session.got("a") == [asks(0)] and session.got("b") == []


def test_without_an_owner_it_goes_to_who_started_a_turn_last() -> None:
    session = ready()
    starts_turn(session, "b", "other")
    session.feed(asks(0))
    assert session.got("b") == [asks(0)] and session.got("a") == []


def test_an_owner_that_is_asked_handles_what_has_no_owner_from_then_on() -> None:
    session = ready()
    starts_turn(session, "b")
    starts_turn(session, "a", "other")
    session.feed(asks(0), asks(1, thread="third"))
    assert session.got("b") == [asks(0), asks(1, thread="third")] and session.got("a") == []


def test_a_question_without_a_thread_goes_to_the_handler() -> None:
    session = ready()
    session.feed(b'{"id":0,"method":"account/refresh"}')
    assert session.got("a") == [b'{"id":0,"method":"account/refresh"}']


@pytest.mark.parametrize("params", [{"threadId": 5}, {"threadId": ["t"]}, {"threadId": None}, {"threadId": ""}, {}])
def test_a_turn_start_without_a_proper_thread_makes_no_owner(params: dict[str, Any]) -> None:
    session = ready()
    session.says("b", request(1, "turn/start", **params))
    session.feed(asks(0))
    assert session.core.questions.owners == {} and session.got("a") == [asks(0)]


def test_a_turns_end_ends_its_ownership() -> None:
    session = ready()
    starts_turn(session, "b")
    starts_turn(session, "a", "other")
    session.feed(turn_completed())
    session.got("a")
    session.feed(asks(0, turn="gateways-own"))
    assert session.got("a") == [asks(0, turn="gateways-own")]


@pytest.mark.parametrize("end", ["exited", "lost", "replaced"])
def test_a_turn_that_was_cut_off_has_no_owner_any_more(end: str) -> None:
    session = ready()
    starts_turn(session, "b")
    if end == "exited":
        session.feed(exited())
    elif end == "lost":
        session.do(session.core.lost("gone", "restarting"))
    else:
        session.up("another epoch")
    assert session.core.questions.owners == {}


def test_the_next_turn_that_was_asked_for_before_the_last_one_ended_keeps_its_owner() -> None:
    session = ready()
    starts_turn(session, "a")
    session.says("b", request("next", "turn/start", threadId="t"))
    starts_turn(session, "a", "other")
    session.feed(turn_completed(), turn_started("t", "v"), asks(0, turn="v"))
    assert session.core.questions.owners["t"] == "b" and session.got("b")[-1] == asks(0, turn="v")


def test_the_owner_is_reported_when_its_turn_is_answered() -> None:
    session = ready()
    starts_turn(session, "a")
    starts_turn(session, "a")
    starts_turn(session, "b")
    told = [event.value for event in session.events if event.name == "owner"]
    assert list(dict.fromkeys(told)) == [("t", "a"), ("t", "b")]


# -- who may answer


def test_only_the_addressee_may_answer_and_only_once() -> None:
    session = ready()
    session.feed(asks(0))
    answers(session, "b")
    assert session.codes("b") == [(None, RPC_INVALID)] and session.sent() == []
    session.got("a")
    answers(session, "a")
    assert session.sent_json() == [{"id": 0, "result": {"decision": "accept"}}]
    answers(session, "a")
    answers(session, "b")
    assert session.codes("a") == session.codes("b") == [(None, RPC_INVALID)] and session.sent() == []


@pytest.mark.parametrize(
    ("asked", "answered"),
    [(b"0", b'"0"'), (b'"0"', b"0"), (b"0", b"null"), (b"0", b"-0"), (b"0", b"0.0"), (b"1", b"true"), (b"0", b"1")],
)
def test_an_answer_must_bear_the_id_with_its_type(asked: bytes, answered: bytes) -> None:
    session = ready()
    session.feed(b'{"id":%s,"method":"m"}' % asked)
    session.got("a")
    session.says("a", b'{"id":%s,"result":1}' % answered)
    assert session.codes("a") == [(None, RPC_INVALID)] and session.sent() == []
    session.says("a", b'{"id":%s,"result":1}' % asked)
    assert session.sent() == [b'{"id":%s,"result":1}' % asked]


def test_questions_whose_ids_differ_only_in_type_are_two() -> None:
    session = ready()
    session.feed(asks(0), asks("0"))
    answers(session, "a", "0")
    assert list(session.asked_of) == [b"0"] and session.sent_json()[0]["id"] == "0"


def test_an_answer_is_passed_on_to_the_byte() -> None:
    session = ready()
    session.feed(asks(0))
    session.says("a", b'{"result":{"n":1.50 ,"s":"\\u00e9"},"id":0,"x":[1, 2]}')
    assert session.sent() == [b'{"result":{"n":1.50 ,"s":"\\u00e9"},"id":0,"x":[1, 2]}']


def test_an_error_is_an_answer_too() -> None:
    session = ready()
    session.feed(asks(0))
    session.says("a", {"error": {"code": 1, "message": "no"}, "id": 0})
    assert ids(session.sent_json()) == [0] and not session.asked_of


# -- when nobody is there, and when somebody leaves or comes


def test_a_question_that_nobody_can_be_asked_is_kept_for_the_first_that_attaches() -> None:
    session = Session()
    session.feed(asks(0), asks("q"))
    assert session.asked_of == {b"0": None, b'"q"': None}
    session.attach("a")
    assert session.got("a") == [asks(0), asks("q")]
    session.attach("b")
    assert session.got("b") == []
    answers(session, "b")
    answers(session, "a")
    assert session.codes("b") == [(None, RPC_INVALID)] and ids(session.sent_json()) == [0]


def test_open_questions_come_behind_the_frames_that_were_missed() -> None:
    session = Session()
    session.feed(note("x"), asks(0), note("y"))
    session.attach("a")
    assert session.got("a") == [note("x"), note("y"), asks(0)]


def test_when_the_asked_client_leaves_its_questions_go_to_another() -> None:
    session = ready()
    starts_turn(session, "a")
    session.feed(asks(0), asks(1, thread="s"))
    session.detach("a")
    assert session.got("b") == [asks(0), asks(1, thread="s")]
    answers(session, "b")
    assert ids(session.sent_json()) == [0]


def test_when_the_owner_returns_under_its_key_it_is_asked_again_and_the_other_is_told() -> None:
    session = ready()
    starts_turn(session, "a")
    session.feed(asks(0), asks(1, thread="s"))
    session.detach("a")
    session.got("b")
    session.attach("a")
    assert session.got("a") == [asks(0)] and session.got("b") == [RESOLVED]
    assert session.asked_of == {b"0": "a", b"1": "b"}
    answers(session, "b")
    assert session.codes("b") == [(None, RPC_INVALID)]


def test_a_client_under_a_new_key_does_not_take_a_question_from_who_was_asked() -> None:
    session = ready()
    session.feed(asks(0))
    session.attach("c")
    assert session.got("c") == [] and session.asked_of == {b"0": "a"}


def test_when_all_leave_questions_wait_and_turns_stay_their_owners() -> None:
    session = ready()
    starts_turn(session, "b")
    session.feed(asks(0))
    session.detach("b")
    session.detach("a")
    assert session.asked_of == {b"0": None}
    session.attach("a")
    assert session.got("a") == [asks(0)]
    session.attach("b")
    assert session.got("b") == [asks(0)] and session.got("a") == [RESOLVED]


def test_a_question_that_moves_is_settled_under_its_id_to_the_byte() -> None:
    session = ready()
    starts_turn(session, "a")
    session.feed(b'{"id":"\\u0071\\/1e400","method":"m","params":{"threadId":"t"}}')
    session.detach("a")
    session.got("b")
    session.attach("a")
    assert session.got("b")[0].endswith(b'"requestId":"\\u0071\\/1e400"}}')


def test_a_question_that_is_asked_once_more_is_not_put_twice() -> None:
    session = ready()
    session.feed(asks(0))
    session.feed(asks(0))
    assert session.got("a") == [asks(0)]
    answers(session, "a")
    session.feed(asks(0))  # after the answer it is a new one
    assert session.got("a") == [asks(0)]


# -- when it is over


@pytest.mark.parametrize(
    "over",
    [turn_completed(), note("serverRequest/resolved", threadId="t", requestId=0), exited()],
    ids=["turn", "resolved", "exit"],
)
def test_a_question_that_is_over_cannot_be_answered_and_is_put_to_nobody(over: bytes) -> None:
    session = ready()
    session.feed(asks(0), over)
    session.got("a")
    answers(session, "a")
    assert session.codes("a") == [(None, RPC_INVALID)] and session.sent() == []
    session.detach("a")
    assert asks(0) not in session.got("b")
    session.attach("c")
    assert asks(0) not in session.got("c")


def test_an_interrupted_turn_resolves_its_question_after_its_end() -> None:
    session = ready()
    starts_turn(session, "a")
    last = note("serverRequest/resolved", threadId="t", requestId=0)
    session.feed(asks(0), turn_completed(), last)
    assert session.got("a") == [asks(0), turn_completed(), last] and session.got("b") == [turn_completed(), last]
    session.feed(asks(0, turn="v"))  # Codex counts its questions from 0 again
    answers(session, "a")
    assert ids(session.sent_json()) == [0]


@pytest.mark.parametrize("end", ["exited", "lost", "replaced"])
def test_when_the_agent_is_gone_all_are_told_that_questions_are_settled(end: str) -> None:
    session = ready()
    session.feed(asks(0))
    session.got("a")
    if end == "exited":
        session.feed(exited())
    elif end == "lost":
        session.do(session.core.lost("gone", "restarting"))
    else:
        session.up("another epoch")
    for key in ("a", "b"):
        runtime, settled = session.got(key)
        assert json.loads(runtime)["method"] == "argus/runtime" and settled == RESOLVED
    assert not session.asked_of


def test_a_question_survives_a_broken_link_but_is_not_answered_into_the_void() -> None:
    session = ready()
    session.feed(asks(0))
    session.do(session.core.unlinked("broke"))
    session.got("a")
    answers(session, "a")
    assert len(session.codes("a")) == 1 and session.asked_of == {b"0": "a"}
    session.up(link=2)
    session.shake()
    answers(session, "a")
    assert ids(session.sent_json()) == [0] and not session.asked_of


def test_an_answer_that_was_lost_with_the_link_is_asked_for_again() -> None:
    session = ready()
    session.feed(asks(0))
    answers(session, "a")
    assert not session.asked_of
    session.do(session.core.unlinked("broke"))
    session.got("a")
    session.up(link=2, seq=session.core.fold.seq)
    session.do(session.core.initialized(b"{}", [], 0.0))
    assert session.got("a") == [asks(0)]


def test_a_string_id_may_come_back_escaped_in_another_way() -> None:
    session = ready()
    session.feed(asks("caf\u00e9/1"))
    session.says("a", b'{"id":"caf\\u00e9\\/1","result":{}}')
    assert session.sent_json()[0]["id"] == "caf\u00e9/1" and not session.asked_of


def test_a_stop_does_not_stand_in_line_behind_requests_that_hang() -> None:
    session = ready()
    for n in range(100):
        session.says("a", b'{"id":%d,"method":"hangs","params":{}}' % n)
    session.sent()
    session.says("a", b'{"id":"stop","method":"turn/interrupt","params":{"threadId":"t","turnId":"u"}}')
    assert [m["method"] for m in session.sent_json()] == ["turn/interrupt"]
