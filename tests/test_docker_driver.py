"""The provisioner contract on a real Docker engine, and what is particular to containers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bridges import PUPPET, SECRET, fill, tmpfs
from docker_kit import api, clean, require_docker, run, runtime_image
from support import until
from test_provisioners import SESSION, Contract, Runtimes

from app.errors import BadRequest, Unavailable
from app.provisioners import Spec
from app.provisioners.docker import DockerProvisioner
from app.provisioners.engine import own_container, translated
from app.provisioners.mounts import resolve
from app.settings import load

# The SDK leaves the socket of a connection that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

COMMAND = ["python3", "-I", "-S", "/root/.argus/workspace/puppet.py"]
PREFIX = f"argus-test{os.getpid()}"  # another test run on this engine has another
NAME = f"{PREFIX}-{SESSION}"


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    require_docker()


@pytest.fixture
def home() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="argus-d-"))
    yield made
    clean(made)


def docker_driver(home: Path, **env: str) -> DockerProvisioner:
    base = {"ARGUS_HOME_HOST_PATH": str(home), "ARGUS_CONTAINER_PREFIX": PREFIX, "ARGUS_RUNTIME_IMAGE": runtime_image()}
    return DockerProvisioner(load({**base, **env}))


@contextlib.contextmanager
def made(home: Path, **env: str) -> Iterator[Runtimes]:
    """A driver whose agent is the puppet, in every layout's workspace."""
    for folder in (home / "workspace", home / "sessions" / SESSION / "workspace"):
        folder.mkdir(parents=True)
        (folder / "puppet.py").write_text(PUPPET)
    found = Runtimes(docker_driver(home, **env), home, COMMAND)
    with found.sockets:
        yield found


def inspected(name: str = NAME) -> dict[str, Any]:
    return api().inspect_container(name)


