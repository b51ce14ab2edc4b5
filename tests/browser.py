"""A real browser for the tests of the page: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from parts import require
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright
from support import Gateway

OUT = Path(__file__).resolve().parent / "out"
WAIT_MS = 20_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]

# What a browser says by itself while the gateway is away or a token is wrong.
AWAY = r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE|WebSocket connection to .* failed"
UNAUTHORIZED = r"status of 401"

# Violations of the content security policy, where the page cannot hide them.
WATCH_CSP = """
window.cspViolations = [];
addEventListener('securitypolicyviolation', (event) => {
  window.cspViolations.push(`${event.violatedDirective}: ${event.blockedURI}`);
});
"""

# Reports each moment in which an answer that counts is not 1 2 3 … without a hole or a repetition. (When an item is
# complete its whole text replaces what was streamed, so looking at the end alone would not show what went wrong.)
WATCH_COUNTING = """
new MutationObserver(() => {
  for (const answer of document.querySelectorAll('[data-item=agentMessage] .answer')) {
    const words = answer.textContent.trim().split(' ');
    const counts = /^[0-9 ]+$/.test(answer.textContent);
    if (counts && words.some((word, at) => word !== String(at + 1))) reportMiscount(answer.textContent);
  }
}).observe(document, { subtree: true, childList: true, characterData: true });
"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; skips the test where there is none."""
    require("browser", CHROMIUM is not None, "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One tab, with what a person does in it. Errors on its console are kept for `check`."""

    def __init__(self, context: BrowserContext, gateway: Gateway, expected: str = "") -> None:
        self.context, self.gateway, self.expected = context, gateway, expected
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.page.add_init_script(WATCH_CSP)
        self.errors: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def watch_counting(self) -> Tab:
        """From now on an answer that does not count 1 2 3 … at every moment is an error."""
        self.page.expose_function("reportMiscount", lambda text: self.errors.append(f"miscounted: {text}"))
        self.page.add_init_script(WATCH_COUNTING)
        return self

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} {message.location.get('url', '')}")

    def check(self) -> None:
        """Fails on anything that the browser complained about and the test did not expect."""
        violations = self.page.evaluate("window.cspViolations ?? []")
        errors = [e for e in self.errors if not (self.expected and re.search(self.expected, e))]
        assert not violations + errors, violations + errors

    def forgive(self) -> None:
        """Forget what the browser complained about so far."""
        self.errors.clear()
        self.page.evaluate("window.cspViolations = []")

    # -- what a person does

    def sign_in(self) -> Tab:
        """By a fresh link."""
        self.page.goto(self.gateway.api("POST", "/auth/link").json()["url"])
        expect(self.page.get_by_label("What should be done?")).to_be_visible()
        return self

    def begin(self, text: str) -> str:
        """A new session with its first message; its id."""
        self.page.get_by_label("What should be done?").fill(text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(re.compile(r"/#/s/\w+"))
        return self.session

    def open(self, session: str) -> Tab:
        """Go to a session by its URL."""
        self.page.goto(f"{self.gateway.url}/#/s/{session}")
        return self

    def say(self, text: str) -> None:
        self.composer.fill(text)
        self.page.keyboard.press("Enter")

    def choose(self, session: str, entry: str) -> None:
        """An entry of the menu of a session in the list."""
        self.page.get_by_role("link", name=session).hover()
        self.button(f"Actions for {session}").click()
        self.page.get_by_role("menuitem", name=entry).click()

    # -- what a person sees

    @property
    def session(self) -> str:
        return re.search(r"#/s/(\w+)", self.page.url)[1]

    @property
    def composer(self) -> Locator:
        return self.page.get_by_label("Say something…")

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("log")

    @property
    def answer(self) -> Locator:
        """The newest text of the agent."""
        return self.page.locator("[data-item=agentMessage] .answer").last

    @property
    def said(self) -> Locator:
        """What the person said, oldest first."""
        return self.page.locator("[data-item=userMessage] .bubble")

    @property
    def line(self) -> Locator:
        """The state of the connection."""
        return self.page.locator(".line")

    @property
    def card(self) -> Locator:
        return self.page.get_by_role("group", name="Approval")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def answered(self, text: str | re.Pattern[str]) -> None:
        """Wait until the newest answer has this in it, and the turn is over."""
        expect(self.answer).to_contain_text(text, timeout=WAIT_MS)
        self.idle()

    def idle(self) -> None:
        expect(self.log).to_have_attribute("aria-busy", "false", timeout=WAIT_MS)

    def numbers(self) -> list[int]:
        """The numbers in the newest answer, as shown."""
        return [int(n) for n in self.answer.inner_text().split()]

    def counted_to(self, number: int) -> None:
        """Wait until the newest answer has come at least this far."""
        expect(self.answer).to_have_text(re.compile(rf"\b{number}\b"), timeout=WAIT_MS)

    def screenshot(self, name: str) -> None:
        OUT.mkdir(exist_ok=True)
        self.page.screenshot(path=OUT / f"page-{name}.png")


OpenTab = Callable[..., Tab]


@contextlib.contextmanager
def tabs(browser: Browser, gateway: Gateway, name: str) -> Iterator[OpenTab]:
    """Opens tabs, each in a browser profile of its own unless told which; at the end none may have complained."""
    opened: list[Tab] = []
    contexts: list[BrowserContext] = []

    def open_one(at: Gateway = gateway, expected: str = "", beside: Tab | None = None, **options: object) -> Tab:
        context = beside.context if beside else browser.new_context(**options)
        if beside is None:
            contexts.append(context)
        opened.append(Tab(context, at, expected))
        return opened[-1]

    try:
        yield open_one
        for number, tab in enumerate(opened, 1):
            tab.screenshot(f"{name}-{number}")
            tab.check()
    finally:
        for context in contexts:
            context.close()
