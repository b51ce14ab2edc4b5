"""docker-compose.yml as people use it: built, brought up, spoken to, restarted, killed, taken down. Demo and Codex."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
from docker_kit import api, clean, compose_environment, require_docker
from fakes.codex_home import write_codex_home
from fakes.model_server import ModelServer
from support import ROOT, Client, free_port, until

from app import settings

pytestmark = [
    pytest.mark.timeout(420),  # the first run on a machine builds images
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of the SDK, in other files
]

COMPOSE = ROOT / "docker-compose.yml"
# What compose itself decides, or what must not come from the host.
NOT_FORWARDED = {"ARGUS_BIND", "DOCKER_HOST"}
TIMEOUT_S = 300


def test_every_setting_is_forwarded_and_in_the_example() -> None:
    compose, example = COMPOSE.read_text(), (ROOT / ".env.example").read_text()
    for row in settings.table():
        name = row.metadata["name"]
        if name not in NOT_FORWARDED:
            assert re.search(rf"^      {name}: \$\{{{name}:-", compose, re.MULTILINE), f"compose forgets {name}"
        if name != "DOCKER_HOST":
            assert re.search(rf"^#{name}=", example, re.MULTILINE), f".env.example forgets {name}"


def test_every_variable_of_compose_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    told = set(re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert used - {"ARGUS_GATEWAY_IMAGE"} <= told


class Composed:
    """A project of its own, with a home, a port and images of its own. A Client can be opened on it."""

    def __init__(self, home: Path, model_url: str) -> None:
        self.home, self.project = home, f"argus{os.getpid()}"
        self.port, self.web_port = free_port(), free_port()
        write_codex_home(home / ".codex", model_url, sandbox_mode="workspace-write")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "COMPOSE_PROJECT_NAME": self.project,
            "ARGUS_HOME_HOST_PATH": str(home),
            "ARGUS_PORT": str(self.port),
            "ARGUS_FRONT_NETWORK": f"argus-front-{self.project}",
            "ARGUS_WEB_PORT": str(self.web_port),
            **compose_environment(),
        }

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker-compose", "-f", COMPOSE, *words],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def argus(self, *words: str) -> str:
        return self.run("exec", "-T", "gateway", "./argus", *words).stdout

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.home / "gateway" / "token").read_text().strip()

    def gateway(self) -> dict[str, Any]:
        return api().inspect_container(self.run("ps", "-q", "gateway").stdout.strip())

    def healthy(self) -> bool:
        try:
            return requests.get(self.url + "/readyz", timeout=2).ok
        except requests.RequestException:
            return False

    def client(self, **options: Any) -> Client:
        return Client(self, token=self.token, **options)

    def session(self, agent: str) -> str:
        headers = {"Authorization": f"Bearer {self.token}"}
        made = requests.post(f"{self.url}/sessions", json={"agent": agent}, headers=headers, timeout=30)
        assert made.status_code == 201, made.text
        return made.json()["sessionId"]


@pytest.fixture(scope="module")
def composed() -> Iterator[Composed]:
    require_docker()
    assert shutil.which("docker-compose"), "apt-get install docker-compose"
    home = Path(tempfile.mkdtemp(prefix="argus-c-"))
    try:
        network = api().inspect_network("argus-net")
    except docker.errors.NotFound:
        api().create_network("argus-net", driver="bridge")
        network = api().inspect_network("argus-net")
    with ModelServer(network["IPAM"]["Config"][0]["Gateway"]) as model:
        made = Composed(home, model.url)
        try:
            made.run("up", "--build", "--detach")
            until(made.healthy, 120, "the gateway of compose answers")
            yield made
        finally:
            made.run("--profile", "web", "--profile", "tg", "down", "--volumes", "--remove-orphans", check=False)
            clean(home)


def counted(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.isdigit()]


def test_a_link_signs_a_browser_in(composed: Composed) -> None:
    link = composed.argus("link").strip()
    assert link.startswith(composed.url + "/#ticket=")
    answer = requests.post(f"{composed.url}/auth/exchange", json={"ticket": link.split("ticket=")[1]}, timeout=10)
    assert answer.status_code == 200 and answer.json()["token"]
    assert "<html" in requests.get(composed.url, timeout=10).text


def test_it_becomes_healthy_and_listens_on_loopback_only(composed: Composed) -> None:
    found = until(lambda: (g := composed.gateway())["State"]["Health"]["Status"] == "healthy" and g, 60)
    ports = [binding for bindings in found["NetworkSettings"]["Ports"].values() for binding in bindings or []]
    assert [(p["HostIp"], p["HostPort"]) for p in ports] == [("127.0.0.1", str(composed.port))]


def test_no_compiler_and_no_caches_are_left_in_the_gateways_image(composed: Composed) -> None:
    look = "! command -v gcc && ! test -e /root/.cache && ! find / -xdev -name '*.whl' -path '*pip*cache*' | grep ."
    assert composed.run("exec", "-T", "gateway", "sh", "-c", look, check=False).returncode == 0


def test_codex_runs_a_command_in_a_container_though_a_sandbox_was_asked_for(composed: Composed) -> None:
    client = composed.client()  # auto: Codex, because the home has a model provider
    thread = client.ready(cwd="/workspace", sandbox="workspace-write", approvalPolicy="never")
    client.turn(thread, "run: cat /proc/1/comm && echo done > made-by-codex")
    assert client.note("turn/completed", 60)["turn"]["status"] == "completed"
    ran = [m["params"]["item"] for m in client.seen if "aggregatedOutput" in str(m) and m["method"] == "item/completed"]
    assert ran[0]["exitCode"] == 0 and "tini" in ran[0]["aggregatedOutput"], ran
    assert (composed.home / "workspace" / "made-by-codex").read_text() == "done\n"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_the_gateways_container_ends_in_mid_turn_and_no_number_is_lost(composed: Composed, how: str) -> None:
    client = composed.client(session=composed.session("demo"), seq="1")
    thread = client.ready()
    client.turn(thread, "slow 60 0.1")
    client.note("item/agentMessage/delta")
    found = composed.gateway()
    if how == "restart":
        composed.run("restart", "gateway")
    else:  # of its own, so that the restart policy counts; `docker kill` would be taken for a wish
        os.kill(found["State"]["Pid"], 9)
        client.closed(60)
    until(composed.healthy, 90)
    seen = [m for m in client.seen if isinstance(m, dict)]
    newest = max([int(client.hello["cursor"].split(":")[1]), *(m["seq"] for m in seen if "seq" in m)])
    cursor = f"{client.hello['cursor'].split(':')[0]}:{newest}"
    back = composed.client(session=client.session, after=cursor, client=client.hello["client"], seq="1")
    assert back.hello["resume"] == "ok"
    back.note("turn/completed", 60)
    assert counted(client.text() + back.text()) == list(range(1, 61))


def test_the_page_on_port_3000_leads_to_the_gateway(composed: Composed) -> None:
    composed.run("--profile", "web", "up", "--detach", "web")
    page = f"http://localhost:{composed.web_port}"

    def served() -> bool:
        try:
            return "<html" in requests.get(page, timeout=5).text
        except requests.RequestException:
            return False

    until(served, 60)
    assert requests.get(f"{page}/nodes", timeout=5, allow_redirects=False).headers["Location"] == "/"
    headers = {"Authorization": f"Bearer {composed.token}", "Origin": "http://localhost:3000"}
    assert requests.get(f"{page}/sessions", headers=headers, timeout=10).ok
    through = Composed.client(type("There", (), {"port": composed.web_port, "token": composed.token})())
    thread = through.ready()
    through.turn(thread, "hello through the page's port")
    through.note("turn/completed", 60)


def test_the_telegram_profile_does_not_pretend(composed: Composed) -> None:
    done = composed.run("--profile", "tg", "run", "--rm", "--no-deps", "-T", "telegram-bot", check=False)
    assert done.returncode == 1 and "no Telegram bot yet" in done.stdout + done.stderr


def test_down_ends_while_sessions_run_and_up_finds_them_again(composed: Composed) -> None:
    session = composed.session("demo")
    client = composed.client(session=session)
    thread = client.ready()
    client.turn(thread, "remember this")
    client.note("turn/completed", 30)
    composed.run("--profile", "web", "down")
    name = f"argus-session-{session}"
    assert api().inspect_container(name)["State"]["Running"]
    composed.run("up", "--detach", "gateway")
    until(composed.healthy, 90)
    again = composed.client(session=session)
    history = again.result("thread/read", {"threadId": thread, "includeTurns": True}, 60)
    assert "remember this" in json.dumps(history)
    assert session in composed.argus("sessions", "list")
    composed.argus("sessions", "stop", "--all")
    assert not api().inspect_container(name)["State"]["Running"]
    assert "removed" in composed.argus("sessions", "rm", session)
