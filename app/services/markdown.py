"""Markdown to HTML that a page may show. Pure; and, run as a program, the child process that does it for the gateway.

The text comes from an agent, so from anybody: no raw HTML, no pictures, no addresses but http, https and mailto, no
attribute but the few below. markdown-it makes the HTML, nh3 lets only the allowed part of it through.

As a program (`python -I markdown.py`) it imports nothing of ours, holds no secret, and talks on its stdin, a socket:
a 4-byte length and a text in UTF-8, answered with a 4-byte length and the HTML as a JSON string. A length of 0 in the
answer says that the HTML is too long.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import struct
import sys

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token

LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)
LANGUAGE = re.compile(r"language-[\w+#.-]{1,40}")
ALIGN = re.compile(r"text-align:(left|right|center)")
TAGS = {"a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p"}
TAGS |= {"pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
ATTRIBUTES = {"a": {"href", "title"}, "code": {"class"}, "ol": {"start"}, "td": {"align"}, "th": {"align"}}
ANSWER_BYTES = 8 << 20
MEMORY_BYTES = 1 << 30
ALARM_S = 60  # the gateway loses patience sooner; this ends a process that outlived it


def _parser() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "linkify": True}).enable(["table", "strikethrough", "linkify"])
    made.linkify.set({"fuzzy_link": False, "fuzzy_email": False, "fuzzy_ip": False})
    made.validateLink = lambda url: True  # _links decides, and shows the address of one that is not followed
    return made


def to_html(text: str) -> str:
    """One text as HTML: GitHub-like tables, `class="language-…"` on fenced code, links that open elsewhere."""
    tokens = MARKDOWN.parse(text)
    for token in tokens:
        if token.type == "inline":
            token.children = _links(token.children or [])
        elif token.type in ("th_open", "td_open"):
            _align(token)
    html = MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})
    return nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def _align(cell: Token) -> None:
    found = ALIGN.fullmatch(str(cell.attrs.pop("style", "")))
    if found:
        cell.attrs["align"] = found[1]


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "class":
        return value if LANGUAGE.fullmatch(value) else None
    if name == "href":
        return value if LINK.match(value) else None
    return value


def _links(tokens: list[Token]) -> list[Token]:
    """Pictures become links, and links to what can't be opened become their text with the address behind it."""
    out: list[Token] = []
    opened: list[str] = []  # the address if it is shown as text, else empty
    for token in tokens:
        if token.type == "image":
            out += _picture(token, bool(opened))
        elif token.type == "link_open":
            address = str(token.attrs.get("href", ""))
            opened.append("" if LINK.match(address) else address)
            if not opened[-1]:
                out.append(token)
        elif token.type == "link_close":
            address = opened.pop()
            out.append(_text(f" ({address})") if address else token)
        else:
            out.append(token)
    return out


def _picture(image: Token, in_link: bool) -> list[Token]:
    address = str(image.attrs.get("src", ""))
    shown = _text(image.content.strip() or address)
    if in_link:
        return [shown]
    if not LINK.match(address):
        return [shown, _text(f" ({address})")] if image.content.strip() else [shown]
    return [Token("link_open", "a", 1, attrs={"href": address}), shown, Token("link_close", "a", -1)]


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


MARKDOWN = _parser()


def _receive(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = sock.recv(min(1 << 16, size - len(data)))
        if not part:
            sys.exit(0)  # the gateway is gone, or needs this process no more
        data += part
    return bytes(data)


def serve(sock: socket.socket) -> None:
    """Answer until the other side closes."""
    sock.setblocking(True)
    while True:
        (size,) = struct.unpack(">I", _receive(sock, 4))
        text = _receive(sock, size).decode()
        signal.alarm(ALARM_S)
        answer = json.dumps(to_html(text), ensure_ascii=False).encode()
        if len(answer) > ANSWER_BYTES:
            answer = b""
        sock.sendall(struct.pack(">I", len(answer)) + answer)
        signal.alarm(0)


if __name__ == "__main__":
    os.nice(5)  # the gateway's own work comes first
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(socket.socket(fileno=sys.stdin.fileno()))
