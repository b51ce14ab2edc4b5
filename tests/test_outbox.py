"""Answers reach who asked: what is sent, what is sent again, and where nothing may be sent."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conversations import Sink
from hypothesis import given
from hypothesis import strategies as st
from relay_kit import STEADY
from sqlalchemy import update
from support import ROOT

from app.channels import http as channel
from app.channels.http import HttpSender, allowed, is_public, result_of, split
from app.errors import BadRequest, NotFound
from app.services.conversation import outbox as outbox_module
from app.services.conversation.outbox import Outbox
from app.settings import load
from app.store import deliveries, inputs, schema, sessions
from app.store.database import Store, open_store
from app.store.sessions import SessionRow


class Recorder:
    """A channel that keeps what it is given and answers as it is told."""

    def __init__(self, *answers: tuple[str, str, float | None, str | None]) -> None:
        self.sent: list[tuple[str, str]] = []
        self.answers = list(answers)

    def check(self, route: dict[str, Any]) -> None:
        pass

    def send(self, route: dict[str, Any], payload: str, key: str) -> tuple[str, str, float | None, str | None]:
        self.sent.append((route.get("url", ""), key))
        return self.answers.pop(0) if self.answers else ("sent", "", None, "p-1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'argus.db'}")
    row = SessionRow("s", "demo", "", "o", "process", "", None, "x", "created", "", None, 1, 1)
    opened.run(lambda db: sessions.add(db, row))
    yield opened
    opened.close()


def put(store: Store, name: str, url: str = "u", now_ms: int = 0) -> str:
    """A pending delivery."""
    said = {"id": f"in_{name}", "session_id": "s", "lane": "main", "kind": "user", "owner": "o", "text": "x"}
    said |= {"mode": "queue", "state": "answered", "message_id": name, "accepted_at_ms": 1}
    about = {"id": name, "input_id": f"in_{name}", "session_id": "s", "key": f"{name}:answer", "payload": "{}"}
    about |= {"route": f'{{"type": "test", "url": "{url}"}}', "state": "pending", "next_at_ms": now_ms}

    def work(db: Any) -> None:
        inputs.add(db, said)
        deliveries.add(db, **about, created_at_ms=1)

    store.run(work)
    return name


def state(store: Store, name: str) -> Any:
    return store.run(lambda db: deliveries.get(db, name))


def drain(store: Store, sender: Any) -> Outbox:
    """One round of sending, to its end."""
    outbox = Outbox(store, {"test": sender})
    outbox._round()
    outbox._pool.join()
    return outbox


def test_what_is_due_is_sent_in_order_and_once(store: Store) -> None:
    for name in ("a", "b", "c"):
        put(store, name)
    sender = Recorder()
    drain(store, sender)
    assert [key for _, key in sender.sent] == ["a:answer", "b:answer", "c:answer"]
    drain(store, sender)
    row = state(store, "a")
    assert len(sender.sent) == 3 and (row.state, row.attempts, row.provider_id) == ("sent", 1, "p-1")
    assert row.sent_at_ms and not row.sending


def test_the_same_delivery_is_stored_once(store: Store) -> None:
    put(store, "a")
    again = {**state(store, "a").__dict__, "id": "other"}
    again.pop("seq")
    assert not store.run(lambda db: deliveries.add(db, **again))


def test_one_that_fails_for_now_holds_back_those_behind_it_and_no_other_place(store: Store) -> None:
    for name, url in (("a", "u"), ("b", "u"), ("c", "v")):
        put(store, name, url)
    sender = Recorder(("failed", "down", 3600.0, None))
    drain(store, sender)
    assert [key for _, key in sender.sent] == ["a:answer", "c:answer"]
    assert (state(store, "a").state, state(store, "b").state) == ("failed", "pending")
    drain(store, sender)
    assert len(sender.sent) == 2
    store.run(lambda db: deliveries.change(db, "a", next_at_ms=0))
    drain(store, sender)
    assert [key for _, key in sender.sent[2:]] == ["a:answer", "b:answer"]


def test_one_of_unknown_outcome_waits_and_holds_nobody_back(store: Store) -> None:
    put(store, "a"), put(store, "b")
    sender = Recorder(("unknown", "no answer", None, None))
    drain(store, sender)
    row = state(store, "a")
    assert (row.state, row.uncertain) == ("uncertain", 1) and row.next_at_ms > time.time() * 1000 + 20_000
    assert state(store, "b").state == "sent"
    store.run(lambda db: deliveries.change(db, "a", next_at_ms=0))
    drain(store, sender)
    assert state(store, "a").state == "sent" and [key for _, key in sender.sent].count("a:answer") == 2


def test_what_a_dead_gateway_was_sending_is_of_unknown_outcome(store: Store) -> None:
    put(store, "a")
    store.run(lambda db: deliveries.begin(db, "a"))
    sender = Recorder()
    drain(store, sender)
    assert sender.sent == []  # not while its outcome is open
    Outbox(store, {"test": sender}).take_up()
    assert (state(store, "a").state, state(store, "a").uncertain, state(store, "a").sending) == ("uncertain", 1, False)


def test_a_time_far_ahead_comes_from_a_clock_that_was_wrong(store: Store) -> None:
    put(store, "a", now_ms=int(time.time() * 1000) + 40 * 24 * 3_600_000)
    put(store, "b", "v", now_ms=int(time.time() * 1000) + 3_600_000)
    sender = Recorder()
    drain(store, sender)
    assert [key for _, key in sender.sent] == ["a:answer"]


def test_a_dead_one_can_be_sent_again_and_others_can_not(store: Store) -> None:
    put(store, "a")
    sender = Recorder(("refused", "HTTP 410", None, None))
    outbox = drain(store, sender)
    assert state(store, "a").state == "dead" and state(store, "a").error == "HTTP 410"
    outbox.retry("a")
    drain(store, sender)
    assert state(store, "a").state == "sent"
    with pytest.raises(Exception, match="only dead"):
        outbox.retry("a")
    with pytest.raises(NotFound):
        outbox.retry("nobody")


def test_a_channel_that_is_gone_is_said(store: Store) -> None:
    put(store, "a")
    outbox = Outbox(store, {})
    outbox._round()
    outbox._pool.join()
    assert state(store, "a").state == "dead" and "no channel" in state(store, "a").error


def test_a_page_of_places_does_not_hide_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        put(store, f"d{n}", f"u{n}")
    monkeypatch.setattr(outbox_module, "PAGE", 2)
    sender = Recorder()
    outbox = Outbox(store, {"test": sender})
    for _ in range(3):
        outbox._round()
        outbox._pool.join()
    assert len(sender.sent) == 5


# -- http


def sender(tmp_path: Path, private: str = "127.0.0.1") -> HttpSender:
    settings = load({"ARGUS_HOME_HOST_PATH": str(tmp_path), "ARGUS_HTTP_PRIVATE_HOSTS": private})
    settings.gateway_dir.mkdir(exist_ok=True)
    return HttpSender(settings)


def post(by: HttpSender, url: str) -> tuple[str, str, float | None, str | None]:
    return by.send({"type": "http", "url": url}, '{"text": "hé"}', "k-1")


ANSWERS = {
    "taken": (200, None, "sent"),
    "taken for later": (202, None, "sent"),
    "a redirect": (302, None, "refused"),
    "another's door": (404, None, "refused"),
    "too many": (429, "7", "failed"),
    "down": (503, "nonsense", "failed"),
    "broken": (500, None, "failed"),
    "too early": (425, None, "failed"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_what_an_http_answer_means(tmp_path: Path, name: str) -> None:
    status, retry_after, kind = ANSWERS[name]
    headers = {"Retry-After": retry_after} if retry_after else {}
    with Sink(lambda request: (status, {**headers, "Location": "http://127.0.0.1:1/"})) as sink:
        result = post(sender(tmp_path), sink.url + "/a/b?c=d")
        assert result[0] == kind and f"HTTP {status}" in result[1]
        assert result[2] == (7.0 if retry_after == "7" else None)
        (request,) = sink.got
        assert (request["path"], request["json"], request["key"]) == ("/a/b?c=d", {"text": "hé"}, "k-1")
        assert "Authorization" not in request["headers"] and "Cookie" not in request["headers"]


def test_a_retry_after_may_be_a_date() -> None:
    assert result_of(429, "Thu, 01 Jan 1970 00:01:40 GMT", "", 40.0)[2] == 60.0
    assert result_of(429, "Thu, 01 Jan 1970 00:00:00 GMT", "", 40.0)[2] == 0.0
    assert result_of(429, "99999999999999999999", "", 0.0)[2] is not None


def test_who_does_not_listen_surely_got_nothing(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert post(sender(tmp_path), f"http://127.0.0.1:{port}/")[0] == "failed"
    assert post(sender(tmp_path), "http://no-such-host.invalid/")[0] == "failed"


def raw_server(behave: Callable[[socket.socket], None]) -> str:
    """A TCP server for one connection; where it is."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            behave(connection)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_who_hangs_up_without_a_word_may_have_got_it(tmp_path: Path) -> None:
    assert post(sender(tmp_path), raw_server(lambda c: None))[0] == "unknown"


