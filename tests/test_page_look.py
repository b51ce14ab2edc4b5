"""How the page looks and how much it weighs: screenshots in tests/out, axe, sizes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
import requests
from browser import WAIT_MS, OpenTab, Tab
from parts import NODE_PARTS, node_part
from playwright.sync_api import expect
from support import ROOT, Gateway, running

WEB = ROOT / "web"
AXE = NODE_PARTS / "axe-core" / "axe.min.js"
LOOKS = [(width, scheme) for width in (1440, 900, 390) for scheme in ("light", "dark")]
LONG_WORD = "Donaudampfschifffahrtsgesellschaftskapitän" * 6
RUN_AXE = """async () => {
  const runOnly = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
  const found = await axe.run(document, { runOnly });
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One whose agent plays scenes."""
    with running(ARGUS_AGENT="codex", ARGUS_RUNTIME_CMD=f"{sys.executable} {ROOT}/tests/fakes/scenes.py") as made:
        yield made


class Looker:
    """Looks at a tab: a screenshot, no sideways scrolling, and axe where it is installed."""

    def __init__(self, tab: Tab, name: str) -> None:
        self.tab, self.name, self.violations = tab, name, []

    def look(self, what: str) -> None:
        page = self.tab.page
        self.tab.screenshot(f"look-{what}-{self.name}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), what
        if AXE.exists():
            if not page.evaluate("'axe' in window"):
                page.evaluate(AXE.read_text())
            self.violations += [f"{what}: {each}" for each in page.evaluate(RUN_AXE)]


def walk(tab: Tab, name: str, narrow: bool) -> list[str]:
    """Go through everything there is to see; what axe found."""
    looker = Looker(tab, name)
    tab.page.goto(tab.gateway.url)
    expect(tab.page.get_by_label("Or paste a token")).to_be_visible()
    looker.look("sign-in")
    tab.sign_in()
    looker.look("home")
    tab.begin("scene: all")
    tab.answered(re.compile("The pump did not start"))
    expect(tab.page.locator(".answer.md table")).to_be_visible(timeout=WAIT_MS)
    looker.look("conversation")
    for fold in ("commandExecution", "fileChange", "mcpToolCall"):
        tab.page.locator(f"[data-item={fold}] > summary").first.click()
    tab.page.locator("[data-item=commandExecution]").scroll_into_view_if_needed()
    looker.look("opened")
    tab.say(f"{LONG_WORD} and right to left: שלום עולם\n\nالسلام عليكم")
    tab.answered(re.compile("Donau"))
    looker.look("long-word")
    for scene in ("patch", "input", "permissions", "form", "two"):
        tab.say(f"scene: {scene}")
        expect(tab.card.first).to_be_visible(timeout=WAIT_MS)
        expect(tab.button("Stop")).to_be_in_viewport(ratio=1)
        for control in tab.card.first.get_by_role("button").all():
            if narrow and control.is_visible() and "Copy" not in control.inner_text():
                assert control.bounding_box()["height"] >= 44, control.inner_text()
        if scene == "permissions":
            tab.say("and then water the north bed")
            tab.say("and then the south bed, slowly, because the pump is new and the pipe is thin")
        looker.look(f"asks-{scene}")
        tab.page.keyboard.press("Escape")
        tab.page.locator("h1").click()
        while tab.card.count():
            tab.page.keyboard.press("Escape")
            tab.page.wait_for_timeout(50)
        tab.idle()
        expect(tab.button("Remove")).to_have_count(0, timeout=WAIT_MS)  # what was queued goes out
        tab.idle()
    tab.say("scene: full")
    expect(tab.page.locator(".advice")).to_be_visible(timeout=WAIT_MS)
    looker.look("failed")
    dialogs(tab, looker, narrow)
    return looker.violations


def dialogs(tab: Tab, looker: Looker, narrow: bool) -> None:
    tab.button("Conversations").click()
    expect(tab.page.get_by_role("dialog").get_by_role("listitem").first).to_be_visible()
    looker.look("conversations")
    tab.page.keyboard.press("Escape")
    tab.button("More").click()
    looker.look("menu")
    tab.page.keyboard.press("Escape")
    if narrow:
        tab.button("Sessions").click()
        expect(tab.page.get_by_role("link", name="New session")).to_be_in_viewport()
        looker.look("list")
    tab.button("Help and keys (?)").click()
    looker.look("help")
    tab.page.keyboard.press("Escape")
    expect(tab.page.get_by_role("dialog")).to_have_count(0)
    tab.page.keyboard.press("Control+k")
    expect(tab.page.get_by_role("combobox")).to_be_visible()
    looker.look("jump")
    tab.page.keyboard.press("Escape")


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_everything_fits_and_axe_finds_nothing(open_tab: OpenTab, width: int, scheme: str) -> None:
    size = {"width": width, "height": 844 if width < 900 else 900}
    options = {"viewport": size, "color_scheme": scheme, "reduced_motion": "reduce", "has_touch": width < 900}
    tab = open_tab(expected="status of 401", **options)
    found = walk(tab, f"{width}-{scheme}", width < 900)
    assert not found, "\n".join(found)


def test_axe_is_installed() -> None:
    """The walk above goes without axe where there is none; this says so."""
    assert (node_part("axe-core", "axe") / "axe.min.js").is_file()


def test_nothing_moves_for_who_wants_no_motion(open_tab: OpenTab) -> None:
    tab = open_tab(reduced_motion="reduce").sign_in()
    tab.begin("scene: busy")
    expect(tab.page.locator(".pulse")).to_be_visible(timeout=WAIT_MS)
    assert tab.page.evaluate("document.getAnimations().filter((each) => each.playState === 'running').length") == 0
    tab.button("Stop").click()
    tab.idle()


# -- weight


def test_the_first_paint_is_small_and_all_of_it_its_own(open_tab: OpenTab) -> None:
    tab = open_tab()
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    tab.sign_in()
    assert asked and all(url.startswith(tab.gateway.url) for url in asked)
    tab.begin("hello")
    tab.answered("hello")
    own = {url for url in asked if "/assets/" in url}
    weight = {url: len(requests.get(url, stream=True, timeout=10).raw.read()) for url in own}
    at_once = re.findall(r'(?:href|src)="(/assets/[^"]+)"', (WEB / "index.html").read_text())
    home = sum(weight.get(tab.gateway.url + path, 0) for path in at_once)
    whole = sum(weight.values())
    files = sum(path.stat().st_size for path in WEB.rglob("*") if path.is_file())
    print(f"\nstart {home} bytes, a conversation {whole} bytes on the wire; all files {files} bytes as they are")
    assert home < 60 * 1024
    assert whole < 100 * 1024


def test_files_come_compressed_and_are_not_sent_again_while_they_are_the_same(gateway: Gateway) -> None:
    url = f"{gateway.url}/assets/js/main.js"
    packed = requests.get(url, timeout=10)
    plain = requests.get(url, timeout=10, headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip" and "Content-Encoding" not in plain.headers
    assert packed.content == plain.content == (WEB / "js" / "main.js").read_bytes()
    assert packed.headers["ETag"] != plain.headers["ETag"] and "Accept-Encoding" in packed.headers["Vary"]
    same = requests.get(url, timeout=10, headers={"If-None-Match": packed.headers["ETag"]})
    assert same.status_code == 304 and "script-src 'self'" in same.headers["Content-Security-Policy"]
    assert requests.get(f"{gateway.url}/assets/../app/settings.py", timeout=10).status_code == 404


def test_no_file_of_the_page_is_long() -> None:
    files = [path for path in WEB.rglob("*") if path.is_file()]
    assert {path.name: n for path in files if (n := len(path.read_text().splitlines())) > 420} == {}
    assert {path.name: n for path in files if (n := max(map(len, path.read_text().splitlines()))) > 150} == {}


IMPORT = re.compile(r"""(?:^|\n)(?:import|export)[^;'"]*? from ['"]([^'"]+)['"]""")


def reached(*modules: str) -> set[str]:
    """These modules and all that they import, not counting what is loaded on demand."""
    found, todo = set(), list(modules)
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            folder = (WEB / "js" / module).parent
            imports = IMPORT.findall((WEB / "js" / module).read_text())
            todo += [str((folder / name).resolve().relative_to((WEB / "js").resolve())) for name in imports]
    return found


def test_modules_are_loaded_at_once_and_not_one_after_the_other() -> None:
    preloaded = set(re.findall(r'modulepreload" href="/assets/js/([^"]+)"', (WEB / "index.html").read_text()))
    assert preloaded == reached("main.js") - {"main.js"}
    early = (WEB / "js" / "early.js").read_text()
    names = re.findall(r"'([a-z]+)'", early.split("const modules")[1].split("];")[0])
    views = re.findall(r"'([a-z]+)'", early.split("const views")[1].split("];")[0])
    listed = {f"{name}.js" for name in names} | {f"views/{name}.js" for name in views}
    assert listed == reached("views/conversation.js") - preloaded
