"""The relay's promises under random interleavings: each request is answered once and to its asker alone, an open
question is in front of one client, and who comes back with a cursor sees every line once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from relay_kit import HELLO, STEADY, Session, asks, exited, note, request, turn_completed, turn_started

from app.relay import core as core_module

KEYS = st.sampled_from(["a", "b", "c"])
THREADS = st.sampled_from(["t", "s"])
METHODS = st.sampled_from(["m", "turn/start", "thread/resume", "initialize"])
TIMEOUT_S = 50.0


@dataclass
class Person:
    """One connection of a client, and what it can know from its frames alone."""

    start: int  # it must see all broadcast lines from this one on, counted over all epochs
    answers: dict[str, int] = field(default_factory=dict)  # its requests, and how many answers each got
    questions: dict[Any, tuple[str, str]] = field(default_factory=dict)
    elsewhere: dict[Any, str] = field(default_factory=dict)  # open questions of others, and whose they are
    seen: list[int] = field(default_factory=list)

    def reads(self, frame: bytes) -> None:
        try:
            says = json.loads(frame)
        except ValueError:
            return
        method, params = says.get("method"), says.get("params") or {}
        if method is None and says.get("id") is not None:
            self.answers[says["id"]] += 1  # a KeyError: somebody else's
            assert self.answers[says["id"]] == 1
        elif method and "id" in says:
            assert says["id"] not in self.questions
            self.elsewhere.pop(says["id"], None)
            self.questions[says["id"]] = (params["threadId"], params["turnId"])
        elif method == "argus/question" and params["state"] == "open":
            assert params["id"] not in self.questions and params["params"]["turnId"] == params["turnId"]
            self.elsewhere[params["id"]] = params["client"]
        elif method == "argus/question":
            self.elsewhere.pop(params["id"], None)
        elif method == "serverRequest/resolved":
            self.questions.pop(params["requestId"], None)
        elif method == "turn/completed":
            over = (params["threadId"], params["turn"]["id"])
            self.questions = {id: turn for id, turn in self.questions.items() if turn != over}
        if "seq" in says:
            self.seen.append(says["seq"])


class Relay(RuleBasedStateMachine):
    """A gateway, an app-server and three people who come and go."""

    ring_bytes = 1 << 20

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(core_module, "MAX_IN_FLIGHT", 3)
        self.patch.setattr(core_module, "MAX_QUEUE", 3)
        self.session = Session(ready=False, ring_bytes=self.ring_bytes)
        self.session.up("e0")
        self.session.shake()
        self.people: dict[str, Person] = {}
        self.places: dict[str, int] = {}  # where each key has read up to, in `lines`
        self.lines: list[tuple[str, int]] = []  # broadcast lines: epoch and number
        self.unseen: int | None = 0  # from here on nobody was there
        self.upstream: list[Any] = []  # requests that the app-server has to answer
        self.now, self.count, self.links, self.turns = 0.0, 0, 1, {}
        self.linked = self.alive = True
        for key in "ab":
            self.come(key, False)

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()

    def fresh(self) -> int:
        self.count += 1
        return self.count

    def feed(self, text: bytes, broadcast: bool) -> None:
        if not self.linked:
            return
        self.session.feed(text)
        if broadcast:
            self.lines.append((self.session.core.fold.epoch, self.session.core.fold.seq))

    # -- people

    @rule(key=KEYS, cursor=st.booleans())
    def come(self, key: str, cursor: bool) -> None:
        if key in self.people:
            self.leave(key)
        place, own = len(self.lines), self.places.get(key)
        if cursor and own is not None:
            place = own
        elif self.unseen is not None:
            place = self.unseen
        with_cursor = cursor and own is not None
        epoch, seq = self.lines[place - 1] if place else ("e0", 0)
        attached = self.session.attach(key, f"{epoch}:{seq}" if with_cursor else None, with_seq=True)
        if attached.resume == "gap":
            assert self.ring_bytes < 1 << 20
            told = attached.cursor.split(":")
            place = sum(1 for line in self.lines if self.order(line) <= self.order((told[0], int(told[1]))))
        assert not with_cursor or attached.resume in ("ok", "gap")
        self.people[key], self.unseen = Person(place), None
        self.read()

    def order(self, line: tuple[str, int]) -> tuple[int, int]:
        return int(line[0][1:]), line[1]

    @rule(key=KEYS)
    def leave(self, key: str) -> None:
        if key in self.people:
            self.read()
            self.places[key] = self.people[key].start + len(self.people[key].seen)
            del self.people[key]
            self.session.detach(key)
            if not self.people:
                self.unseen = len(self.lines)

    @rule(key=KEYS, methods=st.lists(METHODS, min_size=1, max_size=4), thread=THREADS)
    def ask(self, key: str, methods: list[str], thread: str) -> None:
        for method in methods if key in self.people else []:
            id = f"{key}{self.fresh()}"
            self.people[key].answers[id] = 0
            self.session.says(key, request(id, method, threadId=thread), self.now, TIMEOUT_S)

    @rule(key=KEYS, data=st.data())
    def answer_a_question(self, key: str, data: st.DataObject) -> None:
        everybodys = sorted({id for person in self.people.values() for id in person.questions}, key=str)
        if key not in self.people or not everybodys:
            return
        id, person = data.draw(st.sampled_from(everybodys)), self.people[key]
        before = len(self.session.upstream)
        self.session.says(key, {"id": id, "result": {}}, self.now, TIMEOUT_S)
        went = len(self.session.upstream) > before
        assert went is (id in person.questions and self.session.core.ready and not self.session.core.blocked)
        if went:
            del person.questions[id]

    @rule(key=KEYS, data=st.data())
    def take_a_question(self, key: str, data: st.DataObject) -> None:
        if key in self.people and self.session.asked_of:
            id = data.draw(st.sampled_from(sorted(self.session.asked_of)))
            self.session.do(self.session.core.take(key, id))
            assert self.session.asked_of[id] == key

    # -- the app-server

    @rule(data=st.data(), body=st.sampled_from([b'"result":{}', b'"error":{"code":1}']), again=st.booleans())
    def answer_one(self, data: st.DataObject, body: bytes, again: bool) -> None:
        if self.upstream and self.linked:
            id = data.draw(st.sampled_from(self.upstream))
            if not again:
                self.upstream.remove(id)
            self.feed(b'{%s,"id":%d}' % (body, id), False)

    @rule()
    def answer_all(self) -> None:
        while self.upstream and self.linked:
            self.feed(b'{"id":%d,"result":{}}' % self.upstream.pop(), False)
            self.read()

    @rule(texts=st.lists(st.sampled_from([note("x"), b"noise", b"", b'{"id":"nobodys","result":1}']), max_size=5))
    def say(self, texts: list[bytes]) -> None:
        for text in texts:
            self.feed(text, text == note("x"))

    @rule(thread=THREADS)
    def turn(self, thread: str) -> None:
        if self.linked and thread in self.turns:
            self.feed(turn_completed(thread, self.turns.pop(thread)), True)
        elif self.linked and self.alive:
            self.turns[thread] = f"u{self.fresh()}"
            self.feed(turn_started(thread, self.turns[thread]), True)

    @rule(thread=THREADS, text=st.booleans())
    def question(self, thread: str, text: bool) -> None:
        if thread in self.turns and self.linked:
            number = self.fresh()
            self.feed(asks(f"q{number}" if text else number, thread, self.turns[thread]), False)

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if self.session.asked_of and self.linked:
            id = json.loads(data.draw(st.sampled_from(sorted(self.session.asked_of))))
            self.feed(note("serverRequest/resolved", threadId="t", requestId=id), True)

    # -- what goes wrong

    @rule(state=st.sampled_from(["restarting", "failed"]))
    @precondition(lambda self: self.alive and self.linked)
    def die(self, state: str) -> None:
        self.feed(exited(state), False)
        self.alive, self.turns, self.upstream = False, {}, []

    @rule()
    @precondition(lambda self: not self.alive and self.linked)
    def live_again(self) -> None:
        self.feed(note("bridge/started", life=self.fresh()), False)
        self.alive = True
        self.shake()

    def shake(self) -> None:
        self.session.do(self.session.core.handshake(self.now))
        self.feed(b'{"id":%d,"result":%s}' % (self.session.base, HELLO), False)
        self.session.do(self.session.core.initialized(HELLO, ["t"] if self.count % 2 else [], self.now))

    @rule()
    @precondition(lambda self: self.linked)
    def break_the_link(self) -> None:
        self.session.do(self.session.core.unlinked("broke"))
        self.linked, self.upstream = False, []

    @rule(replaced=st.booleans(), lost=st.booleans())
    @precondition(lambda self: not self.linked)
    def link_again(self, replaced: bool, lost: bool) -> None:
        if lost:
            self.session.do(self.session.core.lost("gone", "restarting"))
        if lost or replaced:
            self.turns = {}
        self.links += 1
        epoch = f"e{self.links}" if replaced else self.session.core.fold.epoch
        self.session.up(epoch, link=self.links)
        self.linked = self.alive = True
        self.shake()

    @rule(full=st.booleans())
    def the_link_fills_or_drains(self, full: bool) -> None:
        if full:
            self.session.core.blocked = True
        else:
            self.session.do(self.session.core.drained())

    @rule(seconds=st.sampled_from([1.0, 20.0, 60.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.session.expire(self.now)

    # -- promises

    def read(self) -> None:
        for key, person in self.people.items():
            for frame in self.session.got_all(key):
                person.reads(frame)
        for sent in self.session.sent_json():
            if "method" in sent and "id" in sent and sent["id"] != self.session.base:
                self.upstream.append(sent["id"])

    @invariant()
    def every_line_is_seen_once_and_in_order(self) -> None:
        if hasattr(self, "session"):
            self.read()
            for person in self.people.values():
                assert person.seen == [seq for _, seq in self.lines[person.start :]]

    @invariant()
    def an_open_question_is_in_front_of_one_client_or_nobody_is_there(self) -> None:
        if hasattr(self, "session"):
            self.read()
            shown = sorted((id for person in self.people.values() for id in person.questions), key=str)
            still = sorted((json.loads(id) for id in self.session.core.fold.requests), key=str)
            assert shown == (still if self.people else [])
            for id, key in self.session.asked_of.items():
                assert key is None or json.loads(id) in self.people[key].questions

    @invariant()
    def everybody_knows_the_open_questions_of_the_others(self) -> None:
        if hasattr(self, "session"):
            self.read()
            asked_of = {json.loads(id): key for id, key in self.session.asked_of.items()}
            for me, person in self.people.items():
                assert person.elsewhere == {id: key for id, key in asked_of.items() if key != me}

    @invariant()
    def the_window_holds(self) -> None:
        if hasattr(self, "session"):
            core = self.session.core
            assert len(core.waiting) <= 4 and core.queued_bytes == sum(each.size for each in core.queue) >= 0

    @rule()
    def wait_until_all_is_due(self) -> None:
        """However it went, everybody who asked and stayed has one answer by then."""
        self.now += 3 * TIMEOUT_S
        for _ in range(3):  # what a deadline lets go may be sent, and is due as well
            self.session.expire(self.now)
        self.read()
        assert all(count == 1 for person in self.people.values() for count in person.answers.values())


class SmallRing(Relay):
    """The same where the ring keeps only a few frames."""

    ring_bytes = 300


TestRelay = Relay.TestCase
TestRelay.settings = settings(STEADY, max_examples=60, stateful_step_count=40)
TestSmallRing = SmallRing.TestCase
TestSmallRing.settings = settings(STEADY, max_examples=40, stateful_step_count=40)
