"""Real clients, real gateway, the demo agent: the relay end to end."""

from __future__ import annotations

import json

import pytest
from support import Client, Closed, Gateway, until


def deltas_after(client: Client, at: int) -> str:
    notes = [m for m in client.seen[at:] if isinstance(m, dict) and m.get("method") == "item/agentMessage/delta"]
    return "".join(m["params"]["delta"] for m in notes)


def test_a_turn_streams_to_the_client_that_asked(gateway: Gateway) -> None:
    client = gateway.client()
    assert client.hello["oldest"] == client.hello["cursor"].split(":")[0] + ":0"
    assert client.hello["mode"] == "process" and client.hello["created"] and not client.hello["attached"]
    thread = client.ready()
    turn = client.turn(thread, "slow 5 0.01")
    done = client.note("turn/completed")
    assert done["turn"]["id"] == turn and done["turn"]["status"] == "completed"
    assert client.text() == "1 2 3 4 5 "


def test_ids_come_back_in_the_type_they_were_sent_in(gateway: Gateway) -> None:
    client = gateway.client()
    client.ready()
    for id in (0, "0", -7, 2**63 - 1, 1.5, "a\u00e9\\", None):
        client.send({"id": id, "method": "thread/list", "params": {}})
        answer = client.wait(lambda m: "result" in m)
        assert answer["id"] == id and type(answer["id"]) is type(id)


def test_two_clients_share_a_session_and_only_the_asker_gets_the_answer(gateway: Gateway) -> None:
    one = gateway.client()
    thread = one.ready()
    two = gateway.client(session=one.session)
    assert two.hello["attached"] and not two.hello["created"]
    assert two.result("initialize", {})["userAgent"] == one.result("initialize", {})["userAgent"]
    one.turn(thread, "slow 5 0.01")
    one.note("turn/completed")
    two.note("turn/completed")
    assert two.text() == one.text() == "1 2 3 4 5 "
    assert not [m for m in two.seen if isinstance(m, dict) and "id" in m]


def test_an_approval_goes_to_the_turns_owner_and_only_it_may_answer(gateway: Gateway) -> None:
    one = gateway.client()
    thread = one.ready(approvalPolicy="untrusted")
    two = gateway.client(session=one.session)
    two.turn(thread, "run: echo hello")
    request = two.wait(lambda m: m.get("method") == "item/commandExecution/requestApproval")
    one.send({"id": request["id"], "result": {"decision": "accept"}})
    refused = one.wait(lambda m: "error" in m)
    assert refused["error"]["code"] == -32600 and "not asked of this client" in refused["error"]["message"]
    two.send({"id": request["id"], "result": {"decision": "accept"}})
    one.note("serverRequest/resolved")
    item = two.wait(lambda m: m.get("method") == "item/completed" and m["params"]["item"]["type"] == "commandExecution")
    assert item["params"]["item"]["aggregatedOutput"] == "hello\n"
    two.send({"id": request["id"], "result": {"decision": "accept"}})
    assert "not open" in two.wait(lambda m: "error" in m)["error"]["message"]


def test_the_others_learn_of_an_approval_and_how_it_was_answered(gateway: Gateway) -> None:
    one = gateway.client()
    thread = one.ready(approvalPolicy="untrusted")
    two = gateway.client(session=one.session)
    two.turn(thread, "run: echo told")
    request = two.wait(lambda m: m.get("method") == "item/commandExecution/requestApproval")
    told = one.note("argus/question")
    assert told["params"] == request["params"] and told["itemId"] == request["params"]["itemId"]
    assert (told["id"], told["method"]) == (request["id"], request["method"])
    assert (told["state"], told["client"]) == ("open", two.hello["client"])
    three = gateway.client(session=one.session)
    assert three.note("argus/question") == told
    two.send({"id": request["id"], "result": {"decision": "decline"}})
    for client in (one, two, three):
        answered = client.note("argus/question")
        assert (answered["id"], answered["state"], answered["decision"]) == (request["id"], "answered", "decline")
    assert one.note("turn/completed")["turn"]["status"] == "completed"


