"""What an agent is told when a person, a policy or the clock answers its question, in the words of each kind."""

from __future__ import annotations

from typing import Any

import pytest

from app.services.conversation.approvals import answer_for

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
