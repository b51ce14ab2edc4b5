"""A model on loopback: enough of the OpenAI Responses API for the real Codex to work offline.

What the "model" does is written in the last thing the user said, in the first line that begins with:

    run: CMD               calls the shell tool with CMD
    runesc: CMD            the same, asking to leave the sandbox (Codex asks for approval)
    patch: PATH TEXT       adds the file PATH with the one line TEXT, by apply_patch
    slow: N SECONDS        says N pieces, SECONDS before each (0.1 when left out)
    big: N                 says N bytes in pieces of 1 KiB
    error: 500             refuses with that HTTP status (any status works)
    error: drop            says a little, then cuts the stream

Without such a line it says the user's words again, as `echo: …` in small pieces. Once a tool
has answered it says `done: ` and the tool's output, without Codex's heading, which ends the turn.
"""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ECHO_PIECE_CHARS = 12
BIG_PIECE_BYTES = 1024
SLOW_PAUSE_S = 0.1

# Codex adds user messages of its own, each wrapped in one tag (<environment_context>, <turn_aborted>).
_CODEX_OWN = re.compile(r"\s*<([a-z]+(?:_[a-z]+)+)>.*</\1>\s*", re.DOTALL)
_DIRECTIVE = re.compile(r"^(run|runesc|patch|slow|big|error): *(\S.*)$", re.MULTILINE)
# What Codex writes above a command's output: id, wall time, exit code, token count.
_OUTPUT_HEADING = re.compile(r"\A(?:[A-Z][a-z]+ [^\n]*\n)+Output:\n")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Speech:
    """Text in pieces, with a pause before each; `cut` ends the stream before the text is finished."""

    pieces: tuple[str, ...]
    pause_s: float = 0.0
    cut: bool = False


@dataclass(frozen=True)
class ToolCall:
    """One shell command."""

    command: str
    escalated: bool = False


@dataclass(frozen=True)
class Refusal:
    """An HTTP error in place of a stream."""

    status: int


Reply = Speech | ToolCall | Refusal


def reply_to(body: dict) -> Reply:
    """What the model does with this request body: the whole script, without I/O."""
    said, outputs = _conversation(body.get("input") or [])
    if outputs:
        return Speech(("done: ", _OUTPUT_HEADING.sub("", "\n".join(outputs))))
    match = _DIRECTIVE.search(said)
    if not match:
        return Speech(_cut_up(f"echo: {said}", ECHO_PIECE_CHARS))
    return _SCRIPT[match[1]](match[2].strip())


def _conversation(items: list[dict]) -> tuple[str, list[str]]:
    """The last thing the user said, and the tool outputs that came after it."""
    said, outputs = "", []
    for item in items:
        if item.get("role") == "user":
            texts = [part.get("text", "") for part in item["content"]]
            own_words = [text for text in texts if text and not _CODEX_OWN.fullmatch(text)]
            if own_words:
                said, outputs = "\n".join(own_words), []
        elif item.get("type", "").endswith("_call_output"):
            outputs.append(_output_text(item["output"]))
    return said, outputs


def _output_text(output: str | list) -> str:
    return output if isinstance(output, str) else "".join(part.get("text", "") for part in output)


def _cut_up(text: str, size: int) -> tuple[str, ...]:
    return tuple(text[at : at + size] for at in range(0, len(text), size))


def _patch(argument: str) -> ToolCall:
    path, _, text = argument.partition(" ")
    lines = ["apply_patch <<'PATCH'", "*** Begin Patch", f"*** Add File: {path}", f"+{text}"]
    return ToolCall("\n".join([*lines, "*** End Patch", "PATCH"]))


def _slow(argument: str) -> Speech:
    count, _, pause = argument.partition(" ")
    return Speech(tuple(f"piece {n} " for n in range(int(count))), float(pause or SLOW_PAUSE_S))


def _error(argument: str) -> Reply:
    return Speech(("cut ", "short"), cut=True) if argument == "drop" else Refusal(int(argument))


_SCRIPT = {
    "run": ToolCall,
    "runesc": lambda command: ToolCall(command, escalated=True),
    "patch": _patch,
    "slow": _slow,
    "big": lambda size: Speech(_cut_up("x" * int(size), BIG_PIECE_BYTES)),
    "error": _error,
}


def events(reply: Speech | ToolCall) -> Iterator[dict]:
    """The stream of one reply. A `pause` (seconds) stands before what must come later; it is not sent."""
    response_id = f"resp_{next(_numbers)}"
    yield {"type": "response.created", "response": {"id": response_id}}
    if isinstance(reply, ToolCall):
        yield {"type": "response.output_item.done", "output_index": 0, "item": _call_item(reply)}
    else:
        yield from _speech_events(reply)
        if reply.cut:
            return
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    yield {"type": "response.completed", "response": {"id": response_id, "usage": usage}}


def _speech_events(speech: Speech) -> Iterator[dict]:
    item = {"type": "message", "id": f"msg_{next(_numbers)}", "role": "assistant", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    for piece in speech.pieces:
        if speech.pause_s:
            yield {"pause": speech.pause_s}
        where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        yield {"type": "response.output_text.delta", **where, "delta": piece}
    if not speech.cut:
        content = [{"type": "output_text", "text": "".join(speech.pieces)}]
        yield {"type": "response.output_item.done", "output_index": 0, "item": {**item, "content": content}}


def _call_item(call: ToolCall) -> dict:
    arguments = {"cmd": call.command}
    if call.escalated:
        arguments |= {"sandbox_permissions": "require_escalated", "justification": "the script asks for it"}
    return {
        "type": "function_call",
        "call_id": f"call_{next(_numbers)}",
        "name": "exec_command",
        "arguments": json.dumps(arguments),
    }


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: the end of a stream is the end of the connection, so cutting one needs no tricks."""

    server: "_Server"

    def log_message(self, format: str, *args) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/responses":
            return self._refuse(404)
        body = json.loads(raw)
        self.server.requests.append(body)
        reply = reply_to(body)
        if isinstance(reply, Refusal):
            return self._refuse(reply.status)
        self._stream(reply)

    def do_GET(self) -> None:
        self._refuse(404)

    def _refuse(self, status: int) -> None:
        payload = json.dumps({"error": {"message": f"the test asked for {status}"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _stream(self, reply: Speech | ToolCall) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for event in events(reply):
                if "pause" not in event:
                    text = json.dumps(event, ensure_ascii=False)
                    self.wfile.write(f"event: {event['type']}\ndata: {text}\n\n".encode())
                elif self.server.stopping.wait(event["pause"]):
                    return
        except ConnectionError:
            pass  # Codex hangs up in mid-stream when a turn is interrupted or steered


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int]):
        super().__init__(address, _Handler)
        self.requests: list[dict] = []
        self.stopping = threading.Event()


class ModelServer:
    """The server, running inside the `with` block.

    `url` is what Codex's model provider takes as base_url. `requests` are the bodies of the requests so
    far, oldest first. `host` is the address to listen on, for a Codex in a container; `url` names it, too.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0):
        self._server = _Server((host, port))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}/v1"

    @property
    def requests(self) -> list[dict]:
        return self._server.requests

    def __enter__(self) -> "ModelServer":
        self._thread.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._server.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
