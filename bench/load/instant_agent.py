"""An app-server that answers at once and notes, to the microsecond, when each turn/start reached it.

instant_agent.py LOG       a turn whose text has a line `hang` never ends
"""

import itertools
import json
import sys
import time

numbers = itertools.count(1)


def send(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def turn(params, log):
    log.write(f"{params.get('clientUserMessageId')} {time.monotonic()}\n")
    log.flush()
    text = params["input"][0]["text"]
    begun = {"id": f"turn-{next(numbers)}", "items": [], "status": "inProgress", "error": None}
    where = {"threadId": params["threadId"], "turnId": begun["id"]}
    yield {"turn": begun}
    send({"method": "turn/started", "params": {"threadId": params["threadId"], "turn": begun}})
    if "\nhang\n" not in text:
        item = {"type": "agentMessage", "id": f"item-{begun['id']}", "text": "done"}
        send({"method": "item/completed", "params": {**where, "item": item}})
        ended = {**begun, "status": "completed"}
        send({"method": "turn/completed", "params": {"threadId": params["threadId"], "turn": ended}})


def main():
    with open(sys.argv[1], "a") as log:
        for line in sys.stdin:
            message = json.loads(line)
            method, params = message.get("method"), message.get("params") or {}
            if "id" not in message:
                continue
            if method == "turn/start":
                rest = turn(params, log)
                send({"id": message["id"], "result": next(rest)})
                next(rest, None)
            elif method in ("thread/start", "thread/resume", "thread/read"):
                thread = {"id": params.get("threadId") or f"thread-{next(numbers)}-{time.time_ns()}", "turns": []}
                send({"id": message["id"], "result": {"thread": thread}})
            else:
                send({"id": message["id"], "result": {"userAgent": "instant"}})


main()
