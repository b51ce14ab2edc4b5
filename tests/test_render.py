"""Markdown that an agent wrote, as HTML that is safe to show: what it may become, and who waits for whom."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path
from threading import Thread

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from support import Gateway, running, until

from app.errors import BadRequest
from app.services.markdown import to_html
from app.services.renderer import checked

SLOW = "![" * 100_000  # its parser takes far more than five seconds for it

OPENS = 'target="_blank" rel="noopener noreferrer nofollow"'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# Hi *there*", "<h1>Hi <em>there</em></h1>\n"),
        ("```python\na < b\n```", '<pre><code class="language-python">a &lt; b\n</code></pre>\n'),
        ("~~old~~ **new** `x`", "<p><s>old</s> <strong>new</strong> <code>x</code></p>\n"),
        ("[a](https://x.y/z)", f'<p><a href="https://x.y/z" {OPENS}>a</a></p>\n'),
        ("see https://x.y/z.", f'<p>see <a href="https://x.y/z" {OPENS}>https://x.y/z</a>.</p>\n'),
        ("![a cat](https://x.y/cat.png)", f'<p><a href="https://x.y/cat.png" {OPENS}>a cat</a></p>\n'),
        ("![](https://x.y/cat.png)", f'<p><a href="https://x.y/cat.png" {OPENS}>https://x.y/cat.png</a></p>\n'),
        ("[![built](https://i)](https://ci)", f'<p><a href="https://ci" {OPENS}>built</a></p>\n'),
        ("[main](src/main.py:12)", "<p>main (src/main.py:12)</p>\n"),
        ("[x](javascript:alert(1))", "<p>x (javascript:alert(1))</p>\n"),
        ("<b onclick=x>hi</b>", "<p>&lt;b onclick=x&gt;hi&lt;/b&gt;</p>\n"),
        ("3. three", '<ol start="3">\n<li>three</li>\n</ol>\n'),
    ],
)
def test_what_markdown_becomes(text: str, html: str) -> None:
    assert to_html(text) == html


def test_tables_keep_the_sides_of_their_columns() -> None:
    html = to_html("|a|b|\n|:-:|--:|\n|1|2|")
    assert '<th align="center">a</th>' in html and '<td align="right">2</td>' in html and "style" not in html


VECTORS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](java&#115;cript:alert(1))",
    "[a](&#x6A;avascript:alert(1))",
    "[a](\x01javascript:alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "[a](vbscript:x)",
    "[a](file:///etc/passwd)",
    "[a](//evil.example)",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    "![x](https://a/b.png \"\\\" onload=alert(1)\")",
    '[a](https://x "\\" onmouseover=alert(1) \\"")',
    "[a](https://x/\"onmouseover=alert(1)//)",
    "[a][r]\n\n[r]: javascript:alert(1)",
    "```x\" onclick=alert(1)\ny\n```",
    "```\"><script>alert(1)</script>\ny\n```",
    "`<script>`",
    "<svg><style><!--</style><img src=x onerror=alert(1)>",
    "<math><mi//xlink:href=\"data:x,<script>alert(1)</script>\">",
    "| <img src=x onerror=alert(1)> |\n|-|\n| <script> |",
    "<https://x/<script>alert(1)</script>>",
    "# <iframe srcdoc='<script>'>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<!-- --><script>alert(1)</script>",
    "<a href=\"javascript:alert(1)\">x</a>",
    "\x00<script>alert(1)</script>",
    "http://x/\u202ejs.exe\"onclick=alert(1)",
]  # fmt: skip
TAG = re.compile(r"<(/?)([a-z0-9]+)((?: [a-z]+=\"[^\"<>]*\")*)>")
ALLOWED = {"href", "title", "class", "start", "align", "target", "rel"}


def assert_harmless(html: str) -> None:
    for tag in re.findall(r"<[^>]*>?", html):
        found = TAG.fullmatch(tag)
        assert found, tag
        assert found[2] not in ("script", "img", "iframe", "svg", "style", "math", "object", "form", "input"), tag
        for name, value in re.findall(r" ([a-z]+)=\"([^\"]*)\"", found[3]):
            assert name in ALLOWED, tag
            if name == "href":
                assert re.match(r"https?://|mailto:", value, re.IGNORECASE), tag
            if name == "class":
                assert re.fullmatch(r"language-[\w+#.-]+", value), tag


@pytest.mark.parametrize("text", VECTORS)
def test_no_vector_gets_through(text: str) -> None:
    assert_harmless(to_html(text))
    assert_harmless(to_html(f"- a\n  > {text}\n\n[b {text}](https://x)"))


PIECES = st.sampled_from([*VECTORS, "[", "](", ")", "<", ">", "`", "```\n", "\n\n", "|", "|-|\n", "*", "&#x3c;", "!["])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=12))
def test_nothing_made_of_them_gets_through(parts: list[str]) -> None:
    assert_harmless(to_html("".join(parts)))


def test_limits_are_said_in_words() -> None:
    for texts, said in (
        (["a"] * 101, "101 texts"),
        (["a" * (256 * 1024 + 1)], "longer than 256 KiB"),
        (["é" * 128 * 1024] * 5, "longer than 1 MiB"),
        ([1], "list of strings"),
    ):
        with pytest.raises(BadRequest, match=said):
            checked(texts)


# -- through the gateway


def render(gateway: Gateway, *texts: str, **kwargs) -> requests.Response:
    return gateway.api("POST", "/render", json={"texts": list(texts)}, **kwargs)


def renderers(gateway: Gateway) -> list[int]:
    """Pids of this gateway's rendering processes."""
    children = Path(f"/proc/{gateway.worker}/task")
    pids = {int(pid) for task in children.iterdir() for pid in (task / "children").read_text().split()}
    return [pid for pid in pids if b"markdown.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_texts_come_back_in_their_order(gateway: Gateway) -> None:
    answer = render(gateway, "*a*", "", "`ü`")
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"html": ["<p><em>a</em></p>\n", "", "<p><code>ü</code></p>\n"]}
    assert render(gateway).json() == {"html": []}


