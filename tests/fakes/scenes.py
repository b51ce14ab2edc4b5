"""An app-server on stdin and stdout that plays scenes: item types and questions that the demo agent does not have.

A turn whose text is `scene: NAME` plays that scene; any other text is repeated. What a question was answered is said
again as JSON, so that a test reads it in the page. It keeps its threads in memory, knows no thread/turns/list (a page
must do with thread/read), and puts `evil` texts wherever a scene has a text, if a turn says `scene: hostile`.
"""

import itertools
import json
import re
import sys
import threading
import time

from asking import Asking

HTML = [
    '<img src=x onerror="window.hurt=1">',
    "<script>window.hurt=2</script>",
    '"><svg onload=window.hurt=3>',
    "javascript:window.hurt=4",
    "[a](javascript:window.hurt=5) ![b](javascript:window.hurt=6)",
    "<iframe srcdoc='<script>parent.hurt=7</script>'></iframe>",
    "</textarea><style>*{display:none}</style>",
    "<a href='data:text/html,<script>window.hurt=8</script>'>x</a>",
    "`<b onmouseover=window.hurt=9>`",
    "```<img src=x onerror=window.hurt=10>\n</code></pre><script>window.hurt=11</script>\n```",
    "[x](<javascript:window.hurt=12>)",
    "\u202egnp.exe\u202c \u0000 \ufeff \u2028",
    "<math><mtext></mtext><mglyph><style><img src=x onerror=window.hurt=13></style></mglyph></math>",
    "&lt;img src=x onerror=window.hurt=14&gt;",
    "[ref]: javascript:window.hurt=15\n[ref]",
    "<https://example.org/><u/onclick=window.hurt=16>",
    "| a |\n|---|\n| <img src=x onerror=window.hurt=17> |",
]
EVIL = " ".join(HTML)
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPj/HwAEhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
DIFF = """\
@@ -1,6 +1,7 @@
 import time
-LIMIT = 10
+LIMIT = 30
+PAUSE_S = 2

 def read(sensor):
     return sensor.value
"""
MARKDOWN = """\
The pump did **not** start, because its relay has no power.

1. The fuse `F3` is gone.
2. The spare one has the wrong rating.

```python
def should_run(moisture: float) -> bool:
    return moisture < 0.3
```

| sensor | value |
|---|---|
| north | 0.21 |
| south | 0.34 |

> Look at the wiring plan first.

More is in [the manual](https://example.org/manual).
"""
PLAN = ["Read the sensors", "Find the silent one", "Write down what was found"]


def own_words(text):
    """What a person said, without what a gateway puts around it."""
    return re.split(r"^\[/[\w.-]+\]$", text.partition("\n\nInstructions:\n- ")[0], flags=re.MULTILINE)[-1].strip()


def items(text):
    """One item of each type, with `text(words)` for each text in it."""
    yield {"type": "reasoning", "summary": [text("First I look at the sensors, then at the pump.")], "content": []}
    yield {
        "type": "commandExecution", "command": text("/bin/bash -lc 'pytest -q'"), "cwd": text("/workspace"),
        "status": "failed", "aggregatedOutput": text("1 failed, 41 passed\n"), "exitCode": 1, "durationMs": 4210,
    }  # fmt: skip
    yield {
        "type": "mcpToolCall", "server": text("garden"), "tool": text("read_sensor"), "status": "completed",
        "arguments": {"name": text("north"), "depth_cm": 20}, "durationMs": 320, "error": None,
        "result": {"content": [{"type": "text", "text": text("0.21")}, PICTURE]},
    }  # fmt: skip
    yield {
        "type": "mcpToolCall", "server": text("garden"), "tool": text("open_valve"), "status": "failed",
        "arguments": {}, "error": {"message": text("the valve is stuck")}, "result": None, "durationMs": 12,
    }  # fmt: skip
    yield {
        "type": "webSearch",
        "query": text("relay 24 V wiring"),
        "action": {"type": "search", "query": text("relay")},
    }
    yield {
        "type": "fileChange", "status": "completed",
        "changes": [
            {"path": text("/workspace/pump.py"), "kind": {"type": "update", "move_path": None}, "diff": text(DIFF)},
            {"path": text("/workspace/notes.md"), "kind": {"type": "add"}, "diff": text("Fuse F3 is gone.\n")},
        ],
    }  # fmt: skip
    yield {
        "type": "imageGeneration",
        "status": "completed",
        "revisedPrompt": text("a plan of the wiring"),
        "result": PIXEL,
    }
    yield {"type": "imageView", "path": text("/workspace/plan.png")}
    yield {
        "type": "dynamicToolCall", "tool": text("lookup"), "arguments": {"q": text("fuse")}, "status": "completed",
        "contentItems": [{"type": "inputText", "text": text("found")}], "success": True, "durationMs": 5,
    }  # fmt: skip
    yield {"type": "gardenWateringDone", "litres": 12, "where": text("north bed")}
    yield {"type": "agentMessage", "text": text(MARKDOWN)}


