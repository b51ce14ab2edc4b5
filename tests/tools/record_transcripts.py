"""Records what the real Codex says in the situations that our tests replay.

    .venv/bin/python tests/tools/record_transcripts.py [NAME ...]

writes tests/transcripts/NAME.jsonl, for all scenes or the named ones, against the model on loopback. One
JSON object a line: {"dir", "t", "line"}. `dir` is "in" for a line to Codex and "out" for one from it, `t`
the seconds since the process was started, `line` the text of the line as it stood on the pipe, without its
newline. A scene of several acts has a process and a file for each (NAME-1, NAME-2), in one CODEX_HOME.
Only names of this machine are changed: the directories, to /workspace and /root/.codex, and the host name.
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from fakes.codex_home import AppServer, codex_binary, write_codex_home  # noqa: E402
from fakes.model_server import ModelServer  # noqa: E402

TRANSCRIPTS = TESTS / "transcripts"
MAX_BYTES = 200_000
HOST_NAME = re.compile(rb'("serverName":)"[^"]*"')
ENDLESS = "slow: 1000 0.05"


@dataclass
class Stage:
    """One act in play: the running Codex, its working directory, and what an earlier act left behind."""

    codex: AppServer
    workspace: Path
    memory: dict = field(default_factory=dict)

    def thread(self, **params) -> str:
        return self.codex.start_thread(cwd=str(self.workspace), **params)

    def turn(self, thread_id: str, text: str) -> dict:
        """A whole turn, to its end."""
        self.codex.start_turn(thread_id, text)
        return self.codex.end_of_turn(thread_id)

    def first_delta(self, thread_id: str) -> None:
        self.codex.wait_for_notice("item/agentMessage/delta", thread_id)


Act = Callable[[Stage], None]


def basic_turn(stage: Stage) -> None:
    stage.codex.initialize()
    stage.turn(stage.thread(), "hello there, how are you today?")


def two_threads(stage: Stage) -> None:
    """Both speak at the same time, so that their deltas alternate."""
    stage.codex.initialize()
    threads = [stage.thread(), stage.thread()]
    for thread_id in threads:
        stage.codex.start_turn(thread_id, "slow: 12 0.02")
    for thread_id in threads:
        stage.codex.end_of_turn(thread_id)


def _asked(stage: Stage, script: str) -> tuple[str, dict]:
    stage.codex.initialize()
    thread_id = stage.thread(approvalPolicy="untrusted")
    stage.codex.start_turn(thread_id, script)
    return thread_id, stage.codex.wait_for_approval(thread_id)


def _decided(decision: str, script: str = "run: touch made && echo it works") -> Act:
    def act(stage: Stage) -> None:
        thread_id, approval = _asked(stage, script)
        stage.codex.decide(approval, decision)
        stage.codex.end_of_turn(thread_id)

    return act


def escalation_accepted(stage: Stage) -> None:
    stage.codex.initialize()
    thread_id = stage.thread(approvalPolicy="on-request", sandbox="workspace-write")
    stage.codex.start_turn(thread_id, "runesc: echo outside")
    stage.codex.decide(stage.codex.wait_for_approval(thread_id), "accept")
    stage.codex.end_of_turn(thread_id)


def approval_interrupted(stage: Stage) -> None:
    """The answer that comes too late gets no reply."""
    thread_id, approval = _asked(stage, "run: touch made")
    turn_id = approval["params"]["turnId"]
    stage.codex.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
    stage.codex.end_of_turn(thread_id)
    stage.codex.decide(approval, "accept")
    stage.turn(thread_id, "still there?")


def approval_asked_again(stage: Stage) -> None:
    """A resume while an approval is pending brings the request once more, with the same id."""
    thread_id, approval = _asked(stage, "run: touch made")
    stage.codex.request("thread/resume", {"threadId": thread_id, "excludeTurns": True})
    again = stage.codex.wait_for_approval(thread_id)
    assert again["id"] == approval["id"]
    stage.codex.decide(again, "accept")
    stage.codex.end_of_turn(thread_id)


def approvals_in_two_threads(stage: Stage) -> None:
    """Both wait; the later one is answered first, and differently."""
    stage.codex.initialize()
    threads = [stage.thread(approvalPolicy="untrusted"), stage.thread(approvalPolicy="untrusted")]
    for number, thread_id in enumerate(threads):
        stage.codex.start_turn(thread_id, f"run: touch made-{number}")
    approvals = [stage.codex.wait_for_approval(thread_id) for thread_id in threads]
    for number, decision in ((1, "decline"), (0, "accept")):
        stage.codex.decide(approvals[number], decision)
        stage.codex.end_of_turn(threads[number])


def interrupt(stage: Stage) -> None:
    stage.codex.initialize()
    thread_id = stage.thread()
    turn_id = stage.codex.start_turn(thread_id, ENDLESS)
    stage.first_delta(thread_id)
    stage.codex.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
    stage.codex.end_of_turn(thread_id)
    stage.codex.request("turn/interrupt", {"threadId": thread_id, "turnId": turn_id})
    stage.turn(thread_id, "after the interrupt")


def steer_by_second_turn(stage: Stage) -> None:
    """A turn started while one runs gets the running turn's id, and one end for both."""
    stage.codex.initialize()
    thread_id = stage.thread()
    running = stage.codex.start_turn(thread_id, ENDLESS)
    stage.first_delta(thread_id)
    assert stage.codex.start_turn(thread_id, "never mind") == running
    stage.codex.end_of_turn(thread_id)


