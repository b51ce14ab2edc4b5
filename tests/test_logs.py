"""The log of a session's runtime: its tail, following it, and what an agent may put in its place."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from support import TOKEN, Gateway, until

from app.errors import Conflict
from app.services.logs import LogFile, last_lines


@pytest.mark.parametrize(
    ("text", "lines", "last"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"a\nb\n", 0, b""),
        (b"", 5, b""),
        (b"\n", 1, b"\n"),
    ],
)
def test_the_last_lines_of_a_text(text: bytes, lines: int, last: bytes) -> None:
    assert last_lines(text, lines) == last


def test_a_tail_reaches_back_into_the_rotated_file(tmp_path: Path) -> None:
    (tmp_path / "x.log.1").write_bytes(b"1\n2\n")
    (tmp_path / "x.log").write_bytes(b"3\n")
    assert LogFile(tmp_path / "x.log").tail(2) == b"2\n3\n"


def test_reading_goes_on_over_a_rotation_and_an_emptied_file(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    log = LogFile(path)
    assert log.tail(5) == b"" and log.more() == b""  # it is not there yet
    path.write_bytes(b"one\n")
    assert log.more() == b"one\n" and log.more() == b""
    with open(path, "ab") as file:
        file.write(b"two\n")
    os.replace(path, tmp_path / "x.log.1")
    path.write_bytes(b"three\n")
    assert [log.more() for _ in range(4)] == [b"two\n", b"", b"three\n", b""]
    os.truncate(path, 0)
    with open(path, "ab") as file:
        file.write(b"4\n")
    assert log.more() == b"4\n"
    log.close()


def test_a_huge_file_costs_a_bounded_read(tmp_path: Path) -> None:
    with open(tmp_path / "x.log", "wb") as file:
        file.truncate(1 << 40)
        file.seek(0, os.SEEK_END)
        file.write(b"\nend\n")
    assert LogFile(tmp_path / "x.log").tail(1) == b"end\n"


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


@pytest.mark.parametrize("put", [link, os.mkfifo, os.mkdir], ids=["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_not_read(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(tmp_path / "x.log")
    with pytest.raises(Conflict, match="no plain file"):
        LogFile(tmp_path / "x.log").tail(5)


def test_a_folder_that_became_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.log").write_text("secret")
    (tmp_path / "session").symlink_to(tmp_path / "real")
    with pytest.raises(Conflict):
        LogFile(tmp_path / "session" / "x.log").tail(5)


# -- through the gateway


def made(gateway: Gateway) -> tuple[str, Path]:
    """A session that never ran, with a log; its id and the log's path."""
    id = gateway.api("POST", "/sessions", json={}).json()["sessionId"]
    path = gateway.home / "sessions" / id / "agent.log"
    path.parent.mkdir(parents=True)
    path.write_text("one\ntwo\nthree\n")
    return id, path


class Following:
    """Somebody who follows a log."""

    def __init__(self, gateway: Gateway, id: str, token: str = TOKEN, lines: int = 200) -> None:
        self.answer = requests.get(
            f"{gateway.url}/sessions/{id}/logs?follow=1&lines={lines}",
            headers={"Authorization": f"Bearer {token}"},
            stream=True,
            timeout=30,
        )
        self._pieces: Iterator[bytes] = self.answer.iter_content(None)

    def read(self, wanted: bytes) -> bytes:
        """Read on until this has come."""
        seen = b""
        while wanted not in seen:
            seen += next(self._pieces)
        return seen

    def ends(self) -> bool:
        """Read to the end, which comes."""
        return b"".join(self._pieces) == b""


def page_token(gateway: Gateway) -> str:
    ticket = gateway.api("POST", "/auth/link").json()["url"].split("ticket=")[1]
    return requests.post(gateway.url + "/auth/exchange", json={"ticket": ticket}, timeout=30).json()["token"]


