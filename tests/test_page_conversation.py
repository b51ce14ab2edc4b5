"""The page and the durable way in: what waits, what came to nothing, receipts, usage; live and after a reload."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from browser import AWAY, WAIT_MS, OpenTab, Tab
from conversations import Sink, over, receipt, say
from playwright.sync_api import Locator, Route, expect
from support import Gateway, running, until
from test_page_look import Looker

SIZES = [(1440, 900), (390, 844)]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running(ARGUS_HTTP_PRIVATE_HOSTS="127.0.0.1") as made:
        (made.home / "workspace").mkdir(exist_ok=True)
        (made.home / "workspace" / "USER.md").write_text("The user is Ada.\n")
        yield made


def region(tab: Tab, name: str) -> Locator:
    return tab.page.get_by_role("region", name=name).get_by_role("listitem")


def queued(tab: Tab) -> Locator:
    return region(tab, "Queued messages")


def thread_of(tab: Tab) -> str:
    tab.page.wait_for_url(re.compile(r"#/s/\w+/[\w-]+$"))
    return tab.page.url.rpartition("/")[2]


def inputs(tab: Tab) -> list[dict[str, Any]]:
    """The session's inputs, oldest first."""
    return tab.gateway.api("GET", f"/sessions/{tab.session}/inputs").json()["inputs"][::-1]


def busy(tab: Tab) -> str:
    """A conversation in which a long turn runs; its thread."""
    tab.begin("slow 5000 0.05")
    tab.counted_to(3)
    return thread_of(tab)


def sized(open_tab: OpenTab, size: tuple[int, int], **more: Any) -> Tab:
    width, height = size
    return open_tab(viewport={"width": width, "height": height}, has_touch=width < 900, **more).sign_in()


def looked(tab: Tab, what: str, size: tuple[int, int]) -> None:
    """A screenshot, and axe finds nothing."""
    looker = Looker(tab, str(size[0]))
    looker.look(what)
    assert not looker.violations, "\n".join(looker.violations)


# -- what came from elsewhere


@pytest.mark.parametrize("size", SIZES)
def test_what_came_from_elsewhere_shows_the_persons_words_and_keeps_the_rest_in_a_fold(
    open_tab: OpenTab, gateway: Gateway, size: tuple[int, int]
) -> None:
    tab = sized(open_tab, size)
    tab.begin("good morning")
    tab.answered("good morning")
    thread = thread_of(tab)
    source = {"channel": "greenhouse", "chatKey": "north-7"}
    over(gateway, say(gateway, tab.session, "water the beds", threadId=thread, source=source))
    for _ in ("live", "after a reload"):
        expect(tab.said).to_have_text(["good morning", "water the beds"], timeout=WAIT_MS)
        expect(tab.log.get_by_text("greenhouse · north-7", exact=True)).to_be_visible()
        fold = tab.page.locator(".told:visible")
        fold.locator("summary").click()
        expect(fold.locator("pre")).to_contain_text("The user is Ada.")
        expect(fold.locator("pre")).to_contain_text("chatKey: north-7")
        looked(tab, "told", size)
        tab.page.reload()


@pytest.mark.parametrize("size", SIZES)
def test_what_waits_is_seen_with_its_source_and_is_edited_in_its_place_and_removed(
    open_tab: OpenTab, gateway: Gateway, size: tuple[int, int]
) -> None:
    tab = sized(open_tab, size)
    thread = busy(tab)
    first = say(gateway, tab.session, "watr the north bed", threadId=thread, source={"channel": "greenhouse"})
    second = say(gateway, tab.session, "never mind", threadId=thread)
    tab.say("typed here")
    expect(queued(tab)).to_have_count(3, timeout=WAIT_MS)
    expect(queued(tab).nth(0)).to_contain_text("greenhouse")
    expect(queued(tab).nth(1)).to_contain_text("API")
    tab.page.reload()
    expect(queued(tab)).to_have_count(3, timeout=WAIT_MS)
    looked(tab, "queue", size)
    queued(tab).nth(0).get_by_role("button", name="Edit").click()
    expect(tab.page.get_by_label("Message", exact=True)).to_have_value("watr the north bed")
    tab.page.get_by_label("Message", exact=True).fill("water the north bed")
    looked(tab, "edit-waiting", size)
    tab.button("Save").click()
    expect(queued(tab).nth(0)).to_contain_text("water the north bed")
    queued(tab).nth(1).get_by_role("button", name="Remove").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(queued(tab)).to_have_count(2)
    assert receipt(gateway, second)["state"] == "removed"
    assert gateway.api("POST", f"/threads/{thread}/cancel").json()["cancelRequested"]
    tab.answered("typed here")
    expect(tab.said).to_have_text(["slow 5000 0.05", "water the north bed", "typed here"])
    assert receipt(gateway, first)["state"] == "answered"