def test_an_approval_can_be_taken_over_by_another_client(gateway: Gateway) -> None:
    home = gateway.client()
    thread = home.ready(approvalPolicy="untrusted")
    phone = gateway.client(session=home.session)
    home.turn(thread, "run: echo taken")
    asked = home.wait(lambda m: "requestApproval" in m.get("method", ""))
    told = phone.note("argus/question")
    phone.send({"id": told["id"], "result": {"decision": "accept"}})
    assert "not asked of this client" in phone.wait(lambda m: "error" in m)["error"]["message"]
    assert phone.result("argus/question/take", {"id": told["id"]}) == {}
    assert phone.wait(lambda m: "requestApproval" in m.get("method", "")) == asked
    assert home.note("serverRequest/resolved")["requestId"] == asked["id"]
    assert home.note("argus/question")["client"] == phone.hello["client"]
    home.send({"id": asked["id"], "result": {"decision": "decline"}})
    assert "not asked of this client" in home.wait(lambda m: "error" in m)["error"]["message"]
    phone.send({"id": asked["id"], "result": {"decision": "accept"}})
    assert home.note("argus/question")["decision"] == "accept"
    item = phone.wait(lambda m: m.get("method") == "item/completed" and "aggregatedOutput" in m["params"]["item"])
    assert item["params"]["item"]["aggregatedOutput"] == "taken\n"
    assert phone.ask("argus/question/take", {"id": told["id"]})["error"]["code"] == -32000
    for bad in ({}, {"id": True}, {"id": None}, {"id": [0]}, {"id": {}}):
        assert phone.ask("argus/question/take", bad)["error"]["code"] == -32602


def test_an_approval_moves_to_another_client_when_its_own_leaves(gateway: Gateway) -> None:
    one = gateway.client()
    thread = one.ready(approvalPolicy="untrusted")
    two = gateway.client(session=one.session)
    two.turn(thread, "run: echo moved")
    two.wait(lambda m: "requestApproval" in m.get("method", ""))
    two.close()
    request = one.wait(lambda m: "requestApproval" in m.get("method", ""))
    one.send({"id": request["id"], "result": {"decision": "accept"}})
    assert one.note("turn/completed")["turn"]["status"] == "completed"


def test_an_owner_that_returns_under_its_key_gets_its_approval_back(gateway: Gateway) -> None:
    one = gateway.client()
    thread = one.ready(approvalPolicy="untrusted")
    two = gateway.client(session=one.session)
    two.turn(thread, "run: echo back")
    two.wait(lambda m: "requestApproval" in m.get("method", ""))
    two.close()
    one.wait(lambda m: "requestApproval" in m.get("method", ""))
    again = gateway.client(session=one.session, client=two.hello["client"])
    request = again.wait(lambda m: "requestApproval" in m.get("method", ""))
    assert one.note("serverRequest/resolved")["requestId"] == request["id"]
    again.send({"id": request["id"], "result": {"decision": "accept"}})
    assert again.note("turn/completed")["turn"]["status"] == "completed"


def test_what_nobody_saw_is_kept_for_the_first_who_comes(gateway: Gateway) -> None:
    one = gateway.client()
    thread = one.ready()
    watcher = gateway.client(session=one.session)
    one.turn(thread, "slow 40 0.1")
    one.note("item/agentMessage/delta")
    watcher.close()
    before = one.text()
    one.close()
    until(lambda: gateway.api("GET", f"/sessions/{one.session}").json()["state"] == "running")
    two = gateway.client(session=one.session)
    two.note("turn/completed")
    assert (before + two.text()).endswith("39 40 ") and two.text()
    three = gateway.client(session=one.session)
    assert three.result("thread/list")["data"]
    assert three.text() == ""


def test_a_cursor_replays_exactly_what_came_later(gateway: Gateway) -> None:
    one = gateway.client(seq="1")
    thread = one.ready()
    one.turn(thread, "slow 6 0.02")
    seen = [one.wait(lambda m: m.get("method") == "item/agentMessage/delta") for _ in range(3)]
    epoch = one.hello["cursor"].split(":")[0]
    one.close()
    two = gateway.client(session=one.session, seq="1", after=f"{epoch}:{seen[-1]['seq']}")
    assert two.hello["resume"] == "ok"
    two.note("turn/completed")
    assert two.text() == "4 5 6 "
    numbers = [m["seq"] for m in two.seen if "seq" in m]
    assert numbers == sorted(set(numbers)) and numbers[0] > seen[-1]["seq"]


def test_a_cursor_of_another_epoch_is_a_gap(gateway: Gateway) -> None:
    one = gateway.client()
    assert gateway.client(session=one.session, after="0123456789ab:5").hello["resume"] == "gap"
    assert gateway.client(session=one.session, after="garbage").hello["resume"] == "gap"


