"""Every door asks who is calling, from where and how."""

from __future__ import annotations

import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from support import TOKEN, Client, Gateway, free_port, running

from app.errors import Unauthorized
from app.routes import create_app
from app.services.auth import MAX_SOCKET_TICKETS, Principal
from app.settings import load
from app.wiring import build


def bare(gateway: Gateway, method: str, path: str, **headers: str) -> requests.Response:
    return requests.request(method, gateway.url + path, headers=headers, timeout=20)


def test_the_token_works_in_each_form_of_the_contract(gateway: Gateway) -> None:
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"bEARER  {TOKEN} "}):
        assert bare(gateway, "GET", "/sessions", **headers).status_code == 200
    assert bare(gateway, "GET", "/sessions", Authorization=TOKEN).status_code == 200
    assert bare(gateway, "GET", f"/sessions?token={TOKEN}").status_code == 200
    assert bare(gateway, "GET", f"/sessions?token={TOKEN}", Authorization="Bearer no").status_code == 401


def test_a_sign_in_link_is_good_once(gateway: Gateway) -> None:
    url = gateway.api("POST", "/auth/link").json()["url"]
    ticket = url.split("#ticket=")[1]
    assert url.startswith(gateway.url)
    page = requests.post(gateway.url + "/auth/exchange", json={"ticket": ticket}, timeout=20).json()
    again = requests.post(gateway.url + "/auth/exchange", json={"ticket": ticket}, timeout=20)
    assert again.status_code == 401 and "./argus link" in again.json()["detail"]
    me = bare(gateway, "GET", "/auth/me", Authorization=f"Bearer {page['token']}").json()
    assert me["scope"] == "page" and me["expiresAtMs"] == page["expiresAtMs"]
    assert bare(gateway, "GET", "/sessions", Authorization=f"Bearer {ticket}").status_code == 401


def page_token(gateway: Gateway) -> str:
    ticket = gateway.api("POST", "/auth/link").json()["url"].split("#ticket=")[1]
    return requests.post(gateway.url + "/auth/exchange", json={"ticket": ticket}, timeout=20).json()["token"]


def test_a_page_token_may_not_make_links_or_see_tokens(gateway: Gateway) -> None:
    header = {"Authorization": f"Bearer {page_token(gateway)}"}
    assert bare(gateway, "POST", "/auth/link", **header).status_code == 403
    assert bare(gateway, "GET", "/auth/tokens", **header).status_code == 403
    assert bare(gateway, "DELETE", "/auth/tokens/abc", **header).status_code == 403
    assert bare(gateway, "GET", "/sessions", **header).status_code == 200


def test_a_socket_ticket_opens_one_socket(gateway: Gateway) -> None:
    header = {"Authorization": f"Bearer {page_token(gateway)}"}
    ticket = bare(gateway, "POST", "/auth/ticket", **header).json()["ticket"]
    assert Client(gateway, token=None, ticket=ticket).session
    assert Client(gateway, token=None, ticket=ticket, hello=False).closed().code == 1008


def test_revoking_a_token_cuts_its_sockets_within_a_second(gateway: Gateway) -> None:
    token = page_token(gateway)
    client = Client(gateway, token=token)
    assert client.session
    newest = gateway.api("GET", "/auth/tokens").json()["tokens"][0]
    assert newest["scope"] == "page" and set(newest) == {"id", "scope", "label", "createdAtMs", "expiresAtMs"}
    began = time.monotonic()
    assert gateway.api("DELETE", f"/auth/tokens/{newest['id']}").ok
    closed = client.closed()
    assert (closed.code, closed.reason) == (1008, "Token revoked") and time.monotonic() - began < 5
    assert bare(gateway, "GET", "/sessions", Authorization=f"Bearer {token}").status_code == 401


def test_signing_out_ends_the_pages_own_token(gateway: Gateway) -> None:
    header = {"Authorization": f"Bearer {page_token(gateway)}"}
    assert bare(gateway, "DELETE", "/auth/tokens/me", **header).ok
    assert bare(gateway, "GET", "/auth/me", **header).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1].evil"])
def test_a_strange_host_header_is_refused_with_how_to_allow_it(gateway: Gateway, host: str) -> None:
    answer = bare(gateway, "GET", "/healthz", Host=host)
    assert answer.status_code == 403 and "ARGUS_ALLOWED_HOSTS" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost:9", "127.0.0.1", "10.1.2.3:8080", "[::1]:80", "gateway:8080"])
def test_addresses_and_own_names_are_fine_hosts(gateway: Gateway, host: str) -> None:
    assert bare(gateway, "GET", "/healthz", Host=host).ok


