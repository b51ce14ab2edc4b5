"""The demo agent, driven as a bridge drives it: a process, two pipes, lines of JSON."""

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "runtime" / "adapters" / "demo.py"
PATIENCE_S = 10.0
MIB = 1 << 20
ASK = "item/commandExecution/requestApproval"


class Demo:
    """One life of the demo agent. Everything it prints is in `messages`, in order."""

    def __init__(self, home, initialize=True, listen=True):
        self.messages, self.longest, self.last_id = [], 0, 0
        self.changed = threading.Condition()
        self.stderr = (home / "stderr").open("ab+")
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT], cwd=home, env={**os.environ, "ARGUS_AGENT_STATE": str(home / "state")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read)
        if listen:
            self.reader.start()
        if initialize:
            self.ask("initialize", clientInfo={"name": "tests"})
            self.send({"method": "initialized"})

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.messages.append(json.loads(line))
                self.longest = max(self.longest, len(line))
                self.changed.notify_all()

    def send_line(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def send(self, message):
        self.send_line(json.dumps(message).encode() + b"\n")

    def wait(self, wanted, patience_s=PATIENCE_S):
        """The first message for which wanted(message) holds, be it there already or still to come."""
        seen = 0
        with self.changed:
            deadline = time.monotonic() + patience_s
            while True:
                for message in self.messages[seen:]:
                    if wanted(message):
                        return message
                seen = len(self.messages)
                left = deadline - time.monotonic()
                assert left > 0, f"it never came; the last messages were {self.messages[-5:]}"
                self.changed.wait(left)

    def post(self, method, **params):
        self.last_id += 1
        self.send({"id": self.last_id, "method": method, "params": params})
        return self.last_id

    def answer_to(self, request_id):
        return self.wait(lambda message: message.get("id") == request_id and "method" not in message)

    def ask(self, method, **params):
        """The result of a request."""
        answer = self.answer_to(self.post(method, **params))
        assert "result" in answer, answer
        return answer["result"]

    def refusal(self, method, **params):
        """The error of a request."""
        return self.answer_to(self.post(method, **params))["error"]

    def start_thread(self, **params):
        return self.ask("thread/start", **params)["thread"]["id"]

    def start_turn(self, thread_id, text, **params):
        words = [{"type": "text", "text": text}]
        return self.ask("turn/start", threadId=thread_id, input=words, **params)["turn"]["id"]

    def of(self, turn_id):
        """The notifications and requests of a turn so far."""
        return [message for message in self.messages if turn_of(message) == turn_id]

    def see(self, turn_id, method, **params):
        """The first notification or request of a turn with this method and these parameters."""

        def wanted(message):
            return (
                message.get("method") == method
                and turn_of(message) == turn_id
                and params.items() <= message["params"].items()
            )

        return self.wait(wanted)

    def end(self, turn_id):
        """The turn of its turn/completed."""
        return self.see(turn_id, "turn/completed")["params"]["turn"]

    def run(self, thread_id, text, **params):
        """A whole turn: its notifications from turn/started to turn/completed."""
        turn_id = self.start_turn(thread_id, text, **params)
        self.end(turn_id)
        return self.of(turn_id)

    def approval(self, turn_id):
        return self.see(turn_id, ASK)

    def turns(self, thread_id):
        return self.ask("thread/read", threadId=thread_id, includeTurns=True)["thread"]["turns"]

    def log(self):
        self.stderr.seek(0)
        return self.stderr.read().decode()

    def close(self, kill=False):
        """End it by closing its stdin, or by kill -9; its exit code."""
        if kill:
            self.process.kill()
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # it has left already
            pass
        code = self.process.wait(PATIENCE_S)
        if self.reader.ident:
            self.reader.join(PATIENCE_S)
        self.process.stdout.close()
        return code


def turn_of(message):
    params = message.get("params", {})
    return params.get("turnId") or params.get("turn", {}).get("id")


def items_of(messages, event="item/completed", kind=None):
    items = [message["params"]["item"] for message in messages if message.get("method") == event]
    return [item for item in items if kind in (None, item["type"])]


def text_of(messages, method="item/agentMessage/delta"):
    return "".join(message["params"]["delta"] for message in messages if message.get("method") == method)


def wait_until_dead(pid):
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        assert poll.poll(PATIENCE_S * 1000), f"process {pid} is still alive"
    finally:
        os.close(watch)


@pytest.fixture
def start(tmp_path):
    """Starts demo agents that share one home, and ends those that are left."""
    started = []

    def start_one(**options):
        started.append(Demo(tmp_path, **options))
        return started[-1]

    yield start_one
    for demo in started:
        demo.close(kill=True)
        demo.stderr.close()


@pytest.fixture
def demo(start):
    return start()


@pytest.fixture
def thread(demo):
    return demo.start_thread()


# -- the handshake, and requests that are wrong


def test_nothing_works_before_initialize(start):
    demo = start(initialize=False)
    assert demo.refusal("thread/list") == {"code": -32600, "message": "Not initialized"}
    answer = demo.ask("initialize", clientInfo={"name": "tests"})
    assert answer.keys() == {"userAgent", "codexHome", "platformFamily", "platformOs"}
    assert answer["userAgent"].startswith("tests/")
    assert demo.ask("thread/list") == {"data": [], "nextCursor": None}


def test_a_second_initialize_is_refused_and_harms_nothing(demo):
    refusal = demo.refusal("initialize", clientInfo={"name": "again"})
    assert refusal == {"code": -32600, "message": "Already initialized"}
    assert demo.start_thread()


def test_a_missing_field_is_named(start):
    demo = start(initialize=False)
    assert "missing field `clientInfo`" in demo.refusal("initialize")["message"]
    demo.ask("initialize", clientInfo={"name": "tests"})
    demo.send({"id": "no-params", "method": "thread/list"})
    assert "missing field `params`" in demo.answer_to("no-params")["error"]["message"]
    for method, params, name in [
        ("thread/resume", {}, "threadId"),
        ("turn/start", {}, "threadId"),
        ("turn/start", {"threadId": demo.start_thread()}, "input"),
        ("turn/steer", {"threadId": demo.start_thread()}, "expectedTurnId"),
        ("turn/interrupt", {"threadId": demo.start_thread()}, "turnId"),
    ]:
        assert f"missing field `{name}`" in demo.refusal(method, **params)["message"]


@pytest.mark.parametrize("method, params", [
    ("thread/start", {"approvalPolicy": "sometimes"}),
    ("thread/start", {"approvalPolicy": {"granular": {}}}),
    ("thread/start", {"sandbox": "none"}),
    ("thread/start", {"cwd": 5}),
    ("thread/list", {"limit": 0}),
    ("thread/list", {"limit": True}),
    ("thread/list", {"cursor": "yesterday"}),
    ("thread/list", {"sortKey": "name"}),
    ("no/such", {}),
])  # fmt: skip
def test_a_wrong_value_is_refused_in_one_short_line(demo, method, params):
    refusal = demo.refusal(method, **params)
    assert refusal["code"] == -32600
    assert refusal["message"].startswith("Invalid request: ") and len(refusal["message"]) < 200


@pytest.mark.parametrize("words", ["hello", ["hello"], [{"text": "x"}], [{"type": "text"}], [{"type": 1}]])
def test_input_of_another_shape_is_refused(demo, thread, words):
    assert demo.refusal("turn/start", threadId=thread, input=words)["code"] == -32600


def test_ids_keep_their_type_and_value(demo):
    for request_id in ["a", "7", -3, 0, 2**53 - 1]:
        demo.send({"id": request_id, "method": "thread/list", "params": {}})
        demo.wait(lambda message, wanted=request_id: message.get("id") == wanted and "result" in message)


@pytest.mark.parametrize("line", [
    b"", b"hello", b"[]", b"5", b"null", b'{"id":1', b'{"id":1,"method":"x"}{"id":2,"method":"y"}',
    b'{"id":5,"method":"thread/list","params":{"a":"\xff\xfe"}}', b"\x00\x00", b"[" * 100_000,
    b'{"id":5,"method":"thread/list","params":{}}\x00', b'\xef\xbb\xbf{"id":5,"method":"x","params":{}}',
    b'{"id":1.5,"method":"thread/list","params":{}}', b'{"id":null,"method":"thread/list","params":{}}',
    b'{"id":true,"method":"thread/list","params":{}}', b'{"id":5,"method":[],"params":{}}',
    b'{"method":"no/such/notification"}', b'{"id":99,"result":{}}', b'{"id":[],"result":{}}', b"{}",
])  # fmt: skip
def test_a_line_that_is_no_message_is_skipped(demo, line):
    before = len(demo.messages)
    demo.send_line(line + b"\n")
    assert demo.ask("thread/list") == {"data": [], "nextCursor": None}
    assert len(demo.messages) == before + 1


def test_a_skipped_line_leaves_a_note_on_stderr(demo):
    demo.send_line(b"hello\n")
    demo.ask("thread/list")
    assert "not a JSON object" in demo.log()


def test_windows_line_ends_and_odd_characters_are_fine(demo, thread):
    demo.send_line(b'{"id":"crlf","method":"thread/list","params":{}}\r\n')
    assert demo.answer_to("crlf")
    messages = demo.run(thread, "Grüße \u2028 😀 \x00 \ud800")
    assert "Grüße \u2028 😀 \x00 ?" in text_of(messages)


def test_input_that_could_not_be_repeated_in_one_line_is_refused(demo, thread):
    refusal = demo.refusal("turn/start", threadId=thread, input=[{"type": "text", "text": "x" * (8 * MIB)}])
    assert "longer than" in refusal["message"]
    messages = demo.run(thread, "\x01" * MIB)  # six bytes each in JSON
    assert text_of(messages).startswith("\x01" * MIB)
    assert demo.turns(thread)[0]["status"] == "completed"
    assert demo.longest < 8 * MIB


# -- a turn


def test_a_turn_looks_like_one_of_the_real_app_server(demo):
    started = demo.ask("thread/start", cwd="/", approvalPolicy="never", sandbox="read-only")
    thread = started["thread"]
    assert {key: started[key] for key in ("cwd", "approvalPolicy", "sandbox", "modelProvider")} == {
        "cwd": "/", "approvalPolicy": "never", "sandbox": {"type": "readOnly"}, "modelProvider": "demo",
    }  # fmt: skip
    assert demo.wait(lambda m: m.get("method") == "thread/started")["params"] == {"thread": thread}
    assert thread["status"] == {"type": "idle"} and thread["turns"] == [] and thread["name"] is None
    turn_id = demo.start_turn(thread["id"], "hi")
    demo.end(turn_id)
    methods = [message.get("method", "answer") for message in demo.messages[1:]]
    assert [method for at, method in enumerate(methods) if method != methods[at - 1]] == [
        "answer", "thread/started", "answer", "thread/status/changed", "turn/started",
        "item/started", "item/completed",
        "item/started", "item/agentMessage/delta", "item/completed", "thread/tokenUsage/updated",
        "thread/status/changed", "turn/completed",
    ]  # fmt: skip
    states = [m["params"]["status"] for m in demo.messages if m.get("method") == "thread/status/changed"]
    assert states == [{"type": "active", "activeFlags": []}, {"type": "idle"}]
    assert all("emittedAtMs" in message for message in demo.messages if "method" in message)
    assert all("jsonrpc" not in message for message in demo.messages)


def test_the_end_of_a_turn_carries_its_last_message_and_times(demo, thread):
    turn_id = demo.start_turn(thread, "hi there")
    turn, message = demo.end(turn_id), items_of(demo.of(turn_id), kind="agentMessage")[-1]
    assert turn["status"] == "completed" and turn["error"] is None
    assert turn["items"] == [message] and turn["itemsView"] == "summary"
    assert abs(turn["startedAt"] - time.time()) < 60 and turn["startedAt"] <= turn["completedAt"]
    assert 0 <= turn["durationMs"] < PATIENCE_S * 1000


def test_other_words_are_repeated_with_a_hint_at_codex(demo, thread):
    messages = demo.run(thread, "hello there\n\nworld")
    text = items_of(messages, kind="agentMessage")[0]["text"]
    assert text.startswith("hello there\n\nworld\n") and text == text_of(messages)
    hint = text.splitlines()[-1]
    assert "built-in demo agent" in hint and "./argus up --agent codex" in hint


def test_empty_and_pictured_input_is_accepted(demo, thread):
    picture = {"type": "image", "url": "data:image/png;base64,AAAA"}
    for words in ([], [picture], [picture, {"type": "text", "text": "look"}]):
        turn_id = demo.ask("turn/start", threadId=thread, input=words)["turn"]["id"]
        assert demo.end(turn_id)["status"] == "completed"
    assert "look" in text_of(demo.of(turn_id))


@pytest.mark.parametrize("client_id", ["cum-1", None])
def test_the_user_message_carries_the_id_that_its_client_chose(demo, thread, client_id):
    chosen = {"clientUserMessageId": client_id} if client_id else {}
    messages = demo.run(thread, "hi", **chosen)
    for event in ("item/started", "item/completed"):
        item = items_of(messages, event, "userMessage")[0]
        assert item["clientId"] == client_id
        assert item["content"] == [{"type": "text", "text": "hi", "text_elements": []}]
    assert demo.turns(thread)[0]["items"][0]["clientId"] == client_id


def test_slow_counts_at_the_pace_it_was_told(demo, thread):
    messages = demo.run(thread, "slow 4 0.05")
    deltas = [message for message in messages if message["method"] == "item/agentMessage/delta"]
    assert [message["params"]["delta"] for message in deltas] == ["1 ", "2 ", "3 ", "4 "]
    assert deltas[-1]["emittedAtMs"] - deltas[0]["emittedAtMs"] >= 145
    assert items_of(messages, kind="agentMessage")[0]["text"] == "1 2 3 4 "


def test_slow_takes_a_tenth_of_a_second_for_a_number_if_not_told(demo, thread):
    deltas = [m for m in demo.run(thread, "slow 3") if m["method"] == "item/agentMessage/delta"]
    assert 195 <= deltas[-1]["emittedAtMs"] - deltas[0]["emittedAtMs"] < 2000


@pytest.mark.parametrize("size", [0, 1, 70_000, MIB])
def test_big_text_up_to_a_mebibyte_is_repeated_in_full(demo, thread, size):
    messages = demo.run(thread, f"big {size}")
    assert len(text_of(messages)) == size
    assert items_of(messages, kind="agentMessage")[0]["text"] == text_of(messages)


def test_bigger_text_comes_in_deltas_alone(demo, thread):
    messages = demo.run(thread, f"big {16 * MIB + 5}")
    deltas = [m["params"]["delta"] for m in messages if m["method"] == "item/agentMessage/delta"]
    assert sum(map(len, deltas)) == 16 * MIB + 5 and max(map(len, deltas)) == 64 << 10
    assert [int(delta[:12]) for delta in deltas[:-1]] == [at << 16 for at in range(256)]
    note = items_of(messages, kind="agentMessage")[0]["text"]
    assert str(16 * MIB + 5) in note and len(note) < 200
    assert demo.end(turn_of(messages[0]))["items"][0]["text"] == note


def test_fail_ends_in_an_error_and_the_next_turn_works(demo, thread):
    turn_id = demo.start_turn(thread, "fail")
    turn = demo.end(turn_id)
    assert turn["status"] == "failed" and turn["error"]["message"]
    methods = [message["method"] for message in demo.of(turn_id)]
    assert methods[-2:] == ["error", "turn/completed"]
    error = demo.see(turn_id, "error")["params"]
    assert error["error"] == turn["error"] and error["willRetry"] is False
    read = demo.ask("thread/read", threadId=thread, includeTurns=True)["thread"]
    assert read["status"] == {"type": "systemError"}
    assert (read["turns"][0]["status"], read["turns"][0]["error"]) == ("failed", turn["error"])
    assert demo.end(demo.start_turn(thread, "hi"))["status"] == "completed"


def test_turns_of_several_threads_run_at_the_same_time(demo):
    turns = [demo.start_turn(demo.start_thread(), "slow 200 0.02") for _ in range(4)]
    for turn_id in turns:
        demo.see(turn_id, "item/agentMessage/delta", delta="3 ")
    order = [turn_of(m) for m in demo.messages if m.get("method") == "item/agentMessage/delta"]
    assert set(order[-8:]) == set(turns)


def test_the_message_is_on_disk_when_the_request_is_answered(demo, thread):
    demo.start_turn(thread, "slow 100", clientUserMessageId="cum-7")
    file = Path(demo.ask("thread/read", threadId=thread)["thread"]["path"])
    demo.close(kill=True)
    assert '"clientId":"cum-7"' in file.read_text()


# -- steering


def test_a_second_turn_start_steers_the_running_turn(demo, thread):
    turn_id = demo.start_turn(thread, "slow 1000 0.02")
    demo.see(turn_id, "item/agentMessage/delta", delta="2 ")
    assert demo.start_turn(thread, "hello", clientUserMessageId="second") == turn_id
    assert demo.end(turn_id)["status"] == "completed"
    messages = demo.of(turn_id)
    begun, ended = items_of(messages, "item/started"), items_of(messages)
    assert [item["type"] for item in begun] == ["userMessage", "agentMessage", "userMessage", "agentMessage"]
    assert [item["type"] for item in ended] == ["userMessage", "userMessage", "agentMessage"]
    assert ended[-1]["id"] == begun[-1]["id"] and ended[-1]["text"].startswith("hello\n")
    second = messages.index(next(m for m in messages if m["params"].get("item") == begun[2]))
    assert all(m["params"].get("itemId") != begun[1]["id"] for m in messages[second:])
    demo.run(thread, "hi")
    ends = [m for m in demo.messages if m.get("method") == "turn/completed" and turn_of(m) == turn_id]
    assert len(ends) == 1
    read = demo.turns(thread)[0]
    assert [item.get("clientId") for item in read["items"]] == [None, "second", None]


def test_turn_steer_does_the_same_for_the_turn_it_names(demo, thread):
    turn_id = demo.start_turn(thread, "slow 1000 0.02")
    demo.see(turn_id, "item/agentMessage/delta", delta="1 ")
    words = {"threadId": thread, "input": [{"type": "text", "text": "steered"}]}
    refusal = demo.refusal("turn/steer", expectedTurnId="other", **words)
    assert refusal["message"] == f"expected active turn id `other` but found `{turn_id}`"
    answer = demo.ask("turn/steer", expectedTurnId=turn_id, clientUserMessageId="cum-2", **words)
    assert answer == {"turnId": turn_id}
    assert demo.end(turn_id)["items"][0]["text"].startswith("steered\n")
    assert items_of(demo.of(turn_id), kind="userMessage")[1]["clientId"] == "cum-2"
    refusal = demo.refusal("turn/steer", expectedTurnId=turn_id, **words)
    assert refusal == {"code": -32600, "message": "no active turn to steer"}


def test_what_is_said_while_an_approval_waits_is_answered_after_it(demo, thread):
    turn_id = demo.start_turn(thread, "run: echo first")
    request = demo.approval(turn_id)
    assert demo.start_turn(thread, "second") == turn_id
    demo.send({"id": request["id"], "result": {"decision": "accept"}})
    assert demo.end(turn_id)["items"][0]["text"].startswith("second\n")
    kinds = [item["type"] for item in items_of(demo.of(turn_id))]
    assert kinds == ["userMessage", "userMessage", "commandExecution", "agentMessage"]


# -- interrupting


def interrupt(demo, thread, turn_id):
    """Interrupt a turn; what came from the moment of the request on, and the seconds it took."""
    before, asked_at = len(demo.messages), time.monotonic()
    assert demo.ask("turn/interrupt", threadId=thread, turnId=turn_id) == {}
    turn = demo.end(turn_id)
    took = time.monotonic() - asked_at
    assert turn["status"] == "interrupted" and turn["error"] is None
    assert demo.turns(thread)[-1]["status"] == "interrupted"
    demo.run(thread, "hi")  # nothing of the old turn comes in between
    later = [message for message in demo.messages[before:] if turn_of(message) == turn_id]
    assert later[-1]["method"] == "turn/completed"
    assert took < 20
    return later


def test_interrupting_a_message(demo, thread):
    turn_id = demo.start_turn(thread, "slow 5 60")
    demo.see(turn_id, "item/agentMessage/delta", delta="1 ")
    later = interrupt(demo, thread, turn_id)
    assert not items_of(later)
    assert [item["type"] for item in demo.turns(thread)[0]["items"]] == ["userMessage"]


def test_interrupting_a_flood_of_text(demo, thread):
    turn_id = demo.start_turn(thread, "big 100000000000")
    demo.see(turn_id, "item/agentMessage/delta")
    interrupt(demo, thread, turn_id)


def test_interrupting_a_command_kills_all_its_processes(demo, thread):
    command = "sleep 300 & echo $! $$; wait"
    turn_id = demo.start_turn(thread, f"run: {command}", approvalPolicy="never")
    output = demo.see(turn_id, "item/commandExecution/outputDelta")["params"]["delta"]
    later = interrupt(demo, thread, turn_id)
    assert not items_of(later)
    for pid in output.split():
        wait_until_dead(int(pid))


def test_interrupting_a_flood_of_output(demo, thread):
    turn_id = demo.start_turn(thread, "run: yes", approvalPolicy="never")
    demo.see(turn_id, "item/commandExecution/outputDelta")
    interrupt(demo, thread, turn_id)


def test_interrupting_a_waiting_approval_withdraws_it(demo, thread):
    turn_id = demo.start_turn(thread, "run: touch never")
    request = demo.approval(turn_id)
    before = len(demo.messages)
    interrupt(demo, thread, turn_id)
    methods = [message["method"] for message in demo.messages[before:] if "method" in message]
    assert methods[:3] == ["serverRequest/resolved", "thread/status/changed", "turn/completed"]
    demo.send({"id": request["id"], "result": {"decision": "accept"}})  # too late
    assert demo.ask("thread/read", threadId=thread)["thread"]["status"] == {"type": "idle"}
    assert not Path(demo.ask("thread/read", threadId=thread)["thread"]["cwd"], "never").exists()


def test_only_the_running_turn_can_be_interrupted(demo, thread):
    refusal = demo.refusal("turn/interrupt", threadId=thread, turnId="x")
    assert refusal == {"code": -32600, "message": "no active turn to interrupt"}
    turn_id = demo.start_turn(thread, "slow 5 60")
    refusal = demo.refusal("turn/interrupt", threadId=thread, turnId="x")
    assert refusal["message"] == f"expected active turn id `x` but found `{turn_id}`"
    interrupt(demo, thread, turn_id)
    assert demo.refusal("turn/interrupt", threadId=thread, turnId=turn_id)["code"] == -32600


# -- commands and approvals


def command_of(messages, event="item/completed"):
    return items_of(messages, event, "commandExecution")[0]


def test_a_command_runs_in_the_directory_of_its_thread(demo, tmp_path):
    (tmp_path / "here").mkdir()
    thread = demo.start_thread(cwd="here", approvalPolicy="never")
    messages = demo.run(thread, "run: pwd; echo problem >&2; cat")
    begun, item = command_of(messages, "item/started"), command_of(messages)
    assert begun == {**item, "status": "inProgress", "processId": None, "aggregatedOutput": None,
                     "exitCode": None, "durationMs": None}  # fmt: skip
    assert item["command"] == "pwd; echo problem >&2; cat" and item["cwd"] == str(tmp_path / "here")
    assert (item["status"], item["exitCode"], item["source"]) == ("completed", 0, "agent")
    assert item["aggregatedOutput"] == f"{tmp_path}/here\nproblem\n"
    assert text_of(messages, "item/commandExecution/outputDelta") == item["aggregatedOutput"]
    assert item["processId"].isdigit() and item["durationMs"] >= 0
    assert "exit code 0" in items_of(messages, kind="agentMessage")[0]["text"]
    assert [item["type"] for item in demo.turns(thread)[0]["items"]] == [
        "userMessage", "commandExecution", "agentMessage",
    ]  # fmt: skip


@pytest.mark.parametrize("command, code, output", [
    ("exit 3", 3, None), ("kill -9 $$", 137, None), ("echo a; false", 1, "a\n"),
    ("a \0 b", None, "embedded null byte"), ("printf '\\377\\303'", 0, "\ufffd\ufffd"),
])  # fmt: skip
def test_the_exit_code_decides_about_the_status(demo, command, code, output):
    item = command_of(demo.run(demo.start_thread(approvalPolicy="never"), f"run: {command}"))
    assert (item["exitCode"], item["aggregatedOutput"]) == (code, output)
    assert item["status"] == ("completed" if code == 0 else "failed")


def test_a_command_that_cannot_start_fails_and_the_turn_goes_on(demo):
    messages = demo.run(demo.start_thread(cwd="/no/such/place", approvalPolicy="never"), "run: true")
    item = command_of(messages)
    assert (item["status"], item["exitCode"]) == ("failed", None)
    assert "/no/such/place" in item["aggregatedOutput"]
    assert messages[-1]["params"]["turn"]["status"] == "completed"


def test_long_output_is_cut_after_a_mebibyte_with_a_note(demo):
    messages = demo.run(demo.start_thread(approvalPolicy="never"), "run: seq 400000")
    output, full = command_of(messages)["aggregatedOutput"], "".join(f"{n}\n" for n in range(1, 400001))
    head, note = output.rsplit("\n", 1)
    assert full.startswith(head) and len(output) == MIB and str(len(full)) in note
    assert max(len(m["params"].get("delta", "")) for m in messages) <= 64 << 10


@pytest.mark.parametrize("left", ["sleep 300", "setsid sleep 300", "yes"])
def test_what_a_command_leaves_behind_does_not_hold_up_the_turn(demo, left):
    messages = demo.run(demo.start_thread(approvalPolicy="never"), f"run: {left} & echo $!; exit 0")
    item = command_of(messages)
    assert item["status"] == "completed"
    pid = int(re.search(r"^\d+$", item["aggregatedOutput"], re.MULTILINE)[0])
    if left.startswith("setsid"):
        os.kill(pid, signal.SIGKILL)
    wait_until_dead(pid)


@pytest.mark.parametrize("policy, asks", [
    ("untrusted", True), ("on-request", True), (None, True), ("never", False), ("on-failure", False),
])  # fmt: skip
def test_the_policy_decides_whether_approval_is_asked_for(demo, policy, asks):
    thread = demo.start_thread(**({"approvalPolicy": policy} if policy else {}))
    turn_id = demo.start_turn(thread, "run: echo hi")
    if asks:
        demo.send({"id": demo.approval(turn_id)["id"], "result": {"decision": "accept"}})
    assert demo.end(turn_id)["status"] == "completed"
    assert any(message["method"] == ASK for message in demo.of(turn_id)) is asks
    assert command_of(demo.of(turn_id))["aggregatedOutput"] == "hi\n"


def test_the_policy_and_directory_of_a_turn_hold_for_later_ones(start, tmp_path):
    demo = start()
    thread = demo.start_thread(approvalPolicy="untrusted")
    demo.run(thread, "run: true", approvalPolicy="never", cwd="/", sandboxPolicy={"type": "dangerFullAccess"})
    assert command_of(demo.run(thread, "run: pwd"))["aggregatedOutput"] == "/\n"
    demo.close()
    demo = start()
    resumed = demo.ask("thread/resume", threadId=thread)
    assert (resumed["approvalPolicy"], resumed["cwd"]) == ("never", "/")
    assert resumed["sandbox"] == {"type": "dangerFullAccess"}
    assert command_of(demo.run(thread, "run: pwd"))["aggregatedOutput"] == "/\n"
    resumed = demo.ask("thread/resume", threadId=thread, approvalPolicy="untrusted", cwd=str(tmp_path))
    assert (resumed["approvalPolicy"], resumed["cwd"]) == ("untrusted", str(tmp_path))


def test_asking_comes_in_the_order_of_the_real_app_server(demo, thread, tmp_path):
    turn_id = demo.start_turn(thread, "run: echo hi > made")
    request = demo.approval(turn_id)
    assert request["id"] == 0 and type(request["id"]) is int
    assert request["params"]["command"] == "echo hi > made" and request["params"]["cwd"] == str(tmp_path)
    assert "accept" in request["params"]["availableDecisions"] and "emittedAtMs" not in request
    status, item, asked = demo.messages[-3:]
    assert status["params"]["status"] == {"type": "active", "activeFlags": ["waitingOnApproval"]}
    assert item["method"] == "item/started" and item["params"]["item"]["id"] == request["params"]["itemId"]
    assert asked is request
    assert demo.ask("thread/read", threadId=thread)["thread"]["status"] == status["params"]["status"]
    assert not (tmp_path / "made").exists()
    before = len(demo.messages)
    demo.send({"id": 0, "result": {"decision": "accept"}})
    demo.end(turn_id)
    resolved, status, item = demo.messages[before : before + 3]
    assert resolved["method"] == "serverRequest/resolved"
    assert resolved["params"] == {"threadId": thread, "requestId": 0}
    assert status["params"]["status"] == {"type": "active", "activeFlags": []}
    assert item["params"]["item"]["status"] == "completed"
    assert (tmp_path / "made").read_text() == "hi\n"


def test_accept_for_session_is_not_asked_again_for_the_same_command(demo, thread):
    turn_id = demo.start_turn(thread, "run: echo a")
    demo.send({"id": demo.approval(turn_id)["id"], "result": {"decision": "acceptForSession"}})
    demo.end(turn_id)
    assert command_of(demo.run(thread, "run: echo a"))["aggregatedOutput"] == "a\n"
    assert demo.approval(demo.start_turn(thread, "run: echo b"))["id"] == 1
    other = demo.start_thread()
    assert demo.approval(demo.start_turn(other, "run: echo a"))["id"] == 2


def test_accept_holds_for_one_time_only(demo, thread):
    for number in range(2):
        turn_id = demo.start_turn(thread, "run: echo a")
        assert demo.approval(turn_id)["id"] == number
        demo.send({"id": number, "result": {"decision": "accept"}})
        demo.end(turn_id)


@pytest.mark.parametrize("answer", [
    {"result": {"decision": "decline"}}, {"error": {"code": -32000, "message": "no"}}, {"result": None},
    {"result": {"decision": "perhaps"}}, {"result": {"decision": ["accept"]}}, {"result": "accept"}, {},
])  # fmt: skip
def test_any_other_answer_declines_and_the_turn_goes_on(demo, thread, tmp_path, answer):
    turn_id = demo.start_turn(thread, "run: touch made")
    demo.send({"id": demo.approval(turn_id)["id"], **answer})
    turn = demo.end(turn_id)
    assert turn["status"] == "completed" and "declined" in turn["items"][0]["text"]
    item = command_of(demo.of(turn_id))
    assert (item["status"], item["exitCode"], item["aggregatedOutput"]) == ("declined", None, None)
    assert demo.turns(thread)[0]["items"][1]["status"] == "declined"
    assert not (tmp_path / "made").exists()


def test_cancel_ends_the_turn(demo, thread, tmp_path):
    turn_id = demo.start_turn(thread, "run: touch made")
    demo.send({"id": demo.approval(turn_id)["id"], "result": {"decision": "cancel"}})
    turn = demo.end(turn_id)
    assert (turn["status"], turn["items"]) == ("interrupted", [])
    assert command_of(demo.of(turn_id))["status"] == "declined"
    assert not (tmp_path / "made").exists()
    assert demo.end(demo.start_turn(thread, "hi"))["status"] == "completed"


@pytest.mark.parametrize("wrong", ["0", 0.0, False, None, 1])
def test_an_answer_counts_only_with_the_id_that_was_sent(demo, thread, wrong):
    turn_id = demo.start_turn(thread, "run: echo hi")
    demo.approval(turn_id)
    demo.send({"id": wrong, "result": {"decision": "decline"}})
    status = demo.ask("thread/read", threadId=thread)["thread"]["status"]
    assert status["activeFlags"] == ["waitingOnApproval"]
    demo.send({"id": 0, "result": {"decision": "accept"}})
    demo.end(turn_id)
    assert command_of(demo.of(turn_id))["status"] == "completed"


def test_resuming_a_thread_repeats_its_pending_approval(demo, thread):
    turn_id = demo.start_turn(thread, "run: echo hi")
    request = demo.approval(turn_id)
    resumed = demo.ask("thread/resume", threadId=thread, excludeTurns=True)
    assert resumed["thread"]["status"] == {"type": "active", "activeFlags": ["waitingOnApproval"]}
    demo.wait(lambda message: message == request and message is not request)
    demo.send({"id": request["id"], "result": {"decision": "accept"}})
    assert demo.end(turn_id)["status"] == "completed"
    demo.ask("thread/resume", threadId=thread)
    demo.ask("thread/list")
    assert len([message for message in demo.messages if message == request]) == 2


def test_approvals_of_two_threads_wait_side_by_side(demo):
    threads = [demo.start_thread(), demo.start_thread()]
    turns = [demo.start_turn(thread, "run: echo hi") for thread in threads]
    assert sorted(demo.approval(turn_id)["id"] for turn_id in turns) == [0, 1]
    for turn_id, decision in zip(reversed(turns), ("accept", "decline"), strict=True):
        demo.send({"id": demo.approval(turn_id)["id"], "result": {"decision": decision}})
        demo.end(turn_id)
    assert [command_of(demo.of(turn_id))["status"] for turn_id in turns] == ["declined", "completed"]


# -- what stays


def test_threads_and_their_turns_survive_a_restart(start):
    demo = start()
    thread = demo.start_thread(approvalPolicy="never")
    demo.run(thread, "hello", clientUserMessageId="one")
    demo.run(thread, "run: echo hi")
    demo.run(thread, "fail")
    before = demo.ask("thread/read", threadId=thread, includeTurns=True)["thread"]
    assert demo.close() == 0
    demo = start()
    read = demo.ask("thread/read", threadId=thread, includeTurns=True)["thread"]
    assert read == {**before, "status": {"type": "notLoaded"}}
    assert [turn["status"] for turn in read["turns"]] == ["completed", "completed", "failed"]
    assert read["turns"][0]["items"][0]["clientId"] == "one" and read["preview"] == "hello"
    assert all(turn["itemsView"] == "full" and turn["completedAt"] for turn in read["turns"])
    resumed = demo.ask("thread/resume", threadId=thread)["thread"]
    assert resumed == {**read, "status": {"type": "idle"}}
    assert demo.ask("thread/resume", threadId=thread, excludeTurns=True)["thread"]["turns"] == []
    demo.run(thread, "again")
    assert len(demo.turns(thread)) == 4


@pytest.mark.parametrize("text, policy, begun", [
    ("slow 1000", "never", "item/agentMessage/delta"),
    ("run: echo $$; exec sleep 300", "never", "item/commandExecution/outputDelta"),
    ("run: true", "untrusted", ASK),
])  # fmt: skip
def test_a_turn_during_which_the_process_died_reads_as_interrupted(start, text, policy, begun):
    demo = start()
    thread = demo.start_thread(approvalPolicy=policy)
    turn_id = demo.start_turn(thread, text, clientUserMessageId="cum-9")
    output = demo.see(turn_id, begun)["params"].get("delta", "")
    assert demo.turns(thread)[0]["status"] == "inProgress"
    demo.close(kill=True)
    if "sleep" in text:
        os.kill(int(output), signal.SIGKILL)  # kill -9 left the demo agent no time for it
    demo = start()
    turn = demo.turns(thread)[0]
    assert (turn["id"], turn["status"]) == (turn_id, "interrupted")
    assert turn["items"][0]["clientId"] == "cum-9"
    assert demo.ask("thread/resume", threadId=thread)["thread"]["turns"] == [turn]
    demo.run(thread, "go on", approvalPolicy="never")
    assert [turn["status"] for turn in demo.turns(thread)] == ["interrupted", "completed"]


def test_a_torn_last_line_costs_nothing_else(start):
    demo = start()
    thread = demo.start_thread()
    demo.run(thread, "one")
    file = Path(demo.ask("thread/read", threadId=thread)["thread"]["path"])
    demo.close()
    with file.open("ab") as torn:
        torn.write(b'{"turn":{"id":"half a li')
    demo = start()
    assert len(demo.ask("thread/list")["data"]) == 1
    assert len(demo.ask("thread/resume", threadId=thread)["thread"]["turns"]) == 1
    demo.run(thread, "two", approvalPolicy="never")
    assert [turn["status"] for turn in demo.turns(thread)] == ["completed", "completed"]
    demo.close()
    demo = start()
    assert demo.ask("thread/resume", threadId=thread)["approvalPolicy"] == "never"


def test_a_turn_without_its_message_on_disk_never_happened(start):
    demo = start()
    thread = demo.start_thread()
    turn_id = demo.start_turn(thread, "one")
    demo.end(turn_id)
    file = Path(demo.ask("thread/read", threadId=thread)["thread"]["path"])
    demo.close()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    demo = start()
    assert demo.turns(thread) == []
    assert demo.ask("thread/resume", threadId=thread)["thread"]["turns"] == []


def test_a_file_without_a_beginning_is_left_out(start, tmp_path):
    demo = start()
    thread = demo.start_thread()
    file = Path(demo.ask("thread/read", threadId=thread)["thread"]["path"])
    other = file.with_name("01a1f69a-5388-7c11-bb86-2444a82fc1d7.jsonl")
    other.write_text('{"thr')
    (file.parent / "notes.txt").write_text("not ours")
    assert [shown["id"] for shown in demo.ask("thread/list")["data"]] == [thread]
    assert "no rollout found" in demo.refusal("thread/read", threadId=other.stem)["message"]
    assert "no rollout found" in demo.refusal("thread/resume", threadId=other.stem)["message"]


def test_a_full_disk_fails_the_turn_and_not_the_agent(demo, thread):
    file = Path(demo.ask("thread/read", threadId=thread)["thread"]["path"])
    turn_id = demo.start_turn(thread, "slow 3")
    full, limits = file.stat().st_size + 10, resource.prlimit(demo.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(demo.process.pid, resource.RLIMIT_FSIZE, (full, limits[1]))
    assert demo.end(turn_id)["status"] == "failed"
    assert demo.refusal("turn/start", threadId=thread, input=[])["code"] == -32603
    resource.prlimit(demo.process.pid, resource.RLIMIT_FSIZE, limits)
    demo.run(thread, "hi")
    assert [turn["status"] for turn in demo.turns(thread)] == ["interrupted", "completed"]


def test_a_thread_has_to_be_resumed_before_it_goes_on_after_a_restart(start):
    demo = start()
    thread = demo.start_thread()
    demo.close()
    demo = start()
    words = [{"type": "text", "text": "hi"}]
    refusal = demo.refusal("turn/start", threadId=thread, input=words)
    assert refusal == {"code": -32600, "message": f"thread not found: {thread}"}
    resumed = demo.ask("thread/resume", threadId=thread)  # although it never had a turn
    assert resumed["thread"]["turns"] == [] and resumed["approvalPolicy"] == "on-request"
    assert demo.end(demo.start_turn(thread, "hi"))["status"] == "completed"


@pytest.mark.parametrize("method", ["thread/resume", "thread/read", "thread/archive", "thread/unarchive"])
@pytest.mark.parametrize("thread_id", ["x", "", "../../etc/passwd", "01a1f69a-5388-7c11-bb86-2444a82fc1d7"])
def test_an_unknown_thread_is_not_found(demo, method, thread_id):
    refusal = demo.refusal(method, threadId=thread_id)
    assert refusal == {"code": -32600, "message": f"no rollout found for thread id {thread_id}"}


def test_the_list_shows_the_newest_first_page_by_page(start):
    demo = start()
    threads = sorted(demo.start_thread() for _ in range(5))  # an id begins with the time
    for number, thread in enumerate(threads):
        demo.run(thread, f"I am {number}")
        path = demo.ask("thread/read", threadId=thread)["thread"]["path"]
        os.utime(path, (0, 2e9 - number))  # the clock of the file system is too coarse for a test
    demo.close()
    demo = start()
    for key, order in (("created_at", threads[::-1]), ("updated_at", threads)):
        pages, cursor = [], None
        while not pages or cursor:
            page = demo.ask("thread/list", limit=2, sortKey=key, cursor=cursor, archived=False)
            pages.append([shown["id"] for shown in page["data"]])
            cursor = page["nextCursor"]
        assert pages == [order[:2], order[2:4], order[4:]]
    assert [shown["id"] for shown in demo.ask("thread/list")["data"]] == threads[::-1]
    shown = demo.ask("thread/list", limit=1)["data"][0]
    assert shown == demo.ask("thread/read", threadId=threads[-1])["thread"]
    assert (shown["preview"], shown["status"], shown["turns"]) == ("I am 4", {"type": "notLoaded"}, [])
    assert {"modelProvider", "createdAt", "updatedAt", "path", "cwd", "name"} <= shown.keys()


def test_the_list_reads_only_the_beginning_of_a_thread(demo, thread):
    demo.run(thread, "hello")
    file = Path(demo.ask("thread/read", threadId=thread)["thread"]["path"])
    os.truncate(file, 1 << 40)  # a hole of a terabyte; who read on would never come back
    assert demo.ask("thread/list")["data"][0]["preview"] == "hello"


def test_an_archived_thread_is_put_aside_until_it_is_taken_back(start):
    demo = start()
    thread = demo.start_thread()
    demo.run(thread, "hi")
    assert demo.ask("thread/archive", threadId=thread) == {}
    assert demo.wait(lambda m: m.get("method") == "thread/archived")["params"] == {"threadId": thread}
    notices = [m["params"].get("status") for m in demo.messages if m.get("method", "").startswith("thread/")]
    assert notices[-2:] == [{"type": "notLoaded"}, None]
    assert demo.ask("thread/list")["data"] == []
    assert [shown["id"] for shown in demo.ask("thread/list", archived=True)["data"]] == [thread]
    assert "thread not found" in demo.refusal("turn/start", threadId=thread, input=[])["message"]
    assert "is archived" in demo.refusal("thread/resume", threadId=thread)["message"]
    assert len(demo.turns(thread)) == 1
    demo.close()
    demo = start()
    taken = demo.ask("thread/unarchive", threadId=thread)["thread"]
    assert taken["id"] == thread and taken["status"] == {"type": "notLoaded"}
    assert demo.wait(lambda m: m.get("method") == "thread/unarchived")["params"] == {"threadId": thread}
    assert [shown["id"] for shown in demo.ask("thread/list")["data"]] == [thread]
    demo.ask("thread/resume", threadId=thread)
    assert demo.end(demo.start_turn(thread, "hi"))["status"] == "completed"


def test_a_thread_with_a_running_turn_is_not_archived(demo, thread):
    turn_id = demo.start_turn(thread, "slow 5 60")
    assert "running turn" in demo.refusal("thread/archive", threadId=thread)["message"]
    interrupt(demo, thread, turn_id)


def test_a_long_history_is_shortened_to_fit_into_one_line(demo):
    thread = demo.start_thread(approvalPolicy="never")
    for number in range(9):
        demo.run(thread, f"big {MIB}", clientUserMessageId=f"cum-{number}")
    turns = demo.turns(thread)
    assert [turn["items"][0]["clientId"] for turn in turns] == [f"cum-{number}" for number in range(9)]
    assert "cut here" in turns[0]["items"][1]["text"]
    assert demo.ask("thread/resume", threadId=thread)["thread"]["turns"] == turns
    assert demo.longest < 8 * MIB


# -- the process


def start_sleep(demo, thread):
    """A turn with a command that takes long; the command's pid."""
    turn_id = demo.start_turn(thread, "run: echo $$; sleep 300", approvalPolicy="never")
    return int(demo.see(turn_id, "item/commandExecution/outputDelta")["params"]["delta"])


def test_it_leaves_when_its_stdin_ends_and_takes_its_commands_along(demo):
    pids = [start_sleep(demo, demo.start_thread()) for _ in range(2)]
    demo.start_turn(demo.start_thread(), "slow 1000")
    asked_at = time.monotonic()
    assert demo.close() == 0
    assert time.monotonic() - asked_at < 30  # its "slow" would take longer
    for pid in pids:
        wait_until_dead(pid)


def test_sigterm_does_the_same(demo, thread):
    pid = start_sleep(demo, thread)
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(PATIENCE_S) == 0
    wait_until_dead(pid)


def test_what_came_before_the_end_of_stdin_is_still_answered(start):
    demo = start()
    demo.send_line(b'{"id":"last","method":"thread/list","params":{}}')  # not even a line end
    assert demo.close() == 0
    assert demo.answer_to("last")["result"]["data"] == []


def begin_without_listening(demo):
    """A turn with more text than a pipe holds, for a demo agent that nobody reads yet."""
    demo.post("initialize", clientInfo={"name": "tests"})
    demo.post("thread/start")
    lines = [json.loads(demo.process.stdout.readline()) for _ in range(3)]
    thread = lines[1]["result"]["thread"]["id"]
    demo.post("turn/start", threadId=thread, input=[{"type": "text", "text": "big 5000000"}])
    while json.loads(demo.process.stdout.readline()).get("method") != "item/agentMessage/delta":
        pass


def test_a_reader_that_comes_late_misses_nothing(start):
    demo = start(initialize=False, listen=False)
    begin_without_listening(demo)
    demo.reader.start()
    demo.wait(lambda message: message.get("method") == "turn/completed")
    assert len(text_of(demo.messages)) == 5_000_000 - (64 << 10)


def test_it_leaves_even_when_nobody_reads(start):
    demo = start(initialize=False, listen=False)
    begin_without_listening(demo)
    demo.process.stdin.close()
    assert demo.process.wait(PATIENCE_S) == 0


def test_it_leaves_when_its_stdout_is_closed(start):
    demo = start(initialize=False, listen=False)
    begin_without_listening(demo)
    demo.process.stdout.close()
    assert demo.process.wait(PATIENCE_S) == 0


def test_its_files_are_for_its_owner_alone(demo, thread, tmp_path):
    demo.run(thread, "hi")
    for path in (tmp_path / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_it_starts_without_slow_imports(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT], cwd=tmp_path, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PATIENCE_S, check=True,
    )  # fmt: skip
    imported = set(re.findall(r"([\w.]+)$", ended.stderr, re.MULTILINE))
    assert "json" in imported
    assert not imported & {"subprocess", "typing", "dataclasses", "uuid", "asyncio", "logging", "socket"}


def test_the_history_comes_by_pages_of_items_and_of_turns(demo, thread):
    for text in ("one", "two", "three"):
        demo.run(thread, text)
    seen, cursor = [], None
    while cursor or not seen:
        page = demo.ask("thread/items/list", threadId=thread, limit=2, cursor=cursor, sortDirection="desc")
        seen, cursor = seen + page["data"], page["nextCursor"]
    whole = demo.ask("thread/read", threadId=thread, includeTurns=True)["thread"]["turns"]
    assert seen[::-1] == [{"turnId": turn["id"], "item": item} for turn in whole for item in turn["items"]]

    first = demo.ask("thread/turns/list", threadId=thread, limit=2, itemsView="full")
    rest = demo.ask("thread/turns/list", threadId=thread, cursor=first["nextCursor"], itemsView="full")
    assert [*first["data"], *rest["data"]][::-1] == whole and rest["nextCursor"] is None
    bare = demo.ask("thread/turns/list", threadId=thread, itemsView="notLoaded", sortDirection="asc")["data"]
    assert [turn["items"] for turn in bare] == [[], [], []] and bare[0]["id"] == whole[0]["id"]
    assert "invalid cursor" in demo.refusal("thread/items/list", threadId=thread, cursor="elsewhere")["message"]


def test_a_name_is_kept_for_the_next_life(start, thread, demo, tmp_path):
    demo.run(thread, "hello")
    assert demo.ask("thread/name/set", threadId=thread, name=" Greenhouse ") == {}
    demo.wait(lambda m: m.get("method") == "thread/name/updated" and m["params"]["threadName"] == "Greenhouse")
    assert start().ask("thread/list")["data"][0]["name"] == "Greenhouse"
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "state").rglob("*"))
