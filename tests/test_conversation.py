"""What is said is stored, answered once and in order, and everybody can see what became of it."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from conversations import Sink, in_state, new_session, over, own, receipt, say
from support import Client, Gateway, running, until


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running(ARGUS_HTTP_PRIVATE_HOSTS="127.0.0.1", ARGUS_HTTP_SIGNING_KEY="a-key-for-signing") as made:
        yield made


def test_what_is_said_is_answered_and_the_receipt_tells_each_step(gateway: Gateway, sink: Sink) -> None:
    session = new_session(gateway)
    route = {"type": "http", "url": f"{sink.url}/steps"}
    accepted = say(gateway, session, "good morning", replyRoute=route, source={"channel": "test", "chatKey": "7"})
    assert accepted["ok"] and not accepted["queued"] and accepted["sessionId"] == session
    done = over(gateway, accepted)
    assert done["state"] == "answered" and own(done["answer"]) == "good morning" and done["turnId"]
    until(lambda: receipt(gateway, accepted)["deliveries"][0]["state"] == "sent")
    steps = receipt(gateway, accepted)["steps"]
    assert [step["step"] for step in steps] == ["stored", "started", "answered", "delivered"]
    assert [step["atMs"] for step in steps] == sorted(step["atMs"] for step in steps)
    (request,) = [r for r in sink.got if r["path"] == "/steps"]
    assert own(request["json"]["text"]) == "good morning" and request["json"]["status"] == "answered"
    assert request["json"]["source"] == {"channel": "test", "chatKey": "7"}
    stamp, _, signature = request["headers"]["Argus-Signature"].partition(",v1=")
    signed = stamp.removeprefix("t=").encode() + b"." + request["body"]
    assert signature == hmac.new(b"a-key-for-signing", signed, sha256).hexdigest()
    assert request["key"] == f"{accepted['inputId']}:answer"


def test_the_same_key_and_text_is_one_input_and_another_text_is_refused(gateway: Gateway) -> None:
    session = new_session(gateway)
    first = say(gateway, session, "only once", key="k-1")
    assert say(gateway, session, "only once", key="k-1") == first
    assert say(gateway, session, "only once", idempotencyKey="k-1") == first
    other = gateway.api(
        "POST", f"/sessions/{session}/inputs", json={"text": "else"}, headers={"Idempotency-Key": "k-1"}
    )
    assert other.status_code == 409 and other.json()["code"] == "conflict"
    over(gateway, first)
    assert len(gateway.api("GET", f"/sessions/{session}/inputs").json()["inputs"]) == 1


def test_what_is_said_while_a_turn_runs_waits_and_is_answered_in_order(gateway: Gateway, sink: Sink) -> None:
    session = new_session(gateway)
    route = {"type": "http", "url": f"{sink.url}/order"}
    inputs = [say(gateway, session, "slow 5 0.1", replyRoute=route)]
    inputs += [say(gateway, session, f"number {n}", replyRoute=route) for n in range(5)]
    assert [each["queued"] for each in inputs] == [False] + [True] * 5
    assert [each["followupDepth"] for each in inputs] == [0, 1, 2, 3, 4, 5]
    done = [over(gateway, each) for each in inputs]
    assert len({each["turnId"] for each in done}) == 6
    until(lambda: len([r for r in sink.got if r["path"] == "/order"]) == 6)
    said = [own(r["json"]["text"]) for r in sink.got if r["path"] == "/order"]
    assert said == ["1 2 3 4 5", *(f"number {n}" for n in range(5))]


@pytest.mark.parametrize("kind", [["http"], {"a": 1}, None, "smoke"])
def test_a_route_of_an_odd_kind_is_refused_in_words(gateway: Gateway, kind: Any) -> None:
    body = {"text": "hi", "replyRoute": {"type": kind}}
    refused = gateway.api("POST", f"/sessions/{new_session(gateway)}/inputs", json=body)
    assert refused.status_code == 400 and "must be one of http" in refused.json()["detail"]


def test_what_interrupts_stops_a_clients_own_turn_too(gateway: Gateway) -> None:
    session = new_session(gateway)
    over(gateway, say(gateway, session, "make the thread"))
    client = gateway.client(session=session)
    client.result("initialize", {"clientInfo": {"name": "test", "version": "0"}})
    thread = client.result("argus/thread/main/ensure")["threadId"]
    client.result("thread/resume", {"threadId": thread})
    turn = client.turn(thread, "slow 1000 0.1")
    done = over(gateway, say(gateway, session, "now", mode="interrupt"))
    ends = client.wait(lambda m: m.get("method") == "turn/completed" and m["params"]["turn"]["id"] == turn)
    assert done["state"] == "answered" and ends["params"]["turn"]["status"] == "interrupted"
    client.close()


def test_what_waits_can_be_taken_back_and_what_runs_cannot(gateway: Gateway) -> None:
    session = new_session(gateway)
    runs, waits = say(gateway, session, "slow 30 0.1"), say(gateway, session, "never mind")
    in_state(gateway, runs, "started")
    assert gateway.api("DELETE", f"/inputs/{waits['inputId']}").ok
    assert gateway.api("DELETE", f"/inputs/{runs['inputId']}").status_code == 409
    assert gateway.api("DELETE", f"/inputs/{waits['inputId']}").status_code == 409
    assert receipt(gateway, waits)["state"] == "removed"
    thread = receipt(gateway, runs)["threadId"]
    assert gateway.api("POST", f"/threads/{thread}/cancel").json()["cancelRequested"]
    assert over(gateway, runs)["state"] == "interrupted"


def test_a_failed_turn_says_why_and_can_be_said_again_once(gateway: Gateway, sink: Sink) -> None:
    session = new_session(gateway)
    route = {"type": "http", "url": f"{sink.url}/failed"}
    failed = over(gateway, say(gateway, session, "fail", replyRoute=route))
    assert failed["state"] == "failed" and "was asked to fail" in failed["error"]
    until(lambda: [r for r in sink.got if r["path"] == "/failed"])
    told = next(r["json"] for r in sink.got if r["path"] == "/failed")
    assert told["status"] == "failed" and told["error"] == failed["error"]
    again = gateway.api("POST", told["retry"]).json()
    assert gateway.api("POST", told["retry"]).json() == again and again["inputId"] != failed["inputId"]
    second = over(gateway, again)
    assert second["retryOf"] == failed["inputId"]
    assert receipt(gateway, failed)["retriedAs"] == again["inputId"]
    answered = over(gateway, say(gateway, session, "fine"))
    assert gateway.api("POST", f"/inputs/{answered['inputId']}/retry").status_code == 409


def test_an_input_carries_its_context_and_the_agent_sees_the_words(gateway: Gateway) -> None:
    session = new_session(gateway)
    (gateway.home / "workspace").mkdir(exist_ok=True)
    (gateway.home / "workspace" / "USER.md").write_text("The user is Ada.\n")
    client = gateway.client(session=session)
    say(gateway, session, "hello", source={"channel": "web", "chatKey": "1"})
    item = client.wait(lambda m: m.get("params", {}).get("item", {}).get("type") == "userMessage")["params"]["item"]
    text = item["content"][0]["text"]
    assert text.startswith(f"# Project Context\n\n[ARGUS]\nsessionId: {session}\nselfNodeId: runtime:{session}\n")
    assert "[USER.md]\nThe user is Ada.\n[/USER.md]" in text
    assert "[SOURCE]\nchannel: web\nchatKey: 1\n[/SOURCE]\n\nhello\n\nInstructions:\n" in text
    assert item["clientId"].startswith("in_")
    client.close()


# -- on /ws, as the reference's clients speak


def test_enqueue_on_ws_starts_or_queues_in_the_contracts_shapes(gateway: Gateway) -> None:
    client = gateway.client()
    thread = client.result("argus/thread/main/ensure")["threadId"]
    assert client.result("argus/thread/main/ensure")["threadId"] == thread
    started = client.result("argus/input/enqueue", {"text": "slow 10 0.1", "target": "main"})
    assert started["ok"] and started["threadId"] == thread and started["turnId"]
    assert (started["queued"], started["started"]) == (False, True)
    queued = client.result("argus/input/enqueue", {"text": "next", "threadId": thread})
    about = {"ok": True, "threadId": thread, "queued": True, "started": False, "followupDepth": 1}
    assert {k: v for k, v in queued.items() if k != "inputId"} == about
    assert [each["text"] for each in client.result("argus/input/list", {"open": True})["inputs"]] == [
        "next",
        "slow 10 0.1",
    ]
    over(gateway, queued)
    assert client.result("argus/receipt", {"inputId": queued["inputId"]})["state"] == "answered"
    client.close()


@pytest.mark.parametrize("params", [{}, {"text": "  \n"}, {"text": 3}, {"text": None}])
def test_enqueue_without_a_text_is_refused_in_the_contracts_words(gateway: Gateway, params: dict[str, Any]) -> None:
    client = gateway.client()
    assert client.ask("argus/input/enqueue", params)["error"] == {"code": -32602, "message": "Missing 'text'"}
    client.close()


def test_frames_behind_a_method_that_waits_are_served(gateway: Gateway) -> None:
    client = gateway.client()
    client.send({"id": "slow", "method": "argus/thread/main/ensure"})
    client.send({"id": "quick", "method": "argus/ping"})
    answers = [client.wait(lambda m: m.get("id") in ("slow", "quick"))["id"] for _ in range(2)]
    assert answers == ["quick", "slow"]
    client.close()


def test_an_input_waits_for_a_clients_own_turn_and_does_not_steer_it(gateway: Gateway) -> None:
    client = gateway.client()
    thread = client.ready()
    client.turn(thread, "slow 10 0.1")
    client.note("turn/started")
    queued = client.result("argus/input/enqueue", {"text": "after you", "threadId": thread})
    assert queued["queued"] and queued["followupDepth"] == 1
    assert over(gateway, queued)["state"] == "answered"
    turns = client.result("thread/read", {"threadId": thread, "includeTurns": True})["thread"]["turns"]
    assert [turn["status"] for turn in turns] == ["completed", "completed"]
    client.close()


# -- steer, interrupt, cancel


def test_steering_puts_an_input_into_the_running_turn(gateway: Gateway) -> None:
    client = gateway.client()
    first = client.result("argus/input/enqueue", {"text": "slow 50 0.1"})
    client.note("item/agentMessage/delta")
    second = client.result("argus/input/enqueue", {"text": "and this", "mode": "steer"})
    assert second["started"] and second["turnId"] == first["turnId"]
    one, two = over(gateway, first), over(gateway, second)
    assert one["state"] == two["state"] == "answered" and one["turnId"] == two["turnId"]
    assert "and this" in two["answer"]
    client.close()


def test_steering_where_nothing_runs_starts_a_turn(gateway: Gateway) -> None:
    session = new_session(gateway)
    assert over(gateway, say(gateway, session, "hello", mode="steer"))["state"] == "answered"


def test_an_interrupting_input_goes_first_and_the_interrupted_one_is_told_why(gateway: Gateway) -> None:
    session = new_session(gateway)
    runs, waits = say(gateway, session, "slow 100 0.1"), say(gateway, session, "waits")
    in_state(gateway, runs, "started")
    urgent = say(gateway, session, "urgent", mode="interrupt")
    stopped, first, second = over(gateway, runs), over(gateway, urgent), over(gateway, waits)
    assert stopped["state"] == "interrupted" and "newer message" in stopped["error"]
    assert first["state"] == second["state"] == "answered" and first["startedAtMs"] <= second["startedAtMs"]


def test_cancel_in_the_shapes_of_the_reference(gateway: Gateway) -> None:
    client = gateway.client()
    thread = client.result("argus/thread/main/ensure")["threadId"]
    nothing = client.result("argus/turn/cancel", {"target": "main"})
    assert nothing == {"ok": True, "cancelRequested": False, "threadId": thread, "reason": "NO_ACTIVE_USER_TURN"}
    started = client.result("argus/input/enqueue", {"text": "slow 100 0.1"})
    told = client.result("argus/turn/cancel", {"threadId": thread})
    assert told["cancelRequested"] and told["turnId"] == started["turnId"] and told["cancelId"]
    assert told["stopped"] == "the turn"
    assert client.note("turn/completed")["turn"]["status"] == "interrupted"
    done = over(gateway, started)
    assert done["state"] == "interrupted" and "stopped by a person" in done["error"]
    client.close()


# -- who may see what


def test_one_session_can_not_touch_anothers_inputs_and_threads(gateway: Gateway) -> None:
    one, two = gateway.client(), gateway.client()
    mine = one.result("argus/input/enqueue", {"text": "slow 5 0.1"})
    assert "no such input" in two.ask("argus/receipt", {"inputId": mine["inputId"]})["error"]["message"]
    assert "no such input" in two.ask("argus/input/remove", {"inputId": mine["inputId"]})["error"]["message"]
    over(gateway, mine)
    refused = two.ask("argus/input/enqueue", {"text": "x", "threadId": mine["threadId"]})
    assert "another session" in refused["error"]["message"]
    for client in (one, two):
        client.close()


BAD = {
    "an unknown session": ("nosuchsession", {"text": "x"}, 404),
    "no text": (None, {}, 400),
    "an empty text": (None, {"text": " "}, 400),
    "a text of another type": (None, {"text": ["x"]}, 400),
    "an unknown field": (None, {"text": "x", "colour": "red"}, 400),
    "an unknown mode": (None, {"text": "x", "mode": "now"}, 400),
    "an unknown channel": (None, {"text": "x", "replyRoute": {"type": "pigeon"}}, 400),
    "a route without a URL": (None, {"text": "x", "replyRoute": {"type": "http"}}, 400),
    "a private address": (None, {"text": "x", "replyRoute": {"type": "http", "url": "http://10.0.0.1/"}}, 400),
    "a link-local one": (None, {"text": "x", "replyRoute": {"type": "http", "url": "http://169.254.169.254/"}}, 400),
    "a file": (None, {"text": "x", "replyRoute": {"type": "http", "url": "file:///etc/passwd"}}, 400),
    "a huge source": (None, {"text": "x", "source": {"a": "x" * 5000}}, 400),
    "a bad attachment": (None, {"text": "x", "attachments": [{"name": "n"}]}, 400),
    "a lone surrogate": (None, {"text": "\ud800"}, 400),
    "a long key": (None, {"text": "x", "idempotencyKey": "k" * 300}, 400),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(gateway: Gateway, name: str) -> None:
    session, body, status = BAD[name]
    answer = gateway.api("POST", f"/sessions/{session or new_session(gateway)}/inputs", json=body)
    assert answer.status_code == status and answer.json()["detail"]


def test_a_text_of_ten_megabytes_is_refused_on_both_ways(gateway: Gateway) -> None:
    client = gateway.client()
    error = client.ask("argus/input/enqueue", {"text": "x" * 10_000_000})["error"]
    assert error["code"] == -32602 and "longer than" in error["message"]
    big = {"text": "x" * 600_000}
    assert gateway.api("POST", f"/sessions/{client.session}/inputs", json=big).status_code == 400
    huge = {"text": "x" * 10_000_000}
    assert gateway.api("POST", f"/sessions/{client.session}/inputs", json=huge).status_code == 413
    client.close()


def test_tokens_are_counted_by_turn_and_session(gateway: Gateway) -> None:
    session = new_session(gateway)
    done = over(gateway, say(gateway, session, "count me"))

    def counted() -> Any:
        return [t for t in gateway.api("GET", f"/usage?session={session}").json()["turns"] if t["totalTokens"]]

    (turn,) = until(counted)
    assert turn["turnId"] == done["turnId"] and turn["outputTokens"] == turn["totalTokens"]
    told = gateway.api("GET", f"/usage?session={session}").json()
    assert told["total"]["turns"] == 1 and told["sessions"][0]["sessionId"] == session
    assert gateway.api("GET", "/usage?sinceMs=soon").status_code == 400


def test_a_deleted_session_takes_its_inputs_along(gateway: Gateway) -> None:
    session = new_session(gateway)
    runs, waits = say(gateway, session, "slow 100 0.1"), say(gateway, session, "waits")
    in_state(gateway, runs, "started")
    assert gateway.api("DELETE", f"/sessions/{session}").ok
    for each in (runs, waits):
        assert gateway.api("GET", f"/inputs/{each['inputId']}").status_code == 404
    assert gateway.api("POST", f"/sessions/{session}/inputs", json={"text": "x"}).status_code == 404


def questions(client: Client) -> dict[str, Any]:
    return client.wait(lambda m: "requestApproval" in m.get("method", ""))


def test_a_question_of_an_owned_turn_goes_to_all_and_the_first_answer_wins(gateway: Gateway) -> None:
    one = gateway.client()
    two = gateway.client(session=one.session)
    asked = one.result("argus/input/enqueue", {"text": "run: echo yes"})
    first, second = questions(one), questions(two)
    assert first == second
    row = until(lambda: gateway.api("GET", f"/approvals?session={one.session}").json()["approvals"])[0]
    assert row["state"] == "open" and row["params"]["command"]
    two.send({"id": second["id"], "result": {"decision": "accept"}})
    done = over(gateway, asked)
    assert done["state"] == "answered"
    (approval,) = until(lambda: [a for a in receipt(gateway, asked)["approvals"] if a["state"] != "open"])
    assert approval["state"] == "answered" and approval["by"] == two.hello["client"]
    late = gateway.api("POST", f"/approvals/{row['approvalId']}", json={"decision": "accept"})
    assert late.status_code == 409
    for client in (one, two):
        client.close()


def test_a_question_can_be_answered_by_who_is_no_client(gateway: Gateway) -> None:
    session = new_session(gateway)
    asked = say(gateway, session, "run: echo by-http")
    row = until(lambda: gateway.api("GET", f"/approvals?session={session}&state=open").json()["approvals"], 30)[0]
    assert gateway.api("POST", f"/approvals/{row['approvalId']}", json={"decision": "maybe"}).status_code == 400
    assert gateway.api("POST", f"/approvals/{row['approvalId']}", json={"decision": "accept"}).ok
    assert over(gateway, asked)["state"] == "answered"
    assert json.dumps(receipt(gateway, asked)["approvals"][0]).count("operator") == 1
