"""A gateway whose sessions are containers, on a real engine: what its clients see, and what a session can't reach."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests
from docker_kit import DockerGateway, api, containers, docker_running, require_docker, run
from support import Client, Gateway, until

# The SDK leaves the socket of a connection that failed to the garbage collector, perhaps of a test of another file.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    require_docker()


@pytest.fixture(scope="module")
def gateway() -> Iterator[DockerGateway]:
    with docker_running() as made:
        yield made


@pytest.fixture
def own_gateway() -> Iterator[DockerGateway]:
    with docker_running() as made:
        yield made


@pytest.fixture(scope="module")
def inside(gateway: DockerGateway) -> str:
    """The container of a session that tries things."""
    return name_of(gateway.client())


@pytest.fixture(scope="module")
def other(gateway: DockerGateway) -> Client:
    """Another session."""
    return gateway.client()


def name_of(client: Client) -> str:
    return f"argus-session-{client.session}"


def told(client: Client) -> str:
    """What it was told of its runtime so far."""
    return str([m for m in client.seen if isinstance(m, dict) and m.get("method") == "argus/runtime"])


def counted(client: Client) -> list[int]:
    return [int(word) for word in client.text().split() if word.isdigit()]


def test_a_turn_runs_in_a_container_and_the_session_says_which(gateway: DockerGateway) -> None:
    client = gateway.client()
    assert client.hello["mode"] == "docker" and client.hello["created"] is True
    thread = client.ready()
    client.turn(thread, "hello")
    client.note("turn/completed")
    shown = gateway.api("GET", f"/sessions/{client.session}").json()
    found = gateway.container(client.session)
    assert shown["containerId"] == found["Id"] and shown["name"] == name_of(client)
    assert shown["status"] == "running" and shown["runtimeLayout"] == "root_argus_v1"


def test_a_command_runs_inside_with_its_sandbox_lifted(gateway: DockerGateway) -> None:
    client = gateway.client()
    thread = client.ready(sandbox="workspace-write", approvalPolicy="never")
    client.turn(thread, "run: cat /proc/1/comm; pwd")
    client.note("turn/completed", 30)
    said = " ".join(str(m) for m in client.seen)
    assert "tini" in said and "/root/.argus/workspace" in said


def test_deleting_a_session_removes_its_container_and_its_files_only(gateway: DockerGateway) -> None:
    client = gateway.client()
    assert gateway.api("DELETE", f"/sessions/{client.session}").status_code == 200
    assert client.closed().code == 1000
    with pytest.raises(docker.errors.NotFound):
        gateway.container(client.session)
    assert not (gateway.home / "sessions" / client.session).exists() and (gateway.home / "workspace").exists()


class TestFromInside:
    """What a session's own programs, root in the container, try in vain."""

    @pytest.mark.parametrize(
        "command",
        [
            "mknod /tmp/disk b 254 0",
            "mount -t tmpfs none /mnt",
            "umount /root/.argus/gateway",
            "umount /root/.argus/sessions",
            "chroot /proc/1/root true && cat /root/.argus/gateway/token",
            "cat /root/.argus/gateway/token /root/.argus/gateway/argus.db",
            "ls /root/.argus/sessions/*",
            "ls /root/.argus/run/*",
            "mv /root/.argus/gateway /root/.argus/elsewhere",
            "echo x > /run/argus/bridge.json",
            "ls /var/run/docker.sock",
            "ping -c 1 127.0.0.1",
            "unshare --mount true",
            "date -s 2001-01-01",
            "echo 1 > /proc/sys/kernel/panic",
        ],
    )
    def test_a_door_stays_shut(self, inside: str, command: str) -> None:
        code, said = run(inside, "sh", "-c", command)
        assert code != 0, said

    def test_no_token_of_the_gateways_is_in_any_environment(self, inside: str, gateway: DockerGateway) -> None:
        said = run(inside, "sh", "-c", "cat /proc/*/environ /run/argus/bridge.json | tr '\\0' '\\n'")[1]
        assert "ARGUS_SESSION_ID" in said and gateway.env["ARGUS_TOKEN"] not in said

    def test_another_sessions_bridge_answers_without_its_secret_only_no(
        self, inside: str, other: Client, gateway: DockerGateway
    ) -> None:
        address = gateway.container(other.session)["NetworkSettings"]["Networks"]["argus-net"]["IPAddress"]
        for first in ('{"id":1,"method":"bridge/attach","params":{}}', '{"id":1,"method":"initialize"}'):
            talk = (
                f"import socket; s = socket.create_connection(('{address}', 7777), 5); "
                f"s.sendall({first.encode()!r} + b'\\n'); print(s.makefile().read())"
            )
            assert "right secret" in (said := run(inside, "python3", "-c", talk)[1]) and "result" not in said

    def test_a_fork_bomb_stops_at_the_limit_and_the_gateway_goes_on(self, inside: str, gateway: DockerGateway) -> None:
        bomb = (
            "import os, signal, time\n"
            "made = []\n"
            "try:\n"
            "    while len(made) < 5000:\n"
            "        made.append(os.fork())\n"
            "        if made[-1] == 0: time.sleep(60); os._exit(0)\n"
            "except OSError as error: print('stopped at', len(made), error.errno)\n"
            "for pid in made: os.kill(pid, signal.SIGKILL), os.waitpid(pid, 0)"
        )
        said = run(inside, "python3", "-c", bomb)[1]
        assert "stopped at" in said and int(said.split()[2]) < 256
        assert gateway.answers()

    def test_tmp_has_an_end(self, inside: str) -> None:
        said = run(inside, "sh", "-c", "head -c 300000000 /dev/zero > /tmp/big; rm -f /tmp/big")[1]
        assert "No space left" in said

    def test_memory_has_an_end_and_the_client_learns_why(self, gateway: DockerGateway) -> None:
        client = gateway.client()
        client.ready()
        hog = "import os; os.kill(os.getpid(), 0); x = bytearray(900 << 20)"
        find = 'for p in /proc/[0-9]*; do grep -qa "^python3.*demo.py" $p/cmdline && echo ${p#/proc/}; done'
        pid = run(name_of(client), "sh", "-c", find)[1].split()[0]
        # the hog is worth less than the agent to the kernel: it takes the agent first
        holder = f"echo 1000 > /proc/{pid}/oom_score_adj; echo -n 0 > /proc/self/oom_score_adj; exec python3 -c '{hog}'"
        threading.Thread(target=run, args=(name_of(client), "sh", "-c", holder), daemon=True).start()
        told = client.wait(lambda m: m.get("method") == "argus/runtime" and m["params"]["state"] != "running", 60)
        assert "runtime out of memory" in told["params"]["reason"]
        assert client.note("argus/runtime", 60)["state"] == "running"


