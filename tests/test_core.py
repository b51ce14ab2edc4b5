"""Requests and their answers, the handshake, the window of requests in flight, deadlines."""

from __future__ import annotations

from typing import Any

import pytest
from relay_kit import HELLO, Session, ids, line, note, ready, request

from app.errors import RPC_DEADLINE, RPC_INVALID, RPC_OVERLOADED, RPC_UNAVAILABLE
from app.relay import core as core_module
from app.relay.adapt import Traits
from app.relay.core import HANDSHAKE, INITIALIZED, MAX_IN_FLIGHT, MAX_QUEUE
from app.relay.fold import LINK_IDS, PLAIN_BASE, Event

# -- notifications and answers


def test_a_notification_reaches_every_client_to_the_byte() -> None:
    session = ready()
    text = ' { "method":"x" , "params":{"n":1.50,"s":"\\u00e9é"} }'.encode()
    session.feed(text, b"noise")
    assert session.got("a") == session.got("b") == [text, b"noise"]


@pytest.mark.parametrize(
    "id",
    [b"0", b"-7", b"1.50", b"1e3", b"null", b"true", b'"0"', b'"a\\u0062\\"\\/"', '"漢"'.encode()]
    + [b"123456789012345678901234567890", b'""', b'"' + b"x" * 500 + b'"'],
)
@pytest.mark.parametrize("body", [b'"result":{"x":1.0}', b'"result":null', b'"error":{"code":-1,"message":"no"}'])
def test_an_answer_goes_to_who_asked_under_the_id_it_used(id: bytes, body: bytes) -> None:
    session = ready()
    session.says("a", b'{"id":%s,"method":"m"}' % id)
    assert session.sent() == [b'{"id":%d,"method":"m"}' % (LINK_IDS + 1)]
    session.answer(1, body)
    assert session.got("a") == [b'{"id":%s,%s}' % (id, body)] and session.got("b") == []


def test_the_order_of_an_answers_parts_does_not_matter_and_stays() -> None:
    session = ready()
    session.says("a", request("mine"))
    session.feed(b'{"error":{"code":1,"message":"x"},"more":[1, 2.0],"id":%d}' % (LINK_IDS + 1))
    assert session.got("a") == [b'{"error":{"code":1,"message":"x"},"more":[1, 2.0],"id":"mine"}']


def test_clients_may_use_the_same_id() -> None:
    session = ready()
    session.says("a", request(1, "first"))
    session.says("b", request(1, "second"))
    one, two = ids(session.sent_json())
    session.feed(b'{"id":%d,"result":"b"}' % two, b'{"id":%d,"result":"a"}' % one)
    assert session.got_json("a") == [{"id": 1, "result": "a"}] and session.got_json("b") == [{"id": 1, "result": "b"}]


def test_a_request_keeps_all_but_its_id_to_the_byte() -> None:
    session = ready()
    session.says("a", '{"trace":1.50,"method":"m", "id":"x","params":{"b":"\\u00e9é" , "a":1e2}}'.encode())
    params = '{"b":"\\u00e9é" , "a":1e2}'.encode()
    assert session.sent() == [b'{"trace":1.50,"method":"m","id":%d,"params":%s}' % (LINK_IDS + 1, params)]


def test_an_answer_comes_once_and_a_second_one_goes_nowhere() -> None:
    session = ready()
    session.says("a", request(1))
    session.answer(1)
    session.got("a")
    session.answer(1)
    assert session.got("a") == session.got("b") == []


@pytest.mark.parametrize("id", [5, -1, LINK_IDS + 2, 7 * LINK_IDS + 1, "x", None, 1.5, 10**400])
def test_an_answer_that_nobody_waits_for_reaches_nobody(id: Any) -> None:
    session = ready()
    session.says("a", request(1))
    session.feed({"id": id, "result": {}}, b'{"id":%s,"result":1}' % (b"9" * 5000))
    assert session.got("a") == session.got("b") == []
    session.answer(1)
    assert len(session.got("a")) == 1


