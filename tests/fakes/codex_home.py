"""The real Codex without login and network: where it is, how it is configured, how a test talks to it."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ".agents/codex/node_modules/@openai/codex-*/vendor/*/bin/codex"

CONFIG = """\
model = "test-model"
model_provider = "local"
approval_policy = "on-request"
sandbox_mode = "{sandbox_mode}"
check_for_update_on_startup = false
web_search = "disabled"

[model_providers.local]
name = "local"
base_url = "{model_url}"
wire_api = "responses"
request_max_retries = {retries}
stream_max_retries = {retries}
stream_idle_timeout_ms = 20000

[features]
plugins = false
apps = false

[analytics]
enabled = false

[feedback]
enabled = false
"""


def write_codex_home(
    directory: Path, model_url: str, *, sandbox_mode: str = "danger-full-access", retries: int = 0
) -> Path:
    """Make `directory` a CODEX_HOME whose only model is the server at `model_url`; return `directory`.

    Nothing is switched on that reaches beyond loopback. The default sandbox mode is none, because in a
    container there may be no way to make one; a thread may still ask for another. `retries` counts for a
    refused request and for a cut stream.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIG.format(model_url=model_url, sandbox_mode=sandbox_mode, retries=retries)
    (directory / "config.toml").write_text(config)
    return directory


def codex_binary() -> Path | None:
    """The Codex to test with: ARGUS_TEST_CODEX if set, the one `./argus up` installed, one on PATH, or None.

    The native binary is preferred to npm's wrapper, which costs a second process.
    """
    named = os.environ.get("ARGUS_TEST_CODEX")
    if named:
        return Path(named) if os.access(named, os.X_OK) else None
    installed = sorted(ROOT.glob(INSTALLED))
    if installed:
        return installed[0]
    on_path = shutil.which("codex")
    return Path(on_path) if on_path else None


Watch = Callable[[str, bytes], None]


class AppServer:
    """A running `codex app-server` and the one client on its stdio.

    `watch(direction, line)` sees every line without its newline, "in" before it is written to the
    app-server and "out" when it was read from it, in one order.
    """

    def __init__(self, binary: Path, home: Path, cwd: Path, watch: Watch = lambda direction, line: None):
        self._watch = watch
        self._unread: list[dict] = []
        self._changed = threading.Condition()
        self._ended = False
        self._last_id = 0
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home)}
        self._complaints = home / "app-server.log"
        with self._complaints.open("wb") as stderr:
            self.process = subprocess.Popen(
                [binary, "app-server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environ,
                cwd=cwd,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "AppServer":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _read(self) -> None:
        for line in self.process.stdout:
            with self._changed:
                self._watch("out", line.removesuffix(b"\n"))
                self._unread.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def send_line(self, line: bytes) -> None:
        """Write one line as it is, well-formed or not."""
        with self._changed:
            self._watch("in", line)
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, message: dict) -> None:
        self.send_line(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode())

    def request(self, method: str, params: dict) -> dict:
        """Send a request and wait for its answer: the whole message, with "result" or "error"."""
        return self.answer_to(self.send_request(method, params))

    def result_of(self, method: str, params: dict) -> dict:
        """Send a request that must succeed and return its result."""
        answer = self.request(method, params)
        assert "result" in answer, f"{method}: {answer['error']['message']}"
        return answer["result"]

    def send_request(self, method: str, params: dict) -> int:
        """Send a request without waiting; returns its id, for `answer_to`."""
        self._last_id += 1
        self.send({"id": self._last_id, "method": method, "params": params})
        return self._last_id

    def answer_to(self, request_id: int | str) -> dict:
        return self.wait_for(lambda message: message.get("id") == request_id and "method" not in message)

    def wait_for(self, wanted: Callable[[dict], bool], timeout_s: float = 20) -> dict:
        """The first message not yet taken that is `wanted`, which is then taken; AssertionError if none."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for at, message in enumerate(self._unread):
                    if wanted(message):
                        return self._unread.pop(at)
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(self._why_not())
                self._changed.wait(left)

    def _why_not(self) -> str:
        what = "the app-server has ended" if self._ended else "the message did not come"
        waiting = [message.get("method", "an answer") for message in self._unread[-10:]]
        complaints = self._complaints.read_text(errors="replace")[-1000:]
        return f"{what}; last unread: {waiting}; its stderr: {complaints}"

    def initialize(self) -> dict:
        """The handshake; returns the result of `initialize`."""
        result = self.result_of("initialize", {"clientInfo": {"name": "argus", "version": "0.1.0"}})
        self.send({"method": "initialized"})
        return result

    def start_thread(self, **params) -> str:
        """Start a thread and return its id."""
        return self.result_of("thread/start", params)["thread"]["id"]

    def start_turn(self, thread_id: str, text: str, **params) -> str:
        """Say `text` in the thread and return the turn's id, without waiting for the turn to end."""
        params = {"threadId": thread_id, "input": [{"type": "text", "text": text}], **params}
        return self.result_of("turn/start", params)["turn"]["id"]

    def wait_for_notice(self, method: str, thread_id: str) -> dict:
        """The params of the thread's next message of this method not yet taken."""
        return self.wait_for(
            lambda message: message.get("method") == method and message["params"].get("threadId") == thread_id
        )["params"]

    def wait_for_approval(self, thread_id: str) -> dict:
        """The thread's next approval request, whole: its id is the one to answer."""

        def wanted(message: dict) -> bool:
            asks = message.get("method", "").endswith("/requestApproval")
            return asks and message["params"]["threadId"] == thread_id

        return self.wait_for(wanted)

    def decide(self, approval: dict, decision: str) -> None:
        self.send({"id": approval["id"], "result": {"decision": decision}})

    def end_of_turn(self, thread_id: str) -> dict:
        """The turn of the thread's next `turn/completed`."""
        return self.wait_for_notice("turn/completed", thread_id)["turn"]

    def close(self, timeout_s: float = 10) -> int:
        """Close stdin, which ends a healthy app-server; kill one that stays. Returns the exit code."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        self.process.stdout.close()
        return code
