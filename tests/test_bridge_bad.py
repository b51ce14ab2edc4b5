"""The bridge among strangers, slow readers, full disks and app-servers that misbehave in every way."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from bridges import SECRET, Bridge, Peer, fill, gone, kill, lives, pid_in, seconds_since, tmpfs
from support import PATIENCE_S, until

MB = 1 << 20


@pytest.fixture
def bridge(tmp_path: Path):
    with Bridge(tmp_path) as running:
        yield running


# -- strangers


def attach(secret: Any = SECRET, **params: Any) -> bytes:
    return json.dumps({"id": 1, "method": "bridge/attach", "params": {"secret": secret, **params}}).encode()


STRANGE = {
    "no secret": b'{"id":1,"method":"bridge/attach","params":{"term":9}}',
    "wrong secret": attach("wrong"),
    "empty secret": attach(""),
    "half a secret": attach(SECRET[:-1]),
    "not ASCII": attach("gehëim"),
    "half a surrogate": attach("\ud800"),
    "secret of another type": attach({"a": [SECRET]}),
    "plain without it": b'{"method":"bridge/plain"}',
    "another method": b'{"method":"initialize","params":{"secret":"%s"}}' % SECRET.encode(),
    "params is a list": b'{"method":"bridge/attach","params":["a"]}',
    "method is a list": b'{"method":["bridge/attach"]}',
    "no object": b'"bridge/attach"',
    "no JSON": b"GET / HTTP/1.1\r",
    "no UTF-8": b'{"method":"\xff\xfe"}',
    "nested": b"[" * 60_000,
    "empty": b"",
    "NULs": b"\0\0\0",
    "infinite term": attach(term=1).replace(b": 1}", b": 1e999}"),
    "term of words": attach(term="x"),
    "term of null": attach(term=None),
    "after of words": attach(term=1, after=[]),
    "a huge number": attach(term=1).replace(b": 1}", b": " + b"9" * 5000 + b"}"),
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
def test_a_stranger_gets_one_error_line_and_disturbs_nobody(bridge: Bridge, text: bytes) -> None:
    link = bridge.attach()
    stranger = bridge.connect().send(text)
    assert json.loads(stranger.line())["error"]["code"] == -32000 and stranger.closed()
    assert link.send("hello").wait("hello")
    assert SECRET not in bridge.logged()


def test_a_first_line_that_is_too_long_is_refused(bridge: Bridge) -> None:
    stranger = bridge.connect()
    stranger.sock.sendall(b"x" * 65_536)
    stranger.sock.sendall(b"x")
    assert "too long" in json.loads(stranger.line())["error"]["message"] and stranger.closed()


def test_a_first_line_must_come_in_time_however_it_trickles(tmp_path: Path) -> None:
    with Bridge(tmp_path, first_line_s=0.3) as bridge:
        link, began = bridge.attach(), time.monotonic()
        silent, trickling = bridge.connect(), bridge.connect()
        with pytest.raises(OSError):
            while seconds_since(began) < PATIENCE_S:
                trickling.sock.sendall(b"x")
                time.sleep(0.02)
        for stranger in (silent, trickling):
            assert "in time" in json.loads(stranger.line())["error"]["message"] and stranger.closed()
        assert seconds_since(began) > 0.25
        assert link.send("hello").wait("hello")


def test_strangers_that_say_nothing_do_not_keep_a_gateway_out(bridge: Bridge) -> None:
    strangers = [bridge.connect() for _ in range(50)]
    assert bridge.attach().send("hello").wait("hello")
    assert "too many" in json.loads(strangers[0].line())["error"]["message"]
    assert len(os.listdir(f"/proc/{bridge.process.pid}/fd")) < 40


def test_a_link_that_breaks_off_at_once_leaves_nothing_behind(bridge: Bridge) -> None:
    for _ in range(30):
        bridge.connect().close()
        bridge.attach().close()
    link = bridge.attach()
    assert link.answer["result"]["link"] == 31 and link.send("hello").wait("hello")


# -- memory


def test_a_line_without_end_is_cut_and_its_app_server_restarted_in_bounded_memory(bridge: Bridge) -> None:
    link = bridge.attach().send("lines 1", f"huge {200 * MB}")
    link.wait('{"n":1,')
    assert link.line() == b""
    assert link.note("bridge/exited")["reason"] == "line too long"
    assert link.note("bridge/started") == {"life": 2} and pid_in(link.line())
    assert bridge.memory() < 60 * MB


def test_the_limit_of_a_line_is_exact(tmp_path: Path) -> None:
    with Bridge(tmp_path, line_limit=100_000) as bridge:
        link = bridge.attach().send("huge 100000 end", "huge 100001 end")
        assert len(link.wait("aaa")) == 100_000
        assert link.line() == b"" and link.note("bridge/exited")["reason"] == "line too long"


def test_a_line_that_comes_in_many_pieces_costs_no_more_than_its_length(tmp_path: Path) -> None:
    with Bridge(tmp_path) as bridge:
        link = bridge.attach()
        before = bridge.memory()
        link.send(f"trickle {'y' * 300_000}")
        assert link.wait("yyy") == b"y" * 300_000
        assert bridge.memory() - before < 5 * MB


def test_a_reader_that_never_reads_costs_bounded_memory(tmp_path: Path) -> None:
    with Bridge(tmp_path, pause_s=0.2) as bridge:
        for times in (1, 2, 3):
            bridge.attach().send("lines 200000 200")
            until(lambda times=times: bridge.logged().count("too slow") == times)
        bridge.stands_still()
        until(lambda: hears_back(bridge))
        assert bridge.memory() < 60 * MB


def hears_back(bridge: Bridge) -> bool:
    """Whether a new link is served; with so short a pause a busy machine may make it too slow as well."""
    try:
        return bool(bridge.attach(after=1 << 40).send("done").wait("done"))
    except (EOFError, OSError):
        return False


def test_an_app_server_that_does_not_read_stops_the_link_and_can_still_be_restarted(bridge: Bridge) -> None:
    link = bridge.attach()
    pid = pid_in(link.wait("pid"))
    assert link.send("deaf").line() == b"deaf"
    link.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        link.sock.sendall(b"a line of some length\n" * (3 * MB))
    assert bridge.memory() < 40 * MB
    new = bridge.attach(after=link.seq)
    new.send({"method": "bridge/restart"})
    assert new.note("bridge/exited")["reason"] == "asked for by the gateway" and gone(pid)
    new.note("bridge/started")
    assert new.send({"method": "initialize"}).wait("initialize") and new.send("hello").line() == b"hello"


def test_a_large_line_from_the_link_arrives_whole_and_soon(bridge: Bridge) -> None:
    began, text = time.monotonic(), b"z" * (7 * MB)
    assert bridge.attach().send(text).wait(b"zzz") == text and seconds_since(began) < 30


# -- app-servers


def test_one_that_ignores_sigterm_is_killed(bridge: Bridge) -> None:
    link = bridge.attach().send("stubborn")
    link.wait("stubborn")
    began = time.monotonic()
    link.send({"method": "bridge/restart"})
    assert link.note("bridge/exited")["signal"] == signal.SIGKILL and seconds_since(began) < 30


@pytest.mark.parametrize("fd, pipe", [(1, "output"), (0, "input")])
def test_one_that_closes_a_pipe_but_lives_is_restarted(bridge: Bridge, fd: int, pipe: str) -> None:
    link = bridge.attach()
    own = Path(f"/proc/{pid_in(link.wait('pid'))}/fd/{fd}")
    link.send(f"close {fd}\nsleep")
    until(lambda: not own.exists())
    link.send("hello?")
    assert link.note("bridge/exited")["reason"] == f"closed its {pipe}"
    assert link.note("bridge/started") == {"life": 2}


@pytest.mark.parametrize("what", ["hold", "chatty"])
def test_children_that_hold_its_pipes_do_not_keep_a_death_from_being_told(bridge: Bridge, what: str) -> None:
    link = bridge.attach()
    link.wait("pid")
    child = int(link.send(f"child {what} leaves").line())
    try:
        began = time.monotonic()
        link.send("exit 5")
        assert link.note("bridge/exited")["code"] == 5 and seconds_since(began) < 30
        assert link.note("bridge/started") == {"life": 2}
    finally:
        kill(child)


def test_children_that_stay_in_its_group_end_with_it(bridge: Bridge) -> None:
    link = bridge.attach()
    link.wait("pid")
    child = int(link.send("child stubborn").line())
    assert lives(child)
    link.send("exit 0")
    assert gone(child)


def test_garbage_passes_as_it_is(bridge: Bridge) -> None:
    garbage = bytes(range(256)).replace(b"\n", b"")
    link = bridge.attach().send(f"raw {garbage.hex()}0a0a")
    link.wait("pid")
    assert link.line() == garbage and link.line() == b""
    assert link.send(garbage).line() == garbage


def test_one_that_cannot_be_started_is_told_and_is_failed_in_the_end(tmp_path: Path) -> None:
    with Bridge(tmp_path, ["/no/such/program"]) as bridge:
        link = bridge.attach()
        told = [link.note("bridge/exited") for _ in range(5)]
        assert told[0]["reason"].startswith("cannot start") and "/no/such/program" in told[0]["reason"]
        assert [each["state"] for each in told] == ["restarting"] * 4 + ["failed"]


def test_a_plain_link_to_one_that_cannot_be_started_is_closed(tmp_path: Path) -> None:
    with Bridge(tmp_path, ["/no/such/program"]) as bridge:
        assert bridge.plain("hello").rest() == b'{"id":1,"result":{}}\n'


def test_a_command_may_be_shell_text(tmp_path: Path) -> None:
    with Bridge(tmp_path, "cd / && GREETING=hello sh -c 'echo $GREETING from $PWD; cat'") as bridge:
        assert bridge.attach().wait("hello") == b"hello from /"


def test_one_that_dies_while_a_slow_plain_link_waits_does_not_silence_the_next(tmp_path: Path) -> None:
    with Bridge(tmp_path, ring_bytes=1000, pause_s=0.3) as bridge:
        plain = bridge.plain("lines 5000 200")
        plain.line()
        pid = pid_in(plain.line())
        bridge.stands_still()
        kill(pid)
        until(lambda: "life 1 ended" in bridge.logged())
        link = bridge.attach()
        link.note("bridge/started")
        assert link.send({"method": "initialize"}).wait("initialize")


def test_a_large_line_to_a_link_that_has_just_gone_does_not_silence_the_app_server(tmp_path: Path) -> None:
    with Bridge(tmp_path, ring_bytes=1000, pause_s=60) as bridge:
        link = bridge.attach()
        link.wait("pid")
        bridge.process.send_signal(signal.SIGSTOP)
        link.send("huge 5000 end", "err printed")
        link.close()  # the bridge finds out when it writes
        bridge.process.send_signal(signal.SIGCONT)
        until(lambda: "printed" in bridge.logged())
        assert bridge.attach().send("hello").wait("hello")


# -- disks


def test_a_full_disk_under_the_log_harms_nothing(tmp_path: Path) -> None:
    with Bridge(tmp_path, log="/dev/full") as bridge:
        link = bridge.attach().send("err grumble 1000", "hello")
        assert link.wait("hello")
        assert "grumble" in link.send("exit 1").note("bridge/exited")["stderr"]


@pytest.mark.parametrize("log", ["/no/such/folder/agent.log", "/dev/null/agent.log", "/"])
def test_a_log_that_cannot_be_written_harms_nothing(tmp_path: Path, log: str) -> None:
    with Bridge(tmp_path, log=log) as bridge:
        assert bridge.attach().send("err grumble", "hello").wait("hello")


def test_a_workspace_that_cannot_be_prepared_does_not_keep_the_agent_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Bridge(tmp_path, workspace=str(tmp_path / "file" / "workspace")) as bridge:
        assert bridge.attach().send("hello").wait("hello")
        assert "the workspace was not prepared" in bridge.logged()


def test_a_full_disk_leaves_no_half_file_in_the_workspace(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=256k") as disk:
        ballast = fill(disk)
        with Bridge(tmp_path, workspace=str(disk)) as bridge:
            assert bridge.attach().send("hello").wait("hello")
        assert list(disk.iterdir()) == [ballast]
        ballast.unlink()
        with Bridge(tmp_path, workspace=str(disk)):
            assert (disk / "AGENTS.md").read_text() == "# AGENTS\n"


# -- in between


def test_many_gateways_at_once_leave_one_attached_and_the_numbers_right(bridge: Bridge) -> None:
    bridge.attach().send("lines 2000 100").wait('{"n":2000,')
    links = [bridge.attach(after=1000 + n) for n in range(20)]
    assert [link.line() for link in links] == [
        json.dumps({"n": 999 + n, "of": 2000}, separators=(",", ":")).encode().ljust(100) for n in range(20)
    ]
    assert sum(still_attached(link) for link in links) == 1


def still_attached(link: Peer) -> bool:
    """Whether the bridge repeats what is said; a replaced link is closed after what was written."""
    try:
        return bool(link.send("hello").wait("hello"))
    except (EOFError, OSError):
        return False


def test_a_restart_in_the_middle_of_a_flood_keeps_numbers_and_order(bridge: Bridge) -> None:
    link = bridge.attach().send("lines 1000000 100")
    link.wait('{"n":500,')
    link.send({"method": "bridge/restart"})
    after = link.seq
    link.note("bridge/started")
    link.send({"method": "initialize"}, "done")
    link.wait("done")
    last = link.seq
    again = bridge.attach(after=last - 1)
    assert again.line() == b"done" and again.seq == last > after


def test_a_signal_that_comes_while_it_starts_is_not_lost(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path)
    for _ in range(10):
        process = bridge.spawn()
        try:
            until((tmp_path / "s").exists)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0 and not (tmp_path / "s").exists()
        finally:
            process.kill()
            process.wait()