@pytest.mark.parametrize("start", range(700, 1020, 40))
def test_an_answer_that_nests_without_end_is_an_answer_or_noise_but_never_a_crash(start: int) -> None:
    session = ready()
    for depth in range(start, start + 40):  # the interpreter's limit lies somewhere here
        deep = b"[" * depth + b"]" * depth
        session.says("a", request(depth))
        session.answer(depth - start + 1, b'"result":' + deep)
        session.feed(b'{"method":"turn/started","params":{"threadId":"t","x":%s}}' % deep)
        assert len(session.got("a")) == 2


def test_the_answer_of_a_client_that_left_is_dropped_even_if_its_key_comes_back() -> None:
    session = ready()
    session.says("a", request(1))
    session.detach("a")
    session.attach("a")
    session.answer(1)
    assert session.got("a") == session.got("b") == []


def test_ids_begin_anew_on_each_link_and_on_a_plain_one_at_a_thousand_million() -> None:
    session = ready()
    for link, base in ((3, 3 * LINK_IDS), (None, PLAIN_BASE)):
        session.do(session.core.unlinked("gone"))
        session.up(link=link)
        assert session.core.handshake(0.0).upstream == [HANDSHAKE % base]
        session.do(session.core.initialized(HELLO, [], 0.0))
        session.sent()
        session.says("a", request(1))
        assert ids(session.sent_json()) == [base + 1] and base + 1 < 2**53


def test_a_clients_notification_is_passed_on_to_the_byte() -> None:
    session = ready()
    session.says("a", b'{"method":"m" , "params":{"x":1.50}}')
    assert session.sent() == [b'{"method":"m","params":{"x":1.50}}']


@pytest.mark.parametrize("method", ["bridge/restart", "bridge/attach", "bridge/"])
def test_methods_of_the_bridge_are_refused(method: str) -> None:
    session = ready()
    session.says("a", {"method": method})
    session.says("a", request(3, method))
    session.says("a", b'{"met\\u0068od":%s}' % line(method))
    assert session.codes("a") == [(None, RPC_INVALID), (3, RPC_INVALID), (None, RPC_INVALID)] and session.sent() == []


def test_initialized_is_swallowed_but_a_request_of_that_name_gets_an_answer() -> None:
    session = ready()
    session.says("a", {"method": "initialized"})
    session.says("a", {"method": "initialized", "params": {}})
    assert session.sent() == [] and session.got("a") == []
    session.says("a", request(4, "initialized"))
    session.answer(1, b'"error":{"code":-32600,"message":"no"}')
    assert session.codes("a") == [(4, -32600)]


def test_what_is_changed_in_params_leaves_the_rest_of_them_to_the_byte() -> None:
    session = ready(traits=Traits(contained=True, workspace="/w"))
    session.says("a", b'{"id":1,"method":"thread/start","params":{"n":1e2,"cwd":"/workspace","sandbox":"read-only"}}')
    (sent,) = session.sent()
    assert sent.endswith(b'"params":{"n":1e2,"cwd":"/w","sandbox":"danger-full-access"}}')


# -- initialize


def test_a_client_that_initializes_early_waits_for_the_handshake() -> None:
    session = Session(ready=False)
    session.up()
    session.attach("a")
    session.says("a", request("i", "initialize"))
    session.says("a", request("q"))
    session.do(session.core.handshake(0.0))
    assert session.got("a") == [] and session.sent() == [(HANDSHAKE % LINK_IDS)[:-1]]
    session.feed(b'{"id":%d,"result":%s}' % (LINK_IDS, HELLO))
    assert session.events[-1] == Event("initialized", HELLO)
    session.do(session.core.initialized(HELLO, [], 0.0))
    assert session.got("a") == [b'{"id":"i","result":%s}' % HELLO]
    assert session.sent() == [INITIALIZED[:-1], b'{"id":%d,"method":"m","params":{}}' % (LINK_IDS + 1)]
    session.says("a", request(None, "initialize"))
    assert session.got("a") == [b'{"id":null,"result":%s}' % HELLO] and session.sent() == []


