"""What the page makes of items and questions that the demo agent does not have, played by tests/fakes/scenes.py."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import pytest
from browser import WAIT_MS, OpenTab, Tab
from playwright.sync_api import Locator, Route, expect
from support import ROOT, Gateway, running


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One whose agent plays scenes."""
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=f"{sys.executable} {ROOT}/tests/fakes/scenes.py") as made:
        yield made


def play(tab: Tab, scene: str) -> Tab:
    tab.sign_in()
    tab.begin(f"scene: {scene}")
    return tab


def step(tab: Tab, kind: str, at: int = 0) -> Locator:
    return tab.page.locator(f"[data-item={kind}]").nth(at)


def opened(tab: Tab, kind: str, at: int = 0) -> Locator:
    """A folded step after a click on its line."""
    fold = step(tab, kind, at)
    fold.locator("summary").click()
    return fold.locator(".inside")


def given(tab: Tab) -> dict:
    """What the agent says it was answered."""
    tab.answered(re.compile("^answered"))
    return json.loads(tab.answer.inner_text().removeprefix("answered "))


PROSE = """\
One line of prose.

Another one, which is a little longer than the first one was.

- a
- b

Two lines.
The second of them.

1. one
2. two

The end."""


# -- items


def test_each_kind_of_work_is_one_line_that_opens(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "all")
    tab.answered(re.compile("The pump did not start"))
    expect(step(tab, "reasoning")).to_contain_text("Thought")
    expect(step(tab, "commandExecution")).to_contain_text(re.compile(r"Ran.*pytest -q.*exit 1 · 4 s"))
    expect(step(tab, "mcpToolCall")).to_contain_text("garden.read_sensor")
    expect(step(tab, "mcpToolCall", 1)).to_contain_text("failed")
    expect(step(tab, "webSearch")).to_contain_text("relay 24 V wiring")
    expect(step(tab, "fileChange")).to_contain_text("+3 −1")
    expect(step(tab, "gardenWateringDone")).to_contain_text("garden watering done")

    expect(opened(tab, "commandExecution")).to_contain_text("1 failed, 41 passed")
    expect(opened(tab, "mcpToolCall")).to_contain_text('"depth_cm": 20')
    expect(step(tab, "mcpToolCall").locator("img")).to_be_visible()
    expect(opened(tab, "mcpToolCall", 1)).to_contain_text("the valve is stuck")
    changed = opened(tab, "fileChange")
    expect(changed.locator(".added", has_text="LIMIT = 30")).to_be_visible()
    expect(changed.locator(".removed", has_text="LIMIT = 10")).to_be_visible()
    expect(opened(tab, "gardenWateringDone")).to_contain_text('"litres": 12')
    expect(step(tab, "imageGeneration").locator("img")).to_be_visible()


def test_a_plan_is_one_list_brought_up_to_date(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "all")
    tab.idle()
    plan = tab.page.locator("[data-item=planSteps]")
    expect(plan).to_have_count(1)
    expect(plan.locator("li[data-status=completed]")).to_have_count(3)
    expect(plan.locator("summary")).to_contain_text("3 of 3")


def test_the_tokens_used_are_told_if_the_agent_tells(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "all")
    expect(tab.page.locator(".usage")).to_have_text("48 k tokens · context 19 %", timeout=WAIT_MS)


def test_markdown_is_shown_when_the_text_is_complete_and_code_can_be_copied(open_tab: OpenTab) -> None:
    tab = play(open_tab(permissions=["clipboard-read", "clipboard-write"]), "all")
    answer = tab.page.locator(".answer.md")
    expect(answer.locator("strong")).to_have_text("not", timeout=WAIT_MS)
    expect(answer.locator("table td").first).to_have_text("north")
    expect(answer.locator("ol li")).to_have_count(2)
    link = answer.get_by_role("link", name="the manual")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    answer.get_by_role("button", name="Copy").click()
    expect(answer.get_by_text("Copied")).to_be_visible()
    assert tab.page.evaluate("navigator.clipboard.readText()").startswith("def should_run")


def test_nothing_moves_when_markdown_takes_the_place_of_prose(open_tab: OpenTab) -> None:
    tab = open_tab().sign_in()
    held: list[Route] = []
    tab.page.route("**/render", lambda route: held.append(route))
    tab.begin(PROSE)
    expect(tab.answer).to_contain_text("The end.", timeout=WAIT_MS)
    tab.idle()
    while not held:
        tab.page.wait_for_timeout(20)
    before = tab.answer.bounding_box()
    for route in held:
        route.continue_()
    expect(tab.page.locator(".answer.md li")).to_have_count(4, timeout=WAIT_MS)
    assert tab.answer.bounding_box() == before


