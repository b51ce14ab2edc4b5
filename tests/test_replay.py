"""Who attaches where in the stream, and what it is sent of it."""

from __future__ import annotations

import json

import pytest
from relay_kit import Session, asks, exited, note, ready, turn_started

from app.relay.fold import LINK_IDS


def seqs(frames: list[bytes]) -> list[int | None]:
    return [json.loads(each).get("seq") for each in frames]


def notes(first: int, last: int) -> list[bytes]:
    """Notifications that name their own line number; a ready session has folded one line."""
    return [note("x", n=n) for n in range(first, last + 1)]


def test_a_client_is_told_its_place_and_gets_what_comes_later() -> None:
    session = Session()
    session.attach("a")
    session.feed(*notes(2, 4))
    attached = session.attach("b")
    assert (attached.cursor, attached.resume, attached.frames) == ("e:4", None, b"")
    session.feed(*notes(5, 5))
    assert session.got("b") == notes(5, 5) and session.got("a") == notes(2, 5)


def test_frames_carry_their_line_number_only_for_who_wants_it() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.attach("b")
    session.feed(note("x"), b'{"id":9,"result":1}', b"noise", asks(0), note("y"))
    first, noise, question, last = session.got("a")
    assert (seqs([first, last]), noise, question) == ([2, 6], b"noise", asks(0))
    assert session.got("b") == [note("x"), b"noise", note("y")]


def test_frames_of_the_gateways_own_have_no_number() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.do(session.core.announce("argus/runtime", {"state": "running", "reason": ""}))
    session.feed(note("x"))
    assert seqs(session.got("a")) == [None, 2]


# -- without a cursor


def test_what_nobody_saw_goes_to_the_first_that_attaches_and_to_no_other() -> None:
    session = Session()
    session.attach("a")
    session.feed(*notes(2, 3))
    session.detach("a")
    session.feed(*notes(4, 5))
    attached = session.attach("b", with_seq=True)
    assert (attached.cursor, attached.resume) == ("e:3", None) and seqs(session.got("b")) == [4, 5]
    assert session.attach("c").frames == b""
    session.feed(*notes(6, 6))
    assert session.got("c") == notes(6, 6) and seqs(session.got("b")) == [6]


def test_the_second_of_two_that_leave_takes_the_stream_with_it() -> None:
    session = ready()
    session.detach("a")
    session.feed(*notes(2, 2))
    session.detach("b")
    session.feed(*notes(3, 3))
    session.attach("c")
    assert session.got("c") == notes(3, 3)


@pytest.mark.parametrize("end", ["exited", "lost", "replaced"])
def test_the_gateways_own_frames_that_nobody_saw_are_kept_too(end: str) -> None:
    session = Session()
    session.attach("a")
    session.feed(turn_started())
    session.detach("a")
    if end == "exited":
        session.feed(exited())
    elif end == "lost":
        session.do(session.core.lost("gone", "restarting"))
    else:
        session.up("another epoch")
    session.attach("b")
    assert [json.loads(each)["method"] for each in session.got("b")] == ["argus/runtime", "turn/completed"]


def test_hundreds_of_own_frames_behind_one_line_do_not_hide_what_comes_after_them() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.feed(*notes(2, 2))
    for _ in range(600):
        session.do(session.core.announce("argus/runtime", {"state": "restarting", "reason": "x"}))
    session.detach("a")
    session.feed(*notes(3, 4))
    assert session.attach("b", with_seq=True).cursor == "e:2" and seqs(session.got("b")) == [3, 4]
    assert session.attach("c", cursor="e:3", with_seq=True).resume == "ok" and seqs(session.got("c")) == [4]


def test_what_nobody_saw_and_the_ring_could_not_keep_is_a_gap() -> None:
    session = Session(ring_bytes=100)
    for n in range(2, 41):
        session.feed(*notes(n, n))
    attached = session.attach("a", with_seq=True)
    got = seqs(session.got("a"))
    assert attached.resume == "gap" and got[-1] == 40 and len(got) < 39
    assert attached.cursor == f"e:{got[0] - 1}"


# -- after a restart of the gateway


def test_a_new_gateway_gives_the_first_client_what_came_after_the_last_line_that_was_sent() -> None:
    session = Session(ready=False)
    session.up(link=5, sent=3)
    session.feed(*notes(1, 6))
    assert session.attach("a", with_seq=True).resume is None and seqs(session.got("a")) == [4, 5, 6]
    assert session.attach("b").frames == b""


