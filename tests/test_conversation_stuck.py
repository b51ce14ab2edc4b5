"""Nothing hangs in silence: stuck turns, hung agents, questions that nobody answers, full disks, cut power."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from bridges import fill, tmpfs
from conversations import Sink, in_state, new_session, over, own, receipt, say
from support import Gateway, free_port, running, until


def stop_processes(gateway: Gateway, program: str) -> list[int]:
    pids = gateway.pids_of(program)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# -- stop that stops


@pytest.mark.parametrize("program", ["demo.py", "bridge.py"])
def test_a_turn_of_a_hung_agent_is_cancelled_and_its_processes_are_gone(own_gateway: Gateway, program: str) -> None:
    session = new_session(own_gateway)
    said = say(own_gateway, session, "slow 1000 0.1")
    thread = in_state(own_gateway, said, "started")["threadId"]
    pids = stop_processes(own_gateway, program)
    told = own_gateway.api("POST", f"/threads/{thread}/cancel").json()
    assert told["cancelRequested"] and "runtime" in told["stopped"]
    until(lambda: not any(map(alive, pids)), 5)
    done = over(own_gateway, said)
    assert done["state"] == "interrupted" and "stopped by a person" in done["error"]
    assert over(own_gateway, say(own_gateway, session, "still there"))["state"] == "answered"


def test_what_a_command_started_is_gone_with_a_cancelled_turn(own_gateway: Gateway) -> None:
    client = own_gateway.client()
    said = client.result("argus/input/enqueue", {"text": "run: setsid sleep 1234 & sleep 1234"})
    asked = client.wait(lambda m: "requestApproval" in m.get("method", ""))
    client.send({"id": asked["id"], "result": {"decision": "accept"}})
    until(lambda: own_gateway.pids_of("sleep\x001234"))
    for pid in own_gateway.pids_of("demo.py"):
        os.kill(pid, signal.SIGSTOP)
    client.result("argus/turn/cancel", {"threadId": said["threadId"]})
    until(lambda: not own_gateway.pids_of("sleep\x001234"), 5)
    assert over(own_gateway, said)["state"] == "interrupted"
    client.close()


def test_a_turn_without_progress_is_stopped_and_the_sender_told() -> None:
    with running(ARGUS_STUCK_TURN_TIMEOUT_S="2", ARGUS_HTTP_PRIVATE_HOSTS="127.0.0.1") as gateway, Sink() as sink:
        session = new_session(gateway)
        client = gateway.client(session=session)
        said = say(gateway, session, "slow 1000 0.1", replyRoute={"type": "http", "url": sink.url})
        for _ in range(40):  # longer than the limit, with progress all the time
            client.note("item/agentMessage/delta")
        assert receipt(gateway, said)["state"] == "started"
        client.close()
        stop_processes(gateway, "demo.py")
        done = over(gateway, said, 60)
        assert done["state"] == "interrupted" and "no progress for 2 s" in done["error"]
        until(lambda: sink.got)
        assert sink.got[0]["json"]["status"] == "interrupted" and sink.got[0]["json"]["retry"]
        assert over(gateway, say(gateway, session, "again"))["state"] == "answered"


def test_a_turn_that_waits_for_an_approval_is_not_stuck_and_declined_in_time() -> None:
    with running(ARGUS_STUCK_TURN_TIMEOUT_S="1", ARGUS_APPROVAL_TIMEOUT_S="7") as gateway:
        session = new_session(gateway)
        client = gateway.client(session=session)
        said = say(gateway, session, "run: touch /tmp/never-made")
        asked = client.wait(lambda m: "requestApproval" in m.get("method", ""))
        news = client.wait(lambda m: m.get("method") == "argus/question", 60)["params"]
        assert (news["state"], news["decision"], news["id"]) == ("answered", "decline", asked["id"])
        done = over(gateway, said, 60)
        assert done["state"] == "answered"
        (approval,) = until(lambda: [a for a in receipt(gateway, said)["approvals"] if a["state"] != "open"])
        assert (approval["state"], approval["decision"], approval["by"]) == ("expired", "decline", "timeout")
        client.close()


def test_an_open_approval_expires_though_the_gateway_was_killed() -> None:
    with running(ARGUS_APPROVAL_TIMEOUT_S="5") as gateway:
        session = new_session(gateway)
        said = say(gateway, session, "run: echo no")
        until(lambda: gateway.api("GET", f"/approvals?session={session}&state=open").json()["approvals"])
        gateway.restart()
        assert over(gateway, said, 60)["state"] == "answered"
        (approval,) = until(lambda: [a for a in receipt(gateway, said)["approvals"] if a["state"] != "open"])
        assert approval["state"] == "expired"


@pytest.mark.parametrize(("policy", "ran"), [("accept", True), ("decline", False)])
def test_a_policy_answers_at_once(policy: str, ran: bool) -> None:
    with running(ARGUS_APPROVALS=policy) as gateway:
        said = say(gateway, new_session(gateway), "run: touch made-by-policy")
        assert over(gateway, said)["state"] == "answered"
        assert (gateway.home / "workspace" / "made-by-policy").exists() is ran


def test_a_session_has_its_own_word_on_questions() -> None:
    with running(ARGUS_APPROVALS="decline") as gateway:
        made = gateway.api("POST", "/sessions", json={"approvals": "accept", "env": {"KEPT": "1"}}).json()
        assert made["approvals"] == "accept"
        for word, ran in (("accept", True), ("decline", False), ("accept", True), (None, False)):
            changed = gateway.api("PATCH", f"/sessions/{made['sessionId']}", json={"approvals": word})
            assert changed.json()["approvals"] == word
            said = say(gateway, made["sessionId"], "run: mkdir by-the-sessions-word")
            assert over(gateway, said)["state"] == "answered"
            folder = gateway.home / "workspace" / "by-the-sessions-word"
            assert folder.exists() is ran
            if ran:
                folder.rmdir()
        other = say(gateway, new_session(gateway), "run: mkdir by-the-sessions-word")
        assert over(gateway, other)["state"] == "answered" and not folder.exists()


def test_a_word_on_questions_that_is_none_is_refused_and_changes_nothing() -> None:
    with running() as gateway:
        session = gateway.api("POST", "/sessions", json={"approvals": "ask", "title": "kept"}).json()["sessionId"]
        assert gateway.api("POST", "/sessions", json={"approvals": "yes"}).status_code == 400
        for body in ({"approvals": "yes"}, {"approvals": "accept", "title": "\u200b"}):
            assert gateway.api("PATCH", f"/sessions/{session}", json=body).status_code == 400
        assert gateway.api("PATCH", "/sessions/nope", json={"approvals": "ask"}).status_code == 404
        assert gateway.api("PATCH", f"/sessions/{session}", json={"title": "new"}).json()["approvals"] == "ask"


def test_what_waits_for_a_runtime_that_does_not_start_leaves_it_its_pauses() -> None:
    with running(ARGUS_PROVISION_MODE="static", ARGUS_TCP_PORT=str(free_port())) as gateway:
        began = time.monotonic()
        said = say(gateway, new_session(gateway), "hello")
        until(lambda: time.monotonic() - began > 4 and receipt(gateway, said)["waitsFor"])
        attempts = gateway.log.read_text().count("WARNING argus.keeper")
        assert 0 < attempts < 10 + 2 * (time.monotonic() - began)


# -- follow-ups and context


def test_follow_ups_are_merged_in_the_contracts_words_if_asked() -> None:
    with running(ARGUS_FOLLOWUPS="batch") as gateway:
        session = new_session(gateway)
        first = say(gateway, session, "slow 10 0.1")
        in_state(gateway, first, "started")
        more = [say(gateway, session, text) for text in ("one", "two", "three")]
        done = [over(gateway, each) for each in more]
        assert len({each["turnId"] for each in done}) == 1
        assert own(done[0]["answer"]) == "Follow-ups (batched):\n1) one\n2) two\n3) three"


def test_context_is_sent_again_only_when_it_changed_if_asked() -> None:
    with running(ARGUS_CONTEXT="on-change") as gateway:
        session = new_session(gateway)
        client = gateway.client(session=session)

        def sent(text: str) -> str:
            say(gateway, session, text)
            item = client.wait(lambda m: m.get("params", {}).get("item", {}).get("type") == "userMessage", 30)
            client.note("turn/completed", 30)
            client.read = len(client.seen)
            return item["params"]["item"]["content"][0]["text"]

        assert "# Project Context" in sent("one")
        assert "# Project Context" not in sent("two")
        (gateway.home / "workspace" / "USER.md").write_text("changed")
        assert "[USER.md]\nchanged\n[/USER.md]" in sent("three")
        client.close()


# -- the gateway's own death, and its disk


def test_what_was_acknowledged_is_in_every_copy_of_the_database(own_gateway: Gateway, tmp_path: Path) -> None:
    """A power cut leaves the files as they are at that moment: database and write-ahead log, copied without a lock."""
    session, done = new_session(own_gateway), threading.Event()
    acknowledged: list[str] = []

    def talk() -> None:
        for n in range(150):
            acknowledged.append(say(own_gateway, session, f"number {n}")["inputId"])
        done.set()

    speaker = threading.Thread(target=talk)
    speaker.start()
    home, copies = own_gateway.home / "gateway", 0
    while not done.is_set():
        known = list(acknowledged)
        place = tmp_path / str(copies)
        place.mkdir()
        with contextlib.suppress(FileNotFoundError):
            for name in (
                "argus.db-wal",
                "argus.db",
            ):  # the log first: what is checkpointed meanwhile is in the database
                if name == "argus.db-wal":
                    shutil.copyfile(home / name, place / name)
            shutil.copyfile(home / "argus.db", place / "argus.db")
            with contextlib.closing(sqlite3.connect(place / "argus.db")) as db:
                if db.execute("pragma integrity_check").fetchone() != ("ok",):
                    continue  # a checkpoint ran between the two copies: no moment at which power could have failed
                stored = {row[0] for row in db.execute("select id from inputs")}
            assert set(known) <= stored
            copies += 1
    speaker.join()
    assert copies > 0


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """What can't be stored is refused; what was accepted before is answered once there is room again."""
    gateway = Gateway()
    shutil.rmtree(gateway.home)
    with tmpfs(tmp_path / "disk", "size=16m,mode=700") as disk:
        gateway.home, gateway.log = disk, tmp_path / "log"
        try:
            gateway.start()
            session = new_session(gateway)
            assert over(gateway, say(gateway, session, "before"))["state"] == "answered"
            runs, waits = say(gateway, session, "slow 10 0.1"), say(gateway, session, "accepted in time")
            in_state(gateway, runs, "started")
            filler = fill(disk)
            big = {"text": "x" * 300_000}  # more than what is left of the write-ahead log
            refused = gateway.api("POST", f"/sessions/{session}/inputs", json=big)
            assert refused.status_code == 503 and refused.json()["code"] == "unavailable"
            filler.unlink()
            assert {over(gateway, each, 90)["state"] for each in (runs, waits)} <= {"answered", "failed", "interrupted"}
            assert over(gateway, say(gateway, session, "after"), 60)["state"] == "answered"
            assert len(gateway.api("GET", f"/sessions/{session}/inputs").json()["inputs"]) == 4
        finally:
            gateway.kill()
            gateway.end_runtimes()


def test_a_locked_database_refuses_and_loses_nothing(own_gateway: Gateway) -> None:
    session = new_session(own_gateway)
    file = own_gateway.home / "gateway" / "argus.db"
    with contextlib.closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as db:
        db.execute("begin immediate")
        refused = own_gateway.api("POST", f"/sessions/{session}/inputs", json={"text": "while it is locked"})
        assert refused.status_code == 503 and refused.json()["code"] == "unavailable"
        db.execute("rollback")
    assert own_gateway.api("GET", f"/sessions/{session}/inputs").json()["inputs"] == []
    assert over(own_gateway, say(own_gateway, session, "after"))["state"] == "answered"


def test_an_input_for_an_agent_that_keeps_ending_waits_and_says_why() -> None:
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD="false") as gateway:
        session = new_session(gateway)
        said = say(gateway, session, "hello?")
        told: Any = until(lambda: (r := receipt(gateway, said))["waitsFor"] and r, 60)
        assert told["state"] == "queued"
        assert gateway.api("DELETE", f"/inputs/{said['inputId']}").status_code in (200, 409)