def test_an_interrupted_input_is_run_again_once(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    tab.begin("good morning")
    tab.answered("good morning")
    thread = thread_of(tab)
    cut = say(gateway, tab.session, "slow 5000 0.05", threadId=thread)
    tab.counted_to(3)
    tab.button("Stop").click()
    assert over(gateway, cut)["state"] == "interrupted"
    expect(tab.button("Run it again")).to_be_visible(timeout=WAIT_MS)
    tab.page.reload()
    tab.button("Run it again").click()
    expect(tab.button("Run it again")).to_have_count(0, timeout=WAIT_MS)
    again = until(lambda: receipt(gateway, cut)["retriedAs"])
    tab.counted_to(3)
    tab.button("Stop").click()
    assert over(gateway, again)["retryOf"] == cut["inputId"]
    expect(tab.said).to_have_text(["good morning", "slow 5000 0.05", "slow 5000 0.05"])


@pytest.mark.parametrize("size", SIZES)
def test_what_failed_without_a_turn_says_why_and_is_run_again(
    open_tab: OpenTab, gateway: Gateway, size: tuple[int, int]
) -> None:
    tab = sized(open_tab, size)
    tab.begin("good morning")
    tab.answered("good morning")
    thread = thread_of(tab)
    client = gateway.client(session=tab.session)
    client.result("thread/archive", {"threadId": thread})
    failed = over(gateway, say(gateway, tab.session, "anybody there?", threadId=thread))
    assert failed["state"] == "failed" and not failed["turnId"]
    client.result("thread/unarchive", {"threadId": thread})
    client.close()
    row = region(tab, "Not answered")
    expect(row).to_contain_text(failed["error"], timeout=WAIT_MS)
    tab.page.goto(f"{gateway.url}/#/s/{tab.session}/{thread}")
    tab.page.reload()
    expect(row).to_contain_text("anybody there?", timeout=WAIT_MS)
    looked(tab, "not-answered", size)
    row.get_by_role("button", name="Run it again").click()
    tab.answered("anybody there?")
    expect(row).to_have_count(0)


# -- receipts and deliveries


@pytest.mark.parametrize("size", SIZES)
def test_a_receipt_tells_each_step_and_a_dead_delivery_is_sent_again(
    open_tab: OpenTab, gateway: Gateway, size: tuple[int, int]
) -> None:
    answers = [410]
    with Sink(lambda request: (answers[0], {})) as sink:
        tab = sized(open_tab, size)
        tab.begin("good morning")
        tab.answered("good morning")
        route = {"type": "http", "url": f"{sink.url}/receipt"}
        said = say(gateway, tab.session, "run: echo hi", threadId=thread_of(tab), replyRoute=route)
        expect(tab.card).to_be_visible(timeout=WAIT_MS)
        tab.button("Accept").click()
        over(gateway, said)
        expect(tab.page.get_by_text("Its answer was not delivered")).to_be_visible(timeout=WAIT_MS)
        tab.page.reload()
        expect(tab.page.get_by_text("Its answer was not delivered")).to_be_visible(timeout=WAIT_MS)
        tab.button("Receipt").click()
        dialog = tab.page.get_by_role("dialog", name="Receipt")
        expect(dialog.locator("[data-step]")).to_have_count(3)
        year = receipt(gateway, said)["acceptedAtMs"] // 1000 // 31556952 + 1970
        expect(dialog.locator("[data-step=stored] time")).to_contain_text(str(year))
        expect(dialog).to_contain_text("To run a command")
        expect(dialog).to_contain_text("given up")
        looked(tab, "receipt", size)
        answers[0] = 200
        dialog.get_by_role("button", name="Deliver again").click()
        until(lambda: receipt(gateway, said)["deliveries"][0]["state"] == "sent")
        tab.page.keyboard.press("Escape")
        expect(tab.page.get_by_text("Its answer was not delivered")).to_have_count(0, timeout=WAIT_MS)
        tab.button("Receipt").click()
        expect(dialog.locator("[data-step=delivered]")).to_be_visible()


# -- follow-ups


def test_a_follow_up_outlives_the_page(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 60 0.05")
    tab.counted_to(3)
    session = tab.session
    tab.say("said while it ran")
    until(lambda: inputs(tab))
    tab.page.goto("about:blank")
    (follow_up,) = gateway.api("GET", f"/sessions/{session}/inputs").json()["inputs"]
    assert over(gateway, follow_up)["state"] == "answered"
    tab.open(session)
    expect(tab.said).to_have_text(["slow 60 0.05", "said while it ran"], timeout=WAIT_MS)


def test_a_follow_up_whose_answer_got_lost_is_posted_again_and_said_once(open_tab: OpenTab) -> None:
    tab = open_tab(expected="ERR_FAILED|ERR_CONNECTION").sign_in()
    tab.begin("slow 60 0.05")
    tab.counted_to(3)
    posts: list[str] = []

    def lose(route: Route) -> None:
        posts.append(route.request.headers["idempotency-key"])
        if len(posts) < 3:
            route.fetch()  # it arrives
            route.abort()  # and its answer does not
        else:
            route.continue_()

    tab.page.route("**/inputs", lambda route: lose(route) if route.request.method == "POST" else route.continue_())
    tab.say("only once")
    tab.answered("only once")
    expect(queued(tab)).to_have_count(0, timeout=WAIT_MS)
    assert len(posts) == 3 and len(set(posts)) == 1
    expect(tab.said).to_have_text(["slow 60 0.05", "only once"])
    assert len(inputs(tab)) == 1


def test_stop_takes_back_what_was_typed_and_leaves_what_others_wait_for(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    thread = busy(tab)
    tab.say("typed here")
    expect(queued(tab)).to_have_count(1, timeout=WAIT_MS)
    other = say(gateway, tab.session, "from elsewhere", threadId=thread)
    expect(queued(tab)).to_have_count(2, timeout=WAIT_MS)
    tab.button("Stop").click()
    tab.answered("from elsewhere")
    assert over(gateway, other)["state"] == "answered"
    assert [each["state"] for each in inputs(tab)] == ["removed", "answered"]
    held = region(tab, "Messages taken back")
    expect(held).to_have_count(1)
    tab.page.reload()
    expect(held).to_contain_text("typed here", timeout=WAIT_MS)
    held.get_by_role("button", name="Send now").click()
    tab.answered("typed here")
    expect(held).to_have_count(0)
    expect(tab.said).to_have_text(["slow 5000 0.05", "from elsewhere", "typed here"])


def test_stop_while_the_removal_gets_no_answer_loses_and_doubles_nothing(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab(expected="ERR_FAILED").sign_in()
    busy(tab)
    tab.say("typed here")
    until(lambda: inputs(tab))
    expect(queued(tab).get_by_role("button", name="Remove")).to_be_visible(timeout=WAIT_MS)

    def lose(route: Route) -> None:
        if route.request.method == "DELETE":
            route.fetch()
            route.abort()
        else:
            route.continue_()

    tab.page.route("**/inputs/*", lose)
    tab.button("Stop").click()
    tab.idle()
    tab.page.unroute("**/inputs/*")
    tab.page.reload()
    expect(region(tab, "Messages taken back")).to_contain_text("typed here", timeout=WAIT_MS)
    expect(tab.said).to_have_text(["slow 5000 0.05"])
    assert [each["state"] for each in inputs(tab)] == ["removed"]


def test_a_follow_up_through_a_killed_gateway_is_said_once(own_gateway: Gateway, open_tab: OpenTab) -> None:
    tab = open_tab(own_gateway, expected=AWAY).sign_in()
    tab.begin("slow 60 0.05")
    tab.counted_to(3)
    tab.page.route("**/inputs", lambda route: route.abort() if route.request.method == "POST" else route.continue_())
    tab.forgive()
    tab.say("kept in the page")
    expect(queued(tab)).to_contain_text("sending…")
    own_gateway.kill()
    tab.page.unroute("**/inputs")
    own_gateway.start()
    tab.answered("kept in the page")
    expect(tab.said).to_have_text(["slow 60 0.05", "kept in the page"])
    assert len(inputs(tab)) == 1
    tab.forgive()


# -- usage


@pytest.mark.parametrize("size", SIZES)
def test_usage_is_told_by_conversation_and_by_day(open_tab: OpenTab, size: tuple[int, int]) -> None:
    tab = sized(open_tab, size)
    tab.begin("good morning")
    tab.answered("good morning")
    expect(tab.page.locator(".usage")).to_contain_text("tokens", timeout=WAIT_MS)
    tab.page.reload()
    expect(tab.page.locator(".usage")).to_contain_text("tokens", timeout=WAIT_MS)
    tab.button("More").click()
    tab.page.get_by_role("menuitem", name="Usage…").click()
    table = tab.page.get_by_role("dialog", name="Usage of this session").get_by_role("table")
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(table).to_contain_text("good morning")
    tab.button("By day").click()
    expect(table.locator("tbody tr")).to_have_count(1)
    expect(table.locator("tbody th")).to_contain_text(re.compile(r"20\d\d"))
    looked(tab, "usage", size)