def test_a_container_path_means_the_sessions_workspace(gateway: Gateway) -> None:
    client = gateway.client()
    client.ready()
    made = client.result("thread/start", {"cwd": "/workspace/sub", "approvalPolicy": "never"})
    assert made["thread"]["cwd"] == str(gateway.home / "workspace" / "sub")


def test_the_workspace_gets_its_files_once(gateway: Gateway) -> None:
    client = gateway.client()
    client.ready()
    for name in ("AGENTS.md", "SOUL.md", "USER.md", "HEARTBEAT.md"):
        text = (gateway.home / "workspace" / name).read_text()
        assert text.startswith("#") and "---" not in text.splitlines()[0]


def test_unknown_sessions_and_bad_tokens_are_closed_with_1008(gateway: Gateway) -> None:
    closed = gateway.client(session="nope", hello=False).closed()
    assert (closed.code, closed.reason) == (1008, "Unknown session")
    closed = Client(gateway, token="wrong", hello=False).closed()
    assert (closed.code, closed.reason) == (1008, "Unauthorized")


def test_deleting_a_session_closes_its_clients_and_ends_its_processes(own_gateway: Gateway) -> None:
    client = own_gateway.client()
    client.ready()
    assert own_gateway.api("DELETE", f"/sessions/{client.session}").json() == {"ok": True, "sessionId": client.session}
    closed = client.closed()
    assert (closed.code, closed.reason) == (1000, "Session deleted")
    assert own_gateway.runtime_pids() == []
    assert own_gateway.api("GET", f"/sessions/{client.session}").status_code == 404
    assert (own_gateway.home / "workspace").is_dir()
    assert not (own_gateway.home / "sessions" / client.session).exists()


def test_sessions_over_http(gateway: Gateway) -> None:
    made = gateway.api("POST", "/sessions", json={"agent": "demo", "title": "Fix login"})
    assert made.status_code == 201
    id = made.json()["sessionId"]
    assert made.json()["state"] == "created" and made.json()["title"] == "Fix login"
    assert gateway.api("GET", f"/sessions/{id}").json()["agent"] == "demo"
    listed = {s["sessionId"]: s for s in gateway.api("GET", "/sessions").json()["sessions"]}
    assert {"sessionId", "containerId", "name", "status", "runtimeLayout"} <= set(listed[id])
    client = gateway.client(session=id)
    assert client.hello["attached"] and not client.hello["created"]
    thread = client.ready()
    assert until(lambda: gateway.api("GET", f"/sessions/{id}").json()["threads"]) == [thread]
    assert gateway.api("GET", f"/sessions/{id}").json()["state"] == "running"
    bad = gateway.api("POST", "/sessions", json={"agent": "nobody"})
    assert bad.status_code == 400 and "codex, demo" in bad.json()["detail"]
    assert gateway.api("POST", "/sessions", json=["x"]).status_code == 400
    assert gateway.api("DELETE", f"/sessions/{id}").status_code == 200
    assert gateway.api("DELETE", f"/sessions/{id}").json() == {"detail": "Unknown session", "code": "not_found"}


def test_the_gateways_own_methods(gateway: Gateway) -> None:
    client = gateway.client()
    assert client.result("argus/ping") == {"ok": True, "sessionId": client.session}
    error = client.ask("argus/nothing")["error"]
    assert error == {"code": -32601, "message": "Method not found: argus/nothing"}


@pytest.mark.parametrize("limit", ["2"])
def test_a_principal_has_only_so_many_sessions(limit: str) -> None:
    from support import running

    with running(ARGUS_MAX_SESSIONS=limit) as gateway:
        for _ in range(int(limit)):
            assert gateway.api("POST", "/sessions").status_code == 201
        refused = gateway.api("POST", "/sessions")
        assert refused.status_code == 429 and "ARGUS_MAX_SESSIONS" in refused.json()["detail"]
        closed = gateway.client(hello=False).closed()
        assert closed.code == 1013 and "ARGUS_MAX_SESSIONS" in closed.reason


def test_a_client_key_names_one_socket_the_newest(gateway: Gateway) -> None:
    one = gateway.client()
    two = gateway.client(session=one.session, client=one.hello["client"])
    assert two.hello["client"] == one.hello["client"]
    closed: Closed = one.closed()
    assert closed.code == 1000 and "Replaced" in closed.reason
    assert json.dumps(two.result("argus/ping"))
