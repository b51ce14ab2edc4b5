"""What Argus says of Codex's login and config.toml is what the real Codex does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fakes.codex_home import AppServer, codex_binary
from launched import Tree
from parts import require

from app.agents import codex

QUIET = """\
check_for_update_on_startup = false
web_search = "disabled"
[features]
plugins = false
apps = false
[analytics]
enabled = false
"""
LOCAL = '[model_providers.local]\nname = "local"\nbase_url = "http://127.0.0.1:9/v1"\nwire_api = "responses"\n'

MISTAKES = {
    "no TOML": ("a = = b\n", "no TOML"),
    "a provider without table": ('model_provider = "nowhere"\n', "[model_providers.nowhere]"),
    "bearer_token": ('[mcp_servers.x]\nurl = "http://127.0.0.1:9/"\nbearer_token = "t"\n', "bearer_token_env_var"),
    "a server without url and command": ('[mcp_servers.x]\nurll = "http://127.0.0.1:9/"\n', "neither url nor command"),
    "a server that is no table": ("[mcp_servers]\nx = 1\n", "mcp_servers.x"),
}
FINE = {
    "nothing": "",
    "a provider of its own": f'model_provider = "local"\n{LOCAL}',
    "a built-in one": 'model_provider = "ollama"\n',
    "a variable for the token": '[mcp_servers.x]\nurl = "http://127.0.0.1:9/"\nbearer_token_env_var = "T"\n',
    "a command": '[mcp_servers.x]\ncommand = "true"\n',
}


@pytest.fixture(scope="module")
def binary() -> Path:
    found = codex_binary()
    require("codex", found is not None, "./argus up --agent codex installs it")
    return found


def starts_a_thread(binary: Path, home: Path, config: str) -> bool:
    """Does the real Codex start a thread with this config.toml?"""
    (home / "config.toml").write_text(_with_quiet(config))
    with AppServer(binary, home, home) as server:
        server.initialize()
        return "result" in server.request("thread/start", {})


def _with_quiet(config: str) -> str:
    """The switches before its first table belong to the top."""
    top, tables = QUIET.split("[", 1)
    head, bracket, rest = config.partition("[")
    return f"{top}{head}{bracket}{rest}[{tables}"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_for_the_real_codex_too(binary: Path, tmp_path: Path, name: str) -> None:
    config, words = MISTAKES[name]
    (mistake,) = codex.config_mistakes(config)
    assert words in mistake
    assert not starts_a_thread(binary, tmp_path, config)


@pytest.mark.parametrize("name", FINE)
def test_what_is_no_mistake_is_none_for_the_real_codex_either(binary: Path, tmp_path: Path, name: str) -> None:
    assert codex.config_mistakes(FINE[name]) == []
    assert starts_a_thread(binary, tmp_path, FINE[name])


class Model(BaseHTTPRequestHandler):
    """Refuses everybody, and remembers what they showed."""

    shown: list[str | None] = []

    def do_POST(self) -> None:
        Model.shown.append(self.headers.get("Authorization"))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def model() -> Iterator[str]:
    Model.shown = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "CODEX_API_KEY"])
def test_a_key_in_the_environment_is_no_login(binary, tmp_path, model, variable, monkeypatch) -> None:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    monkeypatch.setenv(variable, "sk-a-key-of-this-test")
    assert codex.login() is None
    (tmp_path / "config.toml").write_text(f'openai_base_url = "{model}"\n{QUIET}')
    wrapper = tmp_path / "codex"  # the test's own environment reaches it
    wrapper.write_text(f'#!/bin/sh\n{variable}=sk-a-key-of-this-test exec "{binary}" "$@"\n')
    wrapper.chmod(0o755)
    with AppServer(wrapper, tmp_path, tmp_path) as server:
        server.initialize()
        account = server.result_of("account/read", {})
        assert account["account"] is None and account["requiresOpenaiAuth"] is True
        server.start_turn(server.start_thread(), "hello")
        server.wait_for(lambda message: message.get("method") in ("error", "turn/completed"), 60)
    assert Model.shown and set(Model.shown) == {None}


@pytest.mark.parametrize(
    ("config", "login"),
    [
        ("", None),
        ('model_provider = "openai"\n', None),
        ('model_provider = "nowhere"\n', None),
        ('model_provider = "ollama"\n', "model_provider ollama"),
        (f'model_provider = "local"\n{LOCAL}', "model_provider local"),
        (f'model_provider = "local"\n{LOCAL}requires_openai_auth = true\n', None),
    ],
)
def test_what_counts_as_a_login(binary: Path, tmp_path: Path, monkeypatch, config: str, login: str | None) -> None:
    monkeypatch.setenv("CODEX_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text(config)
    assert codex.login() == login
    with AppServer(binary, tmp_path, tmp_path) as server:
        server.initialize()
        known = "nowhere" not in config  # Codex looks at the provider only later
        assert not known or server.result_of("account/read", {})["requiresOpenaiAuth"] is (login is None)
    (tmp_path / "auth.json").write_text("{}")
    assert codex.login() == "auth.json"


# The doctor


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path)
    made.borrow_venv()
    fake = Path(made.env["PATH"].split(":")[0]) / "codex"
    fake.write_text(f"#!/bin/sh\necho codex-cli {codex.CODEX_VERSION}\n")
    fake.chmod(0o755)
    (made.home / ".codex").mkdir()
    return made


def told(tree: Tree, agent: str = "codex", **env: str) -> list[dict[str, str]]:
    done = tree.run("doctor", "--json", **{"ARGUS_PORT": "0", "ARGUS_AGENT": agent, **env})
    return [f for f in json.loads(done.stdout)["findings"] if f["what"].startswith(("Codex", "agent"))]


def test_the_doctor_names_the_mistakes_of_a_config(tree: Tree) -> None:
    (tree.home / ".codex" / "config.toml").write_text(MISTAKES["bearer_token"][0])
    program, login, config = told(tree)
    assert (program["level"], login["level"], config["level"]) == ("ok", "warning", "broken")
    assert login["mend"].endswith("codex login")
    assert "every thread/start will fail" in config["text"] and "bearer_token_env_var" in config["mend"]
    assert told(tree, "demo") == []


def test_the_doctor_says_what_to_do_with_a_key(tree: Tree) -> None:
    login = told(tree, OPENAI_API_KEY="sk-not-shown")[1]
    assert login["mend"] == "printenv OPENAI_API_KEY | codex login --with-api-key" and "sk-" not in str(login)


def test_the_doctor_knows_a_codex_that_is_missing_broken_or_of_another_version(tree: Tree) -> None:
    fake = Path(tree.env["PATH"].split(":")[0]) / "codex"
    fake.write_text("#!/bin/sh\necho codex-cli 0.1.0\n")
    assert told(tree)[0]["level"] == "info" and "0.1.0" in told(tree)[0]["text"]
    fake.write_text("#!/bin/sh\nexit 3\n")
    assert told(tree)[0]["level"] == "broken" and "does not run" in told(tree)[0]["text"]
    fake.unlink()
    (missing,) = told(tree, PATH=tree.env["PATH"].split(":")[0] + ":/usr/bin:/bin")
    assert missing["level"] == "broken" and "./argus up --agent codex" in missing["mend"]


def test_the_doctor_looks_at_a_command_of_the_operators_own(tree: Tree) -> None:
    assert told(tree, ARGUS_RUNTIME_CMD="no-such-program app-server")[0]["level"] == "broken"
    assert told(tree, ARGUS_RUNTIME_CMD="codex app-server")[0]["level"] == "ok"


def test_a_provider_whose_key_is_not_set_is_told(tree: Tree) -> None:
    config = f'model_provider = "local"\n{LOCAL}env_key = "MY_MODEL_KEY"\n'
    (tree.home / ".codex" / "config.toml").write_text(config)
    assert [f["level"] for f in told(tree)] == ["ok", "ok", "warning", "ok"]
    assert [f["level"] for f in told(tree, MY_MODEL_KEY="k")] == ["ok", "ok", "ok"]