class TestDocker(Contract):
    @pytest.fixture
    def runtimes(self, home: Path) -> Iterator[Runtimes]:
        with made(home) as found:
            yield found

    def test_the_container_is_as_the_contract_says(self, runtimes: Runtimes) -> None:
        runtimes.start()
        found = inspected()
        labels, home = found["Config"]["Labels"], str(runtimes.home)
        assert labels["io.argus.gateway"] == "apps/api" and labels["io.argus.session_id"] == SESSION
        assert labels["io.argus.runtime_layout"] == "root_argus_v1"
        assert labels["io.argus.runtime_home_container_path"] == "/root/.argus"
        assert labels["io.argus.runtime_workspace_container_path"] == "/root/.argus/workspace"
        assert found["Config"]["WorkingDir"] == "/root/.argus/workspace"
        assert list(found["NetworkSettings"]["Networks"]) == ["argus-net"]
        binds = {m["Destination"]: m["Source"] for m in found["Mounts"] if m["Type"] == "bind"}
        assert binds["/root/.argus"] == home
        environment = dict(text.split("=", 1) for text in found["Config"]["Env"])
        assert environment["APP_HOME"] == "/root/.argus" and environment["ARGUS_SESSION_ID"] == SESSION
        assert not found["HostConfig"]["RestartPolicy"]["Name"].replace("no", "")
        assert not found["HostConfig"]["PortBindings"] and not found["HostConfig"]["Privileged"]

    def test_a_stopped_container_is_woken_and_not_made_anew(self, runtimes: Runtimes) -> None:
        first = runtimes.start()
        assert run(NAME, "touch", "/installed")[0] == 0
        runtimes.driver.stop(first)
        assert runtimes.driver.poll(first) == "exited" and runtimes.driver.list() == []
        second = runtimes.start()
        assert second["container"] == first["container"] and run(NAME, "ls", "/installed")[0] == 0

    @pytest.mark.parametrize(
        "change", [{"ARGUS_RUNTIME_PIDS_LIMIT": "99"}, {"ARGUS_RUNTIME_HARDENING": "off"}], ids=["limit", "hardening"]
    )
    def test_a_stopped_container_is_made_anew_when_what_it_should_be_has_changed(
        self, runtimes: Runtimes, change: dict[str, str]
    ) -> None:
        first = runtimes.start()
        runtimes.driver.stop(first)
        second = docker_driver(runtimes.home, **change).start(runtimes.spec)
        assert second["container"] != first["container"]

    def test_a_container_removed_by_hand_is_exited_and_made_again(self, runtimes: Runtimes) -> None:
        first = runtimes.start()
        api().remove_container(NAME, force=True)
        assert runtimes.driver.poll(first) == "exited" and runtimes.driver.list() == []
        assert runtimes.driver.stop(first) is None
        assert runtimes.start()["container"] != first["container"]

    def test_the_next_gateway_takes_over_polls_lists_and_stops(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        next_one = docker_driver(runtimes.home)
        assert next_one.poll(handle) == "running" and next_one.list() == [handle]
        assert next_one.start(runtimes.spec) == handle
        next_one.stop(handle)
        assert runtimes.driver.poll(handle) == "exited"

    def test_a_handle_at_another_address_is_exited(self, runtimes: Runtimes) -> None:
        handle = runtimes.start()
        assert runtimes.driver.poll({**handle, "address": "tcp:10.0.0.1:7777"}) == "exited"

    def test_another_home_neither_lists_nor_takes_nor_stops_it(self, runtimes: Runtimes, tmp_path: Path) -> None:
        handle = runtimes.start()
        stranger = docker_driver(tmp_path)
        assert stranger.list() == [] and stranger.prune(lambda session: False) == []
        with pytest.raises(Unavailable, match="not this gateway's"):
            stranger.start(runtimes.spec)
        stranger.stop(handle)
        stranger.remove(SESSION)
        assert runtimes.driver.poll(handle) == "running"

    def test_prune_removes_containers_of_unknown_sessions_stopped_ones_too(self, runtimes: Runtimes) -> None:
        runtimes.driver.stop(runtimes.start())
        other = runtimes.driver.start(Spec("0ther", SECRET, COMMAND))
        assert runtimes.driver.prune(lambda session: session == "0ther") == [SESSION]
        assert runtimes.driver.list() == [other] and not api().containers(all=True, filters={"name": NAME})
        assert (runtimes.home / "sessions" / SESSION).is_dir()

    def test_remove_deletes_container_and_files_that_its_root_made(self, runtimes: Runtimes) -> None:
        runtimes.start()
        assert run(NAME, "mkdir", "-p", "/var/lib/argus/deep/deeper")[0] == 0
        runtimes.driver.remove(SESSION)
        assert not (runtimes.home / "sessions" / SESSION).exists() and (runtimes.home / "workspace").exists()
        assert not api().containers(all=True, filters={"name": NAME})

    def test_what_the_gateways_user_may_not_remove_is_removed_in_a_container(self, runtimes: Runtimes) -> None:
        folder = runtimes.home / "sessions" / "other"
        (folder / "deep").mkdir(parents=True)
        runtimes.driver._remove_as_root(folder)
        assert not folder.exists() and folder.parent.exists()
        assert not api().containers(all=True, filters={"label": f"io.argus.home={runtimes.home}"})

    def test_the_log_is_beside_the_session(self, runtimes: Runtimes) -> None:
        runtimes.start()
        link = runtimes.link()
        link.send("err something").wait("said")
        until(lambda: "something" in runtimes.driver.log_path(SESSION).read_text())

    def test_a_workspace_of_its_own_is_mounted(self, home: Path, tmp_path: Path) -> None:
        (tmp_path / "puppet.py").write_text(PUPPET)
        with made(home, ARGUS_WORKSPACE_HOST_PATH=str(tmp_path)) as runtimes:
            runtimes.start()
            assert runtimes.link().wait("pid") and (tmp_path / "AGENTS.md").exists()
            assert run(NAME, "ls", "/workspace/AGENTS.md")[0] == 0

    def test_limits_reach_the_engine(self, home: Path) -> None:
        limits = {"CPUS": "0.5", "MEM_LIMIT": "0.25g", "MEMSWAP_LIMIT": "300M", "PIDS_LIMIT": "77"}
        with made(home, **{f"ARGUS_RUNTIME_{name}": value for name, value in limits.items()}) as runtimes:
            runtimes.start()
            host = inspected()["HostConfig"]
            assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 50_000) and host["PidsLimit"] == 77
            assert (host["Memory"], host["MemorySwap"]) == (256 << 20, 300 << 20)

    def test_without_hardening_there_are_no_limits_and_any_client_may_speak(self, home: Path) -> None:
        with made(home, ARGUS_RUNTIME_HARDENING="off") as runtimes:
            handle = runtimes.start()
            host = inspected()["HostConfig"]
            assert not host["Memory"] and not host["PidsLimit"] and not host["CapDrop"]
            address = handle["address"].removeprefix("tcp:").split(":")
            with socket.create_connection((address[0], int(address[1])), 15) as plain:
                plain.sendall(b"hello\n")
                said = plain.makefile("rb")
                assert next(line for line in said if b"hello" in line)