def test_a_new_gateway_resumes_a_cursor_of_the_old_one() -> None:
    session = Session(ready=False)
    session.up(link=5, sent=6)
    session.feed(*notes(1, 6))
    assert session.attach("a", cursor="e:2", with_seq=True).resume == "ok" and seqs(session.got("a")) == [3, 4, 5, 6]
    assert session.attach("b").frames == b""


def test_a_new_gateway_says_gap_where_the_bridges_ring_no_longer_reaches() -> None:
    session = Session(ready=False)
    session.up(link=5, seq=10, sent=4, floor=10)
    session.feed(*notes(11, 12))
    assert session.attach("a", cursor="e:9").resume == "gap"
    session = Session(ready=False)
    session.up(link=5, seq=10, sent=4, floor=10)
    session.feed(*notes(11, 12))
    assert session.attach("a", with_seq=True).resume == "gap" and seqs(session.got("a")) == [11, 12]
    assert session.attach("b", cursor="e:10", with_seq=True).resume == "ok" and seqs(session.got("b")) == [11, 12]


# -- with a cursor


@pytest.mark.parametrize(("after", "got"), [(1, [2, 3, 4]), (2, [3, 4]), (4, [])])
def test_a_cursor_replays_what_came_later_to_each_who_brings_it(after: int, got: list[int]) -> None:
    session = Session()
    session.attach("a")
    session.feed(*notes(2, 4))
    for key in ("b", "c"):
        attached = session.attach(key, cursor=f"e:{after}", with_seq=True)
        assert (attached.cursor, attached.resume) == (f"e:{after}", "ok") and seqs(session.got(key)) == got


@pytest.mark.parametrize("cursor", ["e:0", "e:00001"])
def test_a_cursor_may_name_the_beginning_and_be_padded(cursor: str) -> None:
    session = Session()
    session.feed(*notes(2, 3))
    assert session.attach("a", cursor=cursor, with_seq=True).resume == "ok" and seqs(session.got("a")) == [2, 3]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        ":",
        "e",
        "e:",
        ":3",
        "3",
        "e:-1",
        "e:+1",
        "e:1.0",
        "e: 1",
        "e:1 ",
        "e:1\n",
        "e:x",
        "E:1",
        "f:1",
        "e:1:1",
        "e::1",
    ]
    + ["e:４", "e:²", "e:1_0", "e:4", "e:5", "e:999", "e:17592186044416", "e:35184372088832", "e:99999999999999"]
    + [f"e:{2**52}", f"e:{2**64}", "e:" + "9" * 15, "e:" + "9" * 5000, "e:" + "0" * 5000, "\ud800:1", "e\x00:1"],
)
def test_a_cursor_that_names_no_place_is_a_gap_and_the_client_goes_on_from_now(cursor: str) -> None:
    session = Session()
    session.attach("a")
    session.feed(*notes(2, 3))
    attached = session.attach("b", cursor=cursor)
    assert (attached.resume, attached.cursor, attached.frames) == ("gap", "e:3", b"")
    session.feed(*notes(4, 4))
    assert session.got("b") == notes(4, 4)


def test_a_cursor_the_ring_was_trimmed_below_is_a_gap_and_the_floor_itself_is_not() -> None:
    session = Session()
    for n in range(2, 10):
        session.feed(*notes(n, n))
    session.core.fold.ring.trim(3 * len(session.core.fold.ring.entries[0][1]))
    assert session.attach("a", cursor="e:5").resume == "gap"
    assert session.attach("b", cursor="e:6", with_seq=True).resume == "ok" and seqs(session.got("b")) == [7, 8, 9]
    session.core.fold.ring.trim(-1)
    assert session.attach("c", cursor="e:8").resume == "gap"
    assert session.attach("d", cursor="e:9").resume == "ok"


def test_own_frames_stand_behind_their_line_in_a_replay() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.feed(*notes(2, 2))
    session.do(session.core.announce("argus/runtime", {"state": "running", "reason": ""}))
    session.feed(*notes(3, 3))
    live = session.got("a")
    session.attach("b", cursor="e:1", with_seq=True)
    assert session.got("b") == live and seqs(live) == [2, None, 3]
    session.attach("c", cursor="e:2", with_seq=True)
    assert seqs(session.got("c")) == [None, 3]
    session.attach("d", cursor="e:3", with_seq=True)
    assert session.got("d") == []


def test_a_replay_has_no_answers_and_no_questions_but_open_ones_come_last() -> None:
    session = Session()
    session.feed(*notes(2, 2), asks(0), b'{"id":%d,"result":1}' % (LINK_IDS + 7), asks(1), *notes(6, 6))
    session.feed(note("serverRequest/resolved", threadId="t", requestId=1))
    session.attach("a", cursor="e:1", with_seq=True)
    *rest, last = session.got("a")
    assert last == asks(0) and seqs(rest) == [2, 6, 7]


