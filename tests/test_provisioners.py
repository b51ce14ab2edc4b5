"""The contract of app/provisioners/__init__.py, for every driver, and what is particular to each."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bridges import SECRET, Bridge, Peer, fill, gone, lives, pid_in, puppet, seconds_since, tmpfs
from support import free_port, until

from app.errors import ArgusError, Unavailable
from app.provisioners import Handle, Provisioner, Spec
from app.provisioners.process import ProcessProvisioner
from app.provisioners.processes import boot_id, identify, is_running, members
from app.provisioners.static import StaticProvisioner
from app.relay.adapt import Traits
from app.relay.link import dial
from app.settings import inherited_environment

SESSION = "5e55104"


class Runtimes:
    """A driver, a home and what runs in it."""

    def __init__(self, driver: Provisioner, home: Path, command: Any) -> None:
        self.driver, self.home = driver, home
        self.spec = Spec(SESSION, SECRET, command)
        self.handle: Handle | None = None
        self.sockets = contextlib.ExitStack()

    def start(self) -> Handle:
        self.handle = self.driver.start(self.spec)
        return self.handle

    def link(self, after: int = 0) -> Peer:
        sock = dial(self.handle["address"], 5)
        self.sockets.callback(sock.close)
        return Peer(sock).attach(SECRET, after)

    def pids(self) -> list[int]:
        """All living processes that carry the mark of this home."""
        return sorted(members(None, (f"ARGUS_RUNTIME_OF={self.home}",)))


@pytest.fixture
def home() -> Iterator[Path]:
    """Short, so that the socket's path is."""
    made = Path(tempfile.mkdtemp(prefix="argus-p-"))
    yield made
    shutil.rmtree(made)


def process(home: Path, **options: Any) -> ProcessProvisioner:
    return ProcessProvisioner(home, environment=inherited_environment(), **options)


@contextlib.contextmanager
def running(home: Path, driver: ProcessProvisioner, command: Any = None) -> Iterator[Runtimes]:
    made = Runtimes(driver, home, command or puppet(Path(tempfile.mkdtemp(dir=home.parent))))
    try:
        with made.sockets:
            yield made
    finally:
        for handle in driver.list():
            driver.stop(handle)
        driver.stop({"session": SESSION})  # also what a test has killed is to be waited for
        if command is None:
            shutil.rmtree(Path(made.spec.command[-1]).parent)


