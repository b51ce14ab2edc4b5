"""A real Docker engine for the tests, images made without an image registry, and gateways with containers.

`python tests/docker_kit.py` prepares all of it and says what it does; .ci/run calls that, tests find it done. What a
test makes carries the label of its own home, and only that is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import requests
from parts import require
from support import ROOT, Gateway, until

SOCKET = Path("/var/run/docker.sock")
PID_FILE = Path("/run/argus-test-dockerd.pid")  # of an engine that was started here
LOG_FILE = Path(tempfile.gettempdir()) / "argus-test-dockerd.log"
LOCK_FILE = Path(tempfile.gettempdir()) / "argus-test-docker.lock"
SUITE = "bookworm"
BASE = f"argus-test-base:{SUITE}-1"
BASE_PACKAGES = "python3,python3-venv,ca-certificates,git"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
CODEX = ROOT / ".agents/codex/node_modules/@openai"
HOW = "apt-get install docker.io docker-compose debootstrap, then `python tests/docker_kit.py` as root"
HOME_LABEL, SESSION_LABEL = "io.argus.home", "io.argus.session_id"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Two test runs on a machine prepare one after the other."""
    with open(LOCK_FILE, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def api() -> docker.APIClient:
    return docker.APIClient(base_url=f"unix://{SOCKET}", version="auto", timeout=180)


def answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:  # first, because the SDK leaves a socket behind when nobody is there
        try:
            probe.connect(str(SOCKET))
        except OSError:
            return False
    try:
        return docker.APIClient(base_url=f"unix://{SOCKET}", version="auto", timeout=10).ping()
    except (docker.errors.DockerException, requests.RequestException):
        return False


def start_engine(*options: str) -> None:
    """The machine's own engine, if none runs. It outlives the test run, as it does elsewhere."""
    if answers():
        return
    say("starting dockerd")
    if PID_FILE.exists() and not own_engine():
        PID_FILE.unlink()  # of one that was killed, or of another boot: dockerd would believe it
    with open(LOG_FILE, "ab") as log:
        subprocess.Popen(
            ["dockerd", "--pidfile", PID_FILE, *options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    until(answers, 60, f"dockerd answers; see {LOG_FILE}")


def has(image: str) -> bool:
    try:
        return bool(api().inspect_image(image))
    except docker.errors.ImageNotFound:
        return False


def base() -> str:
    """A Debian with Python, git and certificates, and nothing else."""
    if not has(BASE):
        say("making the base image with debootstrap, about a minute")
        with tempfile.TemporaryDirectory(prefix="argus-base-", dir="/var/tmp") as folder:
            root, log = Path(folder) / "root", Path(folder) / "log"
            command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, root]
            for attempt in (1, 2, 3):
                with open(log, "wb") as said:
                    code = subprocess.run(command, stdout=said, stderr=said, timeout=900).returncode
                if code == 0:
                    break
                say(f"debootstrap failed, attempt {attempt}: {log.read_text('utf-8', 'replace')[-500:]}")
                shutil.rmtree(root, ignore_errors=True)
            tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
            name, _, tag = BASE.partition(":")
            api().import_image_from_stream(tar.stdout, repository=name, tag=tag)
            if tar.wait(60) != 0 or code != 0:
                api().remove_image(BASE)
                raise RuntimeError("the base image could not be made")
    return BASE


def build(tag: str, files: dict[str, bytes | Path], dockerfile: str, **arguments: str) -> str:
    """An image by the engine's own builder, made once for a content of `files`; its full name."""
    digest = hashlib.sha256(repr(sorted(arguments.items())).encode())
    for name, what in sorted(files.items()):
        digest.update(name.encode())
        digest.update(what if isinstance(what, bytes) else what.read_bytes())
    full = f"{tag}:{digest.hexdigest()[:12]}"
    if has(full):
        return full
    say(f"building {full}")
    with tempfile.TemporaryFile(dir="/var/tmp") as context:
        with tarfile.open(fileobj=context, mode="w") as tar:
            for name, what in files.items():
                if isinstance(what, bytes):
                    info = tarfile.TarInfo(name)
                    info.size = len(what)
                    tar.addfile(info, io.BytesIO(what))
                else:
                    tar.add(what, name)
        context.seek(0)
        said = []
        build_arguments = {key.upper(): value for key, value in arguments.items()}
        for line in api().build(
            fileobj=context, custom_context=True, dockerfile=dockerfile, tag=full, buildargs=build_arguments,
            rm=True, forcerm=True, decode=True,
        ):  # fmt: skip
            said.append(line.get("stream") or line.get("error") or "")
            if "error" in line:
                raise RuntimeError(f"{full}: " + "".join(said)[-3000:])
    return full


def tree(folder: Path, *parts: str) -> dict[str, Path]:
    """Files below a folder, by their path in it."""
    found = {}
    for part in parts or (".",):
        start = folder / part
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                found[str(path.relative_to(folder))] = path
    return found


def runtime_image(base_image: str = "") -> str:
    """runtime/Dockerfile on the base image, without Codex."""
    return build(
        "argus-test-runtime", tree(ROOT / "runtime"), "Dockerfile",
        base_image=base_image or base(), app_server_install_cmd="true",
    )  # fmt: skip


def codex_runtime_image() -> str:
    """The same with the real Codex."""
    return runtime_image(codex_base())


def codex_base() -> str:
    """The base with the Codex that the tests of this machine use."""
    binary = next(iter(sorted(CODEX.glob("codex-*/vendor/*/bin/codex"))), None)
    require("codex", binary is not None, ".venv/bin/python -m app.cli.codex_install")
    text = f"FROM {base()}\nCOPY codex /usr/local/bin/codex\n".encode()
    key = f"{binary.stat().st_size} {binary.parents[3].name}".encode()  # half a gigabyte is not read just for a name
    full = f"argus-test-codex-base:{hashlib.sha256(text + key).hexdigest()[:12]}"
    if not has(full):
        made = build("argus-test-codex-base", {"Dockerfile": text, "codex": binary}, "Dockerfile")
        name, _, tag = full.partition(":")
        api().tag(made, name, tag)
    return full


def pip_base() -> str:
    """The base with this machine's certificates, so that pip works behind a proxy that has one of its own."""
    text = (
        f"FROM {base()}\nCOPY ca.crt /etc/ssl/certs/ca-certificates.crt\n"
        "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_DEFAULT_TIMEOUT=120\n"
    )
    return build("argus-test-pip-base", {"Dockerfile": text.encode(), "ca.crt": CERTIFICATES}, "Dockerfile")


def compose_environment() -> dict[str, str]:
    """What makes docker-compose.yml build on images that are here, under names of the tests' own.

    The images stay: their layers save the next run minutes.
    """
    return {
        "ARGUS_RUNTIME_IMAGE": "argus-test-compose-runtime",
        "ARGUS_GATEWAY_IMAGE": "argus-test-compose-gateway",
        "ARGUS_RUNTIME_BASE_IMAGE": codex_base(),
        "ARGUS_GATEWAY_BASE_IMAGE": pip_base(),
        "ARGUS_RUNTIME_INSTALL_CMD": "codex --version",
    }


def compose_build() -> None:
    """Build what `docker-compose up --build` of the tests will find done."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp", **compose_environment()}
    done = subprocess.run(
        ["docker-compose", "-f", ROOT / "docker-compose.yml", "build"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"docker-compose build: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def require_docker() -> None:
    """Skip, or fail, unless there is an engine; starts one where that is possible."""
    able = SOCKET.exists() or (os.geteuid() == 0 and bool(shutil.which("dockerd")))
    require("docker", able and bool(shutil.which("debootstrap") or answers()), HOW)
    with only_one():
        start_engine()
        base()


def own_engine() -> int:
    """Pid of the engine if it was started here, so that a test may end it; else 0."""
    try:
        pid = int(PID_FILE.read_text())
        return pid if "dockerd" in Path(f"/proc/{pid}/cmdline").read_text() else 0  # a zombie has no command line
    except (OSError, ValueError):
        return 0


def containers(home: Path, **options: Any) -> list[dict[str, Any]]:
    """What the engine has of a home."""
    return api().containers(filters={"label": f"{HOME_LABEL}={home}"}, **options)


def clean(home: Path) -> None:
    """Remove the containers and networks of a home, and its files."""
    for found in containers(home, all=True):
        with contextlib.suppress(docker.errors.APIError):
            api().remove_container(found["Id"], force=True, v=True)
    for network in api().networks(filters={"label": f"{HOME_LABEL}={home}"}):
        for container in api().inspect_network(network["Id"])["Containers"]:
            api().disconnect_container_from_network(container, network["Id"], force=True)
        api().remove_network(network["Id"])
    shutil.rmtree(home, ignore_errors=True)


def run(container: str, *command: str, user: str = "") -> tuple[int, str]:
    """A command in a container: exit code and output."""
    made = api().exec_create(container, list(command), user=user)["Id"]
    said = api().exec_start(made)
    return api().exec_inspect(made)["ExitCode"], said.decode("utf-8", "replace")


class DockerGateway(Gateway):
    """A gateway on this machine whose sessions are containers."""

    def __init__(self, **env: str) -> None:
        image = env.get("ARGUS_RUNTIME_IMAGE") or runtime_image()
        super().__init__(**{"ARGUS_PROVISION_MODE": "docker", **env, "ARGUS_RUNTIME_IMAGE": image})

    def container(self, session: str) -> dict[str, Any]:
        """The session's container, inspected."""
        return api().inspect_container(f"argus-session-{session}")

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        clean(self.home)


@contextlib.contextmanager
def docker_running(**env: str) -> Iterator[DockerGateway]:
    """Such a gateway for the length of a with block."""
    gateway = DockerGateway(**env)
    try:
        yield gateway.start()
    finally:
        gateway.close()


def prepare() -> None:
    """All that the tests of containers need."""
    began = time.monotonic()
    require_docker()
    with only_one():
        runtime_image()
        pip_base()
        if any(CODEX.glob("codex-*")):
            codex_runtime_image()
            say("building the images of compose")
            compose_build()
    say(f"Docker is ready after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    prepare()