def test_a_turn_that_failed_says_what_to_do_and_its_text_can_be_written_again(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "full")
    expect(tab.page.locator(".turn-end")).to_contain_text("the conversation is too long", timeout=WAIT_MS)
    expect(tab.page.locator(".advice")).to_contain_text("Begin a new one")
    tab.button("Write it again").click()
    expect(tab.composer).to_have_value("scene: full")


def test_stop_says_what_was_stopped(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "busy")
    expect(step(tab, "commandExecution")).to_contain_text("make everything", timeout=WAIT_MS)
    tab.button("Stop").click()
    expect(tab.page.locator(".turn-end")).to_contain_text("while it was running make everything", timeout=WAIT_MS)


def test_stop_ends_an_agent_that_does_not_listen(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "deaf")
    expect(step(tab, "commandExecution")).to_contain_text("make everything", timeout=WAIT_MS)
    tab.button("Stop").click()
    expect(tab.page.locator(".turn-end")).to_contain_text("did not stop when it was asked", timeout=WAIT_MS)
    expect(tab.button("Stop")).to_be_disabled(timeout=WAIT_MS)


# -- questions


def test_a_file_change_is_shown_in_full_before_it_is_accepted(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "patch")
    expect(tab.card).to_contain_text("/workspace/pump.py", timeout=WAIT_MS)
    expect(tab.card).to_contain_text("LIMIT = 30")
    expect(tab.card).to_contain_text("The limit is too low.")
    tab.button("Accept for this session").click()
    assert given(tab) == {"decision": "acceptForSession"}


def test_the_agents_own_questions_are_answered_with_a_choice_and_a_text(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "input")
    tab.card.get_by_label("Friday").check(timeout=WAIT_MS)
    tab.card.get_by_label("What opens the shed?").fill("sesame")
    expect(tab.card.get_by_label("What opens the shed?")).to_have_attribute("type", "password")
    tab.button("Answer").click()
    assert given(tab) == {"answers": {"day": {"answers": ["Friday"]}, "key": {"answers": ["sesame"]}}}


def test_more_permissions_are_given_for_the_session(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "permissions")
    expect(tab.card).to_contain_text("The package index is elsewhere.", timeout=WAIT_MS)
    expect(tab.card).to_contain_text('"enabled": true')
    tab.button("Allow for this session").click()
    assert given(tab) == {"permissions": {"network": {"enabled": True}}, "scope": "session"}


def test_permissions_that_are_declined_are_none(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "permissions")
    expect(tab.card).to_be_visible(timeout=WAIT_MS)
    tab.page.keyboard.press("Escape")
    assert given(tab) == {"permissions": {}, "scope": "turn"}


def test_a_tools_form_is_filled_in_and_what_is_missing_is_named(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "form")
    expect(tab.card).to_contain_text("How much water?", timeout=WAIT_MS)
    tab.button("Accept").click()
    expect(tab.card.get_by_role("alert")).to_have_text("Litres is needed.")
    tab.card.get_by_label("Litres").fill("12")
    tab.card.get_by_label("bed").select_option("south")
    tab.button("Accept").click()
    assert given(tab)["content"] == {"litres": 12, "bed": "south", "slow": True}


def test_a_tool_is_allowed_for_the_session(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "tool")
    expect(tab.card).to_contain_text("Allow garden to run open_valve?", timeout=WAIT_MS)
    tab.button("Accept for this session").click()
    assert given(tab) == {"_meta": {"persist": "session"}, "action": "accept", "content": {}}


def test_a_question_that_expires_counts_down(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "expires")
    expect(tab.card).to_contain_text(re.compile(r"1 min \d+ s left"), timeout=WAIT_MS)
    tab.button("Decline").click()
    tab.answered(re.compile("answered"))


def test_a_question_the_page_does_not_know_is_shown_and_refused_by_a_person(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "unknown")
    expect(tab.card).to_contain_text("item/garden/requestWater", timeout=WAIT_MS)
    expect(tab.card).to_contain_text('"litres": 12')
    expect(tab.button("Accept")).to_have_count(0)
    tab.button("Refuse").click()
    assert given(tab)["code"] == -32601


def test_a_question_for_programs_is_refused_and_said(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "program")
    assert given(tab)["code"] == -32601
    expect(tab.log).to_contain_text("The agent asked for item/tool/call")


