#!/usr/bin/env python3
"""The built-in demo agent: an app-server on stdin and stdout, with no model behind it and no network.

It speaks Codex's app-server protocol (one JSON object a line, no "jsonrpc" member), keeps its threads below
ARGUS_AGENT_STATE, needs only the standard library, repeats what it is told, and understands

    slow N [SECONDS]   the numbers 1 to N, a delta each, 0.1 s or SECONDS apart
    run: COMMAND       asks for approval where the policy says so, then runs COMMAND with /bin/sh
    big N              N bytes of text
    fail               a turn that fails

The sandbox of a thread is remembered, nothing enforces it. The main thread reads and answers, each turn has
a thread of its own; `Agent.lock` guards the state and stdout, and "locked" marks who expects to hold it.
"""

import itertools
import json
import os
import re
import signal
import sys
import threading
import time
import traceback

MIB = 1 << 20
TEXT_LIMIT = MIB  # bytes of text, or of a command's output, that item/completed carries
INPUT_LIMIT, HISTORY_LIMIT = 7 * MIB, 7 * MIB  # bytes of JSON, so that no line gets longer than 8 MiB
DELTA = 64 << 10
THREAD_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
POLICIES = ("untrusted", "on-failure", "on-request", "never")
SANDBOXES = {
    "read-only": "readOnly",
    "workspace-write": "workspaceWrite",
    "danger-full-access": "dangerFullAccess",
}
DECISIONS = ("accept", "acceptForSession", "decline", "cancel")
ABOUT = "This is the built-in demo agent; no model is behind it. To talk to Codex: ./argus up --agent codex"


class Refused(Exception):
    """A request that cannot be done; the client gets the text with code -32600, as Codex does it."""


class Over(Exception):
    """The turn has ended; its thread has nothing more to say."""


class Cut(Exception):
    """The user said something more; the message that is being written stops here."""


def note(text):
    try:
        print(f"demo agent: {text}", file=sys.stderr, flush=True)
    except OSError:  # stderr may be a file on a full disk, or gone
        pass


def now_ms():
    return time.time_ns() // 1_000_000


