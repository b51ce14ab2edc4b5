"""The real Codex against the model on loopback, with nothing of ours between: is the ground firm?"""

from pathlib import Path

import pytest
from fakes.codex_home import AppServer, codex_binary, write_codex_home
from fakes.model_server import ModelServer
from parts import require


@pytest.fixture
def model():
    with ModelServer() as server:
        yield server


@pytest.fixture
def workspace(tmp_path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    return path


@pytest.fixture
def codex(tmp_path, model, workspace):
    binary = codex_binary()
    require("codex", binary is not None, "./argus up --agent codex installs it")
    home = write_codex_home(tmp_path / "home", model.url)
    with AppServer(binary, home, workspace) as server:
        server.initialize()
        yield server


def test_a_turn_streams_the_answer_piece_by_piece(codex, model):
    thread = codex.start_thread()
    codex.start_turn(thread, "slow: 3 0.01")

    deltas = [codex.wait_for_notice("item/agentMessage/delta", thread)["delta"] for _ in range(3)]
    turn = codex.end_of_turn(thread)

    assert deltas == ["piece 0 ", "piece 1 ", "piece 2 "]
    assert turn["status"] == "completed"
    assert turn["items"][-1]["text"] == "piece 0 piece 1 piece 2 "
    assert model.requests[-1]["model"] == "test-model"


def test_an_approved_command_runs_and_the_model_gets_its_output(codex, workspace):
    thread = codex.start_thread(cwd=str(workspace), approvalPolicy="untrusted")
    codex.start_turn(thread, "run: touch made && echo it works")

    approval = codex.wait_for_approval(thread)
    assert not (workspace / "made").exists()
    codex.decide(approval, "accept")
    turn = codex.end_of_turn(thread)

    assert (workspace / "made").exists()
    assert turn["items"][-1]["text"] == "done: it works\n"


def test_an_interrupt_ends_the_turn_in_mid_stream(codex):
    thread = codex.start_thread()
    turn_id = codex.start_turn(thread, "slow: 1000 0.05")
    codex.wait_for_notice("item/agentMessage/delta", thread)

    answer = codex.request("turn/interrupt", {"threadId": thread, "turnId": turn_id})
    turn = codex.end_of_turn(thread)

    assert answer["result"] == {}
    assert (turn["id"], turn["status"]) == (turn_id, "interrupted")
