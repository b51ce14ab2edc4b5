"""./argus in a copy of the tree, as people run it, for the tests of the launcher and of its commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from support import until

from app.cli import environment

ROOT = Path(__file__).resolve().parent.parent
BASE_PYTHON = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".agents", "node_modules", "__pycache__", ".*_cache", ".hypothesis", "out", "build"
)


class Tree:
    """A copy of the project in a folder of its own, with its own $HOME."""

    def __init__(self, place: Path) -> None:
        self.root, self.home = place / "argus here", place / "home"
        shutil.copytree(ROOT, self.root, ignore=NOT_COPIED)
        self.home.mkdir()
        bin_folder = place / "bin"
        bin_folder.mkdir()
        (bin_folder / "python3").symlink_to(BASE_PYTHON)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARGUS_", "CODEX_"))}
        # "demo", so that a Codex with a login on this machine is not asked anything.
        own = {"HOME": str(self.home), "PATH": f"{bin_folder}:{os.environ['PATH']}", "ARGUS_AGENT": "demo"}
        self.env = kept | own

    @property
    def gateway_dir(self) -> Path:
        return self.home / ".argus" / "gateway"

    def borrow_venv(self) -> None:
        """A .venv with the packages of the one that runs this test, which would take half a minute to make."""
        venv = self.root / ".venv"
        (venv / "bin").mkdir(parents=True)
        shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
        (venv / "lib").symlink_to(Path(sys.prefix) / "lib")
        (venv / "bin" / "python").symlink_to(BASE_PYTHON)
        for name in environment.INCLUDES:
            environment.stamp(self.root, name).write_text(environment.fingerprint(self.root, name))

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """./argus ARGS to its end. No test may wait for it for ever."""
        return subprocess.run(
            ["./argus", *args],
            cwd=self.root,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def refused(self, *args: str, code: int = 1, **env: str) -> str:
        """Its one sentence, having checked that it is one: no traceback, nothing on stdout, the exit code."""
        done = self.run(*args, **env)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.startswith("argus: ") and done.stderr.endswith(".\n"), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


class Up:
    """A gateway that ./argus up started."""

    def __init__(self, tree: Tree, *args: str, **env: str) -> None:
        self.tree, self.log = tree, tree.home / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["./argus", "up", *args],
                cwd=tree.root,
                env=tree.env | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._said_link, 30, f"./argus up says where it is: {self.log}")
        self.told = json.loads((tree.gateway_dir / "gateway.json").read_text())
        self.url = self.told["url"]

    def _said_link(self) -> bool:
        assert self.process.poll() is None, self.said()
        return "#ticket=" in self.said()

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> None:
        """Whatever the test did, nothing of it stays."""
        if self.process.poll() is None:
            self.tree.run("down")
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