def test_two_questions_are_two_cards_and_ctrl_enter_accepts_the_first(open_tab: OpenTab) -> None:
    tab = play(open_tab(), "two")
    expect(tab.card).to_have_count(2, timeout=WAIT_MS)
    expect(tab.card.first).to_contain_text("1 of 2")
    until_gone = tab.card.filter(has_text="echo first")
    while until_gone.count():  # a card that has just come is not accepted by a key yet
        tab.page.keyboard.press("Control+Enter")
        tab.page.wait_for_timeout(100)
        if tab.card.filter(has_text="echo second").count() == 0:
            break
    tab.answered(re.compile("answered")) if tab.card.count() == 0 else tab.card.last.get_by_role(
        "button", name="Decline"
    ).click()
    tab.answered(re.compile("answered"))


# -- nobody gets hurt


@pytest.mark.parametrize("width", [1440, 390])
def test_texts_of_an_attacker_stay_texts_wherever_they_are(open_tab: OpenTab, width: int) -> None:
    tab = play(open_tab(viewport={"width": width, "height": 800}, expected="never"), "hostile")
    for _ in range(4):
        expect(tab.card.first).to_be_visible(timeout=WAIT_MS)
        name = "Refuse" if tab.button("Refuse").count() else re.compile("^(Decline|Skip)")
        shown = tab.card.first.inner_text()
        tab.card.first.get_by_role("button", name=name).click()
        expect(tab.card.filter(has_text=shown[:40]).filter(has=tab.page.locator("button:enabled"))).to_have_count(0)
    expect(tab.page.locator(".turn-end").last).to_contain_text("Failed", timeout=WAIT_MS)
    tab.page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    tab.button("Conversations").click()
    expect(tab.page.get_by_role("dialog")).to_contain_text("onerror")
    tab.page.keyboard.press("Escape")
    unhurt(tab)
    title = {"title": '<img src=x onerror="window.hurt=1">'}
    assert tab.gateway.api("PATCH", f"/sessions/{tab.session}", json=title).ok
    tab.page.reload()  # the same from the history, with names of a session and of a model that hurt
    expect(tab.page.get_by_role("heading", level=1)).to_contain_text("onerror", timeout=WAIT_MS)
    expect(tab.page.locator(".about")).to_contain_text("onerror", timeout=WAIT_MS)
    expect(tab.page.locator(".turn-end, [data-item=commandExecution]").last).to_be_visible(timeout=WAIT_MS)
    unhurt(tab)


def unhurt(tab: Tab) -> None:
    tab.page.wait_for_load_state()
    assert tab.page.evaluate("window.hurt ?? 0") == 0
    bad = "script:not([src]), iframe, object, embed, svg [onload], [onerror], [onmouseover], #app style, math, base"
    assert tab.page.evaluate(f"document.querySelector('#app').querySelectorAll({bad!r}).length") == 0
    links = tab.page.evaluate("[...document.querySelectorAll('#app a')].map((a) => a.protocol)")
    assert set(links) <= {"http:", "https:", "mailto:"}
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


BUILD = """async (html) => {
  const { build } = await import('/assets/js/markdown.js');
  const box = document.createElement('div');
  box.append(build(html));
  document.body.append(box);
  await new Promise((done) => setTimeout(done, 50));
  const nodes = [...box.querySelectorAll('*')];
  const attributes = new Set(nodes.flatMap((node) => [...node.attributes].map(({ name }) => name)));
  const hrefs = nodes.filter((node) => node.href).map((node) => node.getAttribute('href'));
  const result = { tags: [...new Set(nodes.map(({ localName }) => localName))], attributes: [...attributes], hrefs };
  box.remove();
  return { ...result, hurt: window.hurt ?? 0 };
}"""


def test_the_page_trusts_no_html_not_even_the_gateways(open_tab: OpenTab) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "fakes"))
    from scenes import HTML

    tab = open_tab().sign_in()
    found = tab.page.evaluate(
        BUILD, "".join(HTML) + "<p onclick=window.hurt=1 style='color:red' id=app class=stop>x</p>" + "<div>" * 5000
    )
    assert found["hurt"] == 0
    assert not {"img", "script", "style", "iframe", "math", "form"} & set(found["tags"])
    assert not {"onclick", "onerror", "style", "id", "srcdoc"} & set(found["attributes"])
    assert all(href.startswith(("http://", "https://", "mailto:")) for href in found["hrefs"])
    tab.forgive()  # that the parser met a policy which would have stopped these too