@pytest.mark.parametrize("body", [{}, {"texts": "a"}, {"texts": [1]}, {"texts": ["a"], "x": 1}, ["a"]])
def test_a_body_of_another_shape_is_refused(gateway: Gateway, body: object) -> None:
    answer = gateway.api("POST", "/render", json=body)
    assert answer.status_code == 400 and answer.json()["code"] == "bad_request"


def test_a_body_that_is_too_large_is_refused(gateway: Gateway) -> None:
    answer = render(gateway, "a" * (4 << 20))
    assert answer.status_code == 413 and answer.json()["code"] == "request_entity_too_large"


def test_it_needs_a_token(gateway: Gateway) -> None:
    assert requests.post(gateway.url + "/render", json={"texts": ["a"]}, timeout=30).status_code == 401


def test_the_child_holds_no_secret_and_ends_with_the_gateway() -> None:
    with running() as gateway:
        assert not renderers(gateway)  # only at the first use
        render(gateway, "a")
        (pid,) = renderers(gateway)
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"ARGUS" not in environment and gateway.env["ARGUS_TOKEN"].encode() not in environment
        gateway.kill()
        until(lambda: not Path(f"/proc/{pid}").exists(), what="the renderer ends")


def test_a_renderer_that_died_is_replaced(gateway: Gateway) -> None:
    render(gateway, "a")
    (pid,) = renderers(gateway)
    os.kill(pid, signal.SIGKILL)
    assert render(gateway, "b").json() == {"html": ["<p>b</p>\n"]}


def test_a_slow_text_costs_its_sender_an_error_and_others_a_wait(own_gateway: Gateway) -> None:
    gateway = own_gateway
    ticket = gateway.api("POST", "/auth/link").json()["url"].split("ticket=")[1]
    page = requests.post(gateway.url + "/auth/exchange", json={"ticket": ticket}, timeout=30).json()["token"]
    answers: list[requests.Response] = []

    def flood() -> None:
        with contextlib.suppress(requests.RequestException):  # the test may be over before all are answered
            header = {"Authorization": f"Bearer {page}"}
            body = {"texts": [SLOW]}
            answers.append(requests.post(gateway.url + "/render", json=body, headers=header, timeout=120))

    for _ in range(9):
        Thread(target=flood, daemon=True).start()
    until(lambda: any(a.status_code == 429 for a in answers), what="the flood's own limit")
    assert render(gateway, "me too").json() == {"html": ["<p>me too</p>\n"]}
    until(lambda: any(a.status_code == 503 for a in answers), what="a text that takes too long")
    assert {a.status_code for a in answers} == {429, 503}
    assert all("render" in a.json()["detail"] for a in answers)