class Server:
    def __init__(self):
        self.lock, self.ids, self.questions = threading.Lock(), itertools.count(1), itertools.count()
        self.threads, self.answers, self.turns, self.names = {}, {}, {}, {}

    def send(self, message):
        with self.lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def note(self, method, **params):
        self.send({"method": method, "params": params})

    def serve(self):
        for line in sys.stdin:
            message = json.loads(line)
            if "method" not in message:
                self.answers[message["id"]].append(message)
            elif "id" in message:
                try:
                    result = getattr(self, message["method"].replace("/", "_"))(message.get("params") or {})
                    self.send({"id": message["id"], "result": result})
                except AttributeError:
                    error = {"code": -32600, "message": f"Invalid request: unknown method `{message['method']}`"}
                    self.send({"id": message["id"], "error": error})
                except KeyError as missing:
                    self.send({"id": message["id"], "error": {"code": -32600, "message": f"not found: {missing}"}})

    def initialize(self, params):
        return {"userAgent": "scenes", "codexHome": "/", "platformFamily": "unix", "platformOs": "linux"}

    def thread(self, id):
        turns = self.threads[id]
        first = turns[0]["items"][0]["content"][0]["text"] if turns else ""
        now = int(time.time())
        about = {"status": {"type": "idle"}, "cwd": "/workspace", "turns": []}
        return {"id": id, "name": self.names.get(id), "preview": first, "createdAt": now, "updatedAt": now, **about}

    def thread_start(self, params):
        id = f"thread-{next(self.ids)}"
        self.threads[id] = []
        self.note("thread/started", thread=self.thread(id))
        return {"thread": self.thread(id), "model": "scene-model-1"}

    def thread_resume(self, params):
        named = self.names.get(params["threadId"])
        return {"thread": self.thread(params["threadId"]), "model": named or "scene-model-1"}

    def thread_list(self, params):
        return {"data": [self.thread(id) for id in reversed(self.threads)], "nextCursor": None}

    def thread_read(self, params):
        return {"thread": {**self.thread(params["threadId"]), "turns": self.threads[params["threadId"]]}}

    def turn_start(self, params):
        turn = {
            "id": f"turn-{next(self.ids)}",
            "items": [],
            "status": "inProgress",
            "error": None,
            "startedAt": int(time.time()),
        }
        self.threads[params["threadId"]].append(turn)
        self.turns[turn["id"]] = Turn(self, params["threadId"], turn)
        threading.Thread(target=self.turns[turn["id"]].run, args=[params], daemon=True).start()
        return {"turn": {**turn, "items": []}}

    def turn_interrupt(self, params):
        turn = self.turns[params["turnId"]]
        if not turn.deaf:
            turn.end("interrupted")
        return {}


