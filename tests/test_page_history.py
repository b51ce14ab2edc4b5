"""Long histories in the page: the newest at once, older ones by pages, and nothing that is read moves."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import WAIT_MS, OpenTab, Tab
from playwright.sync_api import expect
from support import ROOT, Gateway, running, until

ITEMS = 5000
MARK = "() => performance.mark('click')"
PAINTED = """() => {
  const shown = [...document.querySelectorAll('[data-item=agentMessage] .answer')].at(-1)?.textContent ?? '';
  if (!shown.includes('the very last answer')) return 0;
  return performance.now() - performance.getEntriesByName('click')[0].startTime;
}"""


def item(turn: str, number: int, **fields: object) -> dict:
    return {"item": {"id": f"{turn}-{number}", **fields}, "turnId": turn}


def records(turns: int, each: int, began: int) -> Iterator[dict]:
    """What the demo agent keeps of so many turns with so many items each."""
    for number in range(turns):
        turn = f"turn-{number}"
        begun = {"id": turn, "items": [], "status": "inProgress", "error": None, "startedAt": began + number}
        yield {"turn": begun}
        yield item(turn, 0, type="userMessage", clientId=None, content=[{"type": "text", "text": f"question {number}"}])
        for at in range(1, each - 1):
            command = {"command": f"step {at} of turn {number}", "cwd": "/workspace", "status": "completed"}
            yield item(
                turn, at, type="commandExecution", **command, aggregatedOutput="fine\n" * 20, exitCode=0, durationMs=5
            )
        last = "the very last answer" if number == turns - 1 else f"answer {number}\n\nwith a **second** paragraph"
        yield item(turn, each, type="agentMessage", text=last)
        yield {"turn": {**begun, "status": "completed", "completedAt": began + number, "durationMs": 900}}


def lengthen(gateway: Gateway, session: str, turns: int, each: int) -> None:
    """Write a long history behind a session's one thread."""
    folder: Path = gateway.home / "sessions" / session / "state" / "threads"
    file = until(lambda: next(folder.glob("*.jsonl"), None))
    lines = [json.dumps(record) for record in records(turns, each, int(time.time()) - 100_000)]
    with file.open("a") as out:
        out.write("\n".join(lines) + "\n")


def long_session(tab: Tab, turns: int, each: int) -> str:
    """A session whose thread has turns * each items, with the start page open."""
    tab.sign_in()
    session = tab.begin("the first thing that was said")
    tab.answered("the first thing")
    tab.page.get_by_role("link", name="New session").click()
    expect(tab.page.get_by_label("What should be done?")).to_be_visible()
    lengthen(tab.gateway, session, turns, each)
    return session


@pytest.mark.parametrize(("turns", "each"), [(500, 10), (5, 1000)], ids=["many turns", "long turns"])
def test_5000_items_open_with_the_newest_in_sight(open_tab: OpenTab, turns: int, each: int) -> None:
    tab = open_tab()
    long_session(tab, turns, each)
    tab.page.evaluate(MARK)
    tab.page.get_by_role("link", name="the first thing").first.click()
    took_ms = tab.page.wait_for_function(PAINTED, polling=10, timeout=WAIT_MS).json_value()
    print(f"\n{turns * each} items: {took_ms:.0f} ms from the click to the newest message")
    expect(tab.answer).to_be_in_viewport()
    assert tab.page.locator("[data-item]").count() < 200


def test_older_pages_come_when_scrolling_up_and_nothing_jumps(open_tab: OpenTab) -> None:
    tab = open_tab(viewport={"width": 900, "height": 600})
    long_session(tab, 60, 6)
    tab.page.get_by_role("link", name="the first thing").first.click()
    expect(tab.answer).to_contain_text("the very last answer", timeout=WAIT_MS)
    tab.page.evaluate(WATCH_JUMPS)
    first = tab.page.get_by_text("the first thing that was said", exact=True).locator("visible=true")
    for _ in range(200):
        tab.log.hover()
        tab.page.mouse.wheel(0, -700)
        tab.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        if (
            tab.log.evaluate("(box) => box.scrollTop") == 0
            and tab.page.locator(".bubble", has_text="the first thing").count()
        ):
            break
    expect(tab.page.locator(".bubble", has_text="the first thing that was said")).to_be_visible()
    expect(tab.page.locator(".bubble", has_text=re.compile("^question 59$"))).to_have_count(1)
    assert tab.page.locator(".turn").count() == 61
    assert tab.page.evaluate("window.jumps") == []
    del first


# A text in sight may move by what was scrolled, and by nothing else. Scrolling by the wheel comes with a scroll event;
# what the page itself corrects leaves the text where it was.
WATCH_JUMPS = """
window.jumps = [];
const box = document.querySelector('.log');
const middle = () => {
  const { left, top, width, height } = box.getBoundingClientRect();
  return document.elementFromPoint(left + width / 2, top + height / 2)?.closest('[data-item]');
};
let mark = null, at = 0;
const watch = () => {
  if (mark?.isConnected) {
    const moved = mark.getBoundingClientRect().top - at;
    if (moved < -40 || moved > 1500) window.jumps.push(Math.round(moved));
  }
  mark = middle();
  at = mark?.getBoundingClientRect().top ?? 0;
  requestAnimationFrame(watch);
};
watch();
"""


def test_an_agent_without_pages_gives_all_of_it_at_once(open_tab: OpenTab) -> None:
    command = f"{sys.executable} {ROOT}/tests/fakes/scenes.py"
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=command) as gateway:
        tab = open_tab(gateway).sign_in()
        tab.begin("only thread/read")
        tab.answered("only thread/read")
        tab.page.reload()
        expect(tab.said).to_have_text(["only thread/read"], timeout=WAIT_MS)
        expect(tab.answer).to_have_text("only thread/read")
        tab.page.goto("about:blank")