class TestWhatGoesWrong:
    def test_a_missing_image_is_named_with_how_to_build_it(self, home: Path) -> None:
        with made(home, ARGUS_RUNTIME_IMAGE="argus-no-such-image") as runtimes:
            with pytest.raises(Unavailable, match="argus-no-such-image is missing: build it with"):
                runtimes.start()
            assert not api().containers(all=True, filters={"name": NAME})

    def test_a_missing_network_is_named_with_how_to_make_it(self, home: Path) -> None:
        told = pytest.raises(Unavailable, match="docker network create argus-no-such-net")
        with made(home, ARGUS_DOCKER_NETWORK="argus-no-such-net") as runtimes, told:
            runtimes.start()

    def test_no_engine_is_told_with_where_it_was_looked_for(self, home: Path) -> None:
        told = pytest.raises(Unavailable, match=r"no Docker runs at unix://.*none\.sock: start it")
        with made(home, DOCKER_HOST=f"unix://{home}/none.sock") as runtimes, told:
            runtimes.start()

    def test_an_engine_that_accepts_and_never_answers_ends_in_words(self, home: Path) -> None:
        with socket.socket(socket.AF_UNIX) as mute:
            mute.bind(str(home / "mute.sock"))
            mute.listen(8)
            told = pytest.raises(Unavailable, match="does not answer within 3 s")
            with made(home, DOCKER_HOST=f"unix://{home}/mute.sock", ARGUS_CONNECT_TIMEOUT_S="3") as runtimes, told:
                runtimes.start()

    def test_an_engine_that_comes_back_is_used_without_a_new_driver(self, home: Path) -> None:
        path = home / "late.sock"
        with made(home, DOCKER_HOST=f"unix://{path}") as runtimes:
            with pytest.raises(Unavailable):
                runtimes.start()
            path.symlink_to("/var/run/docker.sock")
            runtimes.start()
            assert runtimes.link().send("hello").wait("hello")

    def test_a_command_that_does_not_exist_is_told_by_the_bridge(self, home: Path) -> None:
        with made(home) as runtimes:
            runtimes.spec = replace(runtimes.spec, command=["/no/such/agent"])
            runtimes.start()
            assert "/no/such/agent" in runtimes.link().note("bridge/exited")["reason"]

    def test_a_container_that_ends_at_once_is_told_and_removed(self, home: Path) -> None:
        api().tag(runtime_image(), "argus-test-broken", home.name)
        broken = f"argus-test-broken:{home.name}"
        with made(home, ARGUS_RUNTIME_IMAGE=broken) as runtimes:
            runtimes.driver._plan.bridge = lambda spec: {"command": "cat"}  # a configuration without `listen`
            with pytest.raises(Unavailable, match=r"ended: code 1: .*listen"):
                runtimes.start()
            assert not api().containers(all=True, filters={"name": NAME})
        api().remove_image(broken)

    def test_a_full_disk_is_told_and_nothing_is_left(self, home: Path) -> None:
        with tmpfs(home / "disk", "size=1m") as disk:
            try:
                with made(disk) as runtimes:
                    ballast = fill(disk)
                    with pytest.raises(Unavailable, match="full; free some space"):
                        runtimes.start()
                    assert not api().containers(all=True, filters={"name": NAME})
                    ballast.unlink()
                    runtimes.start()
                    assert runtimes.link().send("hello").wait("hello")
            finally:
                with contextlib.suppress(Exception):
                    api().remove_container(NAME, force=True)

    def test_a_user_who_may_not_use_the_socket_is_told_what_to_do(self, home: Path) -> None:
        path = home / "private.sock"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen(1)
        os.chmod(path, 0o600)
        os.chmod(home, 0o711)
        code = (
            "import os, docker.errors, requests\n"
            "from app.provisioners.engine import Engine\n"
            "from app.errors import Unavailable\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"try: Engine('unix://{path}', 3).call('ping')\n"
            "except Unavailable as error: print(error.text)\n"
        )
        root = Path(__file__).resolve().parent.parent
        command = [sys.executable, "-W", "ignore", "-c", code]
        said = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
        server.close()
        assert "may not use Docker" in said.stdout and "group `docker`" in said.stdout, said


