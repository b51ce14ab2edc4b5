"""What an agent is told when a person, a policy or the clock answers its question, in the words of each kind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conversations import new_session, over, own, say
from support import Client, Gateway, running, until

from app.services.conversation.approvals import MAX_WATCHED, answer_for

PERMISSIONS = {"permissions": {"network": {"enabled": True}, "fileSystem": None}}


@pytest.mark.parametrize(
    ("method", "decision", "params", "result"),
    [
        ("item/commandExecution/requestApproval", "accept", {}, {"decision": "accept"}),
        ("item/fileChange/requestApproval", "cancel", {}, {"decision": "cancel"}),
        ("execCommandApproval", "acceptForSession", {}, {"decision": "approved_for_session"}),
        ("applyPatchApproval", "cancel", {}, {"decision": "abort"}),
        ("mcpServer/elicitation/request", "accept", {}, {"action": "accept", "content": {}}),
        ("mcpServer/elicitation/request", "decline", {}, {"action": "decline"}),
        ("item/tool/requestUserInput", "decline", {}, {"answers": {}}),
        ("x/requestApproval", "decline", None, {"decision": "decline"}),
        (
            "item/permissions/requestApproval",
            "accept",
            PERMISSIONS,
            {"permissions": {"network": {"enabled": True}}, "scope": "turn"},
        ),
        (
            "item/permissions/requestApproval",
            "acceptForSession",
            PERMISSIONS,
            {"permissions": {"network": {"enabled": True}}, "scope": "session"},
        ),
        ("item/permissions/requestApproval", "decline", PERMISSIONS, {"permissions": {}, "scope": "turn"}),
        ("item/permissions/requestApproval", "accept", {"permissions": [1]}, {"permissions": {}, "scope": "turn"}),
    ],
)
def test_a_decision_is_said_in_the_words_of_the_question(
    method: str, decision: str, params: Any, result: dict[str, Any]
) -> None:
    assert answer_for(method, decision, params) == {"result": result}


@pytest.mark.parametrize("decision", ["accept", "decline"])
def test_a_question_that_is_no_yes_or_no_gets_an_error_whatever_was_decided(decision: str) -> None:
    assert answer_for("item/tool/call", decision, {})["error"]["code"] == -32601


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One whose agent plays scenes."""
    scenes = f"{sys.executable} {Path(__file__).parent}/fakes/scenes.py"
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=scenes) as made:
        yield made


def open_ones(gateway: Gateway, session: str) -> list[dict[str, Any]]:
    return gateway.api("GET", f"/approvals?session={session}&state=open").json()["approvals"]


def decide(gateway: Gateway, approval: dict[str, Any], decision: str) -> int:
    return gateway.api("POST", f"/approvals/{approval['approvalId']}", json={"decision": decision}).status_code


def test_a_yes_to_a_question_of_no_turn_does_not_reach_the_next_under_its_id(gateway: Gateway) -> None:
    session = new_session(gateway)
    said = say(gateway, session, "scene: same_id")
    (first,) = until(lambda: open_ones(gateway, session))
    (second,) = until(lambda: [each for each in open_ones(gateway, session) if each["params"]["message"] == "second?"])
    assert first["params"]["message"] == "first?" and first["approvalId"] != second["approvalId"]
    assert decide(gateway, first, "accept") == 409
    assert decide(gateway, second, "accept") == 200
    done = over(gateway, said)
    assert done["state"] == "answered" and '"action": "accept"' in done["answer"]
    listed = gateway.api("GET", f"/approvals?session={session}").json()["approvals"]
    assert {each["params"]["message"]: (each["state"], each["decision"]) for each in listed} == {
        "first?": ("settled", ""),
        "second?": ("answered", "accept"),
    }


def test_what_is_no_yes_or_no_can_only_be_declined(gateway: Gateway) -> None:
    session = new_session(gateway)
    said = say(gateway, session, "scene: program")
    (asked,) = until(lambda: open_ones(gateway, session))
    refused = gateway.api("POST", f"/approvals/{asked['approvalId']}", json={"decision": "accept"})
    assert refused.status_code == 400 and "decline it, or answer it in the page" in refused.text
    assert decide(gateway, asked, "decline") == 200
    assert "-32601" in over(gateway, said)["answer"]


