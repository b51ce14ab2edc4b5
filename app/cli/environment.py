""".venv beside the launcher: made, filled from a requirements file, and left alone while both are as they were.

Runs before .venv exists, so it imports nothing but Python's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from app.errors import StartRefused

ROOT = Path(__file__).resolve().parents[2]
# requirements-dev.txt begins with `-r requirements.txt`, so what fills a .venv from it fills it from both.
INCLUDES = {"requirements.txt": (), "requirements-dev.txt": ("requirements.txt",)}
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
INSTALL_TIMEOUT_S = 1800.0
# What pip says of a package from an index, and of one that is a file here: its name and, where known, version.
FETCHING = re.compile(r"Collecting ([\w.-]+)(?:==([^,; ]+))?")
FETCHING_HERE = re.compile(r"Processing .*?([\w.]+)-([\w.+!]+)-[\w.-]+\.whl")
SETUP_TIMEOUT_S = 120.0


def say(text: str) -> None:
    """One line of progress, at once, on a terminal or not."""
    print(text, flush=True)


def ensure(requirements: str, root: Path = ROOT) -> Path:
    """The Python of a .venv that has what `requirements` lists; makes and fills the .venv where that is not so.

    Prints progress only if there is something to do. Raises StartRefused with what to do.
    """
    venv = root / ".venv"
    python = venv / "bin" / "python"
    if _stamped(root, requirements) and _works(venv):
        return python
    with only_one(root):
        # Whoever held the lock may just have done it.
        if not (_stamped(root, requirements) and _works(venv)):
            _make(venv)
            _fill(root, requirements)
    return python


def state(root: Path = ROOT) -> str:
    """How the .venv is, changing nothing: `missing`, `broken`, `stale` (the requirements changed) or `ready`."""
    venv = root / ".venv"
    if not (venv.exists() or venv.is_symlink()):
        return "missing"
    if not _works(venv):
        return "broken"
    return "ready" if _stamped(root, "requirements.txt") else "stale"


def inside(root: Path = ROOT) -> bool:
    """Is this process already the Python of the .venv?"""
    return os.path.realpath(sys.prefix) == os.path.realpath(root / ".venv")


@contextlib.contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Holds the set-up of this folder: a second launcher waits until the first is done."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + INSTALL_TIMEOUT_S
        told = False
        while not _locked(folder):
            if not told:
                say("waiting for another ./argus that sets up this folder")
                told = True
            if time.monotonic() > deadline:
                raise StartRefused("Another ./argus is still setting up this folder; see what it waits for.")
            time.sleep(0.2)
        yield
    finally:
        os.close(folder)


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without locks: two at once is the rarer trouble.
        return True
    return True


def fingerprint(root: Path, requirements: str) -> str:
    """What a .venv was made from: the version of Python and the lines of the requirements."""
    digest = hashlib.sha256(VERSION.encode())
    for name in (requirements, *INCLUDES[requirements]):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def stamp(root: Path, requirements: str) -> Path:
    """The file in .venv that says what it was filled from; only a job that was finished has it."""
    return root / ".venv" / f"argus-{requirements}.stamp"


def _stamped(root: Path, requirements: str) -> bool:
    try:
        return stamp(root, requirements).read_text() == fingerprint(root, requirements)
    except (OSError, UnicodeDecodeError):
        return False


def _works(venv: Path) -> bool:
    """Does its Python run, is it of our version, and does it know that it is in a .venv?"""
    if os.path.realpath(sys.prefix) == os.path.realpath(venv):
        return True
    ask = 'import sys; print("%d.%d" % sys.version_info[:2], sys.prefix)'
    try:
        answer = subprocess.run(
            [venv / "bin" / "python", "-I", "-c", ask], capture_output=True, text=True, timeout=SETUP_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    version, _, prefix = answer.stdout.strip().partition(" ")
    return version == VERSION and os.path.realpath(prefix) == os.path.realpath(venv)


def _make(venv: Path) -> None:
    """A .venv with pip in it. One that is half-made, broken, or of another Python is made anew."""
    if _works(venv) and _run([venv / "bin" / "python", "-m", "pip", "--version"])[0] == 0:
        say(f"[1/3] .venv is there (Python {VERSION})")
        return
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        raise StartRefused(_no_venv_module())
    if venv.is_symlink() or venv.exists():
        say("[1/3] .venv is broken or of another Python: making it anew")
        _remove(venv)
    else:
        say(f"[1/3] making .venv (Python {VERSION})")
    code, lines = _run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", venv])
    if code:
        raise StartRefused(f"{venv} could not be made: {_last(lines)}; when that is mended, run ./argus again.")


def _remove(venv: Path) -> None:
    try:
        venv.unlink() if venv.is_symlink() or venv.is_file() else shutil.rmtree(venv)
    except OSError as error:
        raise StartRefused(f"{venv} is broken and cannot be removed ({error.strerror}); remove it yourself.") from None


def _no_venv_module() -> str:
    default = os.path.realpath("/usr/bin/python3") == os.path.realpath(sys.executable)
    package = "python3-venv" if default else f"python{VERSION}-venv"
    return f"Python's venv module is missing; install it (apt install {package}) and run ./argus again."


def _fill(root: Path, requirements: str) -> None:
    """pip installs what the requirements list. The stamps go first, so that a half-done job is done again."""
    for name in INCLUDES:
        stamp(root, name).unlink(missing_ok=True)
    say(f"[2/3] fetching the packages of {requirements}")
    pip_install(root, ["-r", str(root / requirements)], on_install=lambda names: say(_installing(names)))
    for name in (requirements, *INCLUDES[requirements]):
        stamp(root, name).write_text(fingerprint(root, name))
    say("      .venv is ready")


def _installing(names: str) -> str:
    count = names.count(",") + 1
    return f"[3/3] installing {count} package{'s' if count > 1 else ''}: {names}"


def pip_install(root: Path, what: Sequence[str], on_install: Callable[[str], None] = say) -> None:
    """`pip install WHAT` into .venv, a line per package. Raises StartRefused with pip's own reason.

    `on_install` is given the names of all packages once they are fetched. pip's whole output is in .venv/pip.log.
    """
    venv = root / ".venv"
    command = [venv / "bin" / "python", "-m", "pip", "install", "--progress-bar", "off", "--no-input", *what]
    reasons = []

    def see(line: str) -> None:
        fetching = FETCHING.match(line) or FETCHING_HERE.match(line)
        if fetching:
            say(f"      {' '.join(filter(None, fetching.groups()))}")
        elif line.startswith("Installing collected packages: "):
            on_install(line.partition(": ")[2].strip())
        elif line.startswith("ERROR: "):
            reasons.append(line.removeprefix("ERROR: ").strip())

    code, lines = _run(command, see, INSTALL_TIMEOUT_S, {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    with contextlib.suppress(OSError):
        (venv / "pip.log").write_text("\n".join(lines) + "\n")
    if code:
        reason = reasons[-1] if reasons else _last(lines)
        raise StartRefused(
            f"pip could not install what Argus needs: {reason.rstrip('.')}; see .venv/pip.log, "
            "check the network, and run ./argus again."
        )


def _run(
    command: Sequence[str | Path],
    see: Callable[[str], None] = lambda line: None,
    timeout_s: float = SETUP_TIMEOUT_S,
    extra: dict[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Run to the end with a deadline; `see` gets each line as it comes. Returns exit code and all lines."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | (extra or {}),
            text=True,
            errors="replace",
        )
    except OSError as error:
        return 127, [f"{command[0]}: {error.strerror}"]
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    lines = []
    try:
        with process:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                see(lines[-1])
    except BaseException:
        # Ctrl-C, above all: what we started must not go on alone.
        process.kill()
        raise
    finally:
        timer.cancel()
    return process.returncode, lines


def _last(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason was given")
