"""Scenes of questions that share an id, can not be read, are too many, or end late (tests/fakes/scenes.py)."""

import json
import sys
import threading
import time


class Asking:
    """What a turn that plays scenes is made of; `server`, `thread`, `turn`, `note`, `say` and `ask` are the turn's."""

    def scene_same_id(self):
        """Two questions, one after the other, under one id and of no turn; nobody answers the first."""
        self.server.answers["same"] = []
        for message in ("first?", "second?"):
            about = {"threadId": self.thread, "turnId": None, "serverName": "garden", "message": message}
            self.server.send({"id": "same", "method": "mcpServer/elicitation/request", "params": about})
            while message == "second?" and not self.server.answers["same"]:
                time.sleep(0.01)
            time.sleep(0.5)
            self.note("serverRequest/resolved", requestId="same")
        self.say("answered " + json.dumps(self.server.answers["same"][0]["result"]))

    def answers_to(self, *commands, before=()):
        """Ask under one id of this turn, each once the one before it was answered; all answers."""
        got = self.server.answers["one id"] = []
        for number, command in enumerate((*before, *commands)):
            about = {"threadId": self.thread, "turnId": self.turn["id"], "itemId": "i", "command": command}
            self.server.send({"id": "one id", "method": "item/commandExecution/requestApproval", "params": about})
            time.sleep(0.3)
            while number >= len(before) and len(got) <= number - len(before):
                time.sleep(0.01)
        return [answer["result"]["decision"] for answer in got]

    def scene_again(self):
        self.say("answered " + " ".join(self.answers_to("same", "same")))

    def scene_another(self):
        self.say("answered " + " ".join(self.answers_to("first", "second")))

    def scene_dropped(self):
        first = self.answers_to("second", before=["first"])
        self.note("serverRequest/resolved", requestId="one id")
        self.say("answered " + " ".join(first + self.answers_to("third")))

    def scene_digits(self):
        got = self.server.answers["digits"] = []
        about = f'"threadId":"{self.thread}","turnId":"{self.turn["id"]}","n":{"1" * 5000}'
        with self.server.lock:
            sys.stdout.write(f'{{"id":"digits","method":"item/x/requestApproval","params":{{{about}}}}}\n')
            sys.stdout.flush()
        while not got:
            time.sleep(0.01)
        self.say("answered " + got[0]["result"]["decision"])

    def scene_many(self):
        """More questions at once than anybody looks at."""
        answers = []

        def ask():
            answers.append(self.ask("item/commandExecution/requestApproval", command="x")["result"]["decision"])

        threads = [threading.Thread(target=ask) for _ in range(60)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        self.say(f"declined {answers.count('decline')}")

    def scene_slow(self):
        """It says late that it has its answer."""
        self.answers_to("once")
        time.sleep(8)
        self.note("serverRequest/resolved", requestId="one id")
        answers = [answer["result"]["decision"] for answer in self.server.answers["one id"]]
        self.say("answered " + " ".join(answers))
