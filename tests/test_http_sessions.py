"""Sessions over HTTP: titles, and a fresh agent on demand."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from bridges import fill, tmpfs
from support import Gateway, running, until

from app.errors import BadRequest
from app.services.sessions import clean_title


def new(gateway: Gateway, **body: str) -> str:
    answer = gateway.api("POST", "/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()["sessionId"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("  fix login ", "fix login"),
        ("a\n\tb\x00c", "a b c"),
        ("👩‍👩‍👧", "👩‍👩‍👧"),
        ("שלום", "שלום"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_title_is_trimmed_to_one_line(given: str, kept: str) -> None:
    assert clean_title(given) == kept


@pytest.mark.parametrize("title", ["", "   ", "\u200b\u202e", "\x00\x1b", "\u3164\u115f", "\ufe0f\u034f", "x" * 201])
def test_a_title_that_shows_nothing_or_too_much_is_refused(title: str) -> None:
    with pytest.raises(BadRequest):
        clean_title(title)


def test_a_session_is_renamed(gateway: Gateway) -> None:
    id = new(gateway)
    answer = gateway.api("PATCH", f"/sessions/{id}", json={"title": " greenhouse "})
    assert answer.status_code == 200
    assert (answer.json()["title"], answer.json()["name"]) == ("greenhouse", "greenhouse")
    assert gateway.api("GET", f"/sessions/{id}").json()["title"] == "greenhouse"


@pytest.mark.parametrize("body", [{}, {"title": "\u200b "}, {"title": None}, {"title": "a", "agent": "demo"}])
def test_a_bad_rename_changes_nothing(gateway: Gateway, body: dict) -> None:
    id = new(gateway, title="kept")
    answer = gateway.api("PATCH", f"/sessions/{id}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert gateway.api("GET", f"/sessions/{id}").json()["title"] == "kept"


def test_a_new_session_may_have_no_title_but_none_that_shows_nothing(gateway: Gateway) -> None:
    new(gateway, title="")
    assert gateway.api("POST", "/sessions", json={"title": "\u200b"}).status_code == 400


def test_what_is_not_there_can_not_be_renamed_or_restarted(gateway: Gateway) -> None:
    for method, path, body in (("PATCH", "", {"title": "x"}), ("POST", "/restart", None)):
        answer = gateway.api(method, f"/sessions/nope{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_session_was_last_active_when_something_was_said_not_when_it_was_looked_at(gateway: Gateway) -> None:
    def active(id: str) -> int:
        return gateway.api("GET", f"/sessions/{id}").json()["lastActiveAtMs"]

    client = gateway.client()
    first = active(client.session)
    client.close()
    client = gateway.client(session=client.session)
    thread = client.ready()
    assert active(client.session) == first
    client.turn(thread, "hello")
    until(lambda: active(client.session) > first)
    client.close()


def test_a_session_can_be_deleted_when_the_disk_is_full(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=6m") as disk:
        gateway = Gateway()
        shutil.rmtree(gateway.home)
        gateway.home, gateway.log = disk / "home", tmp_path / "gateway.log"
        gateway.home.mkdir()
        try:
            gateway.start()
            id = new(gateway)
            folder = gateway.home / "sessions" / id
            folder.mkdir(parents=True)
            (folder / "agent.log").write_bytes(b"x" * (1 << 20))
            fill(disk)
            until(lambda: gateway.api("POST", "/sessions").status_code == 503, 60, "the store has no room")
            assert gateway.api("DELETE", f"/sessions/{id}").status_code == 200
            assert gateway.api("GET", f"/sessions/{id}").status_code == 404
        finally:
            gateway.close()


def test_a_restart_gives_a_fresh_agent_and_tells_the_clients(gateway: Gateway) -> None:
    client = gateway.client()
    thread = client.ready()
    client.turn(thread, "slow 600 0.5")
    client.note("turn/started")
    answer = gateway.api("POST", f"/sessions/{client.session}/restart")
    assert (answer.status_code, answer.json()) == (202, {"ok": True, "sessionId": client.session})
    assert client.note("argus/runtime")["state"] == "restarting"
    assert client.note("turn/completed")["turn"]["status"] == "interrupted"
    assert client.wait(lambda m: m.get("method") == "argus/runtime")["params"]["state"] == "running"
    client.turn(thread, "hello")
    assert client.note("turn/completed")["turn"]["status"] == "completed"
    client.close()


def test_a_restart_wakes_a_session_that_sleeps(gateway: Gateway) -> None:
    id = new(gateway)
    assert gateway.api("POST", f"/sessions/{id}/restart").status_code == 202
    until(lambda: gateway.api("GET", f"/sessions/{id}").json()["state"] == "running")


def test_a_restart_ends_a_bridge_that_does_not_answer() -> None:
    with running(ARGUS_CONNECT_TIMEOUT_S="4") as gateway:
        client = gateway.client()
        (bridge,) = gateway.pids_of("bridge.py")
        os.kill(bridge, signal.SIGSTOP)
        gateway.restart()
        session = f"/sessions/{client.session}"
        assert gateway.api("POST", f"{session}/restart").status_code == 202
        until(lambda: gateway.api("GET", session).json()["state"] == "running", 60)
        again = gateway.client(session=client.session)
        assert again.ready() and gateway.pids_of("bridge.py") != [bridge]


def test_the_list_says_which_agent_a_new_session_gets(gateway: Gateway) -> None:
    named = gateway.api("GET", "/sessions").json()["defaultAgent"]
    assert gateway.api("GET", f"/sessions/{new(gateway)}").json()["agent"] == named
