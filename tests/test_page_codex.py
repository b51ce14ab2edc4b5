"""The page in front of the real Codex, its model a local server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import WAIT_MS, OpenTab
from fakes.codex_gateway import codex_gateway
from playwright.sync_api import expect
from support import Gateway


@pytest.fixture
def codex(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway whose agent is the real Codex."""
    with codex_gateway(tmp_path) as gateway:
        yield gateway


def test_a_conversation_with_codex_is_found_again_after_a_reload(codex: Gateway, open_tab: OpenTab) -> None:
    tab = open_tab(codex).sign_in()
    tab.begin("the **first** thing")
    tab.answered("echo: the first thing")
    tab.say("runesc: echo by-codex > made.txt && cat made.txt")
    expect(tab.card).to_contain_text("echo by-codex > made.txt", timeout=WAIT_MS)
    tab.button("Accept").click()
    tab.answered(re.compile("done: by-codex"))
    expect(tab.page.locator("[data-item=commandExecution]")).to_contain_text("exit 0")
    expect(tab.page.locator(".usage")).to_contain_text("tokens")
    asked: list[str] = []
    tab.page.on("websocket", lambda ws: ws.on("framesent", lambda text: asked.append(str(text))))
    tab.page.reload()
    expect(tab.said).to_have_count(2, timeout=WAIT_MS)
    expect(tab.page.locator("[data-item=commandExecution]")).to_contain_text("exit 0")
    sent = "".join(asked)
    assert "thread/items/list" in sent and "thread/read" not in sent  # its history comes by pages
    tab.page.goto("about:blank")


def test_codex_threads_are_named_archived_and_taken_back(codex: Gateway, open_tab: OpenTab) -> None:
    tab = open_tab(codex).sign_in()
    tab.begin("about the greenhouse")
    tab.answered("echo: about the greenhouse")
    tab.button("Conversations").click()
    tab.button("Rename about the greenhouse").click()
    tab.page.get_by_label("Name", exact=True).fill("Greenhouse")
    tab.page.get_by_role("button", name="Rename", exact=True).click()
    tab.button("Archive Greenhouse").click()
    expect(tab.page.get_by_text("Nothing said yet")).to_be_visible(timeout=WAIT_MS)
    tab.button("Conversations").click()
    tab.button("Archived ones").click()
    tab.button("Take back Greenhouse").click()
    expect(tab.said).to_have_text(["about the greenhouse"], timeout=WAIT_MS)
    tab.say("slow: 60 0.05")
    expect(tab.button("Stop")).to_be_enabled(timeout=WAIT_MS)
    tab.button("Stop").click()
    expect(tab.page.locator(".turn-end").last).to_contain_text("Stopped", timeout=WAIT_MS)
    tab.page.goto("about:blank")
