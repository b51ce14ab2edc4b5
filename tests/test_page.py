"""The page in a real browser, against a real gateway with the demo agent."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest
from browser import AWAY, UNAUTHORIZED, WAIT_MS, OpenTab
from playwright.sync_api import WebSocketRoute, expect
from support import TOKEN, Gateway, running, until


def deaf_after(socket: WebSocketRoute, method: str, deliver: bool = True, and_break: bool = True) -> None:
    """Pass frames on until this request goes out; then nothing comes back, and the connection breaks."""
    server = socket.connect_to_server()
    cut = [False]

    def outgoing(text: str | bytes) -> None:
        if f'"{method}"' in str(text):
            cut[0] = True
            if deliver:
                server.send(text)
            else:
                server.close()
            if and_break:
                socket.close()
        elif not cut[0]:
            server.send(text)

    socket.on_message(outgoing)
    server.on_message(lambda text: None if cut[0] else socket.send(text))


# -- signing in


def test_a_link_signs_in_once_and_is_dead_afterwards(open_tab: OpenTab, gateway: Gateway) -> None:
    link = gateway.api("POST", "/auth/link").json()["url"]
    first = open_tab()
    first.page.goto(link)
    expect(first.page.get_by_label("What should be done?")).to_be_visible()
    assert "ticket" not in first.page.url
    first.page.reload()
    expect(first.page.get_by_label("What should be done?")).to_be_visible()

    second = open_tab(expected=UNAUTHORIZED)
    second.page.goto(link)
    expect(second.page.get_by_role("alert")).to_contain_text("./argus link")
    assert "ticket" not in second.page.url


def test_a_pasted_token_signs_in_and_signing_out_forgets_it(open_tab: OpenTab) -> None:
    tab = open_tab(expected=UNAUTHORIZED)
    tab.page.goto(tab.gateway.url)
    tab.page.get_by_label("Or paste a token").fill(TOKEN)
    tab.button("Sign in").click()
    expect(tab.page.get_by_label("What should be done?")).to_be_visible()

    tab.button("Sign out").click()
    expect(tab.page.get_by_role("alert")).to_have_text("You are signed out.")
    assert TOKEN not in tab.page.evaluate("JSON.stringify(localStorage)")


def test_a_wrong_token_is_answered_with_what_to_do(open_tab: OpenTab) -> None:
    tab = open_tab(expected=UNAUTHORIZED)
    tab.page.goto(tab.gateway.url)
    tab.page.get_by_label("Or paste a token").fill("not-the-token")
    tab.button("Sign in").click()
    expect(tab.page.get_by_role("alert")).to_contain_text("./argus link")
    expect(tab.page.get_by_label("Or paste a token")).to_be_visible()


def test_a_gateway_that_asks_for_no_token_needs_no_sign_in(open_tab: OpenTab) -> None:
    with running(ARGUS_AUTH="off") as gateway:
        tab = open_tab(gateway)
        tab.page.goto(gateway.url)
        tab.begin("good morning")
        tab.answered("good morning")
        tab.page.goto("about:blank")


def test_a_revoked_token_leads_to_the_sign_in_with_the_reason(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab(expected=UNAUTHORIZED).sign_in()
    tab.begin("hello")
    tab.answered("hello")
    for token in gateway.api("GET", "/auth/tokens").json()["tokens"]:
        gateway.api("DELETE", f"/auth/tokens/{token['id']}")
    expect(tab.page.get_by_role("alert")).to_contain_text("Your sign-in has ended", timeout=WAIT_MS)


# -- talking


def test_a_session_begins_with_its_first_message(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("good morning, agent")
    tab.answered("good morning, agent")
    expect(tab.said).to_have_text(["good morning, agent"])
    expect(tab.page.get_by_role("heading", level=1)).to_have_text("good morning, agent")
    expect(tab.page.get_by_role("link", name="good morning, agent")).to_be_visible()

    tab.say("and a second one")
    tab.answered("and a second one")
    expect(tab.said).to_have_text(["good morning, agent", "and a second one"])


def test_an_answer_streams_word_by_word(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 30 0.05")
    tab.counted_to(3)
    assert tab.numbers()[-1] < 30
    expect(tab.button("Stop")).to_be_enabled()
    tab.counted_to(30)
    tab.idle()
    assert tab.numbers() == list(range(1, 31))
    expect(tab.button("Stop")).to_be_disabled()


def test_the_view_follows_the_newest_line_only_from_the_bottom(open_tab: OpenTab) -> None:
    tab = open_tab(viewport={"width": 900, "height": 400}).sign_in()
    tab.begin("many lines\n" * 40)
    tab.answered("many lines")
    bottom = "(box) => box.scrollHeight - box.scrollTop - box.clientHeight"
    assert tab.log.evaluate(bottom) < 2
    tab.say("slow 40 0.05")
    tab.counted_to(3)
    assert tab.log.evaluate(bottom) < 2
    tab.log.evaluate("(box) => { box.scrollTop = 100; }")
    expect(tab.button("new")).to_be_visible()
    tab.counted_to(40)
    assert tab.log.evaluate("(box) => box.scrollTop") == 100
    tab.button("new").click()
    assert tab.log.evaluate(bottom) < 2


def test_shift_enter_makes_a_new_line(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("hello")
    tab.answered("hello")
    tab.composer.press_sequentially("one")
    tab.page.keyboard.press("Shift+Enter")
    tab.composer.press_sequentially("two")
    tab.page.keyboard.press("Enter")
    tab.answered(re.compile(r"^one\s+two"))


def test_what_the_agent_says_stays_text(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    nasty = '<img src=x onerror="document.title=1"> <script>document.title=2</script>'
    tab.begin(nasty)
    tab.answered(nasty)
    assert tab.page.locator("main img, main script").count() == 0


def test_a_failed_turn_says_why(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("fail")
    expect(tab.page.locator(".turn-end")).to_contain_text("Failed", timeout=WAIT_MS)
    tab.say("still there?")
    tab.answered("still there?")


# -- approvals


def test_an_accepted_command_runs(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    tab.begin("run: echo hi > made.txt")
    expect(tab.card).to_contain_text("echo hi > made.txt")
    expect(tab.card).to_contain_text(str(gateway.home / "workspace"))
    made = gateway.home / "workspace" / "made.txt"
    assert not made.exists()
    tab.button("Accept").click()
    tab.answered(re.compile("exit code 0"))
    assert made.read_text() == "hi\n"
    expect(tab.card).to_have_count(0)
    fold = tab.page.locator("[data-item=commandExecution]")
    expect(fold).to_contain_text("exit 0")
    fold.locator("summary").click()
    expect(fold.locator("pre").first).to_have_text("echo hi > made.txt")


def test_a_command_accepted_for_the_session_is_not_asked_again(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("run: echo again")
    tab.button("Accept for this session").click()
    tab.answered(re.compile("exit code 0"))
    tab.say("run: echo again")
    expect(tab.page.locator("[data-item=commandExecution]")).to_have_count(2, timeout=WAIT_MS)
    tab.answered(re.compile("exit code 0"))


def test_escape_declines_and_the_command_does_not_run(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    tab.begin("run: touch never.txt")
    expect(tab.card).to_be_visible()
    tab.page.keyboard.press("Escape")
    tab.answered(re.compile("declined"))
    assert not (gateway.home / "workspace" / "never.txt").exists()
    expect(tab.page.locator("[data-item=commandExecution]")).to_contain_text("Declined")


def test_a_reload_asks_the_open_question_again_with_one_card(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("run: echo after the reload")
    expect(tab.card).to_be_visible()
    tab.page.reload()
    expect(tab.card).to_have_count(1, timeout=WAIT_MS)
    expect(tab.card).to_contain_text("echo after the reload")
    tab.button("Accept").click()
    tab.answered(re.compile("after the reload"))


# -- stopping


def test_stop_ends_the_turn_and_says_so(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("slow 500 0.05")
    tab.counted_to(3)
    tab.button("Stop").click()
    expect(tab.page.locator(".turn-end")).to_contain_text("Stopped", timeout=WAIT_MS)
    tab.idle()
    assert 3 <= len(tab.numbers()) < 500
    tab.say("go on")
    tab.answered("go on")


# -- nothing lost, nothing doubled


def test_a_reload_in_mid_turn_shows_every_number_once(open_tab: OpenTab) -> None:
    tab = open_tab().watch_counting().sign_in()
    tab.begin("slow 100 0.05")
    for reached in (5, 20, 40):
        tab.counted_to(reached)
        tab.page.reload()
        expect(tab.answer).to_have_text(re.compile(r"^1 2 3 "), timeout=WAIT_MS)
    tab.counted_to(100)
    tab.idle()
    assert tab.numbers() == list(range(1, 101))
    expect(tab.said).to_have_count(1)
    assert tab.page.locator("[data-item=agentMessage]").count() == 1


def test_going_away_and_coming_back_in_mid_turn_shows_every_number_once(open_tab: OpenTab) -> None:
    tab = open_tab().watch_counting().sign_in()
    session = tab.begin("slow 60 0.05")
    tab.counted_to(5)
    tab.page.get_by_role("link", name="New session").click()
    expect(tab.page.get_by_label("What should be done?")).to_be_visible()
    tab.open(session)
    tab.counted_to(60)
    tab.idle()
    assert tab.numbers() == list(range(1, 61))


def test_a_killed_gateway_costs_no_number(own_gateway: Gateway, open_tab: OpenTab) -> None:
    tab = open_tab(own_gateway, expected=AWAY).watch_counting().sign_in()
    tab.begin("slow 120 0.05")
    tab.counted_to(5)
    own_gateway.kill()
    expect(tab.line).to_have_text(re.compile("reconnecting in"))
    own_gateway.start()
    expect(tab.line).to_have_text(re.compile("live"), timeout=WAIT_MS)
    tab.counted_to(120)
    tab.idle()
    assert tab.numbers() == list(range(1, 121))
    expect(tab.said).to_have_count(1)


def test_a_killed_agent_ends_the_turn_in_words_and_the_page_goes_on(own_gateway: Gateway, open_tab: OpenTab) -> None:
    tab = open_tab(own_gateway).sign_in()
    tab.begin("slow 500 0.05")
    tab.counted_to(5)
    for pid in own_gateway.pids_of("demo.py"):
        os.kill(pid, signal.SIGKILL)
    expect(tab.page.locator(".turn-end")).to_contain_text("Interrupted", timeout=WAIT_MS)
    tab.button("Write it again").click()
    expect(tab.composer).to_have_value("slow 500 0.05")
    tab.say("back again?")
    tab.answered("back again?")


def test_a_message_whose_answer_never_came_is_found_in_the_history_and_not_sent_again(
    open_tab: OpenTab, gateway: Gateway
) -> None:
    tab = open_tab().sign_in()
    tab.begin("hello")
    tab.answered("hello")
    tab.page.route_web_socket(re.compile("/ws"), lambda ws: deaf_after(ws, "turn/start"))
    tab.page.reload()
    expect(tab.line).to_have_text(re.compile("live"), timeout=WAIT_MS)
    tab.say("only once")
    tab.answered("only once")
    expect(tab.said).to_have_text(["hello", "only once"])
    assert tab.composer.input_value() == ""


def test_a_message_that_never_left_comes_back_into_the_composer(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    tab.begin("hello")
    tab.answered("hello")
    tab.page.route_web_socket(re.compile("/ws"), lambda ws: deaf_after(ws, "turn/start", deliver=False))
    tab.page.reload()
    expect(tab.line).to_have_text(re.compile("live"), timeout=WAIT_MS)
    tab.say("lost on the way")
    expect(tab.page.locator(".why")).to_contain_text("Not sent", timeout=WAIT_MS)
    expect(tab.composer).to_have_value("lost on the way")
    expect(tab.said).to_have_text(["hello"])


@pytest.fixture
def forgetful_gateway() -> Iterator[Gateway]:
    """A gateway that keeps little more than 200 lines for replay."""
    with running(ARGUS_RING_BYTES="65536") as made:
        yield made


def test_a_reload_after_the_beginning_is_forgotten_says_so_and_ends_with_every_number(
    forgetful_gateway: Gateway, open_tab: OpenTab
) -> None:
    tab = open_tab(forgetful_gateway).sign_in()
    tab.begin("slow 900 0.005")
    tab.counted_to(500)
    tab.page.reload()
    expect(tab.log).to_contain_text("The beginning of this answer comes when it is complete", timeout=WAIT_MS)
    tab.counted_to(900)
    tab.idle()
    assert tab.numbers() == list(range(1, 901))
    expect(tab.page.get_by_text("The beginning of this answer")).to_be_hidden()
    expect(tab.said).to_have_count(1)


def test_a_reload_needs_no_more_of_the_past_than_the_running_turn(
    forgetful_gateway: Gateway, open_tab: OpenTab
) -> None:
    tab = open_tab(forgetful_gateway).watch_counting().sign_in()
    tab.begin("slow 900 0.001")  # more than is kept
    tab.counted_to(900)
    tab.idle()
    tab.say("slow 100 0.05")
    for _ in range(2):
        expect(tab.page.locator("[data-item=agentMessage]")).to_have_count(2, timeout=WAIT_MS)
        expect(tab.answer).to_have_text(re.compile(r"^1 2 3 4 5 "), timeout=WAIT_MS)
        tab.page.reload()
    expect(tab.page.locator("[data-item=agentMessage]")).to_have_count(2, timeout=WAIT_MS)
    expect(tab.line).to_have_text(re.compile("live, replayed"))
    tab.counted_to(100)
    tab.idle()
    expect(tab.said).to_have_text(["slow 900 0.001", "slow 100 0.05"])


def test_a_reload_just_after_sending_shows_the_turn_from_its_beginning(
    forgetful_gateway: Gateway, open_tab: OpenTab
) -> None:
    tab = open_tab(forgetful_gateway).watch_counting().sign_in()
    tab.begin("slow 900 0.001")  # more than is kept
    tab.counted_to(900)
    tab.idle()
    tab.page.route_web_socket(re.compile("/ws"), lambda ws: deaf_after(ws, "turn/start", and_break=False))
    tab.page.reload()
    expect(tab.said).to_have_count(1, timeout=WAIT_MS)
    tab.say("slow 100 0.05")
    expect(tab.page.get_by_text("sending…")).to_be_visible()
    tab.page.reload()
    expect(tab.page.locator("[data-item=agentMessage]")).to_have_count(2, timeout=WAIT_MS)
    tab.counted_to(100)
    tab.idle()
    expect(tab.said).to_have_text(["slow 900 0.001", "slow 100 0.05"])


def test_an_outage_longer_than_the_gateways_memory_reloads_the_history(
    forgetful_gateway: Gateway, open_tab: OpenTab
) -> None:
    tab = open_tab(forgetful_gateway, expected=AWAY).sign_in()
    session = tab.begin("slow 900 0.005")
    tab.counted_to(5)
    forgetful_gateway.kill()
    thread = next((forgetful_gateway.home / "sessions" / session / "state" / "threads").iterdir())
    until(lambda: '"completed"' in thread.read_text(), what="the turn ends while the gateway is down")
    forgetful_gateway.start()
    expect(tab.line).to_contain_text("gap, history reloaded", timeout=WAIT_MS)
    tab.idle()
    assert tab.numbers() == list(range(1, 901))
    expect(tab.said).to_have_count(1)
    tab.say("go on")
    tab.answered("go on")


# A turn as a list of frames; the history as it was when the first n of them had been sent: whole items only.
ANY_ORDER = """async () => {
  const { applyFrame, applySnapshot, emptyThread } = await import('/assets/js/thread.js');
  const at = { threadId: 't', turnId: 'u' };
  const frame = (method, params) => ({ method, params: { ...at, ...params } });
  const user = { type: 'userMessage', id: 'i1', clientId: 'c', content: [{ type: 'text', text: 'hi' }] };
  const says = (id, words) => [
    frame('item/started', { item: { type: 'agentMessage', id, text: '' } }),
    ...words.map((delta) => frame('item/agentMessage/delta', { itemId: id, delta })),
    frame('item/completed', { item: { type: 'agentMessage', id, text: words.join('') } }),
  ];
  const frames = [
    frame('turn/started', { turn: { id: 'u', items: [] } }),
    frame('item/started', { item: user }), frame('item/completed', { item: user }),
    ...says('i2', ['one ', 'two ', 'three ']), ...says('i3', ['four ', 'five ']),
    frame('turn/completed', { turn: { id: 'u', status: 'completed', items: [], durationMs: 5 } }),
  ];
  const history = (n) => {
    const items = frames.slice(0, n).filter((f) => f.method === 'item/completed').map((f) => f.params.item);
    return n ? [{ id: 'u', status: n === frames.length ? 'completed' : 'inProgress', items }] : [];
  };
  const shown = (thread) => thread.turns.map((turn) => [...turn.items.values()].map((item) => item.text));
  const wrong = [];
  for (let from = 0; from <= frames.length; from += 1) {        // the first frame that the page gets
    for (let read = from; read <= frames.length; read += 1) {   // when the history was read
      const thread = emptyThread('t');
      frames.slice(from, read).forEach((f) => applyFrame(thread, f));
      applySnapshot(thread, history(read));
      frames.slice(read).forEach((f) => applyFrame(thread, f));
      if (!from && thread.stale) wrong.push(`read at ${read}: it was streamed from its beginning`);
      if (thread.stale) applySnapshot(thread, history(frames.length));
      const got = JSON.stringify([shown(thread), thread.turns.map((turn) => turn.status), thread.stale]);
      const right = JSON.stringify([[['hi', 'one two three ', 'four five ']], ['completed'], false]);
      if (got !== right) wrong.push(`from ${from}, read at ${read}: ${got}`);
    }
  }
  return wrong;
}"""


def test_a_turn_is_the_same_wherever_the_stream_begins_and_whenever_the_history_is_read(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    assert tab.page.evaluate(ANY_ORDER) == []


# -- more than one


def test_a_second_tab_sees_the_first_ones_turn(open_tab: OpenTab) -> None:
    first = open_tab().sign_in()
    session = first.begin("hello")
    first.answered("hello")
    second = open_tab(beside=first).open(session)
    expect(second.said).to_have_text(["hello"])
    first.say("slow 20 0.05")
    second.counted_to(20)
    second.idle()
    assert second.numbers() == list(range(1, 21))
    expect(second.said).to_have_text(["hello", "slow 20 0.05"])


def test_another_browser_that_comes_in_mid_turn_sees_all_of_it(open_tab: OpenTab) -> None:
    first = open_tab().sign_in()
    session = first.begin("slow 80 0.05")
    first.counted_to(10)
    second = open_tab().watch_counting().sign_in().open(session)
    expect(second.answer).to_have_text(re.compile(r"^1 2 3 "), timeout=WAIT_MS)
    second.counted_to(80)
    second.idle()
    assert second.numbers() == list(range(1, 81))
    expect(second.said).to_have_count(1)


def test_only_who_asked_may_answer_and_the_other_window_says_so(open_tab: OpenTab) -> None:
    first = open_tab().sign_in()
    session = first.begin("run: echo mine")
    expect(first.card).to_be_visible()
    second = open_tab(beside=first).open(session)
    expect(second.log).to_contain_text("Waiting for an answer in another window", timeout=WAIT_MS)
    expect(second.button("Accept")).to_have_count(0)
    first.button("Decline").click()
    second.answered(re.compile("declined"))


def test_a_copied_tab_and_its_original_both_go_on(open_tab: OpenTab) -> None:
    first = open_tab().sign_in()
    first.begin("good morning")
    first.answered("good morning")
    copy = open_tab(beside=first)
    memory = first.page.evaluate("JSON.stringify(sessionStorage)")
    copy.page.add_init_script(f"Object.assign(sessionStorage, {memory})")
    copy.open(first.session)
    expect(copy.line).to_have_text(re.compile("live"), timeout=WAIT_MS)
    copy.say("slow 20 0.05")
    for tab in (copy, first):
        tab.counted_to(20)
        tab.idle()
        assert tab.numbers() == list(range(1, 21))
        expect(tab.said).to_have_text(["good morning", "slow 20 0.05"])


def test_an_agent_that_cannot_start_is_shown_with_the_reason(open_tab: OpenTab) -> None:
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD="sh -c 'echo no such model >&2; exit 3'") as gateway:
        tab = open_tab(gateway).sign_in()
        tab.begin("are you there?")
        expect(tab.page.get_by_role("alert")).to_contain_text("no such model", timeout=WAIT_MS)
        expect(tab.page.get_by_role("alert")).to_contain_text("could not be kept running", timeout=WAIT_MS)
        expect(tab.composer).to_have_value("are you there?")
        tab.screenshot("agent-failed")
        tab.page.goto("about:blank")


# -- the list


def test_a_session_is_deleted_after_a_confirmation(open_tab: OpenTab, gateway: Gateway) -> None:
    tab = open_tab().sign_in()
    session = tab.begin("to be deleted")
    tab.answered("to be deleted")
    tab.choose("to be deleted", "Delete…")
    tab.button("Keep").click()
    assert gateway.api("GET", f"/sessions/{session}").ok
    tab.choose("to be deleted", "Delete…")
    tab.button("Delete").click()
    expect(tab.page.get_by_role("link", name="to be deleted")).to_have_count(0)
    expect(tab.page.get_by_text("That session was deleted.")).to_be_visible()
    assert gateway.api("GET", f"/sessions/{session}").status_code == 404


def test_an_unknown_session_leads_home_with_the_reason(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in().open("nosuchsession")
    expect(tab.page.get_by_text("There is no such session any more.")).to_be_visible()


# -- how it looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 900, 390])
def test_it_fits_the_window(open_tab: OpenTab, width: int, scheme: str) -> None:
    tab = open_tab(viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
    tab.page.goto(tab.gateway.url)
    tab.screenshot(f"signin-{width}-{scheme}")
    tab.expected = UNAUTHORIZED
    tab.sign_in()
    tab.screenshot(f"home-{width}-{scheme}")
    tab.begin("Please look at the greenhouse sensors and tell me which of them are silent " + "w" * 120)
    tab.answered(re.compile("greenhouse"))
    tab.say("run: printf 'one\\ntwo\\nthree\\n' && exit 3")
    tab.button("Accept").click()
    tab.answered(re.compile("exit code 3"))
    tab.page.locator("[data-item=commandExecution] summary").click()
    tab.say("שלום עולם, this is right to left")
    tab.answered(re.compile("right to left"))
    tab.say("run: rsync -a --delete /srv/greenhouse/data/ backup@example.org:/var/backups/greenhouse/ && echo done")
    expect(tab.card).to_be_visible()
    for control in (tab.composer, tab.button("Accept"), tab.button("Decline"), tab.button("Stop")):
        expect(control).to_be_in_viewport(ratio=1)
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.screenshot(f"talk-{width}-{scheme}")
    tab.button("Decline").click()
    tab.idle()
    if width < 900:
        tab.button("Sessions").click()
        expect(tab.page.get_by_role("link", name="New session")).to_be_in_viewport()
        tab.screenshot(f"list-{width}-{scheme}")
