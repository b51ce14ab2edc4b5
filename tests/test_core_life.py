"""What happens to requests and turns when the link, the agent or the runtime goes, and when it is back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_kit import HELLO, STEADY, Session, asks, exited, ids, note, ready, request, turn_completed, turn_started

from app.errors import RPC_UNAVAILABLE
from app.relay.core import MAX_IN_FLIGHT
from app.relay.fold import LINK_IDS, PLAIN_BASE, Event

# -- the end of a link, a life, a runtime


def test_what_was_in_flight_when_the_link_goes_is_answered_and_what_waits_goes_over_the_next() -> None:
    session = ready()
    for n in range(MAX_IN_FLIGHT + 1):
        session.says("a", request(n))
    session.sent()
    session.do(session.core.unlinked("the link broke"))
    assert session.codes("a") == [(n, RPC_UNAVAILABLE) for n in range(MAX_IN_FLIGHT)]
    session.says("b", request("later"))
    session.says("b", {"method": "note"})
    assert session.codes("b") == [(None, RPC_UNAVAILABLE)] and session.sent() == []
    session.up(link=2)
    assert session.sent() == []
    session.do(session.core.initialized(HELLO, [], 0.0))
    assert ids(session.sent_json()[1:]) == [2 * LINK_IDS + 1, 2 * LINK_IDS + 2]
    session.answer(1)
    assert ids(session.got_json("a")) == [64] and session.got("b") == []


def test_a_death_answers_what_was_in_flight_and_a_new_life_takes_what_waits() -> None:
    session = ready()
    session.says("a", request(1))
    session.feed(exited())
    _, error = session.got_json("a")
    assert (error["id"], error["error"]["code"]) == (1, RPC_UNAVAILABLE) and session.events[-1].name == "exited"
    session.says("a", request(2))
    session.sent()
    session.feed(note("bridge/started", life=2))
    assert session.events[-1] == Event("started", 2) and session.sent() == []
    session.do(session.core.handshake(0.0))
    session.do(session.core.initialized(HELLO, [], 0.0))
    assert [each.get("id") for each in session.sent_json()] == [LINK_IDS, None, LINK_IDS + 2]


def test_when_the_agent_keeps_ending_all_who_wait_are_told_until_it_starts_again() -> None:
    session = ready()
    session.core.blocked = True
    session.says("a", request(1))
    session.feed(exited("failed"))
    session.says("a", request(2))
    session.says("a", request(3, "initialize"))
    errors = [each["error"]["code"] for each in session.got_json("a") if "error" in each]
    assert errors == [RPC_UNAVAILABLE] * 3 and session.core.queued_bytes == 0
    session.feed(note("bridge/started", life=9))
    session.says("a", request(4))
    assert session.got("a") == []


def test_what_is_asked_after_a_new_link_waits_for_the_handshake_instead_of_being_refused() -> None:
    session = ready()
    session.core.blocked = True
    session.do(session.core.lost("gone", "failed"))
    session.says("a", request(1))
    assert [each.get("id") for each in session.got_json("a")] == [None, 1]
    session.up(link=2)
    session.says("a", request(2))
    assert session.got("a") == []
    session.shake()
    session.answer(1)
    assert ids(session.got_json("a")) == [2]


def test_the_handshake_on_a_plain_link_is_found_like_any_other() -> None:
    session = Session(ready=False)
    session.up(link=None)
    session.do(session.core.handshake(0.0))
    session.feed(b'{"id":%d,"result":%s}' % (PLAIN_BASE, HELLO))
    assert session.core.fold.handshake == HELLO and session.events == [Event("initialized", HELLO)]
    session.do(session.core.unlinked("gone"))
    session.up(link=1)
    session.feed(b'{"id":%d,"result":"not one"}' % PLAIN_BASE)
    assert session.core.fold.handshake == HELLO


@pytest.mark.parametrize("end", ["exited", "lost", "replaced"])
def test_open_turns_end_as_interrupted_with_their_own_ids(end: str) -> None:
    session = ready()
    session.feed(turn_started("t1", "u1"), turn_started("t2", "u2"), turn_completed("t1", "u1"))
    session.got("a")
    if end == "exited":
        session.feed(exited())
    elif end == "lost":
        session.do(session.core.lost("gone", "restarting"))
    else:
        session.up("another epoch")
    runtime, ended = session.got_json("a")
    assert runtime["method"] == "argus/runtime" and set(runtime["params"]) >= {"state", "reason"}
    turn = ended["params"]["turn"]
    assert (ended["method"], ended["params"]["threadId"]) == ("turn/completed", "t2")
    assert (turn["id"], turn["status"], turn["items"]) == ("u2", "interrupted", [])
    session.do(session.core.lost("again", "restarting"))
    assert [each["method"] for each in session.got_json("a")] == ["argus/runtime"]


# -- threads are resumed before clients go on


def test_threads_are_resumed_before_anything_of_a_client_is_sent() -> None:
    session = Session(ready=False)
    session.up()
    session.attach("a")
    session.says("a", request(1, "first"))
    session.do(session.core.handshake(0.0))
    session.do(session.core.initialized(HELLO, ["t1", "t2"], 0.0))
    sent = session.sent_json()[2:]
    assert [each["params"] for each in sent] == [{"threadId": t, "excludeTurns": True} for t in ("t1", "t2")]
    session.says("a", request(2, "second"))
    session.answer(1)
    assert session.sent() == []
    session.answer(2, b'"error":{"code":1,"message":"no such thread"}')
    assert [each["method"] for each in session.sent_json()] == ["first", "second"]
    assert session.got("a") == [] and session.core.queued_bytes == 0


def test_a_resume_that_is_not_answered_does_not_hold_clients_up_for_ever() -> None:
    session = ready()
    session.do(session.core.initialized(HELLO, ["t"], 0.0))
    session.says("a", request(1))
    session.sent()
    session.expire(15.0)
    assert [each["method"] for each in session.sent_json()] == ["m"] and session.got("a") == []
    session.core.blocked = True
    session.do(session.core.initialized(HELLO, ["t", "s"], 20.0))
    session.expire(40.0)
    assert not session.core.queue and session.core.queued_bytes == 0


@pytest.mark.parametrize(("body", "known"), [(b'"result":{}', True), (b'"error":{"code":1,"message":"?"}', False)])
def test_a_thread_that_a_client_resumed_is_known_if_it_exists(body: bytes, known: bool) -> None:
    session = ready()
    session.says("a", request(1, "thread/resume", threadId="t"))
    session.answer(1, body)
    assert ("t" in session.core.fold.threads) is known and (Event("thread", "t") in session.events) is known
    assert len(session.got("a")) == 1


LINES = [asks(0), asks("q"), turn_started(), turn_completed(), exited(), note("bridge/started", life=2), b"noise"]
LINES += [note("serverRequest/resolved", threadId="t", requestId=0), note("thread/started", thread={"id": "t"})]
LINES += [b'{"id":%d,"result":{"a":"\\u00e9"}}' % (LINK_IDS + n) for n in (0, 1, 2)]


@settings(STEADY, max_examples=300)
@given(
    st.sampled_from(LINES),
    st.data(),
    st.binary(min_size=1, max_size=4) | st.sampled_from([b"\\", b'"', b"null", b"\n"]),
)
def test_no_bytes_of_an_agent_break_the_relay_or_what_its_clients_read(text: bytes, data: Any, noise: bytes) -> None:
    session = ready(with_seq=True)
    session.says("a", request(1, "thread/resume", threadId="t"))
    session.do(session.core.handshake(0.0))
    place, cut = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 3))
    session.feed(turn_started("s", "w"), asks(7, "s"), text[:place] + noise + text[place + cut :], exited())
    for frame in session.got("a") + session.got("b"):
        frame.decode()  # a text frame must be valid UTF-8
    session.attach("c", cursor="e:0", with_seq=True)
    assert not session.core.waiting and not session.asked_of and not session.core.fold.turns


def test_the_words_for_clients_are_valid_json_whatever_the_agent_said() -> None:
    session = ready()
    session.feed(exited(reason='quote " and \\ and \ud83e', stderr="é\n\x1b[31m boom\x00"))
    (runtime,) = map(json.loads, session.got("a"))
    assert runtime["params"]["state"] == "restarting"
