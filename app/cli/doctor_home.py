"""./argus doctor: the home with its token, its database, and what was left in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import socket
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from app.cli import gateway
from app.cli.environment import ROOT
from app.cli.findings import BROKEN, INFO, OK, WARNING, Finding
from app.settings import Settings

MIB = 1 << 20
DISK_BROKEN, DISK_LOW = 32 * MIB, 512 * MIB
INODES_BROKEN, INODES_LOW = 50, 2000
TOKEN_SHORTEST, TOKEN_SHORT = 16, 24
LARGEST_COPY = 512 * MIB
SHOWN = 5


def folder(settings: Settings) -> Iterator[Finding]:
    """Whose the home is, and who may look into it."""
    home, quoted = settings.home, shlex.quote(str(settings.home))
    try:
        found = home.stat()
    except FileNotFoundError:
        above = next(parent for parent in home.parents if parent.exists())
        if os.access(above, os.W_OK | os.X_OK) and above.is_dir():
            yield Finding(INFO, "home", f"{home} is not there yet", "./argus up makes it")
        else:
            yield Finding(BROKEN, "home", f"{home} cannot be made: {above} cannot be written", "./argus up --home DIR")
        return
    except OSError as error:
        yield Finding(BROKEN, "home", f"{home} cannot be looked at ({error.strerror})", "./argus up --home DIR")
        return
    if not stat.S_ISDIR(found.st_mode):
        yield Finding(BROKEN, "home", f"{home} is no folder", "./argus up --home DIR")
        return
    if found.st_uid != os.getuid():
        yield Finding(
            BROKEN if os.getuid() else WARNING, "home", f"{home} belongs to another user (uid {found.st_uid})",
            f"run Argus as that user, or: chown -R $(id -u) {quoted}",
        )  # fmt: skip
    elif not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(BROKEN, "home", f"{home} cannot be written", f"chmod 700 {quoted}")
    if found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        yield Finding(WARNING, "home", f"other users may look into {home} (mode {mode})", f"chmod 700 {quoted}")
    else:
        yield Finding(OK, "home", f"{home} is yours alone")


def disk(settings: Settings) -> Iterator[Finding]:
    """Space and inodes of the file system that holds the home."""
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    found = os.statvfs(place)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None
    level = BROKEN if free < DISK_BROKEN else WARNING if free < DISK_LOW else OK
    mend = f"free some: du -xsh {shlex.quote(str(settings.home))}/* | sort -h" if level != OK else ""
    yield Finding(level, "disk", f"{free // MIB} MiB are free where {place} is", mend)
    if inodes is not None and inodes < INODES_LOW:
        level = BROKEN if inodes < INODES_BROKEN else WARNING
        text = f"only {inodes} more files can be made where {place} is"
        yield Finding(level, "disk", text, f"remove files: df -i {shlex.quote(str(place))}")


def sockets_and_locks(settings: Settings) -> Iterator[Finding]:
    """Some network and shared file systems can do neither."""
    if not os.access(settings.home, os.W_OK | os.X_OK):
        return
    try:
        with tempfile.TemporaryDirectory(dir=settings.home, prefix=".doctor-") as place:
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.bind(f"/proc/self/fd/{handle}/socket")  # however long the real path is
            finally:
                os.close(handle)
    except OSError as error:
        text = f"no socket or lock can be made in {settings.home} ({error.strerror or error})"
        yield Finding(BROKEN, "file system", text, "use a home on a local disk with room: ./argus up --home DIR")
    else:
        yield Finding(OK, "file system", "sockets and locks work in the home")


def token(settings: Settings) -> Iterator[Finding]:
    """Who could read or guess the operator's token."""
    if settings.auth == "off":
        yield Finding(WARNING, "token", "ARGUS_AUTH=off: whoever reaches the port is let in", "unset ARGUS_AUTH")
        return
    if settings.token:
        weak = _weakness(settings.token)
        mend = "unset ARGUS_TOKEN, and a strong one is made in the home"
        if weak:
            yield Finding(WARNING, "token", f"ARGUS_TOKEN is {weak}", mend)
        else:
            yield Finding(OK, "token", "ARGUS_TOKEN is strong enough")
        return
    path = settings.gateway_dir / "token"
    quoted = shlex.quote(str(path))
    try:
        found, text = path.stat(), path.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        yield Finding(INFO, "token", "none is made yet", "./argus up makes one")
        return
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        yield Finding(BROKEN, "token", f"{path} cannot be read ({why})", f"make it yours, or remove it: rm {quoted}")
        return
    weak = _weakness(text)
    if len(text) < TOKEN_SHORTEST:
        yield Finding(BROKEN, "token", f"the token in {path} is too short", f"rm {quoted}; a new one is made")
    elif found.st_mode & 0o077:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        mend = f"rm {quoted}; a new one is made" if found.st_mode & 0o044 else f"chmod 600 {quoted}"
        yield Finding(BROKEN, "token", f"other users may open {path} (mode {mode})", mend)
    elif weak:
        yield Finding(WARNING, "token", f"the token in {path} is {weak}", f"rm {quoted}; a new one is made")
    else:
        yield Finding(OK, "token", f"{path} is yours alone")