class TestStopAndWake:
    def test_a_stopped_session_is_woken_by_the_next_message_of_an_attached_client(
        self, own_gateway: DockerGateway
    ) -> None:
        client = own_gateway.client()
        thread = client.ready()
        client.turn(thread, "remember me")
        client.note("turn/completed")
        assert own_gateway.api("POST", f"/sessions/{client.session}/stop").status_code == 200
        assert client.note("argus/runtime")["state"] == "stopped"
        assert own_gateway.api("GET", f"/sessions/{client.session}").json()["state"] == "stopped"
        assert not own_gateway.container(client.session)["State"]["Running"]
        client.turn(thread, "and again")
        client.note("turn/completed", 30)
        assert own_gateway.container(client.session)["State"]["Running"]

    def test_an_idle_session_is_stopped_and_a_client_that_comes_wakes_it(self) -> None:
        with docker_running(ARGUS_IDLE_STOP_S="1") as gateway:
            client = gateway.client()
            thread = client.ready()
            client.turn(thread, "slow 30 0.1")  # longer than the idle time: it runs to its end
            client.note("turn/completed", 30)
            assert counted(client)[-1] == 30
            until(lambda: not gateway.container(client.session)["State"]["Running"], 30)
            client.close()
            again = gateway.client(session=client.session)
            assert again.hello["id"] == client.session
            again.turn(thread, "hello")
            again.note("turn/completed", 30)

    def test_stop_and_start_over_http_are_idempotent(self, gateway: DockerGateway) -> None:
        client = gateway.client()
        path = f"/sessions/{client.session}"
        for verb, runs in (("stop", False), ("stop", False), ("start", True), ("start", True)):
            assert gateway.api("POST", f"{path}/{verb}").status_code == 200, verb
            assert gateway.container(client.session)["State"]["Running"] is runs
        assert gateway.api("POST", "/sessions/nothing/stop").status_code == 404


class TestOptions:
    def test_a_session_gets_its_folders_and_variables(self, tmp_path: Path) -> None:
        (tmp_path / "note").write_text("here")
        with docker_running(ARGUS_RUNTIME_MOUNT_ALLOW=str(tmp_path)) as gateway:
            mounts = [{"source": str(tmp_path), "target": "/mnt/notes"}]
            made = gateway.api("POST", "/sessions", json={"mounts": mounts, "env": {"COLOUR": "blue"}})
            assert made.status_code == 201, made.text
            id = made.json()["sessionId"]
            gateway.client(session=id)
            assert run(f"argus-session-{id}", "sh", "-c", "echo $COLOUR; cat /mnt/notes/note")[1] == "blue\nhere"

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({"mounts": [{"source": "/etc", "target": "/mnt/x"}]}, "switched off"),
            ({"mounts": [{"source": "/etc"}]}, "target"),
            ({"mounts": "/etc"}, "mounts"),
            ({"env": {"LD_AUDIT": "x"}}, "gateway's own"),
            ({"env": {"ARGUS_TOKEN": "x"}}, "gateway's own"),
            ({"env": {"A B": "x"}}, "no name"),
            ({"env": {"A": 7}}, "env.A"),
        ],
    )
    def test_what_is_not_allowed_is_refused_and_leaves_no_row(
        self, gateway: DockerGateway, body: dict, said: str
    ) -> None:
        before = len(gateway.api("GET", "/sessions").json()["sessions"])
        refused = gateway.api("POST", "/sessions", json=body)
        assert refused.status_code in (400, 422) and said in refused.text
        assert len(gateway.api("GET", "/sessions").json()["sessions"]) == before