def test_a_client_that_left_while_it_waited_for_the_handshake_is_not_answered_when_it_is_back() -> None:
    session = Session(ready=False)
    session.up()
    session.attach("a")
    session.says("a", request("i", "initialize"))
    session.detach("a")
    session.attach("a")
    session.shake()
    assert session.got("a") == []


def test_initialize_without_an_id_is_no_request() -> None:
    session = ready()
    session.says("a", {"method": "initialize", "params": {}})
    assert session.got("a") == [] and session.sent() == []


@pytest.mark.parametrize("body", [b'"error":{"code":-1,"message":"Already initialized"}', b'"error":null', b'"x":1'])
def test_a_handshake_that_is_refused_is_said(body: bytes) -> None:
    session = Session(ready=False)
    session.up()
    session.do(session.core.handshake(0.0))
    session.feed(b'{"id":%d,%s}' % (LINK_IDS, body))
    assert [event.name for event in session.events] == ["handshake_failed"] and session.core.fold.handshake is None


def test_a_handshake_that_is_not_answered_fails_in_time() -> None:
    session = Session(ready=False)
    session.up()
    session.do(session.core.handshake(100.0))
    session.expire(129.9)
    assert session.events == []
    session.expire(130.0)
    assert [event.name for event in session.events] == ["handshake_failed"]
    session.feed(b'{"id":%d,"result":{}}' % LINK_IDS)
    assert [event.name for event in session.events] == ["handshake_failed"]


def test_clients_that_wait_for_a_handshake_are_told_when_the_runtime_is_lost() -> None:
    session = Session(ready=False)
    session.up()
    session.attach("a")
    session.says("a", request("i", "initialize"))
    session.do(session.core.lost("it broke", "failed"))
    session.says("a", request("j", "initialize"))
    runtime, *errors = session.got_json("a")
    assert runtime["method"] == "argus/runtime"
    assert [(e["id"], e["error"]["code"]) for e in errors] == [("i", RPC_UNAVAILABLE), ("j", RPC_UNAVAILABLE)]


def test_a_handshake_of_a_former_link_is_found_in_what_the_bridge_kept() -> None:
    session = Session(ready=False)
    session.up(link=9)
    session.feed(note("bridge/started", life=1), b'{"id":%d,"result":{"old":1.0}}' % (4 * LINK_IDS))
    assert session.core.fold.handshake == b'{"old":1.0}' and session.events == [Event("started", 1)]
    session.attach("a")
    session.says("a", request("i", "initialize"))
    assert session.got("a") == []  # not before the gateway has taken it up
    session.do(session.core.initialized(session.core.fold.handshake, [], 0.0))
    assert session.got("a") == [b'{"id":"i","result":{"old":1.0}}']


# -- the window


def test_no_more_than_64_requests_are_in_flight_and_the_rest_follow_in_order() -> None:
    session = ready()
    for n in range(MAX_IN_FLIGHT + 3):
        session.says("ab"[n % 2], request(n, f"m{n}"))
    first = session.sent_json()
    assert ids(first) == [LINK_IDS + 1 + n for n in range(MAX_IN_FLIGHT)] and MAX_IN_FLIGHT == 64
    session.answer(64)
    session.answer(5)
    assert [each["method"] for each in session.sent_json()] == ["m64", "m65"]
    session.expire(60.0)
    assert session.sent() == []  # the last was due as well
    assert len(session.core.waiting) == len(session.core.queue) == 0


def test_requests_wait_while_the_link_takes_nothing() -> None:
    session = ready()
    session.core.blocked = True
    session.says("a", request(1))
    session.answer(1)
    assert session.sent() == []
    session.do(session.core.drained())
    assert ids(session.sent_json()) == [LINK_IDS + 1] and not session.core.blocked