class TestStrict:
    @pytest.fixture
    def runtimes(self, home: Path) -> Iterator[Runtimes]:
        os.chown(home, 4711, 4711)
        with made(home, ARGUS_RUNTIME_HARDENING="strict") as found:
            for path in [*(home / "sessions").rglob("*"), home / "sessions"]:
                os.chown(path, 4711, 4711)
            yield found

    def test_it_runs_as_the_homes_owner_on_a_read_only_root_in_a_network_of_its_own(self, runtimes: Runtimes) -> None:
        runtimes.start()
        found = inspected()
        assert found["Config"]["User"] == "4711:4711" and found["HostConfig"]["ReadonlyRootfs"]
        assert list(found["NetworkSettings"]["Networks"]) == [f"argus-net-{SESSION}"]
        assert not found["HostConfig"]["CapAdd"]
        assert run(NAME, "touch", "/usr/x")[0] != 0 and run(NAME, "id", "-u")[1].strip() == "4711"
        assert run(NAME, "touch", "/workspace/x", "/root/.argus/x", "/tmp/x")[0] == 0
        assert (runtimes.home / "sessions" / SESSION / "home" / "x").exists()

    def test_remove_takes_its_network_along(self, runtimes: Runtimes) -> None:
        runtimes.start()
        runtimes.driver.remove(SESSION)
        assert not api().networks(names=[f"argus-net-{SESSION}"])

    def test_another_session_is_not_reached_at_all(self, runtimes: Runtimes) -> None:
        runtimes.start()
        other = runtimes.driver.start(Spec("0ther", SECRET, ["cat"]))
        host = other["address"].split(":")[1]
        dial = f"import socket; socket.create_connection(('{host}', 7777), 2)"
        assert run(NAME, "python3", "-c", dial)[0] != 0 and run(f"{PREFIX}-0ther", "python3", "-c", dial)[0] == 0

    def test_subnets_come_from_the_pool_and_a_full_pool_is_told(self, runtimes: Runtimes, home: Path) -> None:
        driver = docker_driver(home, ARGUS_RUNTIME_HARDENING="strict", ARGUS_RUNTIME_SUBNETS="10.214.7.0/24")
        driver.start(runtimes.spec)
        found = inspected()["NetworkSettings"]["Networks"][f"argus-net-{SESSION}"]
        assert found["IPAddress"].startswith("10.214.7.") and found["IPPrefixLen"] == 28
        taken = {"Driver": "default", "Config": [{"Subnet": "10.214.7.128/25"}]}
        labels = {"io.argus.home": str(home)}
        api().create_network(f"argus-test-{home.name}", ipam=taken, labels=labels)
        for n in range(7):
            driver._networks.ensure(f"n{n}", str(home))
        with pytest.raises(Unavailable, match="all networks of ARGUS_RUNTIME_SUBNETS"):
            driver._networks.ensure("n8", str(home))

    def test_the_shared_login_is_there_and_nothing_else_of_the_home(self, runtimes: Runtimes) -> None:
        login = runtimes.home / ".codex"
        login.mkdir()
        (login / "auth.json").write_text("{}")
        (login / "secret.txt").write_text("not yours")
        (login / "config.toml").symlink_to("/etc/shadow")
        runtimes.start()
        code, said = run(NAME, "ls", "-A", "/root/.argus/.codex")
        assert code == 0 and said.split() == ["auth.json"]