def test_a_page_of_another_origin_may_not_call(gateway: Gateway) -> None:
    strange = {"Authorization": f"Bearer {TOKEN}", "Origin": "https://evil.example"}
    answer = bare(gateway, "GET", "/sessions", **strange)
    assert answer.status_code == 403 and "ARGUS_CORS_ORIGINS" in answer.json()["detail"]
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert bare(gateway, "GET", "/sessions", **{**strange, "Origin": "null"}).status_code == 403
    own = {**strange, "Origin": gateway.url}
    assert bare(gateway, "GET", "/sessions", **own).headers["Access-Control-Allow-Origin"] == gateway.url
    preflight = bare(gateway, "OPTIONS", "/sessions", Origin="http://localhost:3000")
    assert preflight.status_code == 204 and "DELETE" in preflight.headers["Access-Control-Allow-Methods"]


def test_a_socket_from_another_origin_is_refused(gateway: Gateway) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    url = f"ws://127.0.0.1:{gateway.port}/ws?token={TOKEN}"
    with pytest.raises(InvalidStatus) as refused, connect(url, origin="https://evil.example", proxy=None):
        pass
    assert refused.value.response.status_code == 403


def test_listed_hosts_and_origins_are_let_in() -> None:
    with running(ARGUS_ALLOWED_HOSTS="argus.example", ARGUS_CORS_ORIGINS="https://my.example") as gateway:
        assert bare(gateway, "GET", "/healthz", Host="argus.example").ok
        assert bare(gateway, "GET", "/healthz", Origin="https://my.example").ok


def test_no_token_is_in_any_log(own_gateway: Gateway) -> None:
    own_gateway.stop()
    own_gateway.start("--access-logfile", "-", "--log-level", "debug")
    client = own_gateway.client()
    client.ready()
    token = page_token(own_gateway)
    ticket = bare(own_gateway, "POST", "/auth/ticket", Authorization=f"Bearer {token}").json()["ticket"]
    Client(own_gateway, token=None, ticket=ticket).close()
    bare(own_gateway, "GET", f"/sessions?token={TOKEN}&x=1")
    bare(own_gateway, "GET", f"/nothing?token={token}")
    client.close()
    own_gateway.stop()
    said = own_gateway.said()
    assert "/sessions?token=…&x=1" in said
    assert TOKEN not in said and token not in said and ticket not in said


def test_failures_are_slowed_and_the_owner_is_not(own_gateway: Gateway) -> None:
    header = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(5):
        assert bare(own_gateway, "GET", "/sessions").status_code == 401
    waits = [_timed(lambda: bare(own_gateway, "GET", "/sessions")) for _ in range(4)]
    assert waits == sorted(waits) and waits[-1] >= 0.9
    assert _timed(lambda: bare(own_gateway, "GET", "/sessions", **header)) < waits[-1]


def _timed(call) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def start_refused(*args: str, **env: str) -> str:
    """What a gateway says that does not start."""
    gateway = Gateway(**env)
    try:
        gateway.start(*args, wait=False)
        assert gateway.process.wait(30) != 0
        return gateway.said()
    finally:
        gateway.close()


def test_without_tokens_it_listens_on_loopback_only() -> None:
    for bind in ("0.0.0.0", "[::]", "192.0.2.1"):
        said = start_refused("-b", f"{bind}:{free_port()}", ARGUS_AUTH="off")
        assert "ARGUS_AUTH=off works on loopback addresses only" in said and "Traceback" not in said
    said = start_refused(ARGUS_AUTH="off", ARGUS_BIND="0.0.0.0")
    assert "ARGUS_AUTH=off" in said
    said = start_refused(ARGUS_AUTH="off", ARGUS_CORS_ORIGINS="*")
    assert "every page" in said
    with running(ARGUS_AUTH="off") as gateway:
        assert bare(gateway, "GET", "/sessions").ok
        assert Client(gateway, token=None).session
        assert bare(gateway, "GET", "/sessions", Origin="https://evil.example").status_code == 403


def test_without_tokens_other_machines_are_refused_whatever_gunicorn_was_told(tmp_path: Path) -> None:
    services = build(load({"ARGUS_AUTH": "off", "ARGUS_HOME_HOST_PATH": str(tmp_path), "ARGUS_AGENT": "demo"}))
    http = create_app(services).test_client()
    assert http.get("/sessions", environ_overrides={"REMOTE_ADDR": "127.0.0.1"}).status_code == 200
    for address in ("192.0.2.7", "10.0.0.1", "fe80::1"):
        answer = http.get("/sessions", environ_overrides={"REMOTE_ADDR": address})
        assert answer.status_code == 403 and "loopback" in answer.get_json()["detail"]
    services.store.close()
    os.close(services.lock)


