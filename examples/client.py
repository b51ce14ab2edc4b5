"""Say things to an agent, one after the other, and lose or double none of them whatever breaks meanwhile.

    pip install websockets
    ARGUS_TOKEN=... python client.py ws://127.0.0.1:8080/ws "hello" "run: ls -la"

The agent's words go to stdout, everything else to stderr. Approvals are asked on the terminal.
"""

import itertools
import json
import os
import sys
import time
import uuid
from urllib.parse import urlencode

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

DONE_FOR = {1000: "closed for good", 1003: "not understood", 1008: "refused", 1009: "a message was too large"}
NOT_NOW = {-32000, -32001, -32002}  # the agent is away, overloaded, too slow: as with a broken socket, who knows


class Unknown(Exception):
    """No answer came: the request may have been carried out, or not."""


class Refused(Exception):
    """The agent's answer is an error, and will be the same the next time."""


class Client:
    def __init__(self, url, token):
        self.url, self.token = url, token
        self.socket = self.session = self.key = self.cursor = self.thread = None
        self.ids = itertools.count(1)
        self.shown = {}  # item id -> its text, as far as it was printed
        self.unbroken = set()  # items that are printed as they come: no piece of them was missed
        self.over = {}  # turn id -> the turn, as turn/completed or thread/read gave it

    def say(self, text):
        """One message, one turn; returns the turn when it is over."""
        mark, tried, pauses = str(uuid.uuid4()), False, backoff()
        while True:
            try:
                self.open()
                turn = self.find(mark) if tried else None
                if turn is None:
                    tried = True
                    turn = self.start(mark, text)
                pauses = backoff()
                while turn["id"] not in self.over:
                    self.take(self.receive())
                return self.over[turn["id"]]
            except Unknown as why:
                note(f"{why}; trying again")
                time.sleep(next(pauses))

    def start(self, mark, text):
        """Begins the turn. `mark` comes back as the clientId of the message in it."""
        words = [{"type": "text", "text": text}]
        try:
            return self.ask("turn/start", {"threadId": self.thread, "clientUserMessageId": mark, "input": words})[
                "turn"
            ]
        except Refused as error:
            if "thread not found" not in str(error):
                raise
        try:
            self.ask("thread/resume", {"threadId": self.thread})
        except Refused:
            self.thread = None  # the agent died before anything was said in it
        raise Unknown("the agent had forgotten the thread")

    def find(self, mark):
        """The turn that our message is in, or None if it never reached the agent."""
        while True:
            try:
                turns = self.ask("thread/read", {"threadId": self.thread, "includeTurns": True})["thread"]["turns"]
            except Refused:  # a thread in which nothing was said yet has nothing to read
                return None
            for turn in turns:
                if any(item.get("clientId") == mark for item in turn["items"]):
                    if turn["status"] != "inProgress":  # it may have ended where we could not see it
                        for item in turn["items"]:
                            self.show(item)
                        self.over[turn["id"]] = turn
                    return turn
            if not turns or turns[-1]["items"]:
                return None
            time.sleep(0.1)  # a turn that is just beginning does not show its message yet

    def open(self):
        """A socket, with the handshake and a thread. The same session, client and thread as before, if there were."""
        if self.socket is None:
            query = {"seq": 1}
            if self.session:
                query |= {"session": self.session, "client": self.key, "after": self.cursor}
            options = {
                "additional_headers": {"Authorization": f"Bearer {self.token}"},
                "max_size": None,
                "legacy": True,
            }
            try:
                self.socket = connect(f"{self.url}?{urlencode(query)}", **options)
            except (OSError, EOFError, WebSocketException) as error:
                if isinstance(error, InvalidStatus) and error.response.status_code < 500:
                    raise SystemExit(f"refused: {error}") from None
                raise Unknown(f"no connection ({error})") from None
            self.take(self.receive())  # argus/session
            self.ask("initialize", {"clientInfo": {"name": "example", "title": "Example", "version": "1"}})
            self.send({"method": "initialized"})
        if self.thread is None:
            self.thread = self.ask("thread/start", {"cwd": "/workspace", "approvalPolicy": "untrusted"})["thread"]["id"]

    def ask(self, method, params):
        """Send a request; its result. What comes in between is taken."""
        id = next(self.ids)
        self.send({"id": id, "method": method, "params": params})
        while True:
            message = self.receive()
            if "method" in message or message.get("id") != id:
                self.take(message)
            elif "result" in message:
                return message["result"]
            elif message["error"]["code"] in NOT_NOW:
                raise Unknown(message["error"]["message"])
            else:
                raise Refused(message["error"]["message"])

    def take(self, message):
        """What the agent or the gateway tells without being asked."""
        method, params = message.get("method", ""), message.get("params") or {}
        if "id" in message and method:
            self.send({"id": message["id"], **answer(method, params)})
        elif method.startswith("argus/") and "seq" in message:
            pass  # the gateway's own have no seq: the agent wrote this one
        elif method == "argus/session":
            self.session, self.key, self.cursor = params["id"], params["client"], params["cursor"]
            if params.get("resume") == "gap":
                self.unbroken.clear()
        elif method == "argus/gap":
            self.unbroken.clear()
        elif method == "argus/runtime":
            note(f"the agent is {params['state']} {params.get('reason') or ''}")
            self.cursor = params.get("cursor") or self.cursor
        elif params.get("threadId") == self.thread:
            self.follow(method, params)
        if "seq" in message:
            self.cursor = f"{self.cursor.split(':')[0]}:{message['seq']}"

    def follow(self, method, params):
        """Our thread's notifications."""
        if method == "item/started":
            self.unbroken.add(params["item"]["id"])
        elif method == "item/agentMessage/delta" and params["itemId"] in self.unbroken:
            self.shown[params["itemId"]] = self.shown.get(params["itemId"], "") + params["delta"]
            print(params["delta"], end="", flush=True)
        elif method == "item/completed":
            self.show(params["item"])
        elif method == "turn/completed":
            self.over[params["turn"]["id"]] = params["turn"]

    def show(self, item):
        """A whole item: prints what of its text was not printed yet."""
        if item["type"] == "agentMessage" and self.shown.get(item["id"]) != item["text"] + "\n":
            print(item["text"].removeprefix(self.shown.get(item["id"], "")), flush=True)
            self.shown[item["id"]] = item["text"] + "\n"

    def send(self, message):
        try:
            self.socket.send(json.dumps(message))
        except ConnectionClosed:
            self.lost()

    def receive(self):
        try:
            return json.loads(self.socket.recv())
        except ConnectionClosed:
            self.lost()

    def lost(self):
        """The socket is closed: ends the program if that is meant to last, else raises Unknown."""
        code, reason = self.socket.close_code, self.socket.close_reason
        self.socket = None
        if code in DONE_FOR:
            raise SystemExit(f"{DONE_FOR[code]}: {reason}")
        raise Unknown(f"the connection broke ({code} {reason})")


def answer(method, params):
    """What we say when the agent asks."""
    if not method.endswith("/requestApproval"):
        return {"error": {"code": -32601, "message": f"this client does not answer {method}"}}
    note(f"May it? {params.get('command') or params.get('reason') or method} [y/N]")
    return {"result": {"decision": "accept" if sys.stdin.readline().strip() == "y" else "decline"}}


def backoff():
    """Seconds to wait before each next try."""
    return itertools.chain([0, 0.1, 0.2, 0.5, 1, 2], itertools.repeat(5))


def note(text):
    print(f"-- {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3 or "ARGUS_TOKEN" not in os.environ:
        sys.exit(__doc__)
    client = Client(sys.argv[1], os.environ["ARGUS_TOKEN"])
    for words in sys.argv[2:]:
        turn = client.say(words)
        if turn["status"] != "completed":
            note(f"the turn ended as {turn['status']}: {(turn.get('error') or {}).get('message', '')}")