def new_id():
    """A UUID of version 7: its first twelve digits are the time in milliseconds."""
    value = now_ms() << 80 | int.from_bytes(os.urandom(10), "big")
    text = f"{value & ~(15 << 76) & ~(3 << 62) | 7 << 76 | 2 << 62:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def encode(value):
    """One line of JSON. Lone surrogates, which JSON can carry and UTF-8 cannot, become question marks."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace") + b"\n"


def decode(line):
    """The JSON object in a line; None for anything else, be it torn, not UTF-8 or nested too deeply."""
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def field(params, name, kind=str):
    if params.get(name) is None:
        raise Refused(f"Invalid request: missing field `{name}`")
    if not isinstance(params[name], kind):
        raise Refused(f"Invalid request: invalid type of `{name}`, expected {kind.__name__}")
    return params[name]


def choice(params, name, allowed, default=None):
    if params.get(name) is None:
        return default
    if field(params, name) not in allowed:
        known = ", ".join(f"`{value}`" for value in allowed)
        raise Refused(f"Invalid request: unknown variant `{params[name][:100]}`, expected one of {known}")
    return params[name]


def new_settings(params, old):
    """What thread/start, thread/resume and turn/start may change; it holds for later turns too."""
    sandbox, policy = choice(params, "sandbox", SANDBOXES), params.get("sandboxPolicy")
    return {
        "approvalPolicy": choice(params, "approvalPolicy", POLICIES, old["approvalPolicy"]),
        "cwd": old["cwd"] if params.get("cwd") is None else os.path.abspath(field(params, "cwd")),
        "sandbox": {"type": SANDBOXES[sandbox]} if sandbox else policy or old["sandbox"],
    }


def user_message(params):
    """(userMessage item, its text) of a turn/start or turn/steer."""
    content = field(params, "input", list)
    for part in content:
        if not isinstance(part, dict):
            raise Refused("Invalid request: invalid type in `input`, expected objects")
        if field(part, "type") == "text":
            field(part, "text")
            part.setdefault("text_elements", [])
    if len(encode(content)) > INPUT_LIMIT:
        raise Refused(f"Invalid request: `input` is longer than {INPUT_LIMIT} bytes of JSON")
    client_id = params.get("clientUserMessageId") and field(params, "clientUserMessageId")
    item = {"type": "userMessage", "id": new_id(), "clientId": client_id, "content": content}
    return item, "\n".join(part["text"] for part in content if part["type"] == "text")


def own_words(text):
    """What the user said, without the context and the instructions that a gateway puts around it."""
    if text.startswith(("# Project Context\n", "[SOURCE]\n", "[ATTACHMENTS]\n")) or "\n\nInstructions:\n- " in text:
        text = re.split(r"^\[/[A-Za-z0-9_.-]+\]$", text, flags=re.MULTILINE)[-1]
    return text.partition("\n\nInstructions:\n- ")[0].strip()


def in_pieces(text):
    """A text as deltas: word by word if it is short, else as much as 64 KiB can surely hold."""
    if len(text) <= 2000:
        return re.findall(r"\s*\S+\s*|\s+", text)
    return [text[at : at + DELTA // 4] for at in range(0, len(text), DELTA // 4)]


def big_pieces(size):
    """`size` bytes in blocks of 64 KiB, each beginning with its offset, so that a missing one shows."""
    body = ("the quick brown fox jumps over the lazy dog " * (DELTA // 44))[: DELTA - 14] + "\n"
    for offset in range(0, size, DELTA):
        yield f"{offset:012d} {body:.<{DELTA - 13}}"[: size - offset]


def shorten(value):
    """The same JSON value with its long strings cut."""
    if isinstance(value, str) and len(value) > 1000:
        return f"{value[:1000]} [cut here, {len(value)} characters in all]"
    if isinstance(value, list):
        return [shorten(part) for part in value]
    return {key: shorten(part) for key, part in value.items()} if isinstance(value, dict) else value


def fitting(turns):
    """The turns that one line can hold: all of them, else without long texts, else only the newer ones."""
    if len(encode(turns)) > HISTORY_LIMIT:
        turns = shorten(turns)
    while len(encode(turns)) > HISTORY_LIMIT and len(turns) > 1:
        turns = turns[(len(turns) + 1) // 2 :]
    return turns


def kill_group(pgid):
    try:
        os.killpg(pgid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class Store:
    """Threads on disk: threads/ID.jsonl or archived/ID.jsonl, only ever appended to.

    The first line is the thread. Then come a line when a turn starts (with the settings that hold from there
    on), one for each item, and one when the turn ends; without that the process died during the turn.
    """

    def __init__(self, root):
        self.root = os.path.abspath(root)
        for archived in (False, True):
            os.makedirs(os.path.dirname(self.path("", archived)), mode=0o700, exist_ok=True)

    def path(self, thread_id, archived=False):
        return os.path.join(self.root, "archived" if archived else "threads", thread_id + ".jsonl")

    def find(self, thread_id, *places):
        """The path of a thread, looked for where `places` (archived or not) say. Raises Refused."""
        for path in (self.path(thread_id, archived) for archived in places):
            if THREAD_ID.fullmatch(thread_id) and os.path.exists(path) and self.head(path):
                return path
        raise Refused(f"no rollout found for thread id {thread_id}")

    def append(self, path, *records, flags=0):
        """Write records and wait until the disk has them. A line torn by an earlier crash stays by itself."""
        data = b"".join(map(encode, records))
        fd = os.open(path, os.O_RDWR | os.O_APPEND | flags, 0o600)
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            if size and os.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    def records(self, path):
        with open(path, "rb") as lines:
            yield from filter(None, map(decode, lines))

    def head(self, path):
        """The thread as lists show it, from the first two lines of its file; None if the first is torn."""
        records = self.records(path)
        thread, preview = next(records, {}).get("thread"), next(records, {}).get("preview", "")
        records.close()
        updated = int(os.stat(path).st_mtime)
        return thread and {**thread, "preview": preview, "updatedAt": updated, "path": path, "name": self.name(path)}

    def name(self, path, new=None):
        """The name that a person gave to the thread, from a file beside the threads; `new` replaces it first."""
        named = os.path.join(self.root, "names", os.path.basename(path))
        if new is not None:
            os.makedirs(os.path.dirname(named), mode=0o700, exist_ok=True)
            with open(named + ".new", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(encode({"name": new}))
            os.replace(named + ".new", named)
        try:
            return (next(self.records(named), None) or {}).get("name") or None
        except OSError:
            return None

    def turns(self, path, running):
        """All turns in order. One whose user message did not reach the disk was never acknowledged."""
        turns, items = {}, {}
        for record in self.records(path):
            if "turn" in record:
                turns[record["turn"]["id"]] = record["turn"]
            elif "item" in record:
                items.setdefault(record["turnId"], []).append(record["item"])
        for turn in turns.values():
            turn.update(items=items.get(turn["id"], []), itemsView="full")
            if turn["status"] == "inProgress" and turn["id"] != running:
                turn["status"] = "interrupted"
        return [turn for turn in turns.values() if turn["items"]]

    def page(self, archived, by_update, limit, before):
        """(paths, next cursor or None) of a page, newest first, from names and times alone."""
        found = []
        for entry in os.scandir(os.path.dirname(self.path("", archived))):
            if THREAD_ID.fullmatch(entry.name[:-6]):
                made = int(entry.name[:8] + entry.name[9:13], 16)
                found.append((entry.stat().st_mtime_ns if by_update else made, entry.name[:-6]))
        found = sorted((key for key in found if before is None or key < before), reverse=True)
        page = found[:limit]
        cursor = "{}|{}".format(*page[-1]) if len(found) > limit else None
        return [self.path(thread_id, archived) for _, thread_id in page], cursor


class Thread:
    """A loaded thread: its settings, its running turn, the commands allowed without asking again."""

    def __init__(self, thread_id, path, settings):
        self.id, self.path, self.settings = thread_id, path, settings
        self.turn, self.failed, self.allowed, self.tokens = None, False, set(), 0

    def status(self):
        if self.turn is None:
            return {"type": "systemError" if self.failed else "idle"}
        return {"type": "active", "activeFlags": ["waitingOnApproval"] if self.turn.request else []}


class Turn:
    """One turn: run() is its thread; say_user, decide and finish are what others may do to it."""

    def __init__(self, agent, thread):
        self.agent, self.lock, self.thread, self.id = agent, agent.lock, thread, new_id()
        self.changed, self.started = threading.Condition(agent.lock), time.monotonic()
        self.texts, self.last_message, self.over = [], None, False
        self.request, self.decision, self.pgid = None, None, None
        self.shown = {
            "id": self.id,
            "items": [],
            "itemsView": "notLoaded",
            "status": "inProgress",
            "error": None,
            "startedAt": int(time.time()),
            "completedAt": None,
            "durationMs": None,
        }

    def notify(self, method, **params):  # locked
        self.agent.notify(method, threadId=self.thread.id, turnId=self.id, **params)

    def open(self):  # locked
        self.thread.turn, self.thread.failed = self, False
        self.agent.notify_status(self.thread)
        self.agent.notify("turn/started", threadId=self.thread.id, turn=self.shown)
        threading.Thread(target=self.run, daemon=True).start()

    def say_user(self, item, text):  # locked
        self.notify("item/started", item=item, startedAtMs=now_ms())
        self.notify("item/completed", item=item, completedAtMs=now_ms())
        self.texts.append(text)
        self.changed.notify_all()

    def run(self):
        try:
            while (text := self.next_text()) is not None:
                try:
                    self.answer(own_words(text))
                except Cut:
                    pass
        except Over:
            pass
        except Exception as error:  # a full disk, no memory for a process: the turn must end all the same
            note(traceback.format_exc())
            with self.lock:
                self.finish("failed", f"the demo agent failed: {error!r}")

    def next_text(self):
        with self.lock:
            self.check()
            if self.texts:
                return self.texts.pop(0)
            return self.finish("completed")

    def check(self, cut=False):  # locked
        if self.over:
            raise Over
        if cut and self.texts:
            raise Cut

    def answer(self, text):
        if match := re.fullmatch(r"slow (\d{1,9})(?: (\d{1,6}(?:\.\d+)?))?", text):
            self.say((f"{n} " for n in range(1, int(match[1]) + 1)), float(match[2] or 0.1))
        elif match := re.fullmatch(r"big (\d{1,15})", text):
            # Without a pause this thread would take the lock again before a waiting one could, and an
            # interrupt would wait for the end of the text.
            self.say(big_pieces(int(match[1])), pause_s=0.0002)
        elif match := re.fullmatch(r"run:\s*(\S.*)", text, re.DOTALL):
            self.run_command(match[1])
        elif text == "fail":
            with self.lock:
                self.check()
                self.finish("failed", "the demo agent was asked to fail")
        else:
            self.say(in_pieces(f"{text}\n\n{ABOUT}"))

    def say(self, pieces, pause_s=0.0):
        """An agentMessage in deltas, pause_s apart. Raises Cut once the user has said something more."""
        item, kept, size = {"type": "agentMessage", "id": "msg_" + new_id(), "text": ""}, [], 0
        with self.lock:
            self.check(cut=True)
            self.notify("item/started", item=item, startedAtMs=now_ms())
        for piece in pieces:
            with self.lock:
                if pause_s and size:
                    self.changed.wait_for(lambda: self.over or self.texts, pause_s)
                self.check(cut=True)
                self.notify("item/agentMessage/delta", itemId=item["id"], delta=piece)
            size += len(piece.encode("utf-8", "replace"))
            if size <= TEXT_LIMIT:
                kept.append(piece)
        cut = f"[{size} bytes of text, too long to repeat here; the deltas had it all]"
        self.complete({**item, "text": "".join(kept) if size <= TEXT_LIMIT else cut}, tokens=size // 4 + 1)

    def complete(self, item, tokens=0):
        with self.lock:
            self.check()
            self.agent.store.append(self.thread.path, {"item": item, "turnId": self.id})
            self.notify("item/completed", item=item, completedAtMs=now_ms())
            if tokens:
                self.last_message, self.thread.tokens = item, self.thread.tokens + tokens
                used = [
                    {
                        "totalTokens": n,
                        "inputTokens": 0,
                        "cachedInputTokens": 0,
                        "outputTokens": n,
                        "reasoningOutputTokens": 0,
                    }
                    for n in (self.thread.tokens, tokens)
                ]
                usage = {"total": used[0], "last": used[1], "modelContextWindow": None}
                self.notify("thread/tokenUsage/updated", tokenUsage=usage)

    def run_command(self, command):
        item = {
            "type": "commandExecution",
            "id": "call_" + new_id(),
            "command": command,
            "cwd": self.thread.settings["cwd"],
            "processId": None,
            "source": "agent",
            "status": "inProgress",
            "aggregatedOutput": None,
            "exitCode": None,
            "durationMs": None,
            "commandActions": [{"type": "unknown", "command": command}],
        }
        decision = self.approval(item)
        if decision in ("decline", "cancel"):
            self.complete({**item, "status": "declined"})
            if decision == "decline":
                return self.say(in_pieces(f"You declined, so I did not run this command: {command}"))
            with self.lock:
                self.check()
                return self.finish("interrupted")
        if decision == "acceptForSession":
            self.thread.allowed.add(command)
        item = self.execute(item)
        self.complete(item)
        end = "did not start" if item["exitCode"] is None else f"ended with exit code {item['exitCode']}"
        output = shorten(item["aggregatedOutput"] or "(no output)")
        fence = "`" * (max(map(len, re.findall("`+", output)), default=2) + 1)
        return self.say(in_pieces(f"The command {end}.\n\n{fence}\n{output.rstrip()}\n{fence}"))

    def approval(self, item):
        """Announce the item, ask where the policy wants it, and wait for the decision."""
        params = {
            "kind": "command",
            "threadId": self.thread.id,
            "turnId": self.id,
            "itemId": item["id"],
            "startedAtMs": now_ms(),
            "availableDecisions": DECISIONS,
        }
        params |= {key: item[key] for key in ("command", "cwd", "commandActions")}
        with self.lock:
            self.check()
            asks = self.thread.settings["approvalPolicy"] in ("untrusted", "on-request")
            if asks and item["command"] not in self.thread.allowed:
                method, request_id = "item/commandExecution/requestApproval", next(self.agent.request_ids)
                self.request = {"method": method, "id": request_id, "params": params}
                self.agent.pending[request_id] = self
                self.agent.notify_status(self.thread)
            self.notify("item/started", item=item, startedAtMs=now_ms())
            if self.request is None:
                return "accept"
            self.agent.send(self.request)
            self.decision = None
            self.changed.wait_for(lambda: self.over or self.decision)
            self.check()
            return self.decision

    def decide(self, decision):  # locked
        """Take the answer to the pending request; None withdraws it, because the turn ends."""
        request_id, self.request, self.decision = self.request["id"], None, decision
        del self.agent.pending[request_id]
        self.agent.notify("serverRequest/resolved", threadId=self.thread.id, requestId=request_id)
        if decision:
            self.agent.notify_status(self.thread)
        self.changed.notify_all()

    def execute(self, item):
        """Run an approved command; returns its finished item. What it leaves running is killed."""
        import subprocess  # 7 ms, which only a first command has to pay

        started, shell = time.monotonic(), ["/bin/sh", "-c", item["command"]]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        try:
            with self.lock, self.agent.groups_lock:
                self.check()
                process = subprocess.Popen(shell, cwd=item["cwd"], bufsize=0, start_new_session=True, **pipes)
                self.pgid = process.pid
                self.agent.groups.add(process.pid)
        except (OSError, ValueError) as error:  # no such directory, no process left, a NUL in the command
            return {**item, "status": "failed", "aggregatedOutput": str(error), "durationMs": 0}
        try:
            output = self.read_output(process, item["id"])
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        finally:
            self.reap(process)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        end = {"status": "failed" if code else "completed", "exitCode": code, "processId": str(process.pid)}
        duration_ms = int((time.monotonic() - started) * 1000)
        return {**item, **end, "aggregatedOutput": output or None, "durationMs": duration_ms}

    def read_output(self, process, item_id):
        """Pass the output on and return its head. It ends at the latest half a second after the shell."""
        import codecs
        import select

        decoder, poll, give_up_at = codecs.getincrementaldecoder("utf-8")("replace"), select.poll(), None
        poll.register(process.stdout, select.POLLIN)
        head, total = bytearray(), 0
        while give_up_at is None or time.monotonic() < give_up_at:
            # WNOWAIT: until the dead shell is reaped nobody else can get its number, and with it the group.
            if give_up_at is None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                kill_group(process.pid)
                give_up_at = time.monotonic() + 0.5  # for who left the group and still holds the pipe
            if not poll.poll(50):
                continue
            data = os.read(process.stdout.fileno(), DELTA)
            if not data:
                break
            fresh, total = data[: TEXT_LIMIT - len(head)], total + len(data)
            head += fresh
            if text := decoder.decode(fresh):
                with self.lock:
                    self.check()
                    self.notify("item/commandExecution/outputDelta", itemId=item_id, delta=text)
        cut = f"\n[cut here, {total} bytes in all]" if total > TEXT_LIMIT else ""
        return head[: TEXT_LIMIT - len(cut)].decode("utf-8", "replace") + cut

    def reap(self, process):
        with self.agent.groups_lock:
            kill_group(process.pid)
            self.agent.groups.discard(process.pid)
            self.pgid = None
            process.wait()
        process.stdout.close()

    def finish(self, status, message=None):  # locked
        """End the turn, on disk and for the client; its thread learns of it at its next check()."""
        if self.over:
            return
        self.over, self.thread.turn, self.thread.failed = True, None, status == "failed"
        with self.agent.groups_lock:
            if self.pgid is not None:
                kill_group(self.pgid)
        if self.request:
            self.decide(None)
        error = message and {"message": message, "codexErrorInfo": "other", "additionalDetails": None}
        duration_ms = int((time.monotonic() - self.started) * 1000)
        self.shown.update(status=status, error=error, completedAt=int(time.time()), durationMs=duration_ms)
        try:
            self.agent.store.append(self.thread.path, {"turn": self.shown})
        except OSError as problem:  # a full disk: after a restart this turn will read as interrupted
            note(f"cannot store the end of a turn: {problem}")
        if self.last_message:
            self.shown.update(items=[self.last_message], itemsView="summary")
        self.agent.notify_status(self.thread)
        if error:
            self.notify("error", error=error, willRetry=False)
        self.agent.notify("turn/completed", threadId=self.thread.id, turn=self.shown)
        self.changed.notify_all()


class Agent:
    """The app-server: requests in, answers and notifications out."""

    def __init__(self, root):
        self.store, self.threads, self.ready = Store(root), {}, False
        self.lock, self.groups_lock = threading.Lock(), threading.RLock()  # always taken in this order
        self.groups, self.pending, self.request_ids = set(), {}, itertools.count()  # pending: id -> turn

    def serve(self):
        os.set_blocking(sys.stdout.fileno(), True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.shut_down)
        for line in sys.stdin.buffer:
            message = decode(line)
            if message is None:
                note(f"not a JSON object, ignored: {line[:100]!r}")
                continue
            with self.lock:
                self.take(message)
        self.shut_down()

    def shut_down(self, *_):
        """Leave at once, without threads. The lock is kept, so that no command can start any more."""
        self.groups_lock.acquire(timeout=1)
        for pgid in list(self.groups):
            kill_group(pgid)
        os._exit(0)

    def send(self, message):  # locked
        try:
            sys.stdout.buffer.write(encode(message))
            sys.stdout.buffer.flush()
        except OSError as error:
            note(f"nobody reads what I say ({error}), goodbye")
            self.shut_down()

    def notify(self, method, **params):  # locked
        self.send({"method": method, "params": params, "emittedAtMs": now_ms()})

    def notify_status(self, thread):  # locked
        self.notify("thread/status/changed", threadId=thread.id, status=thread.status())

    def take(self, message):  # locked
        """Act on one line: an answer, a notification (which none of ours is about), or a request."""
        method, request_id = message.get("method"), message.get("id")
        if method is None:
            return self.take_answer(request_id, message.get("result"))
        if "id" not in message:
            return None
        if type(request_id) not in (int, str) or not isinstance(method, str):
            return note(f"neither a request nor an answer, ignored: {str(message)[:100]}")
        try:
            if not self.ready and method != "initialize":
                raise Refused("Not initialized")
            if method not in self.METHODS:
                raise Refused(f"Invalid request: unknown method `{method[:100]}`")
            handler, params = self.METHODS[method], field(message, "params", dict)
            return handler(self, params, lambda result: self.send({"id": request_id, "result": result}))
        except Refused as error:
            problem = {"code": -32600, "message": str(error)}
        except Exception as error:  # a full disk, NaN in a message, a bug: the other turns must go on
            note(traceback.format_exc())
            problem = {"code": -32603, "message": f"internal error: {error!r}"}
        return self.send({"error": problem, "id": request_id})

    def take_answer(self, request_id, result):  # locked
        if type(request_id) is not int or request_id not in self.pending:  # True and 0.0 would be found too
            return note(f"an answer that nobody waits for, ignored: {str(request_id)[:100]}")
        decision = result.get("decision") if isinstance(result, dict) else None
        return self.pending[request_id].decide(decision if decision in DECISIONS else "decline")

    def thread_object(self, path, with_turns=False):
        """A thread as clients see it, or None if its file has no readable beginning."""
        shown = self.store.head(path)
        thread = shown and self.threads.get(shown["id"])
        if thread:
            shown.update(status=thread.status(), cwd=thread.settings["cwd"])
        if shown and with_turns:
            shown["turns"] = fitting(self.turns(path, shown["id"]))
        return shown

    def turns(self, path, thread_id):
        thread = self.threads.get(thread_id)
        return self.store.turns(path, thread.turn.id if thread and thread.turn else None)

    def opened(self, shown, thread):
        return {"thread": shown, "model": "demo", "modelProvider": "demo", **thread.settings}

    # The methods: (self, params, reply), all locked. They reply once, or raise Refused.

    def initialize(self, params, reply):
        if self.ready:
            raise Refused("Already initialized")
        agent = field(field(params, "clientInfo", dict), "name") + "/argus-demo-agent"
        system = "macos" if sys.platform == "darwin" else sys.platform
        home = self.store.root
        reply({"userAgent": agent, "codexHome": home, "platformFamily": "unix", "platformOs": system})
        self.ready = True

    def thread_start(self, params, reply):
        default = {"approvalPolicy": "on-request", "cwd": os.getcwd(), "sandbox": {"type": "workspaceWrite"}}
        settings, now = new_settings(params, default), int(time.time())
        shown = {
            "id": new_id(),
            "preview": "",
            "ephemeral": False,
            "modelProvider": "demo",
            "model": "demo",
            "createdAt": now,
            "updatedAt": now,
            "status": {"type": "notLoaded"},
            "path": None,
            "cwd": settings["cwd"],
            "name": None,
            "turns": [],
        }
        thread = Thread(shown["id"], self.store.path(shown["id"]), settings)
        self.store.append(thread.path, {"thread": shown, "settings": settings}, flags=os.O_CREAT)
        self.threads[thread.id] = thread
        shown = self.thread_object(thread.path)
        reply(self.opened(shown, thread))
        self.notify("thread/started", thread=shown)

    def thread_resume(self, params, reply):
        thread_id = field(params, "threadId")
        path, thread = self.store.find(thread_id, False, True), self.threads.get(thread_id)
        if path == self.store.path(thread_id, archived=True):
            raise Refused(f"thread {thread_id} is archived, call thread/unarchive first")
        if thread is None:
            settings = None
            for record in self.store.records(path):
                settings = record.get("settings", settings)
            thread = Thread(thread_id, path, settings)
        thread.settings = new_settings(params, thread.settings)
        if thread_id not in self.threads:
            self.threads[thread_id] = thread
            self.notify_status(thread)
        reply(self.opened(self.thread_object(path, not params.get("excludeTurns")), thread))
        if thread.turn and thread.turn.request:
            self.send(thread.turn.request)

    def thread_list(self, params, reply):
        limit, cursor = params.get("limit"), params.get("cursor")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise Refused("Invalid request: `limit` must be a number above 0")
        parts = re.fullmatch(r"(\d{1,20})\|([0-9a-f-]{36})", str(cursor))
        if cursor is not None and not parts:
            raise Refused(f"Invalid request: invalid cursor `{str(cursor)[:100]}`")
        by_update = choice(params, "sortKey", ("created_at", "updated_at")) == "updated_at"
        archived, before = params.get("archived") is True, parts and (int(parts[1]), parts[2])
        paths, cursor = self.store.page(archived, by_update, min(limit or 25, 100), before)
        reply({"data": list(filter(None, map(self.thread_object, paths))), "nextCursor": cursor})

    def thread_read(self, params, reply):
        path = self.store.find(field(params, "threadId"), False, True)
        reply({"thread": self.thread_object(path, params.get("includeTurns") is True)})

    def history_page(self, params, direction, entries_of):
        """A page of a thread's turns or items; the cursor is the id of the last one. `direction` is the default."""
        thread_id, limit, after = field(params, "threadId"), params.get("limit"), params.get("cursor")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise Refused("Invalid request: `limit` must be a number above 0")
        entries = entries_of(self.turns(self.store.find(thread_id, False, True), thread_id))
        if choice(params, "sortDirection", ("asc", "desc"), direction) == "desc":
            entries.reverse()
        ids = [entry_id for entry_id, _ in entries]
        if after is not None and after not in ids:
            raise Refused(f"Invalid request: invalid cursor `{str(after)[:100]}`")
        start, size = ids.index(after) + 1 if after is not None else 0, min(limit or 25, 100)
        page = [entry for _, entry in entries[start : start + size]]
        if len(encode(page)) > HISTORY_LIMIT:
            page = shorten(page)
        while len(encode(page)) > HISTORY_LIMIT and len(page) > 1:
            page = page[: len(page) // 2]
        end = start + len(page)
        return {"data": page, "nextCursor": ids[end - 1] if page and end < len(ids) else None}

    def thread_turns_list(self, params, reply):
        view = choice(params, "itemsView", ("notLoaded", "summary", "full"), "summary")

        def seen(turn):
            ends = turn["items"][:1] + [item for item in turn["items"] if item["type"] == "agentMessage"][-1:]
            items = {"notLoaded": [], "summary": ends, "full": turn["items"]}[view]
            return turn["id"], {**turn, "items": items, "itemsView": view}

        reply(self.history_page(params, "desc", lambda turns: [seen(turn) for turn in turns]))

    def thread_items_list(self, params, reply):
        def entries(turns):
            pairs = [(turn["id"], item) for turn in turns for item in turn["items"]]
            return [(item["id"], {"turnId": turn_id, "item": item}) for turn_id, item in pairs]

        reply(self.history_page(params, "asc", entries))

    def thread_name_set(self, params, reply):
        thread_id, name = field(params, "threadId"), field(params, "name").strip()[:200]
        name = self.store.name(self.store.find(thread_id, False, True), name)
        reply({})
        self.notify("thread/name/updated", threadId=thread_id, threadName=name)

    def thread_archive(self, params, reply):
        thread_id = field(params, "threadId")
        path, thread = self.store.find(thread_id, False), self.threads.get(thread_id)
        if thread and thread.turn:
            raise Refused(f"thread {thread_id} has a running turn, interrupt it first")
        os.replace(path, self.store.path(thread_id, archived=True))
        if self.threads.pop(thread_id, None):
            self.notify("thread/status/changed", threadId=thread_id, status={"type": "notLoaded"})
        reply({})
        self.notify("thread/archived", threadId=thread_id)

    def thread_unarchive(self, params, reply):
        thread_id = field(params, "threadId")
        os.replace(self.store.find(thread_id, True), self.store.path(thread_id))
        reply({"thread": self.thread_object(self.store.path(thread_id))})
        self.notify("thread/unarchived", threadId=thread_id)

    def loaded(self, params):
        thread = self.threads.get(field(params, "threadId"))
        if thread is None:
            raise Refused(f"thread not found: {params['threadId']}")
        return thread

    def turn_start(self, params, reply):
        thread = self.loaded(params)
        settings, (item, text) = new_settings(params, thread.settings), user_message(params)
        turn = thread.turn or Turn(self, thread)
        records = [{"item": item, "turnId": turn.id}]
        if turn is not thread.turn:
            records.insert(0, {"preview": text[:200], "settings": settings, "turn": turn.shown})
        # On disk before anyone hears of it: who has our answer can rely on thread/read to show the message.
        self.store.append(thread.path, *records)
        thread.settings = settings
        reply({"turn": turn.shown})
        if turn is not thread.turn:
            turn.open()
        turn.say_user(item, text)

    def active(self, params, name, verb):
        """The thread's running turn, which must be the one that the client means."""
        thread, expected = self.loaded(params), field(params, name)
        if thread.turn is None:
            raise Refused(f"no active turn to {verb}")
        if thread.turn.id != expected:
            raise Refused(f"expected active turn id `{expected}` but found `{thread.turn.id}`")
        return thread.turn

    def turn_steer(self, params, reply):
        turn, (item, text) = self.active(params, "expectedTurnId", "steer"), user_message(params)
        self.store.append(turn.thread.path, {"item": item, "turnId": turn.id})
        reply({"turnId": turn.id})
        turn.say_user(item, text)

    def turn_interrupt(self, params, reply):
        turn = self.active(params, "turnId", "interrupt")
        reply({})
        turn.finish("interrupted")

    METHODS = {
        method.__name__.replace("_", "/"): method
        for method in (
            initialize,
            thread_start,
            thread_resume,
            thread_list,
            thread_read,
            thread_turns_list,
            thread_items_list,
            thread_name_set,
            thread_archive,
            thread_unarchive,
            turn_start,
            turn_steer,
            turn_interrupt,
        )
    }


if __name__ == "__main__":
    Agent(os.environ.get("ARGUS_AGENT_STATE") or ".demo-agent").serve()