def test_a_token_that_makes_tickets_without_end_spoils_only_its_own(tmp_path: Path) -> None:
    services = build(load({"ARGUS_HOME_HOST_PATH": str(tmp_path), "ARGUS_AGENT": "demo"}))
    mine, other = Principal("operator", "page", "mine"), Principal("operator", "page", "other")
    ticket = services.auth.make_socket_ticket(mine)
    flood = [services.auth.make_socket_ticket(other) for _ in range(MAX_SOCKET_TICKETS + 1)]
    assert services.auth.redeem_socket_ticket(ticket) == mine
    assert services.auth.redeem_socket_ticket(flood[-1]) == other
    with pytest.raises(Unauthorized):
        services.auth.redeem_socket_ticket(flood[0])
    services.store.close()
    os.close(services.lock)


def test_the_token_is_made_once_and_kept_private() -> None:
    with running(ARGUS_TOKEN="") as gateway:
        path = gateway.home / "gateway" / "token"
        token = path.read_text().strip()
        assert len(token) >= 32 and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((gateway.home / "gateway" / "argus.db").stat().st_mode) == 0o600
        assert bare(gateway, "GET", "/sessions", Authorization=f"Bearer {token}").ok
        gateway.restart()
        assert path.read_text().strip() == token
        assert bare(gateway, "GET", "/sessions", Authorization=f"Bearer {token}").ok


def test_one_worker_and_one_gateway_a_home() -> None:
    assert "Exactly one worker" in start_refused("-w", "2")
    assert "must be gevent" in start_refused("-k", "sync")
    with running() as first:
        second = Gateway()
        home, second.home = second.home, first.home
        try:
            second.log = home / "log"
            second.start(wait=False)
            assert second.process.wait(30) != 0
            assert "Another gateway" in second.said() and "./argus down" in second.said()
            assert "Traceback" not in second.said()
        finally:
            second.home = home
            second.close()


def test_a_bad_setting_stops_the_start_with_its_name() -> None:
    said = start_refused(ARGUS_MAX_SESSIONS="many")
    assert "ARGUS_MAX_SESSIONS: 'many' is not allowed; it must be a whole number" in said and "Traceback" not in said
    assert "secret-value" not in start_refused(ARGUS_UPSTREAMS_JSON="secret-value{")


def test_an_unknown_variable_is_warned_about() -> None:
    with running(ARGUS_MAX_SESSION="3") as gateway:
        assert "ARGUS_MAX_SESSION is no setting" in gateway.said()
        assert "did you mean ARGUS_MAX_SESSIONS?" in gateway.said()


def test_an_agents_environment_has_no_secret_of_the_gateways(own_gateway: Gateway) -> None:
    own_gateway.stop()
    own_gateway.env.update(TELEGRAM_BOT_TOKEN="tg-secret", ARGUS_MCP_TOKEN="mcp-secret")
    own_gateway.start()
    own_gateway.client().ready()
    for pid in own_gateway.runtime_pids():
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
        assert TOKEN.encode() not in environ and b"tg-secret" not in environ and b"mcp-secret" not in environ


@pytest.mark.parametrize(("method", "path"), [("GET", "/sessions"), ("DELETE", "/sessions/x"), ("GET", "/auth/tokens")])
def test_a_header_of_an_upgrade_opens_no_door(gateway: Gateway, method: str, path: str) -> None:
    for headers in ({"Upgrade": "websocket"},):
        answer = bare(gateway, method, path, **headers)
        assert answer.status_code in (400, 401, 405) and "sessions" not in answer.text


def test_a_token_revoked_while_its_session_opens_has_no_socket(gateway: Gateway) -> None:
    token = page_token(gateway)
    for client in (Client(gateway, token=token, hello=False),):
        newest = gateway.api("GET", "/auth/tokens").json()["tokens"][0]
        assert gateway.api("DELETE", f"/auth/tokens/{newest['id']}").ok
        assert client.closed().code == 1008


@pytest.mark.parametrize("body", [b"[" * 16_000, b'{"ticket":"\\ud800"}', b"\xff", b"{", b'{"ticket":5}', b"[]"])
def test_a_bad_body_is_a_400_and_costs_no_ticket(gateway: Gateway, body: bytes) -> None:
    assert requests.post(gateway.url + "/auth/exchange", data=body, timeout=20).status_code == 400


def test_a_label_that_is_no_text_does_not_spend_the_ticket(gateway: Gateway) -> None:
    ticket = gateway.api("POST", "/auth/link").json()["url"].split("#ticket=")[1]
    bad = b'{"ticket":"%s","label":"\\ud800"}' % ticket.encode()
    assert requests.post(gateway.url + "/auth/exchange", data=bad, timeout=20).status_code == 400
    assert requests.post(gateway.url + "/auth/exchange", json={"ticket": ticket}, timeout=20).status_code == 200


def test_wrong_tokens_by_the_dozen_are_refused_in_words(own_gateway: Gateway) -> None:
    with ThreadPoolExecutor(30) as pool:
        closed = list(pool.map(lambda _: Client(own_gateway, token="wrong-token", hello=False).closed(20), range(30)))
    assert {c.code for c in closed} <= {1008, 1013} and "Traceback" not in own_gateway.said()