def test_who_talks_nonsense_may_have_got_it(tmp_path: Path) -> None:
    assert post(sender(tmp_path), raw_server(lambda c: c.sendall(b"\x00" * 100_000)))[0] == "unknown"


def test_a_place_with_many_in_doubt_leaves_room_for_others(store: Store) -> None:
    for n in range(outbox_module.PAGE + 1):
        put(store, f"doubt-{n}", "tar-pit")
    store.run(lambda db: db.execute(update(schema.deliveries).values(state="uncertain")))
    put(store, "other", "elsewhere")
    places = store.run(lambda db: deliveries.due_routes(db, 10, 20, outbox_module.PAGE))
    assert len(places) == 2 and "elsewhere" in places[1]


def test_a_slow_place_gives_its_turn_to_others_now_and_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "SLICE_S", 0.0)
    for name in ("a", "b"):
        put(store, name)
    drain(store, Recorder())
    assert [state(store, name).state for name in ("a", "b")] == ["pending", "pending"]


def endless(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def test_who_says_go_on_without_an_end_is_left(tmp_path: Path) -> None:
    kind, detail, *_ = post(sender(tmp_path), raw_server(endless))
    assert kind == "unknown" and "larger than" in detail


def test_a_time_to_wait_in_odd_digits_is_none(tmp_path: Path) -> None:
    assert result_of(503, "\u00b2", "", 0.0) == ("failed", "HTTP 503: ", None, None)


DRIPS = """
from gevent import monkey; monkey.patch_all()
import sys
from pathlib import Path
from app.channels import http
from app.settings import load
http.WHOLE_S = 1.0
home = sys.argv[2]
(Path(home) / "gateway").mkdir(exist_ok=True)
settings = load({"ARGUS_HOME_HOST_PATH": home, "ARGUS_HTTP_PRIVATE_HOSTS": "127.0.0.1"})
print(http.HttpSender(settings).send({"type": "http", "url": sys.argv[1]}, "{}", "k")[0])
"""


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_an_answer_that_drips_has_a_deadline(tmp_path: Path, start: bytes) -> None:
    """In a process with gevent's sockets, as the gateway's are."""

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(start)
            while True:
                connection.sendall(b"x")
                time.sleep(0.05)

    command = [sys.executable, "-c", DRIPS, raw_server(drip), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "unknown\n", done.stderr


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.1.1",
    "255.255.255.255", "::1", "fe80::1", "fec0::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "::", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_no_public_ones_however_they_are_written(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_no_spelling_of_this_machine_is_reached_unless_it_is_allowed(tmp_path: Path, host: str) -> None:
    with Sink() as sink:
        port = sink.url.rpartition(":")[2]
        result = post(sender(tmp_path, private=""), f"http://{host}:{port}/")
        assert result[0] in ("refused", "failed") and sink.got == []


def test_what_was_checked_is_what_is_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes between the check and the connection (DNS rebinding) is asked once only."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return real("192.0.2.1" if len(asked) == 1 else "127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr(channel.socket, "getaddrinfo", resolve)
    with Sink() as sink:
        by = sender(tmp_path, private="192.0.2.0/24")
        monkeypatch.setattr(channel, "CONNECT_S", 0.3)
        result = post(by, f"http://rebind.example:{sink.url.rpartition(':')[2]}/")
        assert result[0] == "failed" and asked == ["rebind.example"] and sink.got == []


def test_one_private_address_among_public_ones_is_enough_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [(2, 1, 6, "", ("8.8.8.8", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
    monkeypatch.setattr(channel.socket, "getaddrinfo", lambda *a, **k: both)
    assert post(sender(tmp_path, ""), "http://mixed.example/")[0] == "refused"


def test_the_operator_allows_hosts_and_networks_by_name() -> None:
    inside = ipaddress.ip_address("10.1.2.3")
    assert allowed("x", inside, ("10.0.0.0/8",)) and allowed("Box.lan", inside, ("box.LAN",))
    assert allowed("x", inside, ("*",)) and not allowed("x", inside, ("192.168.0.0/16", "box", "not/a/net"))


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x/", "http://", "http://user:pass@8.8.8.8/", "http://x y/", "http://x/\r\nHost: y", "http://x:0/",
     "http://x:99999/", "javascript:1", "//x/", "http://" + "a" * 3000, "http://ünï.example/", "gopher://x/"],
)  # fmt: skip
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        split(url)


@STEADY
@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused_in_words(text: str) -> None:
    try:
        split(text)
    except BadRequest as error:
        assert error.text


def test_the_signing_key_is_made_once_private_and_no_token(tmp_path: Path) -> None:
    first, second = sender(tmp_path), sender(tmp_path)
    path = tmp_path / "gateway" / "http-signing-key"
    assert first._key == second._key and len(first._key) >= 32 and path.stat().st_mode & 0o777 == 0o600


def test_a_round_says_when_the_next_is_due(store: Store) -> None:
    put(store, "a", now_ms=int(time.time() * 1000) + 5000)
    outbox = Outbox(store, {"test": Recorder()})
    assert 1 < outbox._round() <= 5.1
    assert store.run(lambda db: deliveries.due_routes(db, int(time.time() * 1000) + 6000, 2**60, 9)) != []