def steer(stage: Stage) -> None:
    stage.codex.initialize()
    thread_id = stage.thread()
    turn_id = stage.codex.start_turn(thread_id, ENDLESS)
    stage.first_delta(thread_id)
    said = [{"type": "text", "text": "say this"}]
    stage.codex.request("turn/steer", {"threadId": thread_id, "expectedTurnId": turn_id, "input": said})
    stage.codex.end_of_turn(thread_id)


def leave_a_thread(stage: Stage) -> None:
    """Codex ends in the middle of the second turn."""
    stage.codex.initialize()
    stage.memory["thread"] = stage.thread()
    stage.turn(stage.memory["thread"], "remember the blue door")
    stage.codex.start_turn(stage.memory["thread"], ENDLESS)
    stage.first_delta(stage.memory["thread"])


def resume_it(stage: Stage) -> None:
    stage.codex.initialize()
    thread_id = stage.memory["thread"]
    too_early = {"threadId": thread_id, "input": [{"type": "text", "text": "not loaded yet"}]}
    stage.codex.request("turn/start", too_early)
    stage.codex.result_of("thread/resume", {"threadId": thread_id, "excludeTurns": True})
    stage.codex.request("thread/read", {"threadId": thread_id, "includeTurns": True})
    stage.turn(thread_id, "which door?")


def model_errors(stage: Stage) -> None:
    stage.codex.initialize()
    thread_id = stage.thread()
    for script in ("error: 500", "error: 429", "error: drop", "and now it works"):
        stage.turn(thread_id, script)


def model_error_retried(stage: Stage) -> None:
    stage.codex.initialize()
    stage.turn(stage.thread(), "error: drop")


def request_errors(stage: Stage) -> None:
    """Refused requests, and lines that are dropped without a word: between two requests there is nothing."""
    codex = stage.codex
    codex.request("thread/start", {})  # before initialize
    codex.initialize()
    codex.request("initialize", {"clientInfo": {"name": "argus", "version": "0.1.0"}})
    codex.request("no/such/method", {})
    unknown = "01a00000-0000-7000-8000-000000000000"
    codex.request("turn/start", {"threadId": unknown, "input": []})
    codex.request("thread/resume", {"threadId": unknown})
    codex.send_line(b'{"id":"no-params","method":"thread/loaded/list"}')
    codex.answer_to("no-params")
    null_id = b'{"id":null,"method":"thread/loaded/list","params":{}}'
    for dropped in (b'{"id":50,"method":', b"", b"[]", b"{}", null_id):
        codex.send_line(dropped)
    codex.send_line(b'{"params":{},"method":"thread/loaded/list","id":"in another order"}')
    codex.answer_to("in another order")