def test_the_tail_is_plain_text(gateway: Gateway) -> None:
    id, _ = made(gateway)
    answer = gateway.api("GET", f"/sessions/{id}/logs?lines=2")
    assert (answer.status_code, answer.text) == (200, "two\nthree\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert gateway.api("GET", f"/sessions/{id}/logs").text == "one\ntwo\nthree\n"


def test_an_agents_own_words_are_in_it(gateway: Gateway) -> None:
    client = gateway.client()
    os.kill(gateway.pids_of("demo.py")[0], 9)
    until(lambda: "life 1 ended" in gateway.api("GET", f"/sessions/{client.session}/logs").text)
    client.close()


@pytest.mark.parametrize("lines", ["-1", "x", "10001", "1.5", "", "9" * 3000, "0" * 12 + "99999"])
def test_lines_must_be_a_number_in_bounds(gateway: Gateway, lines: str) -> None:
    id, _ = made(gateway)
    answer = gateway.api("GET", f"/sessions/{id}/logs?lines={lines}")
    assert answer.status_code == 400 and "lines" in answer.json()["detail"]


def test_an_unknown_session_has_no_log(gateway: Gateway) -> None:
    for path in ("/sessions/nope/logs", "/sessions/..%2f..%2fetc/logs"):
        assert gateway.api("GET", path).status_code == 404


def test_a_log_that_is_a_link_is_refused_in_words(gateway: Gateway) -> None:
    id, path = made(gateway)
    path.unlink()
    path.symlink_to(gateway.home / "gateway" / "token")
    answer = gateway.api("GET", f"/sessions/{id}/logs")
    assert answer.status_code == 409 and "no plain file" in answer.json()["detail"]


def test_following_brings_what_is_written_over_a_rotation_and_ends_with_the_session(gateway: Gateway) -> None:
    id, path = made(gateway)
    following = Following(gateway, id, lines=1)
    assert following.read(b"three\n") == b"three\n"
    with open(path, "ab") as file:
        file.write(b"four\n")
    assert following.read(b"four\n") == b"four\n"
    os.replace(path, path.with_name("agent.log.1"))
    path.write_bytes(b"five\n")
    assert following.read(b"five\n") == b"five\n"
    gateway.api("DELETE", f"/sessions/{id}")
    assert following.ends()


def test_following_ends_with_the_token(gateway: Gateway) -> None:
    id, _ = made(gateway)
    token = page_token(gateway)
    following = Following(gateway, id, token)
    following.read(b"three\n")
    gateway_answer = requests.delete(
        gateway.url + "/auth/tokens/me", headers={"Authorization": f"Bearer {token}"}, timeout=30
    )
    assert gateway_answer.ok and following.ends()


def test_followers_are_bounded_and_one_that_leaves_makes_room(gateway: Gateway) -> None:
    id, _ = made(gateway)
    followers = [Following(gateway, id) for _ in range(32)]
    refused = gateway.api("GET", f"/sessions/{id}/logs?follow=1")
    assert refused.status_code == 429
    assert gateway.api("GET", f"/sessions/{id}/logs").ok  # only following is bounded
    for following in followers:
        following.answer.close()

    def again() -> bool:
        answer = gateway.api("GET", f"/sessions/{id}/logs?follow=1", stream=True)
        answer.close()
        return answer.ok

    until(again, what="room again")


def test_a_follower_that_does_not_read_holds_up_nobody_and_is_cut_with_its_token(gateway: Gateway) -> None:
    id, path = made(gateway)
    token = page_token(gateway)
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
        head = f"GET /sessions/{id}/logs?follow=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        sock.sendall(head.encode() + b"Connection: close\r\n\r\n")
        with open(path, "ab") as file:
            file.write(b"x" * (40 << 20))
        until(lambda: len(sock.recv(1 << 20, socket.MSG_PEEK)) > 100_000, what="much waits for the reader")
        assert gateway.api("GET", f"/sessions/{id}").ok
        gateway.api("DELETE", f"/auth/tokens/{token_id(gateway)}")
        sock.settimeout(20)
        got = sum(iter(lambda: len(sock.recv(1 << 20)), 0))  # to its end
        assert got < 40 << 20


def token_id(gateway: Gateway) -> str:
    return gateway.api("GET", "/auth/tokens").json()["tokens"][0]["id"]
