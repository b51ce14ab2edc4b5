"""The fold: what the app-server's lines say about the stream, whatever the lines are and however they arrive."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from gevent.socket import socketpair
from hypothesis import given
from hypothesis import strategies as st
from relay_kit import STEADY, asks, exited, line, note, payloads, spread, turn_completed, turn_started

from app.relay.envelope import number_of
from app.relay.fold import LINK_IDS, MAX_THREADS, ONE_BYTES, PLAIN_BASE, Answer, Event, Fold, ServerRequest
from app.relay.frames import payload_of
from app.relay.link import Link
from app.relay.ring import NEXT, Ring, joined


def folded(*lines: Any, epoch: str = "e", plain: bool = False) -> Fold:
    fold = Fold(Ring(1 << 20), plain=plain)
    fold.begin(epoch, 0, 0)
    fold.feed(block(*lines))
    return fold


def block(*lines: Any) -> bytes:
    return b"".join(line(each) + b"\n" for each in lines)


def seen(fold: Fold, *lines: Any) -> list[Any]:
    """What comes of lines, in order: the payload of a broadcast, or the piece itself."""
    found: list[Any] = []
    for piece in fold.feed(block(*lines)):
        if isinstance(piece, Event) and piece.name == "heard":
            continue
        found += [payload_of(entry[1]) for entry in spread(piece)] if isinstance(piece, list) else [piece]
    return found


def replay(fold: Fold, with_seq: bool = True) -> list[bytes]:
    return payloads(joined(list(fold.ring.entries), with_seq))


# -- lines


@pytest.mark.parametrize(
    "text",
    [b'{"method":"x"}', b' { "method" : "x", "params" : [1,  2] } ', b'{"params":{},"method":"x","more":1.50}']
    + [b"hello", b"[]", b"5", b"null", b'{"method":5}', b"{}", b'{"method":null}', b"\x00", b'{"method":"x"', b"{}}"]
    + ['{"method":"x","params":"é漢🧑\u2028\u0085"}'.encode(), b'{"method":"x","params":"\\ud800"}', b"\x7f"]
    + [
        b'{"method":"x","id":null}',
        b'{"result":1}',
        b'{"method":"turn/started","id":3}',
        b'{"method":"argus/session"}',
    ],
)
def test_what_is_no_request_or_answer_is_broadcast_to_the_byte(text: bytes) -> None:
    fold = folded()
    assert seen(fold, text) == [text] and replay(fold, with_seq=False) == [text]


@pytest.mark.parametrize("depth", [200, 1000, 5000, 100_000])
def test_a_line_that_nests_without_end_is_passed_on_without_a_crash(depth: int) -> None:
    text = b'{"method":"x","params":' + b"[" * depth + b"]" * depth + b"}"
    assert seen(folded(), text) == [text]


@pytest.mark.parametrize(("text", "said"), [(b"{}\r", b"{}"), (b"x\r\r", b"x\r")])
def test_one_carriage_return_at_the_end_is_dropped(text: bytes, said: bytes) -> None:
    assert seen(folded(), text) == [said]


def test_empty_lines_are_counted_and_not_sent() -> None:
    fold = folded(b"", b"\r", b'{"method":"x"}', b"")
    assert fold.seq == 4 and replay(fold) == [b'{"method":"x","seq":3}']


def test_lines_that_are_no_objects_carry_no_seq_but_count() -> None:
    assert replay(folded(b"noise", b"[]", b'{"method":"x"}')) == [b"noise", b"[]", b'{"method":"x","seq":3}']


def test_order_is_kept_across_all_kinds_of_lines() -> None:
    answer, request = b'{"id":1,"result":1}', asks(0)
    pieces = seen(folded(), b'{"method":"a"}', answer, b'{"method":"b"}', request, b'{"method":"c"}', turn_started())
    assert [type(p).__name__ if not isinstance(p, bytes) else p for p in pieces] == [
        *(b'{"method":"a"}', "Answer", b'{"method":"b"}', "ServerRequest", b'{"method":"c"}', "Event", turn_started())
    ]


@pytest.mark.parametrize(
    "text", [b'{"error":{},"id":7}', b'{"id":7,"result":null}', b'{"result":1,"method":null,"id":7}']
)
def test_an_answer_is_known_by_its_id_whatever_the_order_of_its_parts(text: bytes) -> None:
    assert seen(folded(), text) == [Answer(b"7", text)]


def test_answers_and_server_requests_are_not_replayed() -> None:
    assert replay(folded(b'{"id":1,"result":1}', asks(0), b'{"id":null,"error":{}}')) == []


@pytest.mark.parametrize("id", [b"9" * 5000, b"-1", b"1.0", b'"1000000000"', b"null", b"1e9", b"[[]]", b"true"])
def test_ids_that_the_gateway_never_made_are_no_numbers_of_its_own(id: bytes) -> None:
    assert number_of(id) == -1
    assert seen(folded(), b'{"id":%s,"result":1}' % id) == [Answer(id, b'{"id":%s,"result":1}' % id)]


@pytest.mark.parametrize("bad", [b"\xff", b"\xe6\xbc", b"\xed\xa0\x80", b"a\xc0\x80b"])
def test_invalid_utf8_is_replaced_and_leaves_the_lines_around_it_alone(bad: bytes) -> None:
    before, after = '{"method":"é"}'.encode(), b'{"method":"x"}'
    said = seen(folded(), before, b'{"method":"y","params":"%s"}' % bad, bad, after)
    assert (said[0], said[3]) == (before, after) and "\ufffd" in said[1].decode() and "\ufffd" in said[2].decode()


# -- state


def test_a_turn_is_open_between_its_start_and_its_end() -> None:
    fold = folded(turn_started("t1", "u1"), turn_started("t2", "u2"), turn_completed("t1", "u1"))
    assert fold.turns == {"t2": "u2"}


@pytest.mark.parametrize("params", [{"threadId": "t", "turnId": "u"}, {"threadId": "t", "turn": {"id": "u", "x": []}}])
def test_the_turns_id_stands_in_either_place(params: dict[str, Any]) -> None:
    assert folded(note("turn/started", **params)).turns == {"t": "u"}


@pytest.mark.parametrize(
    "text", [b'{"method":"turn/started"}', b'{"method":"turn/started","params":{"threadId":null}}']
)
def test_a_turn_without_a_thread_is_only_passed_on(text: bytes) -> None:
    fold = folded()
    assert seen(fold, text) == [text] and not fold.turns and not fold.threads


def test_a_question_belongs_to_its_turn_whatever_else_its_params_hold() -> None:
    odd = {"reason": None, "code": "x", "signal": "KILL", "state": {}, "life": "long", "stderr": 1}
    fold = folded(line({"id": 0, "method": "m", "params": {"threadId": "t", "turnId": "u", **odd}}))
    assert (fold.requests[b"0"].thread, fold.requests[b"0"].turn) == ("t", "u")


@pytest.mark.parametrize("params", [b"null", b"[]", b'{"threadId":5}', b'"x"'])
def test_a_question_with_strange_params_is_still_a_question(params: bytes) -> None:
    assert list(folded(b'{"id":0,"method":"m","params":%s}' % params).requests) == [b"0"]


def test_a_question_that_is_asked_again_is_kept_once() -> None:
    fold = folded(asks(0))
    before = fold.requests[b"0"]
    assert seen(fold, asks(0)) == [before] and list(fold.requests.values()) == [before]


def test_another_question_under_the_same_id_takes_the_place_of_the_first() -> None:
    fold = folded(asks(0), asks(1))
    before = fold.requests[b"0"]
    dropped, piece = seen(fold, asks(0, turn="later"))
    assert dropped == Event("question_dropped", before)
    assert isinstance(piece, ServerRequest) and piece is fold.requests[b"0"] and piece.turn == "later"


def test_a_question_is_over_when_it_is_resolved_with_its_type() -> None:
    fold = folded(asks(0), asks("0"), note("serverRequest/resolved", threadId="t", requestId="0"))
    assert list(fold.requests) == [b"0"]
    assert not folded(asks(0), note("serverRequest/resolved", threadId="t", requestId=0)).requests


def test_a_question_is_over_with_its_turn_and_only_with_its_own() -> None:
    lines = [asks(0), asks(1, turn="v"), asks(2, thread="s"), asks(3, turn=None)]
    assert list(folded(*lines, turn_completed()).requests) == [b"1", b"2"]


def test_codex_may_resolve_a_question_after_its_turn_was_interrupted() -> None:
    lines = [turn_started(), asks(0), turn_completed(), note("serverRequest/resolved", threadId="t", requestId=0)]
    fold = folded(*lines)
    assert not fold.requests and replay(fold, with_seq=False) == [lines[0], lines[2], lines[3]]


def test_threads_are_known_from_their_start_or_their_turns_and_forgotten_when_they_go() -> None:
    fold = folded(note("thread/started", thread={"id": "a"}), turn_started("b"), note("thread/started", threadId="c"))
    assert list(fold.threads) == ["a", "b", "c"]
    assert seen(fold, turn_started("a", "v"))[:-1] == [] and list(fold.threads) == ["b", "c", "a"]
    gone = note("thread/archived", threadId="b")
    assert seen(fold, gone) == [Event("thread_gone", "b"), gone] and list(fold.threads) == ["c", "a"]


def test_no_more_than_the_newest_threads_are_known() -> None:
    fold = folded(*(turn_started(f"t{n}") for n in range(MAX_THREADS + 5)))
    assert len(fold.threads) == MAX_THREADS and "t4" not in fold.threads and "t5" in fold.threads


@pytest.mark.parametrize(
    ("plain", "id", "found"),
    [
        (False, 7 * LINK_IDS, True),
        (False, 2 * LINK_IDS, True),
        (False, 2 * LINK_IDS + 1, False),
        (False, 0, False),
        (False, PLAIN_BASE, False),
        (True, PLAIN_BASE, True),
        (True, LINK_IDS, False),
    ],
)
def test_the_handshakes_result_is_found_by_its_id_on_any_link(plain: bool, id: int, found: bool) -> None:
    fold = folded(b'{"id":%d,"result":{"a":1.0}}' % id, plain=plain)
    assert fold.handshake == (b'{"a":1.0}' if found else None)


def test_a_refused_handshake_leaves_none_and_a_new_life_forgets_the_old_one() -> None:
    assert folded(b'{"id":%d,"error":{}}' % LINK_IDS).handshake is None
    assert folded(b'{"id":%d,"result":1}' % LINK_IDS, exited()).handshake is None
    fold = folded(b'{"id":%d,"result":1}' % LINK_IDS, note("bridge/started", life=4))
    assert fold.handshake is None and fold.life == 4


def test_the_bridges_own_lines_reach_nobody_but_are_counted() -> None:
    fold = folded(note("bridge/started", life=1))
    (event,) = seen(fold, note("bridge/started", life=2))
    assert event == Event("started", 2) and fold.seq == 2 and replay(fold) == []


def test_a_death_ends_questions_and_turns_in_the_gateways_own_words() -> None:
    fold = folded(turn_started("t", "u"), b'{"id":"q\\u002f","method":"m","params":{"threadId":"t"}}')
    *said, event, question, over = seen(fold, exited("failed", code=3, stderr="one\ntwo"))
    assert (event, over) == (Event("exited", "failed"), Event("turn_completed", "t"))
    assert question.name == "question_over" and not fold.requests
    runtime, _, completed = map(json.loads, said)
    assert runtime["params"]["state"] == "failed" and "code 3: two" in runtime["params"]["reason"]
    assert said[1] == b'{"method":"serverRequest/resolved","params":{"threadId":"t","requestId":"q\\u002f"}}'
    assert completed["params"]["threadId"] == "t"
    assert (completed["params"]["turn"]["id"], completed["params"]["turn"]["status"]) == ("u", "interrupted")
    assert not fold.turns and not fold.requests


@pytest.mark.parametrize("id", [b"1e400", b"9" * 5000, b'{"a":[1]}', b"[" * 900 + b"]" * 900, b"-0", b"1.10"])
def test_a_death_settles_questions_with_any_id_to_the_byte(id: bytes) -> None:
    said = seen(folded(b'{"id":%s,"method":"m"}' % id), exited())
    assert said[1].endswith(b'"requestId":%s}}' % id)


@pytest.mark.parametrize("text", [b'{"method":"bridge/exited"}', b'{"method":"bridge/exited","params":{"code":"x"}}'])
def test_a_death_with_strange_params_is_still_one(text: bytes) -> None:
    assert Event("turn_completed", "t") in seen(folded(turn_started()), text)


FORGED = [
    *(exited(), note("bridge/started", life=2), line({"method": "bridge/exited", "mark": "", "params": {}})),
    *(b'{"method":"bridge/exited","mark":"other"}', b'{"method":"bridge/exited","mark":null}'),
    *(b'{"method":"bridge/exited","mark":["right"]}', b'{"method":"bridge/exited","params":{"mark":"right"}}'),
]


@pytest.mark.parametrize("text", FORGED)
def test_an_agent_cannot_speak_for_the_bridge_that_has_a_mark(text: bytes) -> None:
    fold = folded(turn_started(), asks(0))
    fold.mark = "right"
    assert seen(fold, text) == [text] and fold.turns and fold.requests and fold.told is None and not fold.life
    own = {**json.loads(exited()), "mark": "right"}
    assert Event("exited", "restarting") in seen(fold, own) and not fold.turns


def test_on_a_plain_link_nobody_speaks_for_a_bridge() -> None:
    fold = folded(turn_started(), plain=True)
    assert seen(fold, exited()) == [exited()] and fold.turns


DELTA = b'{"method":"item/agentMessage/delta","params":{"delta":"%s"}}'


@pytest.mark.parametrize("said", [b"", b"x", b"x" * 100, b"x" * 1500, b"\xc3\xa9" * 60])
@pytest.mark.parametrize("kind", [b"agentMessage/delta", b"commandExecution/outputDelta"])
def test_one_delta_on_its_own_is_folded_as_among_others(said: bytes, kind: bytes) -> None:
    text = b'{"method":"item/%s","params":{"delta":"%s"}}' % (kind, said)
    one, other = folded(note("a")), folded(note("a"))
    entry = one.one_delta(text + b"\n")
    assert [[entry]] == other.feed(text + b"\n")
    assert replay(one) == replay(other) and one.seq == other.seq == 2


@pytest.mark.parametrize(
    "block",
    [
        *(DELTA % b"\xff" + b"\n", DELTA % b"x" + b"\r\n", DELTA % b"\r" + b"\n", DELTA % b"x"),
        *((DELTA % b"x" + b"\n") * 2, DELTA % b"x" + b"\n\n", b"\n", b"", b" " + DELTA % b"x" + b"\n"),
        DELTA % (b"x" * ONE_BYTES) + b"\n",
        *(note("turn/started", threadId="t") + b"\n", b'{"id":1,"result":1}\n', b"noise\n"),
    ],
)
def test_what_is_not_just_one_plain_delta_is_left_to_the_whole_fold(block: bytes) -> None:
    fold = folded(note("a"))
    assert fold.one_delta(block) is None and fold.seq == 1 and len(replay(fold)) == 1


def test_a_delta_that_an_earlier_link_brought_is_left_to_the_whole_fold() -> None:
    fold = folded(note("a"), note("b"))
    fold.begin("e", 1, 0)
    assert fold.one_delta(DELTA % b"x" + b"\n") is None


# -- however the lines arrive

SAMPLE: list[bytes] = [
    *(note("x", n=1), b"noise", b"", b'{"id":2147483648,"result":{"a":1}}', note("thread/started", thread={"id": "t"})),
    *(turn_started(), '{"method":"é漢🧑"}'.encode(), asks(0), b'{"id":9,"error":{}}', asks("0", turn="v"), b"{}\r"),
    *(b'{"method":"\xff"}', note("serverRequest/resolved", threadId="t", requestId="0"), turn_started("s", "w")),
    *(asks(1, thread="s"), turn_completed(), exited(), note("bridge/started", life=2), note("x", n=2)),
]
lines_of_all_kinds = st.lists(st.sampled_from(SAMPLE), max_size=25)


def outcome(fold: Fold, blocks: list[bytes]) -> tuple[Any, ...]:
    said: list[Any] = []
    for each in blocks:
        for piece in fold.feed(each):
            said += spread(piece) if isinstance(piece, list) else [repr(piece)]
    asked = {id: (r.thread, r.turn, r.frame) for id, r in fold.requests.items()}
    state = (fold.seq, fold.life, fold.handshake, fold.turns, list(fold.threads), asked, fold.newest_own)
    return said, state, spread(fold.ring.entries), fold.head


def fresh() -> Fold:
    fold = Fold(Ring(1 << 20))
    fold.begin("e", 0, 0)
    return fold


@STEADY
@given(lines_of_all_kinds, st.data())
def test_it_does_not_matter_in_which_blocks_lines_arrive(lines: list[bytes], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(lines)))) | {0, len(lines)})
    blocks = [block(*lines[a:b]) for a, b in itertools.pairwise(cuts)]
    assert outcome(fresh(), blocks) == outcome(fresh(), [block(*lines)])


def take(chunks: list[bytes], limit: int | None = None) -> tuple[list[bytes], str]:
    """What a link hands on of these reads."""
    ours, theirs = socketpair()
    blocks: list[bytes] = []
    with theirs:
        link = Link(ours, line_limit=limit)
        link._on_lines = blocks.append
        for chunk in chunks:
            if not link.closed.is_set():
                theirs.sendall(chunk)
                link._readable()
        why = link.why
        link.close("done")
    return blocks, why


def cut(data: bytes, draw: st.DataObject) -> list[bytes]:
    places = sorted(draw.draw(st.sets(st.integers(1, max(1, len(data))), max_size=30)) | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places) if data[a:b]]


@STEADY
@given(lines_of_all_kinds, st.binary(max_size=20), st.data())
def test_a_link_hands_on_whole_lines_wherever_the_reads_were_cut(lines: list[bytes], tail: bytes, data: Any) -> None:
    stream = block(*lines) + tail.replace(b"\n", b"")
    blocks, _ = take(cut(stream, data))
    assert all(each.endswith(b"\n") for each in blocks) and b"".join(blocks) == block(*lines)
    assert outcome(fresh(), blocks) == outcome(fresh(), [block(*lines)])


def test_a_link_ends_at_a_line_over_its_limit_in_one_read_or_many() -> None:
    for chunks in ([b"x" * 11], [b"x" * 6, b"x" * 5], [b"x" * 6, b"x" * 5 + b"\n"], [b"a\n" + b"x" * 6, b"x" * 5]):
        assert "longer than 10 bytes" in take(chunks, limit=10)[1]
    for chunks in ([b"x" * 10 + b"\n"], [b"x" * 6, b"x" * 4 + b"\n" + b"y" * 10, b"\n"]):
        assert take(chunks, limit=10)[1] == ""


def test_the_ring_is_bounded_for_single_deltas_too() -> None:
    fold = Fold(Ring(10_000, max_frames=50))
    fold.begin("e", 0, 0)
    for _ in range(200):
        assert fold.one_delta(DELTA % (b"x" * 100) + b"\n")
    assert fold.ring.frames == len(fold.ring.entries) == 50 and fold.ring.floor == fold.ring.entries[0][0] - NEXT
    for _ in range(200):
        assert fold.one_delta(DELTA % (b"x" * 500) + b"\n")
    assert 9_000 < fold.ring.bytes == sum(len(frame) for _, frame, _ in fold.ring.entries) <= 10_000


@pytest.mark.parametrize(
    "line", [rb'["\ud800"]', rb'"\ud800"', rb'{"method":5,"x":"\ud800"}', rb'{"x":NaN,"y":"\ud800"}']
)
def test_an_odd_line_is_passed_on_as_it_came_and_harms_no_other(line: bytes) -> None:
    fold = folded(note("a"))
    fold.feed(note("b") + b"\n" + line + b"\n" + note("c") + b"\n")
    assert replay(fold, with_seq=False) == [note("a"), note("b"), line, note("c")]
