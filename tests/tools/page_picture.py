#!/usr/bin/env python3
"""Makes docs/page.png, the picture of the page in the README: a real gateway, the demo agent, Chromium.

Usage: .venv/bin/python tests/tools/page_picture.py
"""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Tab, chromium, tabs  # noqa: E402
from playwright.sync_api import expect  # noqa: E402
from support import Gateway  # noqa: E402

MOST_BYTES = 120_000
OTHERS = ["Why does the nightly backup fail?", "Water the north bed", "Tidy up the photo archive"]
SAID = """Three of the four sensors answer:

- **north** 0.21, dry
- **south** 0.34
- **shed** 0.40

The silent one is `east`. Its log ends on Tuesday, so I would look at the cable first."""
COMMAND = "run: tail -n 2 sensors/east.log && ls -l sensors"


@contextlib.contextmanager
def at_home() -> Iterator[Gateway]:
    """A gateway whose home has a name that can be shown."""
    gateway = Gateway()
    gateway.home.rmdir()
    gateway.home = Path(tempfile.gettempdir()) / "argus"
    gateway.home.mkdir()
    gateway.log = gateway.home / "gateway.log"
    try:
        yield gateway.start()
    finally:
        gateway.close()


def prepare(gateway: Gateway) -> None:
    folder = gateway.home / "workspace" / "sensors"
    folder.mkdir(parents=True)
    for name in ("east", "north", "shed", "south"):
        (folder / f"{name}.log").write_text("Tue 09:12 0.28\nTue 09:22 0.27\n")


def converse(tab: Tab) -> None:
    for title in OTHERS:
        tab.page.get_by_role("link", name="New session").click()
        tab.begin(title)
        tab.answered(re.compile(re.escape(title[:12])))
    tab.page.get_by_role("link", name="New session").click()
    tab.begin(SAID)
    tab.answered(re.compile("Three of the four"))
    expect(tab.page.locator(".answer.md li")).to_have_count(3)
    tab.say(COMMAND)
    tab.button("Accept").click()
    tab.answered(re.compile("exit code 0"))
    tab.page.locator("[data-item=commandExecution] summary").click()
    tab.say("run: systemctl restart sensor-east")
    expect(tab.card).to_be_visible()
    tab.page.mouse.move(0, 0)


def main() -> None:
    with at_home() as gateway, chromium() as browser, tabs(browser, gateway, "picture") as open_tab:
        prepare(gateway)
        tab = open_tab(viewport={"width": 1440, "height": 900}, color_scheme="light", reduced_motion="reduce").sign_in()
        converse(tab)
        gateway.api("PATCH", f"/sessions/{tab.session}", json={"title": "Which sensors are silent?"})
        tab.page.reload()
        expect(tab.page.get_by_role("heading", level=1)).to_have_text("Which sensors are silent?")
        expect(tab.card).to_be_visible()
        expect(tab.page.locator(".answer.md").last).to_be_visible()
        tab.page.screenshot(path=ROOT / "docs" / "page.png")
    size = (ROOT / "docs" / "page.png").stat().st_size
    print(f"docs/page.png: {size} bytes")
    if size > MOST_BYTES:
        sys.exit(f"that is more than {MOST_BYTES}")


if __name__ == "__main__":
    main()
