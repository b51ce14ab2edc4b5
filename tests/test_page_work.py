"""Working with the page: queue, threads, drafts, other windows, list, dialogs, keys; with the demo agent."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser import AWAY, WAIT_MS, OpenTab, Tab
from playwright.sync_api import Locator, expect
from support import Gateway, running


def queued(tab: Tab) -> Locator:
    return tab.page.get_by_role("region", name="Queued messages").get_by_role("listitem")


# -- said while the agent works


def test_what_is_said_in_mid_turn_is_queued_and_goes_out_when_the_turn_is_over(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 40 0.05")
    tab.counted_to(3)
    tab.say("first follow-up")
    tab.say("second follow-up")
    expect(queued(tab)).to_have_count(2)
    expect(tab.said).to_have_count(1)
    tab.answered("second follow-up")
    expect(tab.said).to_have_text(["slow 40 0.05", "first follow-up", "second follow-up"])
    expect(queued(tab)).to_have_count(0)


def test_a_queued_message_is_edited_and_removed(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 500 0.05")
    tab.counted_to(3)
    tab.say("one")
    tab.say("two")
    expect(queued(tab).get_by_role("button", name="Remove")).to_have_count(2, timeout=WAIT_MS)
    tab.page.keyboard.press("ArrowUp")
    expect(tab.composer).to_have_value("two")
    expect(queued(tab)).to_have_count(1)
    queued(tab).get_by_role("button", name="Remove").click()
    expect(queued(tab)).to_have_count(0)


def test_after_stop_queued_messages_wait_for_send_now(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 500 0.05")
    tab.counted_to(3)
    tab.say("later")
    tab.button("Stop").click()
    tab.idle()
    expect(tab.page.get_by_text("The turn was stopped.")).to_be_visible()
    expect(tab.said).to_have_count(1)
    tab.button("Send now").click()
    tab.answered("later")
    expect(tab.button("Send now")).to_have_count(0)


def test_send_now_in_mid_turn_reaches_the_running_turn(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 500 0.05")
    tab.counted_to(3)
    tab.say("something else")
    queued(tab).get_by_role("button", name="Send now").click(timeout=WAIT_MS)
    tab.answered("something else")
    expect(tab.said).to_have_text(["slow 500 0.05", "something else"])


def test_a_reload_keeps_the_queue_and_it_is_said_once(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 60 0.05")
    tab.counted_to(3)
    tab.say("later")
    tab.page.reload()
    tab.answered("later")
    expect(tab.said).to_have_text(["slow 60 0.05", "later"])
    expect(queued(tab)).to_have_count(0)


# -- questions in two windows


def test_a_question_asked_at_home_is_answered_on_the_phone(open_tab: OpenTab) -> None:
    home = open_tab().sign_in()
    session = home.begin("run: echo from afar")
    expect(home.card).to_be_visible()
    phone = open_tab(viewport={"width": 390, "height": 800}, has_touch=True).sign_in().open(session)
    expect(phone.card).to_contain_text("echo from afar", timeout=WAIT_MS)
    expect(phone.card).to_contain_text("asked in another window")
    expect(phone.button("Accept")).to_have_count(0)
    phone.button("Answer here").click()
    phone.button("Accept").click()
    phone.answered(re.compile("exit code 0"))
    home.answered(re.compile("exit code 0"))
    expect(home.log).to_contain_text("Accepted in another window")
    expect(home.card).to_have_count(0)


def test_enter_on_the_card_accepts_and_escape_while_writing_does_not_decline(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("run: echo by key")
    expect(tab.card).to_be_visible()
    tab.composer.fill("I am still writing")
    tab.page.keyboard.press("Escape")
    expect(tab.card).to_be_visible()
    tab.card.focus()
    tab.page.keyboard.press("Enter")
    tab.answered(re.compile("exit code 0"))
    expect(tab.composer).to_have_value("I am still writing")


# -- threads and drafts


def test_a_second_conversation_has_its_own_draft_and_the_first_is_found_again(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("the first conversation")
    tab.answered("the first conversation")
    expect(tab.page).to_have_url(re.compile(r"#/s/\w+/[\w-]+$"))
    first = tab.page.url
    tab.composer.fill("half a thought")
    tab.button("Conversations").click()
    tab.button("New conversation").click()
    expect(tab.page.get_by_text("Nothing said yet")).to_be_visible()
    expect(tab.composer).to_have_value("")
    tab.say("the second conversation")
    tab.answered("the second conversation")
    assert tab.page.url != first
    tab.button("Conversations").click()
    dialog = tab.page.get_by_role("dialog")
    expect(dialog.get_by_role("listitem")).to_have_count(2)
    dialog.get_by_role("button", name=re.compile("^the first conversation")).click()
    expect(tab.said).to_have_text(["the first conversation"], timeout=WAIT_MS)
    expect(tab.composer).to_have_value("half a thought")
    tab.page.go_back()
    expect(tab.said).to_have_text(["the second conversation"], timeout=WAIT_MS)


def test_a_conversation_is_renamed_archived_and_taken_back(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("to be put away")
    tab.answered("to be put away")
    tab.button("Conversations").click()
    tab.button("Rename to be put away").click()
    tab.page.get_by_label("Name", exact=True).fill("Old things")
    tab.page.get_by_role("button", name="Rename", exact=True).click()
    tab.button("Archive Old things").click()
    expect(tab.page.get_by_text("Nothing said yet")).to_be_visible()
    tab.button("Conversations").click()
    tab.button("Archived ones").click()
    tab.button("Take back Old things").click()
    expect(tab.said).to_have_text(["to be put away"], timeout=WAIT_MS)
    expect(tab.page.locator(".about")).to_contain_text("Old things")


# -- sessions


def test_a_session_is_renamed(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    session = tab.begin("a clumsy name")
    tab.answered("a clumsy name")
    tab.choose("a clumsy name", "Rename…")
    tab.page.get_by_label("Name of the session").fill("Greenhouse")
    tab.button("Rename").click()
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("Greenhouse")
    assert gateway.api("GET", f"/sessions/{session}").json()["title"] == "Greenhouse"


def test_a_name_that_is_refused_says_why_and_the_dialog_stays(open_tab: OpenTab) -> None:
    tab = open_tab(expected="status of 400").sign_in()
    tab.begin("a good name")
    tab.answered("a good name")
    tab.choose("a good name", "Rename…")
    tab.page.get_by_label("Name of the session").fill("\u200b")
    tab.button("Rename").click()
    expect(tab.page.get_by_role("dialog").get_by_role("alert")).not_to_be_empty()
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog")).to_have_count(0)


def test_a_session_is_made_with_the_agent_that_was_chosen(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    tab.page.get_by_label("Done by").select_option("demo")
    session = tab.begin("by the demo")
    tab.answered("by the demo")
    assert gateway.api("GET", f"/sessions/{session}").json()["agent"] == "demo"


def test_the_start_says_which_agent_works_and_what_to_try_with_the_demo(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    choice = tab.page.get_by_label("Done by")
    expect(choice.locator("option:checked")).to_have_text("the demo agent (default)")
    tab.button("run: ls -la").click()
    expect(tab.page.get_by_label("What should be done?")).to_have_value("run: ls -la")
    choice.select_option("codex")
    expect(tab.button("run: ls -la")).to_have_count(0)
    tab.button("How this page works").click()
    expect(tab.page.get_by_role("dialog")).to_contain_text("What the dots say")


def test_the_runtimes_log_is_one_click_away_and_the_agent_is_restarted(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("hello")
    tab.answered("hello")
    tab.button("More").click()
    tab.page.get_by_role("menuitem", name="Runtime log…").click()
    expect(tab.page.get_by_role("dialog", name="Runtime log").get_by_role("status")).to_contain_text(
        re.compile("newest lines|nothing yet")
    )
    tab.page.keyboard.press("Escape")
    tab.button("More").click()
    tab.page.get_by_role("menuitem", name="Restart agent…").click()
    tab.button("Restart").click()
    expect(tab.page.get_by_role("dialog")).to_have_count(0, timeout=WAIT_MS)
    expect(tab.page.locator(".trouble")).to_be_hidden(timeout=WAIT_MS)
    tab.say("after the restart")
    tab.answered("after the restart")
    expect(tab.said).to_have_text(["hello", "after the restart"])


@pytest.fixture(scope="module")
def full_gateway() -> Iterator[Gateway]:
    """A gateway with 200 sessions."""
    with running() as made:
        for number in range(200):
            assert made.api("POST", "/sessions", json={"title": f"session number {number:03d}"}).status_code == 201
        yield made


@pytest.mark.parametrize("width", [1440, 390])
def test_200_sessions_are_filtered_and_jumped_to(open_tab: OpenTab, full_gateway: Gateway, width: int) -> None:
    tab = open_tab(full_gateway, viewport={"width": width, "height": 800}).sign_in()
    if width < 900:
        tab.button("Sessions").click()
    rows = tab.page.locator(".sessions .row")
    expect(rows).to_have_count(200)
    tab.screenshot(f"200-sessions-{width}")
    tab.page.get_by_label("Filter sessions").fill("number 04")
    expect(rows).to_have_count(12)
    tab.page.get_by_label("Filter sessions").fill("no such name")
    expect(tab.page.get_by_text("None has that in its name.")).to_be_visible()
    tab.page.keyboard.press("Control+k")
    tab.page.get_by_role("combobox", name="Name of a session").fill("123")
    tab.screenshot(f"jump-{width}")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("session number 123")


# -- keys, help, colours


def test_the_question_mark_helps_but_not_in_mid_sentence(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    composer = tab.page.get_by_label("What should be done?")
    composer.press_sequentially("why?")
    expect(composer).to_have_value("why?")
    composer.fill("")
    tab.page.keyboard.press("?")
    expect(tab.page.get_by_role("dialog", name="Help")).to_contain_text("edit the last queued message")
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog")).to_have_count(0)


def test_escape_stops_the_turn_but_not_from_inside_a_dialog(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 500 0.05")
    tab.counted_to(3)
    tab.button("Help and keys (?)").click()
    expect(tab.page.get_by_role("dialog")).to_be_visible(timeout=WAIT_MS)
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog")).to_have_count(0)
    expect(tab.log).to_have_attribute("aria-busy", "true")
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator(".turn-end")).to_contain_text("while it was writing", timeout=WAIT_MS)


def test_the_colours_are_switched_and_stay_so(open_tab: OpenTab) -> None:
    tab = open_tab(color_scheme="light").sign_in()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.page.evaluate(ground)
    tab.button("Colours: as the system").click()
    assert tab.page.evaluate(ground) == light
    tab.button("Colours: light").click()
    dark = tab.page.evaluate(ground)
    assert dark != light
    tab.page.reload()
    assert tab.page.evaluate(ground) == dark


def test_back_and_forward_go_through_what_was_open(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("one session")
    tab.answered("one session")
    tab.page.get_by_role("link", name="New session").click()
    tab.begin("another session")
    tab.answered("another session")
    tab.page.go_back()
    tab.page.go_back()
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("one session")


# -- the gateway is away


def test_a_gateway_that_is_away_is_said_and_nothing_written_is_lost(own_gateway: Gateway, open_tab: OpenTab) -> None:
    tab = open_tab(own_gateway, expected=AWAY).sign_in()
    tab.begin("hello")
    tab.answered("hello")
    own_gateway.kill()
    expect(tab.line).to_have_text(re.compile("reconnecting in"), timeout=WAIT_MS)
    tab.say("kept here")
    expect(tab.composer).to_have_value("kept here")
    expect(tab.page.get_by_text("Your text stays here")).to_be_visible()
    tab.screenshot("dead-gateway")
    tab.page.get_by_role("link", name="New session").click()
    tab.page.get_by_label("What should be done?").fill("new work")
    tab.page.keyboard.press("Enter")
    expect(tab.page.get_by_text("Your text is kept here")).to_be_visible()
    tab.screenshot("dead-gateway-home")
    own_gateway.start()
    tab.page.get_by_label("What should be done?").press("Enter")
    tab.answered("new work")
