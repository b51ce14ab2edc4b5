"""What waits is changed and removed in time; clients hear what becomes of inputs; usage by thread and day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from conversations import Sink, in_state, new_session, over, own, receipt, say
from support import Client, Gateway, running, until


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running(ARGUS_HTTP_PRIVATE_HOSTS="127.0.0.1") as made:
        yield made


def busy_thread(client: Client) -> str:
    """A thread on which a turn of the client's own runs, until it is stopped."""
    thread = client.result("thread/start", {})["thread"]["id"]
    client.result("turn/start", {"threadId": thread, "input": [{"type": "text", "text": "slow 5000 0.05"}]})
    return thread


def stop(gateway: Gateway, client: Client, thread: str) -> None:
    assert gateway.api("POST", f"/threads/{thread}/cancel").json()["cancelRequested"]


def test_what_waits_behind_a_clients_own_turn_is_removed_and_never_said(gateway: Gateway) -> None:
    client = gateway.client()
    thread = busy_thread(client)
    gone = say(gateway, client.session, "never mind", threadId=thread)
    until(lambda: receipt(gateway, gone)["waitsFor"])
    assert gateway.api("DELETE", f"/inputs/{gone['inputId']}").ok
    kept = say(gateway, client.session, "but this", threadId=thread)
    stop(gateway, client, thread)
    assert own(over(gateway, kept)["answer"]) == "but this"
    assert receipt(gateway, gone)["state"] == "removed"
    turns = client.result("thread/read", {"threadId": thread, "includeTurns": True})["thread"]["turns"]
    assert "never mind" not in str(turns)
    client.close()


def test_what_waits_gets_another_text_in_its_place_and_what_was_begun_does_not(gateway: Gateway) -> None:
    client = gateway.client()
    thread = busy_thread(client)
    first = say(gateway, client.session, "watr the north bed", threadId=thread)
    until(lambda: receipt(gateway, first)["waitsFor"])
    path = f"/inputs/{first['inputId']}"
    assert gateway.api("PATCH", path, json={"text": "water the north bed"}).ok  # nothing else comes
    stop(gateway, client, thread)
    second = say(gateway, client.session, "and then the south bed", threadId=thread)
    done = [over(gateway, each) for each in (first, second)]
    assert own(done[0]["answer"]) == "water the north bed" == done[0]["text"]
    assert done[0]["endedAtMs"] <= done[1]["startedAtMs"]
    late = gateway.api("PATCH", path, json={"text": "too late"})
    assert late.status_code == 409 and "answered" in late.json()["detail"]
    assert gateway.api("PATCH", path, json={"text": "  "}).status_code == 400
    assert gateway.api("PATCH", "/inputs/in_none", json={"text": "x"}).status_code == 404
    client.close()


def test_clients_of_the_session_hear_each_step_of_an_input_and_others_hear_nothing(gateway: Gateway) -> None:
    with Sink(lambda request: (410, {})) as sink:
        client, other = gateway.client(), gateway.client()
        route = {"type": "http", "url": f"{sink.url}/heard"}
        input = say(gateway, client.session, "hello", replyRoute=route)["inputId"]
        heard: list[dict[str, Any]] = []

        def news() -> dict[str, Any]:
            heard.append(client.wait(lambda m: m.get("method") == "argus/input")["params"])
            return heard[-1]

        while "delivery" not in news():
            pass
    assert [each.get("state") for each in heard] == ["queued", "started", "answered", None]
    assert {each["inputId"] for each in heard} == {input} and heard[3]["delivery"] == "dead"
    told = receipt(gateway, input)
    assert heard[1]["threadId"] == told["threadId"] and told["messageId"] == input
    other.result("argus/ping")
    assert "argus/input" not in str(other.seen)
    for each in (client, other):
        each.close()


def test_usage_is_told_by_thread_and_by_day_of_the_callers_zone(gateway: Gateway) -> None:
    session = new_session(gateway)
    done = over(gateway, say(gateway, session, "hello"))
    in_state(gateway, done, "answered")
    ask = f"/usage?session={session}&zoneMinutes=840"
    until(lambda: gateway.api("GET", ask).json()["threads"])
    told = gateway.api("GET", ask).json()
    (thread,), (day,) = told["threads"], told["days"]
    assert thread["threadId"] == done["threadId"] and thread["turns"] == day["turns"] == 1
    assert thread["totalTokens"] == day["totalTokens"] == told["total"]["totalTokens"] > 0
    assert day["day"] == time.strftime("%Y-%m-%d", time.gmtime(thread["atMs"] // 1000 + 840 * 60))
    assert gateway.api("GET", "/usage?zoneMinutes=9000").status_code == 400