def test_a_policy_of_yes_to_what_is_no_yes_or_no_is_stored_as_the_no_that_it_is(gateway: Gateway) -> None:
    session = gateway.api("POST", "/sessions", json={"approvals": "accept"}).json()["sessionId"]
    assert "-32601" in over(gateway, say(gateway, session, "scene: program"))["answer"]
    (row,) = until(lambda: [a for a in gateway.api("GET", f"/approvals?session={session}").json()["approvals"]
                            if a["state"] != "open"])  # fmt: skip
    assert (row["state"], row["decision"], row["answeredBy"]) == ("answered", "decline", "policy accept")


def commands(gateway: Gateway, session: str) -> dict[str, str]:
    """Each question of a session, and how it ended."""
    listed = gateway.api("GET", f"/approvals?session={session}").json()["approvals"]
    return {a["params"]["command"]: f"{a['state']} {a['decision']}".strip() for a in listed}


def answer_on_socket(client: Client, command: str) -> None:
    asked = client.wait(lambda m: "requestApproval" in m.get("method", "") and m["params"]["command"] == command)
    client.send({"id": asked["id"], "result": {"decision": "accept"}})


def test_the_same_question_asked_again_after_an_answer_is_answered_again(gateway: Gateway) -> None:
    session = gateway.api("POST", "/sessions", json={"approvals": "accept"}).json()["sessionId"]
    assert own(over(gateway, say(gateway, session, "scene: again"))["answer"]) == "answered accept accept"


@pytest.mark.parametrize(
    ("scene", "by_client", "last", "ends"),
    [
        ("another", "first", "second", {"first": "answered", "second": "answered decline"}),
        ("dropped", "second", "third", {"first": "settled", "second": "answered", "third": "answered decline"}),
    ],
)
def test_each_question_under_one_id_is_put_to_people_and_has_its_own_row_and_end(
    gateway: Gateway, scene: str, by_client: str, last: str, ends: dict[str, str]
) -> None:
    session = new_session(gateway)
    client = gateway.client(session=session)
    said = say(gateway, session, f"scene: {scene}")
    answer_on_socket(client, by_client)
    (asked,) = until(lambda: [a for a in open_ones(gateway, session) if a["params"]["command"] == last])
    assert decide(gateway, asked, "decline") == 200
    assert own(over(gateway, said)["answer"]) == "answered accept decline"
    until(lambda: commands(gateway, session) == ends)


def test_a_question_that_cannot_be_read_is_declined_all_the_same(gateway: Gateway) -> None:
    session = gateway.api("POST", "/sessions", json={"approvals": "decline"}).json()["sessionId"]
    assert own(over(gateway, say(gateway, session, "scene: digits"))["answer"]) == "answered decline"


def test_of_more_questions_than_anybody_looks_at_the_rest_is_declined(gateway: Gateway) -> None:
    session = new_session(gateway)
    said = say(gateway, session, "scene: many")
    asked = until(lambda: len(found := open_ones(gateway, session)) == MAX_WATCHED and found)
    for each in asked:
        assert decide(gateway, each, "accept") == 200
    assert own(over(gateway, said)["answer"]) == f"declined {60 - MAX_WATCHED}"


def test_an_answer_that_was_given_before_a_kill_is_given_again_and_no_other() -> None:
    scenes = f"{sys.executable} {Path(__file__).parent}/fakes/scenes.py"
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=scenes, ARGUS_APPROVAL_TIMEOUT_S="5") as gateway:
        session = new_session(gateway)
        said = say(gateway, session, "scene: slow")
        (asked,) = until(lambda: open_ones(gateway, session))
        assert decide(gateway, asked, "accept") == 200
        gateway.restart()
        answers = own(over(gateway, said)["answer"]).removeprefix("answered ").split()
        assert answers and set(answers) == {"accept"}
        assert commands(gateway, session) == {"once": "answered accept"}