class Contract:
    """What every driver does. `runtimes` is given by the class of each driver."""

    def test_what_start_returns_leads_to_the_agent(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        assert json.loads(json.dumps(handle)) == handle
        assert handle["session"] == SESSION and handle["attach"] is True
        assert runtimes.link().send("hello").wait("hello")

    def test_starting_what_runs_takes_it_over(self, runtimes: Runtimes) -> None:
        handle, pid = runtimes.start(), pid_in(runtimes.link().wait("pid"))
        assert runtimes.start() == handle
        assert pid_in(runtimes.link().wait("pid")) == pid

    def test_a_runtime_is_running_once_started(self, runtimes: Runtimes) -> None:
        assert runtimes.driver.poll(runtimes.start()) == "running"

    def test_stopping_twice_is_success(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        assert runtimes.driver.stop(handle) is None and runtimes.driver.stop(handle) is None

    def test_what_it_knows_of_a_session_can_be_removed_though_there_is_nothing(self, runtimes: Runtimes) -> None:
        assert runtimes.driver.remove("nothing") is None
        assert isinstance(runtimes.driver.traits("nothing"), Traits)

    def test_list_gives_handles_of_the_sessions_that_run(self, runtimes: Runtimes) -> None:
        assert runtimes.driver.list() == []
        handle = runtimes.start()
        assert runtimes.driver.list() == ([handle] if runtimes.driver.name != "static" else [])


class TestStatic(Contract):
    @pytest.fixture
    def runtimes(self, tmp_path: Path) -> Iterator[Runtimes]:
        port = free_port()
        with Bridge(tmp_path, listen=f"tcp:127.0.0.1:{port}") as bridge:
            driver = StaticProvisioner({"one": {"port": port, "bridge": True, "secret": SECRET}})
            made = Runtimes(driver, tmp_path, bridge.config["command"])
            made.spec = Spec(SESSION, SECRET, upstream="one")
            with made.sockets:
                yield made

    def test_the_only_upstream_needs_no_name_and_an_unknown_one_is_refused(self) -> None:
        driver = StaticProvisioner({"one": {"host": "h", "port": 1}})
        assert driver.choose(None) == "one"
        assert driver.start(Spec(SESSION, "", upstream="one")) == {
            "session": SESSION, "address": "tcp:h:1", "attach": False,
        }  # fmt: skip
        for name in ("two", ""):
            with pytest.raises(ArgusError, match="Unknown upstream id"):
                driver.start(Spec(SESSION, "", upstream=name))


class TestProcess(Contract):
    @pytest.fixture
    def runtimes(self, home: Path) -> Iterator[Runtimes]:
        with running(home, process(home)) as made:
            yield made

    def test_stop_ends_all_that_the_runtime_started_within_a_second(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        link = runtimes.link()
        pids = [handle["pid"], pid_in(link.wait("pid"))]
        pids += [int(link.send(order).line()) for order in ("child stubborn leaves", "child hold", "child stubborn")]
        link.send("stubborn").wait("stubborn")
        assert all(map(lives, pids))
        began = time.monotonic()
        runtimes.driver.stop(handle)
        assert not any(map(lives, pids)) and seconds_since(began) < 30
        assert runtimes.driver.poll(handle) == "exited" and runtimes.pids() == [] == runtimes.driver.list()
        assert not Path(handle["address"].removeprefix("unix:")).exists()

    def test_stop_also_ends_what_is_made_while_it_stops(self, home: Path) -> None:
        heirs = (
            "import os, signal, time\n"
            "def heir(*_):\n"
            "    if os.fork() == 0: os.setsid()\n"
            "signal.signal(2, heir), signal.signal(15, heir), print('ready', flush=True)\n"
            "while True: time.sleep(1)"
        )
        with running(home, process(home), [sys.executable, "-c", heirs]) as runtimes:
            handle = runtimes.start()
            runtimes.link().wait("ready")
            runtimes.driver.stop(handle)
            assert runtimes.pids() == []

    def test_it_can_be_started_again_after_a_stop(self, runtimes: Runtimes) -> None:
        first = runtimes.start()
        runtimes.driver.stop(first)
        assert runtimes.start()["pid"] != first["pid"]
        assert runtimes.link().answer["result"]["life"] == 1

    def test_a_bridge_that_was_killed_is_exited_and_a_start_sweeps_what_it_left(self, runtimes: Runtimes) -> None:
        first = runtimes.start()
        link = runtimes.link()
        agent = pid_in(link.wait("pid"))
        child = int(link.send("child hold leaves").line())
        assert link.send("deaf").line() == b"deaf"  # does not see the end of its input
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: runtimes.driver.poll(first) == "exited")
        assert lives(agent) and [handle["session"] for handle in runtimes.driver.list()] == [SESSION]
        second = runtimes.start()
        assert second["pid"] != first["pid"] and not lives(agent) and not lives(child)
        assert runtimes.link().send("hello").wait("hello")

    def test_the_next_gateway_takes_over_polls_lists_and_stops(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        next_one = process(runtimes.home)
        assert next_one.poll(handle) == "running" and next_one.list() == [handle]
        assert next_one.start(runtimes.spec) == handle
        next_one.stop(handle)
        assert runtimes.pids() == [] and runtimes.driver.poll(handle) == "exited"

    def test_a_runtime_whose_handle_nobody_wrote_down_is_listed(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        file = runtimes.home / "sessions" / SESSION / "runtime.json"
        for text in (None, "{", '["a"]', '{"session":"other"}', json.dumps({"session": SESSION, "pid": "x"})):
            file.unlink() if text is None else file.write_text(text)
            assert process(runtimes.home).list() == [handle]

    def test_a_handle_of_another_process_touches_no_stranger(self, runtimes: Runtimes) -> None:
        stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
        try:
            right = identify(stranger.pid).__dict__
            assert runtimes.driver.poll({"session": SESSION, **right}) == "running"
            for wrong in ({"boot": "another"}, {"started": "1"}, {"started": ""}, {"boot": ""}):
                handle = {"session": SESSION, "address": "unix:/nowhere", "attach": True, **right, **wrong}
                assert runtimes.driver.poll(handle) == "exited"
                runtimes.driver.stop(handle)
                assert stranger.poll() is None
            for pid in (0, -1, 1 << 40, None, "1", [1]):
                handle = {"session": SESSION, "pid": pid, "started": "1", "boot": boot_id()}
                assert runtimes.driver.poll(handle) == "exited"
                runtimes.driver.stop(handle)
        finally:
            stranger.kill()
            stranger.wait()
        assert not is_running(identify(stranger.pid))

    def test_two_sessions_do_not_touch_each_other(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        other = runtimes.driver.start(Spec("0ther", SECRET, runtimes.spec.command))
        assert {each["session"] for each in runtimes.driver.list()} == {SESSION, "0ther"}
        runtimes.driver.stop(other)
        assert runtimes.driver.list() == [handle] and runtimes.link().send("hello").wait("hello")

    def test_the_gateways_secrets_reach_neither_bridge_nor_agent(self, home: Path) -> None:
        names = ("ARGUS_TOKEN", "ARGUS_NODE_TOKEN", "ARGUS_MCP_TOKEN", "TELEGRAM_BOT_TOKEN", "ARGUS_UPSTREAMS_JSON")
        environ = {**os.environ, **dict.fromkeys(names, "a-master-secret"), "OPENAI_API_KEY": "the-agents-own"}
        driver = ProcessProvisioner(home, environment=inherited_environment(environ))
        with running(home, driver) as runtimes:
            runtimes.start()
            runtimes.link().wait("pid")
            environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in runtimes.pids()]
            assert len(environments) == 2
            for environment in environments:
                assert b"a-master-secret" not in environment and SECRET.encode() not in environment
                assert b"the-agents-own" in environment

    def test_what_it_writes_is_for_its_user_only(self, runtimes: Runtimes) -> None:
        runtimes.start()
        own = runtimes.home / "sessions" / SESSION
        modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in (own, *own.iterdir())}
        assert modes[SESSION] == "0o700" and modes["bridge.json"] == modes["runtime.json"] == "0o600"
        assert stat.S_IMODE((runtimes.home / "run").stat().st_mode) == 0o700

    @pytest.mark.parametrize("layout, inside", [("shared", "workspace"), ("session", f"sessions/{SESSION}/workspace")])
    def test_the_layout_says_where_it_works_and_what_remove_removes(self, home: Path, layout: str, inside: str) -> None:
        with running(home, process(home, layout=layout), "pwd; cat") as runtimes:
            handle = runtimes.start()
            assert runtimes.link().wait(str(home / inside)) == str(home / inside).encode()
            assert runtimes.driver.traits(SESSION).workspace == str(home / inside)
            runtimes.driver.stop(handle)
            runtimes.driver.remove(SESSION)
            assert (home / inside / "AGENTS.md").exists() is (layout == "shared")
            assert not (home / "sessions" / SESSION).exists()

    def test_a_long_home_works(self, home: Path) -> None:
        long = home / ("x" * 120)
        with running(long, process(long), "echo here; cat") as runtimes:
            handle = runtimes.start()
            directory = Path(handle["address"].removeprefix("unix:")).parent
            try:
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
                assert runtimes.link().wait("here") and process(long).start(runtimes.spec) == handle
                runtimes.driver.stop(handle)
                directory.chmod(0o777)
                with pytest.raises(Unavailable, match="open to others; remove it"):
                    runtimes.start()
            finally:
                shutil.rmtree(directory)

    def test_a_command_that_does_not_exist_ends_in_a_failed_bridge_that_says_so(self, home: Path) -> None:
        with running(home, process(home, bridge_limits={"backoff_s": [0.01]}), ["/no/such/agent"]) as runtimes:
            runtimes.start()
            link = runtimes.link()
            told = [link.note("bridge/exited") for _ in range(5)][-1]
            assert told["state"] == "failed" and "/no/such/agent" in told["reason"]

    def test_a_bridge_that_does_not_start_says_why_and_leaves_nothing(self, home: Path) -> None:
        with running(home, process(home, bridge_limits={"line_limit": "much"})) as runtimes:
            with pytest.raises(Unavailable, match=r"TypeError: .*bridge\.log"):
                runtimes.start()
            assert runtimes.pids() == [] == runtimes.driver.list()

    def test_a_bridge_that_takes_too_long_is_ended(self, home: Path) -> None:
        with running(home, process(home, timeout_s=0.0)) as runtimes:
            with pytest.raises(Unavailable, match="nothing in 0 s"):
                runtimes.start()
            assert runtimes.pids() == []

    @pytest.mark.parametrize("name", ["sessions", "run", "workspace", f"sessions/{SESSION}/bridge.json.new"])
    def test_a_home_with_something_in_the_way_is_told(self, home: Path, name: str) -> None:
        in_the_way = home / name
        in_the_way.parent.mkdir(parents=True, exist_ok=True)
        in_the_way.mkdir() if name.endswith(".new") else in_the_way.touch()
        with running(home, process(home)) as runtimes:
            with pytest.raises(Unavailable, match=str(in_the_way)):
                runtimes.start()
            assert runtimes.pids() == []

    def test_a_full_disk_is_told_and_the_start_succeeds_once_there_is_space(self, home: Path) -> None:
        with tmpfs(home / "disk", "size=256k") as disk, running(disk, process(disk)) as runtimes:
            ballast = fill(disk)
            with pytest.raises(Unavailable, match="full; free some space"):
                runtimes.start()
            assert runtimes.pids() == []
            ballast.unlink()
            runtimes.start()
            assert runtimes.link().send("hello").wait("hello")
            runtimes.driver.stop(runtimes.handle)

    def test_a_home_that_cannot_be_written_is_told(self, home: Path) -> None:
        written = pytest.raises(Unavailable, match=r"can't be written .* make it the gateway's own")
        with tmpfs(home / "disk", "ro") as disk, running(disk, process(disk)) as runtimes, written:
            runtimes.start()


def test_nothing_of_the_tests_is_left() -> None:
    assert gone(*members(None, (f"ARGUS_SESSION_ID={SESSION}",)))