class TestMounts:
    def test_what_is_allowed_is_mounted_where_it_really_is(self, home: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "file").write_text("seen")
        (tmp_path / "link").symlink_to("real")
        mounts = resolve([{"source": str(tmp_path / "link"), "target": "/workspace/there"}], (tmp_path,))
        assert mounts == [
            {"source": str(tmp_path / "real"), "target": "/root/.argus/workspace/there", "readOnly": True}
        ]
        with pytest.raises(BadRequest, match="target"):
            resolve([{"source": str(tmp_path / "link"), "target": "/mnt/x\n"}], (tmp_path,))
        with made(home, ARGUS_RUNTIME_MOUNT_ALLOW=str(tmp_path)) as runtimes:
            runtimes.spec = replace(runtimes.spec, mounts=mounts, environment={"COLOUR": "blue"})
            runtimes.start()
            assert run(NAME, "cat", "/workspace/there/file") == (0, "seen")
            assert run(NAME, "touch", "/workspace/there/new")[0] != 0
            assert run(NAME, "sh", "-c", "echo $COLOUR")[1] == "blue\n"

    def test_a_source_that_was_swapped_for_a_link_is_not_mounted(self, home: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        mounts = [{"source": str(tmp_path / "real"), "target": "/mnt/x", "readOnly": True}]
        with made(home, ARGUS_RUNTIME_MOUNT_ALLOW=str(tmp_path)) as runtimes:
            runtimes.spec = replace(runtimes.spec, mounts=mounts)
            (tmp_path / "real").rmdir()
            (tmp_path / "real").symlink_to("/etc")
            with pytest.raises(BadRequest, match="not in a folder that may be mounted"):
                runtimes.start()
            (tmp_path / "real").unlink()
            (tmp_path / "other").mkdir()
            (tmp_path / "real").symlink_to("other")
            with pytest.raises(BadRequest, match="leads elsewhere"):
                runtimes.start()

    @pytest.mark.parametrize("what", ["home", "above", "socket"])
    def test_the_home_and_the_engines_socket_are_never_mounted(self, home: Path, what: str) -> None:
        source = {"home": home, "above": home.parent, "socket": Path("/var/run/docker.sock").resolve()}[what]
        with made(home, ARGUS_RUNTIME_MOUNT_ALLOW="/") as runtimes:
            mounts = [{"source": str(source.resolve()), "target": "/mnt/x", "readOnly": True}]
            runtimes.spec = replace(runtimes.spec, mounts=mounts)
            with pytest.raises(BadRequest, match="can't be mounted"):
                runtimes.start()


def test_a_path_is_translated_by_the_innermost_mount() -> None:
    mounts = [("/root/.argus", "/home/u/.argus"), ("/root/.argus/workspace", "/work")]
    assert translated(Path("/root/.argus/sessions/x"), mounts) == Path("/home/u/.argus/sessions/x")
    assert translated(Path("/root/.argus/workspace/x"), mounts) == Path("/work/x")
    assert translated(Path("/elsewhere"), mounts) is None


def test_this_process_is_in_no_container_of_this_engine(tmp_path: Path) -> None:
    assert own_container(str(tmp_path / "none")) == ""