def test_a_notification_or_an_answer_that_the_link_cannot_take_is_refused_in_words() -> None:
    session = ready()
    session.feed({"id": 0, "method": "q", "params": {}})
    session.got("a")
    session.core.blocked = True
    session.says("a", {"method": "m"})
    session.says("a", {"id": 0, "result": {}})
    assert session.codes("a") == [(None, RPC_UNAVAILABLE)] * 2 and session.sent() == []
    session.do(session.core.drained())
    session.says("a", {"id": 0, "result": {}})
    assert session.sent_json() == [{"id": 0, "result": {}}]


def test_a_full_queue_refuses_by_number() -> None:
    session = ready()
    session.core.blocked = True
    for n in range(MAX_QUEUE + 1):
        session.says("a", request(n))
    assert session.codes("a") == [(MAX_QUEUE, RPC_OVERLOADED)]


def test_those_who_wait_for_the_handshake_have_a_bound() -> None:
    session = Session(ready=False)
    session.up()
    session.attach("a")
    for n in range(MAX_QUEUE + 1):
        session.says("a", request(n, "initialize"))
    assert session.codes("a") == [(MAX_QUEUE, RPC_OVERLOADED)]


def test_of_a_thread_with_an_endless_name_nothing_is_kept_while_its_request_waits() -> None:
    session = ready()
    session.says("a", request(1, "turn/start", threadId="t" * 5000))
    assert [waiting.thread for waiting in session.core.waiting.values()] == [""]
    assert len(session.sent()[0]) > 5000


def test_a_full_queue_refuses_by_bytes_but_takes_one_frame_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "MAX_QUEUE_BYTES", 1000)
    session = ready()
    session.core.blocked = True
    for n, size in enumerate((5000, 10)):
        session.says("a", request(n, x="x" * size))
    assert session.codes("a") == [(1, RPC_OVERLOADED)]
    session.do(session.core.drained())
    session.core.blocked = True
    for n in range(2, 12):
        session.says("b", request(n, x="x" * 100))
    assert {code for _, code in session.codes("b")} == {RPC_OVERLOADED}
    session.do(session.core.drained())
    assert session.core.queued_bytes == 0


# -- deadlines


def test_a_request_that_is_not_answered_in_time_gets_an_error_and_a_late_answer_nothing() -> None:
    session = ready()
    session.says("a", request(1), now=10.0, timeout_s=5.0)
    session.expire(14.9)
    assert session.got("a") == []
    session.expire(15.0)
    assert session.codes("a") == [(1, RPC_DEADLINE)]
    session.answer(1)
    session.expire(99.0)
    assert session.got("a") == [] and session.got("b") == []


def test_requests_and_initializes_that_were_never_sent_have_deadlines_too() -> None:
    session = Session(ready=False)
    session.up()
    session.attach("a")
    session.says("a", request("i", "initialize"), timeout_s=5.0)
    session.says("a", request("q"), timeout_s=6.0)
    session.expire(5.5)
    assert session.codes("a") == [("i", RPC_DEADLINE)]
    session.expire(6.0)
    assert session.codes("a") == [("q", RPC_DEADLINE)] and session.core.queued_bytes == 0
    session.shake()
    assert session.got("a") == [] and not session.core.waiting


@pytest.mark.parametrize(
    ("timeout", "due"), [(100_000, 110.0), (1, 60.0), (-5, 60.0), ("9", 60.0), (10**400, 86_410.0), (2**62, 86_410.0)]
)
def test_a_command_gets_the_time_it_asks_for_within_a_day(timeout: Any, due: float) -> None:
    session = ready()
    session.says("a", request(1, "command/exec", timeoutMs=timeout))
    session.expire(due - 0.1)
    assert session.got("a") == []
    session.expire(due)
    assert session.codes("a") == [(1, RPC_DEADLINE)]


def test_room_that_a_deadline_makes_is_used() -> None:
    session = ready()
    for n in range(MAX_IN_FLIGHT + 1):
        session.says("a", request(n), timeout_s=5.0 if n == 0 else 60.0)
    session.sent()
    session.expire(5.0)
    assert session.codes("a") == [(0, RPC_DEADLINE)] and ids(session.sent_json()) == [LINK_IDS + 65]
