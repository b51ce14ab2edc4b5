"""./argus doctor: each thing that can be wrong is found, and the command that it names mends it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from types import SimpleNamespace
from typing import Any

import pytest
from bridges import tmpfs
from launched import BASE_PYTHON, Tree, Up
from support import until

from app.cli import doctor, doctor_docker, options

Findings = list[dict[str, str]]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A tree without a .venv."""
    return Tree(tmp_path_factory.mktemp("bare"))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path)
    made.borrow_venv()
    made.gateway_dir.mkdir(parents=True)
    made.gateway_dir.parent.chmod(0o700)
    return made


@pytest.fixture
def up(tree: Tree) -> Iterator[Up]:
    running = Up(tree, "--port", "0")
    yield running
    running.process.send_signal(signal.SIGCONT)
    running.end()


def examined(tree: Tree, *args: str, **env: str) -> Findings:
    """What it finds, having checked that the exit code says whether something is broken."""
    done = tree.run("doctor", "--json", *args, **{"ARGUS_PORT": "0", **env})
    assert done.stderr == "", done
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0) == all(f["level"] != "broken" for f in told["findings"])
    return told["findings"]


def bad(findings: Findings) -> Findings:
    return [finding for finding in findings if finding["level"] in ("warning", "broken")]


def only(findings: Findings, level: str, what: str, *words: str) -> dict[str, str]:
    """The one thing that is wrong."""
    wrong = bad(findings)
    assert [(finding["level"], finding["what"]) for finding in wrong] == [(level, what)], wrong
    assert all(word in wrong[0]["text"] for word in words) and wrong[0]["mend"], wrong
    return wrong[0]


def mended_by(finding: dict[str, str], tree: Tree) -> Findings:
    """What it finds after a shell did what the finding says."""
    command = finding["mend"].partition("; a new one is made")[0]
    subprocess.run(["sh", "-c", command], cwd=tree.root, env=tree.env, check=True, capture_output=True, timeout=60)
    return examined(tree)


def files(place: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in place.rglob("*") if p.is_file()}


# Before there is a .venv