class TestDeath:
    def test_a_container_removed_by_hand_in_mid_turn_ends_the_turn_and_is_made_again(
        self, own_gateway: DockerGateway
    ) -> None:
        client = own_gateway.client()
        thread = client.ready()
        client.turn(thread, "slow 200 0.1")
        client.note("item/agentMessage/delta")
        api().remove_container(name_of(client), force=True)
        ended = client.note("turn/completed", 30)
        assert ended["turn"]["status"] == "interrupted"
        assert "argus/runtime" in told(client) and "container was removed" in told(client)
        until(lambda: client.ask("thread/resume", {"threadId": thread}, 30).get("result"), 30)
        client.turn(thread, "hello")
        client.note("turn/completed", 30)

    def test_a_container_killed_in_mid_turn_likewise(self, own_gateway: DockerGateway) -> None:
        client = own_gateway.client()
        thread = client.ready()
        client.turn(thread, "slow 200 0.1")
        client.note("item/agentMessage/delta")
        api().kill(name_of(client))
        assert client.note("turn/completed", 30)["turn"]["status"] == "interrupted"
        assert "container ended: code 137" in told(client)
        client.turn(thread, "hello")
        client.note("turn/completed", 30)

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_a_gateway_that_ends_in_mid_turn_loses_and_doubles_nothing(
        self, own_gateway: DockerGateway, how: int
    ) -> None:
        client = own_gateway.client(seq="1")
        thread = client.ready()
        client.turn(thread, "slow 40 0.05")
        client.note("item/agentMessage/delta")
        if how == signal.SIGKILL:
            own_gateway.kill()
        else:
            own_gateway.stop()
        client.closed()
        before = [m for m in client.seen if isinstance(m, dict)]
        newest = max(m["seq"] for m in before if "seq" in m)
        own_gateway.start()
        cursor = f"{client.hello['cursor'].split(':')[0]}:{newest}"
        again = own_gateway.client(session=client.session, after=cursor, client=client.hello["client"], seq="1")
        assert again.hello["resume"] == "ok"
        again.note("turn/completed", 30)
        again.seen = [*before, *again.seen]
        assert counted(again) == list(range(1, 41))

    def test_two_gateways_on_one_home_the_second_refuses(self, gateway: DockerGateway) -> None:
        second = Gateway(**gateway.env)
        second.home = gateway.home
        second.start(wait=False)
        second.process.wait(60)
        assert "Another gateway" in second.said()


def test_what_has_no_row_is_ended_when_the_gateway_starts() -> None:
    gateway = DockerGateway()
    try:
        gateway.start()
        client = gateway.client()
        gateway.kill()
        for file in (gateway.home / "gateway").glob("argus.db*"):
            file.unlink()
        gateway.start()
        until(lambda: not containers(gateway.home, all=True), 30)
        assert (gateway.home / "sessions" / client.session).is_dir()  # files are nobody's to delete
    finally:
        gateway.close()


def test_an_engine_that_hangs_holds_nobody_up() -> None:
    gateway = DockerGateway(ARGUS_CONNECT_TIMEOUT_S="3")
    path = gateway.home / "mute.sock"
    gateway.env["DOCKER_HOST"] = f"unix://{path}"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(path))
        mute.listen(64)
        try:
            gateway.start()
            openers = [threading.Thread(target=Client, args=(gateway,), kwargs={"hello": False}) for _ in range(5)]
            for opener in openers:
                opener.start()
            slowest = 0.0
            for _ in range(50):
                began = time.monotonic()
                assert requests.get(gateway.url + "/healthz", timeout=10).ok
                slowest = max(slowest, time.monotonic() - began)
            assert slowest < 2.0, "a call to the engine held the hub up for its whole deadline"
            for opener in openers:
                opener.join(30)
            told = Client(gateway, hello=False).closed(40)
            assert told.code == 1011 and "does not answer within 3 s" in told.reason
        finally:
            gateway.close()


def test_twenty_sessions_at_once_each_say_their_own(gateway: DockerGateway) -> None:
    heard: dict[int, str] = {}

    def talk(n: int) -> None:
        client = gateway.client(hello=False)
        client.session = client.note("argus/session", 90)["id"]
        thread = client.ready()
        client.turn(thread, f"this is number {n}")
        client.note("turn/completed", 90)
        heard[n] = client.text()
        client.close()
        gateway.api("DELETE", f"/sessions/{client.session}")

    talkers = [threading.Thread(target=talk, args=(n,)) for n in range(20)]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join(110)
    assert sorted(heard) == list(range(20)) and all(f"number {n}" in text for n, text in heard.items())
