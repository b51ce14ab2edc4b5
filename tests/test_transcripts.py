"""What the real Codex said (tests/tools/record_transcripts.py), relayed as a gateway would."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from relay_kit import Session, spread

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.jsonl"))
Line = tuple[str, bytes, dict[str, Any]]  # in or out, the line, what it says

every_transcript = pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)


def lines_of(path: Path) -> list[Line]:
    """The lines of a transcript that are JSON objects; the recorder sent a few that are not, on purpose."""
    found = []
    for record in map(json.loads, path.read_text("utf-8").split("\n")[:-1]):
        try:
            says = json.loads(record["line"])
        except ValueError:
            assert record["dir"] == "in"
            continue
        if isinstance(says, dict):
            found.append((record["dir"], record["line"].encode(), says))
    return found


def is_answer(says: dict[str, Any]) -> bool:
    return "method" not in says and "id" in says


def is_broadcast(says: dict[str, Any]) -> bool:
    return "method" in says and "id" not in says


def split(lines: list[Line], want: Any) -> list[bytes]:
    return [text for way, text, says in lines if way == "out" and want(says)]


def fed(path: Path) -> tuple[Session, list[Line]]:
    """A session with two clients, after all that Codex said in this scene; nobody answers or asks."""
    session, lines = Session(), lines_of(path)
    session.attach("a", with_seq=True)
    session.attach("b")
    session.feed(*[text for way, text, _ in lines if way == "out"])
    return session, lines


def without_seq(frame: bytes) -> bytes:
    """A numbered frame as it was; the number is the last thing in it."""
    head, _, number = frame.rpartition(b',"seq":')
    assert number[:-1].isdigit()
    return head + b"}"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 15


@every_transcript
def test_notifications_reach_every_client_to_the_byte(path: Path) -> None:
    session, lines = fed(path)
    asked = split(lines, lambda says: "method" in says and "id" in says)
    got = session.got("a")
    assert [without_seq(each) for each in got if b'"seq":' in each[-24:]] == split(lines, is_broadcast)
    assert session.got("b") == split(lines, is_broadcast)
    assert set(asked) == {each for each in got if b'"seq":' not in each[-24:]}


@every_transcript
def test_turns_open_and_close_where_codex_says_so(path: Path) -> None:
    session, open_turns = Session(), {}
    for way, text, says in lines_of(path):
        if way == "in":
            continue
        session.feed(text)
        params = says.get("params", {})
        if says.get("method") == "turn/started":
            open_turns[params["threadId"]] = params["turn"]["id"]
        elif says.get("method") == "turn/completed":
            assert open_turns.pop(params["threadId"]) == params["turn"]["id"]
        assert session.core.fold.turns == open_turns
    assert not open_turns


@every_transcript
def test_a_client_that_reads_in_pieces_sees_each_frame_once(path: Path) -> None:
    session, lines = Session(), lines_of(path)
    texts = [text for way, text, _ in lines if way == "out"]
    got, cursor = [], "e:0"
    for number in range(0, len(texts), 7):
        attached = session.attach("a", cursor=cursor, with_seq=True)
        assert attached.resume == "ok"
        session.feed(*texts[number : number + 7])
        new = [each for each in session.got("a") if b'"seq":' in each[-24:]]
        session.detach("a")
        got += [without_seq(each) for each in new]
        cursor = f"e:{json.loads(new[-1])['seq']}" if new else cursor
    assert got == split(lines, is_broadcast)


@every_transcript
def test_all_of_it_in_one_block_or_line_by_line_is_the_same(path: Path) -> None:
    whole, lines = fed(path)
    single = Session()
    single.attach("a", with_seq=True)
    for way, text, _ in lines:
        if way == "out":
            single.feed(text)
    assert single.got("a") == whole.got("a") and single.core.fold.requests == whole.core.fold.requests
    assert spread(single.core.fold.ring.entries) == spread(whole.core.fold.ring.entries)


# -- the whole conversation, both ways


@dataclass
class Replay:
    """The recorder as a client of the gateway: its requests go through the Core, and Codex answers with new ids."""

    session: Session = field(default_factory=lambda: Session(ready=False))
    ids: list[tuple[Any, int]] = field(default_factory=list)  # the recorder's id of what is in flight, and the Core's
    expected: list[bytes] = field(default_factory=list)
    got: list[bytes] = field(default_factory=list)
    asked: dict[str, bytes] = field(default_factory=dict)  # open questions, by the JSON of their id

    def play(self, lines: list[Line]) -> None:
        self.session.up()
        self.session.shake()
        self.session.attach("a")
        for way, text, says in lines:
            if way == "in":
                self._say(text, says)
            else:
                self._hear(text, says)
            self.got += self.session.got("a")
            self._check_questions()

    def _say(self, text: bytes, says: dict[str, Any]) -> None:
        if says.get("method") in ("initialize", "initialized") or ("method" not in says and "id" not in says):
            return
        if says.get("id", 0) is None:  # the recorder tried one, and Codex never answers it
            return
        late = is_answer(says) and json.dumps(says["id"]) not in self.asked
        self.session.says("a", text)
        if late:
            (refused,) = self.session.got("a")
            assert b'"error"' in refused and self.session.sent() == []
            return
        (sent,) = self.session.sent_json()
        if is_answer(says):
            assert sent == says
            del self.asked[json.dumps(says["id"])]
        else:
            assert {**sent, "id": says["id"]} == says
            self.ids.append((says["id"], sent["id"]))

    def _hear(self, text: bytes, says: dict[str, Any]) -> None:
        pair = next((pair for pair in self.ids if is_answer(says) and pair[0] == says["id"]), None)
        if is_answer(says) and pair is None:
            return  # the answer to a handshake of the recorder's own
        if pair is not None:
            self.ids.remove(pair)
            text_id = text.index(b'"id":')
            end = text_id + 5 + len(json.dumps(says["id"]))
            self.session.feed(text[:text_id] + b'"id":%d' % pair[1] + text[end:])
        else:
            self.session.feed(text)
        self._note_question(text, says)
        if json.dumps(says.get("id")) in self.asked and "method" in says and text in self.expected:
            return  # asked again: the client has it
        self.expected.append(text)

    def _note_question(self, text: bytes, says: dict[str, Any]) -> None:
        params = says.get("params", {})
        if "method" in says and "id" in says:
            self.asked.setdefault(json.dumps(says["id"]), text)
        elif says.get("method") == "serverRequest/resolved":
            self.asked.pop(json.dumps(params["requestId"]), None)
        elif says.get("method") == "turn/completed":
            thread = params["threadId"].encode()
            self.asked = {id: text for id, text in self.asked.items() if thread not in text}

    def _check_questions(self) -> None:
        assert self.session.asked_of == {id.encode(): "a" for id in self.asked}


@every_transcript
def test_the_conversation_through_the_gateway_is_the_one_that_was_recorded(path: Path) -> None:
    replay = Replay()
    replay.play(lines_of(path))
    assert replay.got == replay.expected
    assert not replay.asked and not replay.session.core.queue


def test_questions_come_and_go_in_the_scenes_that_have_them() -> None:
    scenes = {path.stem: Replay() for path in TRANSCRIPTS}
    for path in TRANSCRIPTS:
        scenes[path.stem].play(lines_of(path))
    asked = {name for name, replay in scenes.items() if any(b"requestApproval" in each for each in replay.got)}
    assert asked >= {"command-accepted", "command-declined", "patch-accepted", "approval-interrupted"}
    again = [each for each in scenes["approval-asked-again"].got if b"requestApproval" in each]
    assert len(again) == 1