def non_ascii(stage: Stage) -> None:
    """Raw UTF-8 both ways, also where a careless reader of lines would cut: U+2028, U+0085."""
    stage.codex.initialize()
    thread_id = stage.thread()
    stage.turn(thread_id, "emoji 🧑‍🚀🇯🇵, CJK 漢字かな, Arabic العربية, a line\u2028separator, next\u0085line")
    stage.turn(thread_id, 'quotes " and \\ and \t tab\nsecond line\r\nthird, NUL-ish \u0001, U+FEFF \ufeff')


def big_answer(stage: Stage) -> None:
    stage.codex.initialize()
    stage.turn(stage.thread(), "big: 10000")


@dataclass(frozen=True)
class Scene:
    acts: tuple[Act, ...]
    retries: int = 0


SCENES = {
    "basic-turn": Scene((basic_turn,)),
    "two-threads": Scene((two_threads,)),
    "command-accepted": Scene((_decided("accept"),)),
    "command-declined": Scene((_decided("decline"),)),
    "command-cancelled": Scene((_decided("cancel"),)),
    "patch-accepted": Scene((_decided("accept", "patch: new.txt a first line"),)),
    "escalation-accepted": Scene((escalation_accepted,)),
    "approval-interrupted": Scene((approval_interrupted,)),
    "approval-asked-again": Scene((approval_asked_again,)),
    "approvals-in-two-threads": Scene((approvals_in_two_threads,)),
    "interrupt": Scene((interrupt,)),
    "steer": Scene((steer,)),
    "steer-by-second-turn": Scene((steer_by_second_turn,)),
    "resume": Scene((leave_a_thread, resume_it)),
    "model-errors": Scene((model_errors,)),
    "model-error-retried": Scene((model_error_retried,), retries=1),
    "request-errors": Scene((request_errors,)),
    "non-ascii": Scene((non_ascii,)),
    "big-answer": Scene((big_answer,)),
}


class Recorder:
    """Collects the lines of one process; `names` are the replacements for what belongs to this machine."""

    def __init__(self, names: dict[Path, bytes]):
        self._names = {str(path).encode(): name for path, name in names.items()}
        self._started = time.monotonic()
        self._records: list[dict] = []

    def __call__(self, direction: str, line: bytes) -> None:
        for path, name in self._names.items():
            line = line.replace(path, name)
        line = HOST_NAME.sub(rb'\1"localhost"', line)
        seconds = round(time.monotonic() - self._started, 4)
        self._records.append({"dir": direction, "t": seconds, "line": line.decode()})

    def save(self, path: Path) -> None:
        text = "".join(json.dumps(record) + "\n" for record in self._records)
        size = len(text)  # ASCII
        if size > MAX_BYTES:
            raise ValueError(f"{path.name} would have {size} bytes; a transcript has at most {MAX_BYTES}")
        path.write_text(text)
        print(f"{path.name}: {len(self._records)} lines, {size} bytes")


def record(name: str, scene: Scene, binary: Path, base: Path) -> None:
    """Play all acts of a scene below `base` and save what was said."""
    workspace = base / "workspace"
    workspace.mkdir()
    memory: dict = {}
    with ModelServer() as model:
        home = write_codex_home(base / "home", model.url, retries=scene.retries)
        for number, act in enumerate(scene.acts, 1):
            recorder = Recorder({workspace: b"/workspace", home: b"/root/.codex"})
            with AppServer(binary, home, workspace, watch=recorder) as codex:
                act(Stage(codex, workspace, memory))
            suffix = f"-{number}" if len(scene.acts) > 1 else ""
            recorder.save(TRANSCRIPTS / f"{name}{suffix}.jsonl")


def main(names: list[str]) -> int:
    binary = codex_binary()
    if binary is None:
        print("codex is not installed; ./argus up --agent codex installs it", file=sys.stderr)
        return 1
    unknown = set(names) - set(SCENES)
    if unknown:
        print(f"no such scene: {', '.join(sorted(unknown))}; there are {', '.join(SCENES)}", file=sys.stderr)
        return 2
    TRANSCRIPTS.mkdir(exist_ok=True)
    for name in names or SCENES:
        with tempfile.TemporaryDirectory() as base:
            record(name, SCENES[name], binary, Path(base).resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