class Turn(Asking):
    def __init__(self, server, thread, turn):
        self.server, self.thread, self.turn = server, thread, turn
        self.deaf = False  # goes on when it is interrupted

    def note(self, method, **params):
        self.server.note(method, threadId=self.thread, turnId=self.turn["id"], **params)

    def run(self, params):
        text = own_words(params["input"][0]["text"])
        self.server.note("turn/started", threadId=self.thread, turn={**self.turn, "items": []})
        self.item({"type": "userMessage", "clientId": params.get("clientUserMessageId"), "content": params["input"]})
        name = text.removeprefix("scene: ") if text.startswith("scene: ") else ""
        try:
            ended = getattr(self, f"scene_{name}")() if name else self.say(text)
        except Exception as error:  # a test that names no scene reads so
            ended = self.say(f"no such scene: {error!r}")
        if ended != "open":
            self.end("completed")

    def end(self, status, error=None):
        if self.turn["status"] != "inProgress":
            return
        self.turn.update(status=status, error=error, durationMs=1200)
        self.server.note("turn/completed", threadId=self.thread, turn={**self.turn, "items": []})

    def item(self, item):
        item = {"id": f"item-{next(self.server.ids)}", **item}
        begun = {**item, "text": ""} if item["type"] == "agentMessage" else item
        self.note("item/started", item=begun, startedAtMs=int(time.time() * 1000))
        if item["type"] == "agentMessage":
            self.note("item/agentMessage/delta", itemId=item["id"], delta=item["text"])
        self.turn["items"].append(item)
        self.note("item/completed", item=item, completedAtMs=int(time.time() * 1000))
        return item["id"]

    def say(self, text):
        self.item({"type": "agentMessage", "text": text})

    def ask(self, method, item_id="", **params):
        """Ask; the answer as it came."""
        id = next(self.server.questions)
        self.server.answers[id] = []
        about = {
            "threadId": self.thread,
            "turnId": self.turn["id"],
            "itemId": item_id or f"item-{next(self.server.ids)}",
        }
        self.server.send(
            {"id": id, "method": method, "params": {**about, "startedAtMs": int(time.time() * 1000), **params}}
        )
        while not self.server.answers[id]:
            if self.turn["status"] != "inProgress":
                return {}
            time.sleep(0.01)
        self.note("serverRequest/resolved", requestId=id)
        return self.server.answers[id][0]

    def ask_and_say(self, method, **params):
        answer = self.ask(method, **params)
        self.say("answered " + json.dumps(answer.get("result", answer.get("error")), sort_keys=True))

    # -- scenes

    def scene_all(self, text=lambda words: words):
        for number in range(len(PLAN) + 1):
            status = [
                "completed" if at < number else "inProgress" if at == number else "pending" for at in range(len(PLAN))
            ]
            steps = [{"step": text(step), "status": status[at]} for at, step in enumerate(PLAN)]
            self.note("turn/plan/updated", plan=steps, explanation=text("Three steps"))
        for item in items(text):
            self.item(item)
        one = {"totalTokens": 48200, "inputTokens": 47000, "outputTokens": 1200}
        self.note("thread/tokenUsage/updated", tokenUsage={"total": one, "last": one, "modelContextWindow": 258400})

    def scene_hostile(self):
        self.server.names[self.thread] = EVIL
        self.note("thread/name/updated", threadName=EVIL)
        self.note("warning", message=EVIL)
        self.scene_all(lambda words: EVIL + words)
        for field in ({}, {"type": None}, {"type": "__proto__"}, {"type": "constructor"}, {"type": EVIL, "text": EVIL}):
            self.item({"type": "agentMessage", "text": "", **field})
        for kind in ("commandExecution", "fileChange", "mcpToolCall", "webSearch", "reasoning", "userMessage"):
            for value in (None, 7, EVIL, [None, EVIL], {"a": EVIL}):
                fields = (
                    "command",
                    "aggregatedOutput",
                    "changes",
                    "arguments",
                    "result",
                    "query",
                    "summary",
                    "content",
                )
                self.item({"type": kind, **dict.fromkeys(fields, value)})
        self.ask("item/commandExecution/requestApproval", command=EVIL, cwd=EVIL, reason=EVIL)
        options = [{"label": EVIL, "description": EVIL}]
        self.ask(
            "item/tool/requestUserInput", questions=[{"id": "q", "header": EVIL, "question": EVIL, "options": options}]
        )
        self.ask(
            "mcpServer/elicitation/request", serverName=EVIL, mode="url", message=EVIL, url="javascript:window.hurt=18"
        )
        self.ask(f"made/up {EVIL}", whatever=EVIL)
        self.end("failed", {"message": EVIL, "codexErrorInfo": EVIL, "additionalDetails": EVIL})
        return "open"

    def scene_input(self):
        options = [{"label": "Monday", "description": "early"}, {"label": "Friday", "description": "late"}]
        self.ask_and_say("item/tool/requestUserInput", isBlocking=True, questions=[
            {"id": "day", "header": "Day", "question": "When shall I water?", "options": options, "isOther": False},
            {"id": "key", "header": "Key", "question": "What opens the shed?", "options": None, "isSecret": True},
        ])  # fmt: skip

    def scene_permissions(self):
        self.ask_and_say(
            "item/permissions/requestApproval", cwd="/workspace", reason="The package index is elsewhere.",
            permissions={"network": {"enabled": True}, "fileSystem": None},
        )  # fmt: skip

    def scene_form(self):
        properties = {
            "litres": {"type": "integer", "title": "Litres", "minimum": 1},
            "bed": {"type": "string", "enum": ["north", "south"], "enumNames": ["North bed", "South bed"]},
            "slow": {"type": "boolean", "title": "Slowly", "default": True},
        }
        self.ask_and_say(
            "mcpServer/elicitation/request", serverName="garden", mode="form", message="How much water?",
            requestedSchema={"type": "object", "properties": properties, "required": ["litres"]},
        )  # fmt: skip

    def scene_tool(self):
        meta = {
            "codex_approval_kind": "mcp_tool_call",
            "persist": ["session"],
            "tool_name": "open_valve",
            "tool_params": {"n": 3},
        }
        self.ask_and_say(
            "mcpServer/elicitation/request", serverName="garden", mode="form", _meta=meta,
            message="Allow garden to run open_valve?", requestedSchema={"type": "object", "properties": {}},
        )  # fmt: skip

    def scene_patch(self):
        change = next(item for item in items(str) if item["type"] == "fileChange")
        id = f"item-{next(self.server.ids)}"
        self.note(
            "item/started", item={"id": id, **change, "status": "inProgress"}, startedAtMs=int(time.time() * 1000)
        )
        answer = self.ask("item/fileChange/requestApproval", item_id=id, reason="The limit is too low.")
        status = "completed" if answer["result"]["decision"] != "decline" else "declined"
        self.note("item/completed", item={"id": id, **change, "status": status}, completedAtMs=int(time.time() * 1000))
        self.say("answered " + json.dumps(answer["result"]))

    def scene_expires(self):
        self.ask_and_say("item/commandExecution/requestApproval", command="sleep 1", cwd="/workspace",
                         reason="Only asked for a while.", expiresAtMs=int(time.time() * 1000) + 95_000)  # fmt: skip

    def scene_unknown(self):
        self.ask_and_say("item/garden/requestWater", litres=12)

    def scene_program(self):
        self.ask_and_say("item/tool/call", tool="lookup", arguments={})

    def scene_two(self):
        threading.Thread(
            target=self.ask, args=["item/commandExecution/requestApproval"], kwargs={"command": "echo first"}
        ).start()
        self.ask_and_say("item/commandExecution/requestApproval", command="echo second", cwd="/workspace")

    def scene_full(self):
        error = {
            "message": "the conversation is too long",
            "codexErrorInfo": "contextWindowExceeded",
            "additionalDetails": None,
        }
        self.note("error", error=error, willRetry=False)
        self.end("failed", error)
        return "open"

    def scene_busy(self):
        item = {"type": "commandExecution", "id": "call-1", "command": "make everything", "cwd": "/"}
        self.note("item/started", item=item, startedAtMs=int(time.time() * 1000))
        return "open"

    def scene_deaf(self):
        self.deaf = True
        return self.scene_busy()


if __name__ == "__main__":
    Server().serve()