def test_without_a_venv_it_says_what_it_can_and_makes_none(bare: Tree) -> None:
    command = [BASE_PYTHON, "-I", "-S", bare.root / "argus", "doctor", "--json"]
    done = subprocess.run(command, env={**bare.env, "ARGUS_PORT": "0"}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert found[".venv"]["text"] == "is not there yet" and "./argus up" in found[".venv"]["mend"]
    assert not (bare.root / ".venv").exists() and not (bare.home / ".argus").exists()


@pytest.mark.parametrize(("name", "words"), [("bin", "broken"), ("", "broken")])
def test_a_half_made_venv_is_told(tree: Tree, name: str, words: str) -> None:
    shutil.rmtree(tree.root / ".venv" / name)
    if not name:
        (tree.root / ".venv").symlink_to("/nowhere")
    assert "./argus up" in only(examined(tree), "warning", ".venv", words)["mend"]


def test_a_venv_of_other_requirements_is_filled_by_the_next_start(tree: Tree) -> None:
    (tree.root / "requirements.txt").write_text("# other\n")
    found = examined(tree)
    assert not bad(found) and any(f["what"] == ".venv" and "half made" in f["text"] for f in found)


def test_a_person_reads_one_line_a_finding_with_what_mends_it(tree: Tree) -> None:
    tree.gateway_dir.parent.chmod(0o755)
    done = tree.run("doctor", ARGUS_PORT="0")
    lines = done.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("warning  home: other users may look"))
    assert lines[at + 1].strip() == f"→ chmod 700 {tree.home}/.argus"
    assert (lines[-1], done.returncode) == ("0 broken, 1 warning", 0)
    ascii_only = tree.run("doctor", ARGUS_PORT="0", PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0 and "chmod 700" in ascii_only.stdout


def test_a_check_that_fails_itself_does_not_keep_the_others_from_it() -> None:
    def strange(_: Any) -> Iterator[Any]:
        raise RuntimeError("what is this")
        yield

    found = doctor.examine(strange, None)
    assert [(f.level, "what is this" in f.text) for f in found] == [("warning", True)]


def test_each_check_is_listed_and_the_command_is_documented(bare: Tree) -> None:
    assert len(set(doctor.CHECKS)) == len(doctor.CHECKS) >= 14
    assert "doctor" in options.COMMANDS and "doctor" in bare.run("help").stdout


# Settings


def test_settings_that_are_not_allowed_or_unknown_are_named(tree: Tree) -> None:
    found = bad(examined(tree, ARGUS_MAX_SESSIONS="lots", ARGUS_AGENT="x", ARGUS_TOKN="y"))
    told = {(f["level"], f["text"].split()[0].strip(":"), f["mend"]) for f in found}
    assert told == {
        ("broken", "ARGUS_MAX_SESSIONS", "unset ARGUS_MAX_SESSIONS"),
        ("broken", "ARGUS_AGENT", "unset ARGUS_AGENT"),
        ("warning", "ARGUS_TOKN", "unset ARGUS_TOKN"),
    }


def test_a_bad_home_is_told_and_the_rest_is_still_looked_at(tree: Tree) -> None:
    finding = only(examined(tree, ARGUS_HOME_HOST_PATH="relative"), "broken", "settings", "ARGUS_HOME_HOST_PATH")
    assert finding["mend"] == "unset ARGUS_HOME_HOST_PATH"


def test_no_secret_is_shown(tree: Tree) -> None:
    done = tree.run("doctor", "--json", ARGUS_TOKEN="hunter2 with blanks", ARGUS_PORT="0")
    assert done.returncode == 1 and "hunter2" not in done.stdout


# The home


def test_a_home_that_others_may_look_into(tree: Tree) -> None:
    tree.gateway_dir.parent.chmod(0o755)
    assert bad(mended_by(only(examined(tree), "warning", "home", "0755"), tree)) == []


def test_a_home_that_is_no_folder_or_cannot_be_made(tree: Tree) -> None:
    file = tree.home / "file"
    file.write_text("")
    assert "--home" in only(examined(tree, "--home", str(file)), "broken", "home", "is no folder")["mend"]
    found = bad(examined(tree, "--home", "/dev/null/x"))
    assert [(f["level"], f["what"]) for f in found] == [("broken", "home")], found


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a folder away")
def test_a_home_of_another_user(tree: Tree) -> None:
    os.chown(tree.gateway_dir.parent, 12345, 12345)
    only(examined(tree), "warning", "home", "belongs to another user (uid 12345)")


def test_a_full_disk_and_one_without_inodes(tree: Tree, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", "size=4m,mode=700") as small:
        only(examined(tree, "--home", str(small)), "broken", "disk", "MiB are free")
    with tmpfs(tmp_path / "few", "size=600m,nr_inodes=30,mode=700") as few:
        only(examined(tree, "--home", str(few)), "broken", "disk", "more files can be made")


# The token


@pytest.mark.parametrize(
    ("text", "mode", "level", "words"),
    [
        ("a-strong-token-0123456789abcdef", 0o644, "broken", "other users may open"),
        ("a-strong-token-0123456789abcdef", 0o620, "broken", "other users may open"),
        ("short", 0o600, "broken", "too short"),
        ("only-twenty-letters-", 0o600, "warning", "short"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0o600, "warning", "easy to guess"),
    ],
)
def test_a_token_that_others_could_have(tree: Tree, text: str, mode: int, level: str, words: str) -> None:
    path = tree.gateway_dir / "token"
    path.write_text(text)
    path.chmod(mode)
    assert bad(mended_by(only(examined(tree), level, "token", words), tree)) == []


def test_a_weak_argus_token_and_none_at_all(tree: Tree) -> None:
    assert "unset ARGUS_TOKEN" in only(examined(tree, ARGUS_TOKEN="password"), "warning", "token", "short")["mend"]
    only(examined(tree, ARGUS_AUTH="off"), "warning", "token", "whoever reaches")
    found = bad(examined(tree, ARGUS_AUTH="off", ARGUS_BIND="0.0.0.0"))
    assert ("broken", "port") in [(f["level"], f["what"]) for f in found]


# The gateway and its port


def test_a_running_gateway_is_whole_and_nothing_is_written(up: Up) -> None:
    before = files(up.tree.gateway_dir)
    found = examined(up.tree)
    assert not bad(found), found
    assert any(f["level"] == "ok" and f["what"] == "gateway" and up.url in f["text"] for f in found)
    assert any(f["level"] == "ok" and f["what"] == "database" for f in found)
    assert files(up.tree.gateway_dir) == before


def test_a_gateway_that_does_not_answer(up: Up) -> None:
    worker = int(Path(f"/proc/{up.process.pid}/task/{up.process.pid}/children").read_text().split()[0])
    os.kill(worker, signal.SIGSTOP)
    try:
        assert "./argus down" in only(examined(up.tree), "broken", "gateway", "does not answer")["mend"]
    finally:
        os.kill(worker, signal.SIGCONT)


def test_a_home_that_something_holds(tree: Tree) -> None:
    with open(tree.gateway_dir / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "fuser" in only(examined(tree), "warning", "gateway", "something holds this home")["mend"]


def test_a_gateway_of_another_version(up: Up) -> None:
    path = up.tree.gateway_dir / "gateway.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "0.0.1"}))
    only(examined(up.tree), "warning", "gateway", "version 0.0.1 runs")


def test_a_taken_port_is_told_with_who_has_it(up: Up, tree: Tree) -> None:
    port = up.url.rpartition(":")[2]
    other = str(tree.home / "other")
    only(examined(tree, "--home", other, ARGUS_PORT=port), "broken", "port", "another Argus gateway")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        only(examined(tree, "--home", other, ARGUS_PORT=port), "broken", "port", "another program")
    only(examined(tree, "--home", other, ARGUS_BIND="no such host"), "broken", "port", "cannot be listened on")


# The database


@pytest.fixture
def used(tree: Tree) -> Tree:
    """A home in which a gateway ran until it was killed: part of its database is still in the log beside it."""
    up = Up(tree, "--port", "0")
    up.end()
    assert (tree.gateway_dir / "argus.db-wal").exists()
    return tree


def test_a_database_is_looked_at_without_a_change(used: Tree) -> None:
    before = files(used.gateway_dir)
    assert not bad(examined(used))
    assert files(used.gateway_dir) == before


def test_a_database_that_is_none_or_damaged(used: Tree) -> None:
    path = used.gateway_dir / "argus.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    path.write_bytes(b"this is no database, whatever it is called " * 100)
    assert "./argus down" in only(examined(used), "broken", "database", "cannot be used")["mend"]
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    only(examined(used), "broken", "database")


def test_a_database_of_a_newer_version(used: Tree) -> None:
    with contextlib.closing(sqlite3.connect(used.gateway_dir / "argus.db")) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    assert only(examined(used), "broken", "database", "9999")["mend"] == "git pull"


# Leftovers


def test_what_belongs_to_no_session_is_found_and_removed(used: Tree) -> None:
    home = used.gateway_dir.parent
    (home / "sessions" / "a stray one").mkdir(parents=True)
    (home / "run").mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home / "run" / "gone.sock"))
    found = [f for f in examined(used) if f["what"] == "leftovers"]
    assert ["a stray one" in found[0]["text"], "gone.sock" in found[1]["text"]] == [True, True]
    for finding in found:
        left = mended_by(finding, used)
    assert [f["level"] for f in left if f["what"] == "leftovers"] == ["ok"]


def test_a_process_of_no_session_is_found(used: Tree) -> None:
    env = {**used.env, "ARGUS_RUNTIME_OF": str(used.gateway_dir.parent), "ARGUS_SESSION_ID": "nobody"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env) as process:
        until(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().endswith(b"input()\0"))
        try:
            assert "./argus down" in only(examined(used), "warning", "leftovers", str(process.pid))["mend"]
        finally:
            process.kill()


# Docker. A server with one fault; the real engine is asked in the tests of containers.


class Engine(BaseHTTPRequestHandler):
    status, body = 200, b'{"Version": "29.1"}'

    def do_GET(self) -> None:
        self.send_response(404 if "/images/" in self.path else self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "here"


@contextlib.contextmanager
def engine(path: Path, status: int = 200, body: bytes = Engine.body) -> Iterator[None]:
    handler = type("Faulty", (Engine,), {"status": status, "body": body})
    with ThreadingUnixStreamServer(str(path), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def docker(path: Path, monkeypatch: pytest.MonkeyPatch, mode: str = "docker") -> list[tuple[str, str]]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    found = doctor_docker.engine(SimpleNamespace(provision_mode=mode, runtime_image="not-built"))
    return [(finding.level, finding.text) for finding in found]


def test_an_engine_that_answers_is_told_with_its_version_and_a_missing_image(tmp_path, monkeypatch) -> None:
    with engine(tmp_path / "s"):
        found = docker(tmp_path / "s", monkeypatch)
        assert [level for level, _ in found] == ["ok", "broken"]
        assert "29.1" in found[0][1] and "not-built" in found[1][1]
        assert [level for level, _ in docker(tmp_path / "s", monkeypatch, "process")] == ["ok"]


def _nothing(path: Path) -> None:
    pass


def _stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(("make", "words"), [(_nothing, "there is no"), (_stale, "does not answer")])
def test_an_engine_that_is_not_there_matters_only_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "s")
    for mode, level in (("docker", "broken"), ("process", "info")):
        ((found, text),) = docker(tmp_path / "s", monkeypatch, mode)
        assert found == level and words in text


@pytest.mark.parametrize(("status", "body"), [(500, b"{}"), (200, b"no json"), (200, b"")])
def test_an_engine_that_answers_nonsense_is_broken(tmp_path, monkeypatch, status: int, body: bytes) -> None:
    with engine(tmp_path / "s", status, body):
        assert [level for level, _ in docker(tmp_path / "s", monkeypatch)] == ["broken"]


def test_it_looks_at_what_up_would_start_with_the_same_options(tree: Tree) -> None:
    nowhere = f"unix://{tree.root}/nowhere.sock"
    assert bad(examined(tree, DOCKER_HOST=nowhere)) == []
    only(examined(tree, "--provision", "docker", DOCKER_HOST=nowhere), "broken", "Docker", "nowhere.sock")