# -- the link breaks, the runtime is replaced


def test_a_new_link_goes_on_in_the_same_numbers() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.feed(*notes(2, 3))
    session.do(session.core.unlinked("broke"))
    session.up(link=2)
    session.feed(*notes(4, 4))
    session.attach("b", cursor="e:1", with_seq=True)
    assert seqs(session.got("a")) == seqs(session.got("b")) == [2, 3, 4]


@pytest.mark.parametrize("cut", [1, 2, 3, 6])
def test_lines_that_a_new_link_brings_once_more_are_taken_once(cut: int) -> None:
    session = Session(ready=False)
    session.up()
    session.attach("a", with_seq=True)
    session.feed(*notes(1, 3), asks(0))
    session.do(session.core.unlinked("broke"))
    session.up(link=2, seq=0)
    again = [*notes(1, 3), asks(0), *notes(5, 6)]
    session.feed(*again[:cut])
    session.feed(*again[cut:])
    got = session.got("a")
    assert got.pop(3) == asks(0) and seqs(got) == [1, 2, 3, 5, 6]
    session.attach("b", cursor="e:2", with_seq=True)
    assert seqs(session.got("b")) == [3, 5, 6] and session.asked_of == {b"0": "a"}


def test_lines_that_the_bridge_lost_between_two_links_are_a_gap_for_who_comes_later() -> None:
    session = Session()
    session.attach("a")
    session.feed(*notes(2, 3))
    session.detach("a")
    session.do(session.core.unlinked("broke"))
    session.up(link=2, seq=8, floor=8)
    session.feed(*notes(9, 9))
    assert len(session.core.fold.ring.entries) == 1
    assert session.attach("b", cursor="e:7").resume == "gap"
    assert session.attach("c", cursor="e:8", with_seq=True).resume == "ok" and seqs(session.got("c")) == [9]


def test_a_client_that_reconnects_after_a_replacement_gets_the_rest_of_the_old_epoch_and_the_new() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.feed(*notes(2, 3))
    session.up("f", link=1)
    session.feed(*notes(1, 2))
    attached = session.attach("b", cursor="e:2", with_seq=True)
    assert attached.resume == "ok" and seqs(session.got("b")) == [3, None, 1, 2]
    assert session.attach("c", cursor="f:1", with_seq=True).resume == "ok" and seqs(session.got("c")) == [2]
    assert session.attach("d").cursor == "f:2"


def test_the_lost_beginning_of_a_new_epoch_is_a_gap() -> None:
    session = Session()
    session.attach("a")
    session.up("f", link=1, seq=5, floor=5)
    session.feed(*notes(6, 6))
    assert session.attach("b", cursor="e:1").resume == session.attach("c", cursor="f:4").resume == "gap"
    assert session.attach("d", cursor="f:5", with_seq=True).resume == "ok" and seqs(session.got("d")) == [6]


def test_a_client_that_breaks_off_in_a_replay_of_an_older_epoch_can_begin_it_again() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.feed(*notes(2, 3))
    session.up("f", link=1)
    first = session.attach("b", cursor="e:2", with_seq=True)
    frames = session.got("b")
    session.attach("b", cursor=first.cursor, with_seq=True)
    assert session.got("b") == frames


# -- open: these fail today


def test_a_replay_does_not_seem_to_settle_the_question_that_is_open() -> None:
    session = Session()
    session.feed(asks(0), exited(), note("bridge/started", life=2), asks(0, turn="v"))
    session.attach("a", cursor="e:1")
    methods = [json.loads(each)["method"] for each in session.got("a")]
    assert methods.index("serverRequest/resolved") < methods.index("item/x/requestApproval")


def test_an_attached_client_is_told_that_lines_were_lost() -> None:
    session = Session()
    session.attach("a")
    session.do(session.core.unlinked("broke"))
    session.up(link=2, seq=8, floor=8)
    session.feed(*notes(9, 9))
    assert session.got("a") != notes(9, 9)


def test_turns_and_questions_do_not_outlive_lost_lines() -> None:
    session = Session()
    session.attach("a")
    session.feed(turn_started(), asks(0))
    session.do(session.core.unlinked("broke"))
    session.up(link=2, seq=80, floor=80)
    assert not session.core.fold.turns and not session.asked_of


def test_a_client_that_stays_through_a_replacement_can_compose_its_cursor() -> None:
    session = Session()
    session.attach("a", with_seq=True)
    session.feed(*notes(2, 3))
    session.up("f", link=1)
    session.do(session.core.runs())
    session.feed(*notes(1, 2))
    assert any(b'"f:0"' in each for each in session.got("a"))
