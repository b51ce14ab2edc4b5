"""The bridge as docs/bridge.md describes it: real processes, real sockets."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import signal
import stat
from pathlib import Path

import pytest
from bridges import BRIDGE, Bridge, gone, pid_in
from hypothesis import given
from hypothesis import strategies as st
from support import PATIENCE_S, ROOT, free_port, until

spec = importlib.util.spec_from_file_location("bridge_under_test", BRIDGE)
code = importlib.util.module_from_spec(spec)
spec.loader.exec_module(code)


@pytest.fixture
def bridge(tmp_path: Path):
    with Bridge(tmp_path) as running:
        yield running


# -- numbers, ring, gap


def test_the_answer_to_an_attach_says_where_the_stream_stands(bridge: Bridge) -> None:
    first = bridge.attach()
    result = first.answer["result"]
    assert first.answer["id"] == 1 and len(result["epoch"]) == 12
    assert result["bridge"] == result["link"] == result["life"] == result["first"] == 1
    assert (result["sent"], result["gap"], result["state"]) == (0, False, "running")
    own = {"method": "bridge/started", "mark": result["mark"], "params": {"life": 1}}
    assert json.loads(first.line()) == own and len(result["mark"]) == 32
    first.wait("pid")
    again = bridge.attach(after=2).answer["result"]
    assert again == {**result, "link": 2, "first": 3, "next": 3, "sent": 2}


def test_lines_have_the_same_numbers_on_every_link(bridge: Bridge) -> None:
    seen = bridge.attach().send("lines 500").lines(502)
    assert bridge.attach(after=0).lines(502) == seen
    third = bridge.attach(after=300)
    assert third.line() == seen[300] and third.seq == 301 and not third.answer["result"]["gap"]


def test_what_a_link_sends_along_with_its_first_line_is_not_lost(bridge: Bridge) -> None:
    link = bridge.attach(0, 1, "one", "two")
    assert link.wait("one") and link.line() == b"two"


@pytest.mark.parametrize("limits", [{"ring_bytes": 5000}, {"ring_lines": 50}], ids=["bytes", "lines"])
def test_the_ring_keeps_the_newest_lines_within_its_bounds(tmp_path: Path, limits: dict[str, int]) -> None:
    with Bridge(tmp_path, **limits) as bridge:
        link = bridge.attach()
        for number in range(200):
            assert link.send(f"{number:099}").wait(f"{number:099}")
        newest = link.seq
        again = bridge.attach(after=0)
        result = again.answer["result"]
        assert result["gap"] and result["next"] == newest + 1 and 45 <= newest + 1 - result["first"] <= 50
        assert again.line() == b"%099d" % (199 - (newest - result["first"]))


def test_the_newest_line_is_kept_even_if_it_is_larger_than_the_ring(tmp_path: Path) -> None:
    with Bridge(tmp_path, ring_bytes=1000) as bridge:
        link = bridge.attach().send("huge 300000 end")
        assert len(link.wait("aaa")) == 300_000
        again = bridge.attach(after=0)
        assert again.answer["result"]["gap"] and again.answer["result"]["first"] == link.seq
        assert len(again.line()) == 300_000


def test_a_number_that_this_epoch_has_not_reached_is_a_gap_and_nothing_is_replayed(bridge: Bridge) -> None:
    bridge.attach().wait("pid")
    result = bridge.attach(after=7000).answer["result"]
    assert result["gap"] and result["first"] == result["next"] == 3


def stream(lines: list[bytes], cuts: list[int]) -> list[bytes]:
    """The bytes of these lines, the last one without its end, in pieces."""
    data = b"\n".join(lines)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(
    st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"")), max_size=12), st.lists(st.integers(0))
)
def test_any_cut_of_a_stream_gives_the_same_lines_and_numbers(lines: list[bytes], cuts: list[int]) -> None:
    splitter, ring = code.Splitter(30), code.Ring(1 << 20, 1000)
    for piece in stream(lines, cuts):
        for at in range(0, len(piece), 30):
            if block := splitter.feed(piece[at : at + 30]):
                assert ring.append(block) == ring.next - 1
    if half := splitter.finish():
        ring.append(half)
    over = next((at for at, text in enumerate(lines) if len(text) > 30), len(lines))
    wanted = [*lines[:over], b""] if over < len(lines) else lines[:-1] if lines and not lines[-1] else lines
    for after in range(ring.next):
        blocks = list(ring.after(after))
        assert b"".join(block for _, block in blocks) == b"".join(text + b"\n" for text in wanted[after:])
        assert [last for last, _ in blocks[-1:]] == [ring.next - 1] * bool(blocks)


def test_the_documentation_has_every_key_of_the_configuration_and_of_the_answer(bridge: Bridge) -> None:
    text = (ROOT / "docs" / "bridge.md").read_text()
    names = {*code.DEFAULTS, "listen", "command", *bridge.attach().answer["result"]}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


def test_all_lines_of_its_own_bear_the_mark_of_its_epoch(bridge: Bridge) -> None:
    link = bridge.attach()
    mark = link.answer["result"]["mark"]
    link.send('{"method":"bridge\\/x"}', "exit 3")
    own = [json.loads(link.wait(b'"bridge/')) for _ in range(3)]
    assert [each["method"] for each in own] == ["bridge/started", "bridge/exited", "bridge/started"]
    assert {each["mark"] for each in own} == {mark} == {bridge.attach().answer["result"]["mark"]}


# -- one link after another


def test_a_new_link_replaces_the_old_one(bridge: Bridge) -> None:
    old = bridge.attach()
    old.wait("pid")
    new = bridge.attach(after=2)
    assert old.closed() and new.send("hello").line() == b"hello"


def test_sent_is_right_when_the_old_link_stopped_reading_in_the_middle(bridge: Bridge) -> None:
    old = bridge.attach().send("lines 3000 1000", "err printed")
    old.wait('{"n":100,')
    until(lambda: "printed" in bridge.logged())
    new = bridge.attach(after=0)
    whole = old.seq + old.rest().count(b"\n")
    assert 100 < new.answer["result"]["sent"] == whole < 3000
    assert new.wait('{"n":3000,')


def test_an_older_gateway_is_refused_and_the_newer_one_keeps_its_link(bridge: Bridge) -> None:
    link = bridge.attach(term=5)
    late = bridge.attach(term=4)
    assert late.answer["error"]["data"] == {"term": 5} and late.closed()
    assert link.send("still here").wait("still here")
    assert bridge.attach(term=5).answer["result"]["link"] == 2 and link.rest() == b""


def test_the_half_line_of_a_replaced_link_is_dropped(bridge: Bridge) -> None:
    old = bridge.attach()
    old.sock.sendall(b"whole\nhalf of a li")
    old.wait("whole")
    assert bridge.attach(after=old.seq).send("new").line() == b"new"


def test_a_slow_link_holds_up_the_app_server_and_loses_nothing(tmp_path: Path) -> None:
    with Bridge(tmp_path, ring_bytes=100_000, pause_s=60) as bridge:
        link = bridge.attach().send("lines 20000 1000", "done")
        link.wait('{"n":1,')
        assert bridge.stands_still() < 5_000_000
        assert [json.loads(text)["n"] for text in link.lines(19_999)] == list(range(2, 20_001))
        assert link.line() == b"done"


def test_a_link_that_stays_slow_is_closed_and_the_app_server_goes_on(tmp_path: Path) -> None:
    with Bridge(tmp_path, ring_bytes=100_000, pause_s=0.2) as bridge:
        link = bridge.attach().send("lines 20000 1000", "done")
        until(lambda: "too slow" in bridge.logged())
        new = bridge.attach(after=link.seq)
        assert new.answer["result"]["gap"] and new.wait("done")


# -- life and death of the app-server


def test_a_death_is_told_with_its_cause_and_the_next_life_begins_under_the_same_epoch(bridge: Bridge) -> None:
    link = bridge.attach().send("err last-words", "exit 3")
    told = link.note("bridge/exited")
    assert {key: told[key] for key in ("life", "code", "signal", "reason", "state")} == {
        "life": 1, "code": 3, "signal": None, "reason": "exited", "state": "restarting",
    }  # fmt: skip
    assert "last-words" in told["stderr"]
    assert link.note("bridge/started") == {"life": 2}
    os.kill(pid_in(link.wait("pid")), signal.SIGKILL)
    told = link.note("bridge/exited")
    assert (told["code"], told["signal"], told["stderr"]) == (None, 9, "")
    result = bridge.attach(after=link.seq).answer["result"]
    assert (result["epoch"], result["gap"]) == (link.answer["result"]["epoch"], False)


def test_a_half_line_is_ended_before_the_death_is_told(bridge: Bridge) -> None:
    link = bridge.attach().send("half {unfinished")
    assert link.wait("{unfinished") == b"{unfinished" and link.line().startswith(b'{"method":"bridge/exited"')


def test_five_quick_deaths_mean_failed_and_a_control_line_starts_anew(tmp_path: Path) -> None:
    command = "test -e mended && exec cat; exit 4"
    with Bridge(tmp_path, command, backoff_s=[0.01, 0.01, 0.01, 0.02, 60]) as bridge:
        link = bridge.attach()
        states = [link.note("bridge/exited")["state"] for _ in range(5)]
        assert states == ["restarting"] * 4 + ["failed"]
        assert bridge.attach(after=link.seq).answer["result"]["state"] == "failed"
        (tmp_path / "mended").touch()
        link = bridge.attach(after=link.seq).send({"method": "bridge/restart"})
        assert link.note("bridge/started") == {"life": 6}


def test_the_time_before_a_new_life_grows_with_every_quick_death(tmp_path: Path) -> None:
    with Bridge(tmp_path, "date +%s.%N; exit 1", backoff_s=[0.0, 0.3, 0.6]) as bridge:
        link = bridge.attach()
        times = [float(link.wait(b".")) for _ in range(4) if link.note("bridge/started")]
        assert times[2] - times[1] > 0.29 and times[3] - times[2] > 0.59


@pytest.mark.parametrize("text", [b'{"method":"bridge/restart"}', b'{"id": 7, "method": "bridge\\/restart"}'])
def test_a_control_line_restarts_the_app_server_and_never_reaches_it(bridge: Bridge, text: bytes) -> None:
    link = bridge.attach()
    old = pid_in(link.wait("pid"))
    assert link.send("before").line() == b"before"
    link.send(text)
    told = json.loads(link.line())["params"]
    assert told["reason"] == "asked for by the gateway" and told["state"] == "restarting"
    link.note("bridge/started")
    assert pid_in(link.line()) != old and gone(old)


def test_words_about_the_bridge_are_no_control_lines(bridge: Bridge) -> None:
    text = json.dumps({"method": "turn/start", "params": {"text": '{"method":"bridge/restart"}\r x'}}).encode()
    assert bridge.attach().send(text + b"\r").wait("turn/start") == text + b"\r"


def test_after_a_death_nothing_gets_in_before_the_handshake(bridge: Bridge) -> None:
    link = bridge.attach().send("exit 0")
    link.note("bridge/exited")
    link.send("too early")
    link.note("bridge/started")
    handshake = b'{"id":0,"method":"initialize","params":{}}'
    link.send("still too early", handshake, '{"method":"initialized"}', "in time")
    link.wait("pid")
    assert link.lines(3) == [handshake, b'{"method":"initialized"}', b"in time"]


# -- plain links


def test_every_plain_link_has_an_app_server_of_its_own(bridge: Bridge) -> None:
    pids = []
    for _ in range(3):
        link = bridge.plain("hello", "lines 5000 100")
        assert json.loads(link.line()) == {"id": 1, "result": {}}
        pids.append(pid_in(link.line()))
        assert link.line() == b"hello" and link.line().startswith(b'{"n":1,')
        link.close()
    assert len(set(pids)) == 3 and gone(*pids[:2])


def test_a_plain_link_ends_with_its_app_server_and_gets_all_that_was_printed(bridge: Bridge) -> None:
    link = bridge.plain("lines 5000 200", "exit 0")
    said = link.rest()
    assert said.count(b"\n") == 5002 and b"bridge/" not in said


def test_a_plain_link_is_refused_while_a_gateway_is_attached(bridge: Bridge) -> None:
    link = bridge.attach()
    refused = bridge.plain()
    assert "gateway" in json.loads(refused.line())["error"]["message"] and refused.closed()
    assert link.send("hello").wait("hello")


def test_a_gateway_takes_over_from_a_plain_link(bridge: Bridge) -> None:
    plain = bridge.plain("hello")
    plain.wait("hello")
    assert bridge.attach().wait("hello") and plain.closed()


def test_without_a_secret_any_first_line_is_for_the_app_server(tmp_path: Path) -> None:
    with Bridge(tmp_path, secret=None) as bridge:
        link = bridge.connect().send('{"id":1,"method":"initialize"}', "hello")
        pid_in(link.line())
        assert link.lines(2) == [b'{"id":1,"method":"initialize"}', b"hello"]
        assert bridge.attach().answer["result"]["link"] == 1 and link.closed()


# -- around it


def test_it_serves_over_tcp(tmp_path: Path) -> None:
    with Bridge(tmp_path, listen=f"tcp:127.0.0.1:{free_port()}") as bridge:
        assert bridge.attach().send("hello").wait("hello")


def test_stderr_goes_to_a_log_of_bounded_size_and_never_into_the_stream(bridge: Bridge) -> None:
    link = bridge.attach().send("err grumble")
    assert link.wait("said") and until(lambda: "grumble" in bridge.logged())
    for _ in range(4):
        link.send(f"err {'x' * 100} 8000").wait("said")
    aside = bridge.folder / "agent.log.1"
    until(aside.exists)
    assert aside.stat().st_size < 1.2 * (1 << 20) and stat.S_IMODE(aside.stat().st_mode) == 0o600
    again = bridge.attach(after=0)
    assert [again.line() for _ in range(7)][2:] == [b"said"] * 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_bridge_app_server_and_the_most_stubborn_child(bridge: Bridge, number: int) -> None:
    link = bridge.attach()
    pids = [pid_in(link.wait("pid")), int(link.send("child stubborn").line())]
    assert link.send("stubborn").line() == b"stubborn"
    bridge.process.send_signal(number)
    assert bridge.process.wait(PATIENCE_S) == 0 and gone(*pids)
    assert not (bridge.folder / "s").exists()


def test_an_app_server_ends_by_eof_when_its_bridge_is_killed(bridge: Bridge) -> None:
    pid = pid_in(bridge.attach().wait("pid"))
    bridge.process.kill()
    assert gone(pid)


def test_the_workspace_gets_its_files_once(tmp_path: Path) -> None:
    templates, workspace = tmp_path / "templates", tmp_path / "workspace"
    templates.mkdir()
    workspace.mkdir()
    (templates / "AGENTS.default.md").write_text("---\nsummary: x\n---\n\n# Rules\n---\nmore\n")
    (templates / "USER.md").write_text("no front matter\n")
    (workspace / "SOUL.md").symlink_to("nowhere")
    (workspace / "USER.md").write_text("mine")
    for _ in range(2):
        with Bridge(tmp_path, workspace=str(workspace), templates=str(templates)):
            pass
        texts = {name: (workspace / f"{name}.md").read_text() for name in ("AGENTS", "USER", "HEARTBEAT")}
        assert texts == {"AGENTS": "# Rules\n---\nmore\n", "USER": "mine", "HEARTBEAT": "# HEARTBEAT\n"}
        assert not (workspace / "SOUL.md").exists()


def test_only_one_bridge_serves_a_socket_and_only_its_user_can_reach_it(bridge: Bridge) -> None:
    path = bridge.folder / "s"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = bridge.spawn()
    assert second.wait(PATIENCE_S) == 1 and "another bridge serves" in bridge.said()
    assert bridge.attach().answer["result"]["link"] == 1
    bridge.process.kill()
    bridge.process.wait()
    assert path.exists()
    with bridge:
        assert bridge.attach().answer["result"]["link"] == 1
