"""The launcher as people run it: ./argus in a copy of the tree, with a home of its own and no terminal."""

import ast
import fcntl
import importlib.machinery
import importlib.util
import json
import os
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import requests
from launched import BASE_PYTHON, ROOT, Tree, Up
from support import free_port, until

from app import settings
from app.cli import environment, options


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Tree:
    """A tree without a .venv, for what must work, or fail, before there is one."""
    return Tree(tmp_path_factory.mktemp("bare"))


@pytest.fixture
def tree(tmp_path) -> Tree:
    made = Tree(tmp_path)
    made.borrow_venv()
    return made


@pytest.fixture(scope="module")
def up(tmp_path_factory) -> Iterator[Up]:
    """One running gateway for the tests that only talk to it."""
    tree = Tree(tmp_path_factory.mktemp("up"))
    tree.borrow_venv()
    running = Up(tree, "--port", "0")
    yield running
    running.end()


# Before there is a .venv


def launcher() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("argus_launcher", str(ROOT / "argus"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def test_an_old_python_can_read_the_launcher():
    ast.parse((ROOT / "argus").read_text(), feature_version=(3, 6))


def test_an_old_python_is_told_what_to_install():
    text = launcher().refusal((3, 9, 2, "final", 0), "linux")
    assert "3.11" in text and "3.9" in text and "apt install" in text
    assert launcher().refusal((3, 11, 0, "final", 0), "linux") is None
    assert "Linux" in launcher().refusal((3, 12, 0, "final", 0), "darwin")


def test_an_old_python_finds_a_newer_one_that_works(tmp_path, monkeypatch):
    (tmp_path / "python3.12").write_text("#!/bin/sh\nexit 127\n")
    (tmp_path / "python3.12").chmod(0o755)
    (tmp_path / "python3.11").symlink_to(BASE_PYTHON)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launcher().newer_python() == str(tmp_path / "python3.11")


@pytest.mark.parametrize("args", [(), ("help",), ("--help",), ("up", "--help")])
def test_help_names_every_option_of_up_and_its_variable_without_a_venv(bare, args):
    done = bare.run(*args)
    assert (done.returncode, done.stderr) == (0, "")
    for option, variable in options.VARIABLES.items():
        assert option in done.stdout and variable in done.stdout
    assert not (bare.root / ".venv").exists()


def test_help_needs_no_package(bare):
    done = subprocess.run([BASE_PYTHON, "-I", "-S", bare.root / "argus", "help"], env=bare.env, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("frob",), "'frob'"),
        (("up", "--frob"), "--frob"),
        (("up", "--port", "many"), "--port: 'many'"),
        (("up", "--agent", "x"), "one of auto, codex, demo"),
        (("up", "--home", ""), "--home"),
        (("up", "--por", "80"), "--por"),
        (("smoke", "--timeout", "soon"), "--timeout"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(bare, args, word):
    assert word in bare.refused(*args, code=2)


def test_a_bad_setting_is_refused_before_anything_is_installed(bare):
    text = bare.refused("up", ARGUS_MAX_SESSIONS="lots")
    assert "ARGUS_MAX_SESSIONS" in text and "whole number" in text
    assert not (bare.root / ".venv").exists()


def test_a_python_without_venv_is_told_the_package(bare, tmp_path):
    # Debian's python3 has venv but, without python3-venv, not the ensurepip it needs.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    text = bare.refused("up", PYTHONPATH=str(tmp_path))
    assert "apt install python3" in text and "venv" in text


# Making the .venv. pip is the real one; what it installs is a tiny pytest, so that no network is needed.


def write_wheel(folder: Path, version: str) -> None:
    """A package named pytest that says its version and arguments."""
    folder.mkdir(exist_ok=True)
    info = f"pytest-{version}.dist-info"
    with zipfile.ZipFile(folder / f"pytest-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pytest/__init__.py", "")
        wheel.writestr("pytest/__main__.py", f"import os, sys\nprint('tiny {version}', os.getcwd(), *sys.argv[1:])\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: pytest\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def ask_for(tree: Tree, version: str) -> None:
    """requirements-dev.txt asks for that version of the tiny package, to be found beside it."""
    text = f"--no-index\n--find-links wheels\n-r requirements.txt\npytest=={version}\n"
    (tree.root / "requirements-dev.txt").write_text(text)
    (tree.root / "requirements.txt").write_text("# nothing\n")


@pytest.mark.timeout(300)
def test_the_venv_is_made_once_and_again_when_it_must(tmp_path):
    tree = Tree(tmp_path)
    write_wheel(tree.root / "wheels", "1.0")
    write_wheel(tree.root / "wheels", "2.0")
    ask_for(tree, "1.0")
    first = tree.run("test", "-k", "x")
    assert first.returncode == 0, first
    assert [line[:5] for line in first.stdout.splitlines() if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "      pytest 1.0\n" in first.stdout
    assert first.stdout.endswith(f"tiny 1.0 {tree.root} -k x\n")

    # As it was: nothing is done.
    assert tree.run("test").stdout == f"tiny 1.0 {tree.root}\n"

    # What is asked for changed.
    ask_for(tree, "2.0")
    changed = tree.run("test")
    assert "[1/3] .venv is there" in changed.stdout and "tiny 2.0" in changed.stdout

    # Its Python is gone, as after an upgrade of the system.
    (tree.root / ".venv" / "bin" / "python").unlink()
    (tree.root / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    broken = tree.run("test")
    assert "making it anew" in broken.stdout and "tiny 2.0" in broken.stdout

    # What cannot be had is one sentence with pip's reason, and it is tried again the next time.
    ask_for(tree, "3.0")
    for _ in range(2):
        failed = tree.run("test")
        assert failed.returncode == 1 and failed.stderr.count("\n") == 1, failed
        assert "pytest==3.0" in failed.stderr and "./argus" in failed.stderr
    ask_for(tree, "2.0")
    assert "tiny 2.0" in tree.run("test").stdout


def test_a_second_launcher_waits_for_the_first(tree):
    (tree.root / "requirements.txt").write_text("# nothing\n")
    folder = os.open(tree.root, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    second = subprocess.Popen(["./argus", "down"], cwd=tree.root, env=tree.env, stdout=subprocess.PIPE, text=True)
    assert second.stdout.readline() == "waiting for another ./argus that sets up this folder\n"
    name = "requirements.txt"
    environment.stamp(tree.root, name).write_text(environment.fingerprint(tree.root, name))
    os.close(folder)
    said, _ = second.communicate(timeout=30)
    assert (second.returncode, said) == (0, f"nothing runs on {tree.home}/.argus\n")


# A running gateway


def test_up_becomes_the_gateway_and_says_how_to_open_it(up):
    assert up.told["pid"] == up.process.pid
    assert requests.get(up.url + "/healthz", timeout=5).json() == {"ok": True}
    assert f"{up.url}/#ticket=" in up.said()
    assert "pip" not in up.said() and "[1/3]" not in up.said()


def test_link_prints_a_link_that_signs_in(up):
    done = up.tree.run("link")
    assert (done.returncode, done.stderr) == (0, "")
    url, _, ticket = done.stdout.strip().partition("/#ticket=")
    assert url == up.url
    assert requests.post(url + "/auth/exchange", json={"ticket": ticket}, timeout=5).json()["token"]


def test_a_home_has_one_gateway(up):
    text = up.tree.refused("up", "--port", "0")
    assert up.url in text and "./argus link" in text and "./argus down" in text


def test_a_taken_port_is_told_with_who_has_it(up):
    port = up.url.rpartition(":")[2]
    text = up.tree.refused("up", "--home", str(up.tree.home / "other"), "--port", port)
    assert "another Argus gateway" in text and "./argus up" in text and "--port" in text
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        text = up.tree.refused("up", "--home", str(up.tree.home / "other"), "--port", port)
        assert port in text and "Argus gateway" not in text and "./argus up --home" in text


def test_smoke_says_the_prompt_and_leaves_no_session(up):
    done = up.tree.run("smoke", "--prompt", "good morning")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "good morning" in done.stdout
    token = (up.tree.gateway_dir / "token").read_text().strip()
    answer = requests.get(up.url + "/sessions", headers={"Authorization": f"Bearer {token}"}, timeout=5)
    assert answer.json()["sessions"] == []


def test_a_wrong_token_is_told(up):
    assert "ARGUS_TOKEN" in up.tree.refused("link", ARGUS_TOKEN="another-token")
    assert "nauthorized" in up.tree.refused("smoke", code=2, ARGUS_TOKEN="another-token")


# Starting and stopping


def test_down_stops_the_gateway_and_its_runtimes_and_up_starts_again(tree):
    ours = Up(tree, "--port", "0")
    try:
        token = (tree.gateway_dir / "token").read_text().strip()
        with socket.create_connection(("127.0.0.1", int(ours.url.rpartition(":")[2])), timeout=10) as client:
            # A session with a runtime: the handshake of /ws starts one and answers when it is there.
            client.sendall(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Authorization: Bearer " + token.encode() + b"\r\n\r\n"
            )
            received = bytearray()
            until(lambda: received.extend(client.recv(65536)) or b"argus/session" in received, what="a session")
        done = tree.run("down")
        assert (done.returncode, done.stderr) == (0, "")
        assert str(ours.process.pid) in done.stdout and "1 runtime" in done.stdout
        assert ours.process.wait(10) == 0
        assert tree.run("down").stdout == f"nothing runs on {tree.home}/.argus\n"
    finally:
        ours.end()
    again = Up(tree, "--port", "0")
    again.end()


def test_options_are_settings_and_a_relative_home_is_the_callers(tree):
    port = free_port()
    (tree.home / "here").mkdir()
    ours = subprocess.Popen(
        [tree.root / "argus", "up", "--home", "x", "--port", str(port), "--agent", "demo", "--provision", "process"],
        cwd=tree.home / "here",
        env=tree.env | {"ARGUS_AGENT": "codex", "ARGUS_PORT": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    told = tree.home / "here" / "x" / "gateway" / "gateway.json"
    try:
        until(told.exists, 30, "the gateway is up")
        assert json.loads(told.read_text())["url"] == f"http://127.0.0.1:{port}"
        stopped = tree.run("down", "--home", str(tree.home / "here" / "x"))
        assert f":{port})" in stopped.stdout
    finally:
        ours.kill()
        ours.wait()


def test_down_and_link_without_a_gateway_say_so(tree):
    done = tree.run("down")
    assert (done.returncode, done.stdout) == (0, f"nothing runs on {tree.home}/.argus\n")
    assert not (tree.home / ".argus").exists()
    none = str(tree.home / "none")
    assert f"./argus up --home {none}" in tree.refused("link", "--home", none)
    assert "./argus up" in tree.refused("smoke")


def test_down_leaves_a_process_alone_that_only_has_the_number(tree):
    tree.gateway_dir.mkdir(parents=True)
    told = {"pid": os.getpid(), "startTime": "1", "url": "http://127.0.0.1:1"}
    (tree.gateway_dir / "gateway.json").write_text(json.dumps(told))
    assert tree.run("down").stdout == f"nothing runs on {tree.home}/.argus\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--home", "/dev/null/x"), ("/dev/null/x cannot be written", "./argus up --home DIR")),
        (("--bind", "192.0.2.1"), ("192.0.2.1 is no address of this machine", "--bind 127.0.0.1")),
        (("--bind", "no such host"), ("'no such host' is no address", "--bind 127.0.0.1")),
    ],
)
def test_what_would_make_the_start_fail_is_told_with_what_mends_it(tree, args, words):
    text = tree.refused("up", "--port", "0", *args)
    assert all(word in text for word in words), text


def test_an_option_that_a_command_does_not_have_is_answered_with_that_commands_help(tree):
    done = tree.run("link", "--port", "8080")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "argus: unrecognized arguments: --port 8080; ./argus link --help says what there is.\n"


def test_down_of_a_gateway_that_is_just_starting_says_to_try_again(tree):
    tree.gateway_dir.mkdir(parents=True)
    with open(tree.gateway_dir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = tree.refused("down")
    assert "just starting or stopping" in text and "run ./argus down again" in text


def test_the_options_of_up_are_settings_that_exist():
    assert set(options.VARIABLES.values()) <= {row.metadata["name"] for row in settings.table()}