def _weakness(text: str) -> str:
    if len(text) < TOKEN_SHORT:
        return "short"
    return "easy to guess" if len(set(text)) < 8 else ""


def database(settings: Settings) -> Iterator[Finding]:
    """Does it open, is it whole, and does this version know it? Looks at a copy unless a gateway holds it."""
    path = settings.gateway_dir / "argus.db"
    if not path.exists():
        yield Finding(INFO, "database", "none is made yet", "./argus up makes one")
        return
    quoted = shlex.quote(str(path))
    try:
        with _opened(settings, path) as db:
            whole = db.execute("PRAGMA quick_check(3)").fetchall()
            version = db.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, OSError) as error:
        mend = f"./argus down; mv {quoted} {quoted}.broken; ./argus up begins anew, or bring back a copy"
        yield Finding(BROKEN, "database", f"{path} cannot be used ({error})", mend)
        return
    if whole != [("ok",)]:
        mend = f"./argus down; sqlite3 {quoted} .recover | sqlite3 {quoted}.new; put that in its place"
        yield Finding(BROKEN, "database", f"{path} is damaged: {whole[0][0]}", mend)
        return
    known, at = _known_versions(), version[0] if version else ""
    if at == known[-1]:
        yield Finding(OK, "database", f"whole, at version {at}")
    elif at in known:
        yield Finding(INFO, "database", f"at version {at}, and {known[-1]} is newest", "./argus up migrates it")
    else:
        yield Finding(BROKEN, "database", f"of version {at or 'unknown'}, which this Argus does not know", "git pull")


@contextlib.contextmanager
def _opened(settings: Settings, path: Path) -> Iterator[sqlite3.Connection]:
    """The database, read only. SQLite makes files beside it even then if nobody has it open, so then: a copy."""
    if gateway.running(settings) or path.stat().st_size > LARGEST_COPY:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            yield db
        return
    with tempfile.TemporaryDirectory(prefix="argus-doctor-") as place:
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, Path(place) / name)
        with closing(sqlite3.connect(Path(place) / path.name)) as db:
            yield db


def _known_versions() -> list[str]:
    """The migrations of this version of Argus, oldest first, from the names and texts of their files."""
    scripts = (ROOT / "app" / "store" / "migrations" / "versions").glob("*.py")
    found = [re.search(r'^revision\b.*=\s*"(\w+)"', script.read_text("utf-8"), re.MULTILINE) for script in scripts]
    return sorted(match[1] for match in found if match)


def leftovers(settings: Settings) -> Iterator[Finding]:
    """What belongs to no session any more."""
    known = _sessions(settings)
    if known is None:
        return
    found = False
    folders = settings.home / "sessions"
    strays = [path for path in folders.glob("*") if path.name not in known] if folders.is_dir() else []
    if strays:
        found = True
        yield Finding(INFO, "leftovers", f"folders of no session: {_some(strays)}", f"rm -r {_words(strays)}")
    processes = {session: pid for session, pid in _runtimes(settings.home).items() if session not in known}
    if processes:
        found = True
        pids = ", ".join(str(pid) for pid in list(processes.values())[:SHOWN])
        yield Finding(WARNING, "leftovers", f"processes of no session (pid {pids})", "./argus down stops all runtimes")
    listening = _listening()
    sockets = [path for path in (settings.home / "run").glob("*.sock") if str(path) not in listening]
    if sockets and listening:
        found = True
        yield Finding(INFO, "leftovers", f"sockets that nobody listens on: {_some(sockets)}", f"rm {_words(sockets)}")
    if not found:
        yield Finding(OK, "leftovers", "none")


def _sessions(settings: Settings) -> set[str] | None:
    """The ids of all sessions; None if the database cannot tell."""
    path = settings.gateway_dir / "argus.db"
    if not path.exists():
        return set() if settings.home.is_dir() else None
    try:
        with _opened(settings, path) as db:
            return {row[0] for row in db.execute("SELECT id FROM sessions")}
    except (sqlite3.Error, OSError):
        return None


def _runtimes(home: Path) -> dict[str, int]:
    """The sessions of this home that processes run for, with one pid each."""
    found: dict[str, int] = {}
    mark = f"ARGUS_RUNTIME_OF={home}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                variables = (entry / "environ").read_bytes().split(b"\0")
                ids = [text[17:].decode() for text in variables if text.startswith(b"ARGUS_SESSION_ID=")]
                if mark in variables and ids:
                    found.setdefault(ids[0], int(entry.name))
    return found


def _listening() -> set[str]:
    """The paths of all Unix sockets of this machine."""
    try:
        lines = Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()
    except OSError:
        return set()
    return {words[7] for line in lines if len(words := line.split(maxsplit=7)) == 8}


def _some(paths: list[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(path.name for path in sorted(paths)[:SHOWN]) + more


def _words(paths: list[Path]) -> str:
    return shlex.join(str(path) for path in sorted(paths)[:SHOWN])
