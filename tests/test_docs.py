"""The docs say what the code does: settings, routes, methods, error codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app import rpc, settings
from app.errors import RPC_CODES, ArgusError
from app.relay.fold import gateway_frame
from app.routes import create_app

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONVENTIONS.md", ROOT / "CHANGES.md"])


def doc(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    part = text.split(f"\n{heading}\n", 1)[1]
    lines = part[part.index("\n|") :].strip().splitlines()
    table = [line for line in lines[: next((i for i, x in enumerate(lines) if not x.startswith("|")), None)]]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def test_settings_md_is_made_from_the_table() -> None:
    assert doc("docs/settings.md") == settings.as_markdown(), "run: python -m app.settings > docs/settings.md"


def test_http_md_lists_every_route_and_no_other() -> None:
    app = create_app(type("Stub", (), {"settings": type("S", (), {"client_buffer_bytes": 1})})())
    real = {(m, r.rule) for r in app.url_map.iter_rules() for m in r.methods - {"HEAD", "OPTIONS"}}
    told = {(row[0], row[1].strip("`")) for row in rows("\n" + doc("docs/http.md"), "# The HTTP API")}
    assert told == real


def error_classes() -> list[type[ArgusError]]:
    found, todo = [], [ArgusError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return found


def test_http_md_lists_every_error_code_with_its_status() -> None:
    told = {(row[0].strip("`"), int(row[1])) for row in rows(doc("docs/http.md"), "## Error codes")}
    assert told == {(kind.code, kind.status) for kind in error_classes() if kind.code != "start_refused"}


def test_protocol_md_lists_every_rpc_code_and_method() -> None:
    text = doc("docs/protocol.md")
    assert {int(row[0]): row[1] for row in rows(text, "## Errors")} == RPC_CODES
    told = {row[0].strip("`") for row in rows(text, "## The gateway's own methods")}
    assert told == set(rpc.METHODS)


def test_protocol_md_names_every_notification_of_the_gateways_own() -> None:
    sources = "".join(p.read_text() for p in (ROOT / "app").rglob("*.py"))
    sent = set(re.findall(r'"(argus/(?!ping|receipt)[a-z]+)"', sources))
    told = {row[0].strip("`") for row in rows(doc("docs/protocol.md"), "## Notifications and server requests")}
    assert sent == told and gateway_frame("argus/runtime", {})


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_every_variable_a_page_names_exists(path: Path) -> None:
    known = {row.metadata["name"] for row in settings.table()} | settings.secret_names()
    for name in set(re.findall(r"\bARGUS_[A-Z_]+\b", path.read_text("utf-8"))):
        known_too = settings.NOT_SETTINGS.fullmatch(name) or name in ("ARGUS_SESSION_ID", "ARGUS_AGENT_STATE")
        assert name in known or known_too, f"{path.name} names {name}"


def test_requirements_are_pinned_with_a_reason() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in doc(name).splitlines():
            if line and not line.startswith(("#", "-r")):
                assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][^ ]* +# .{10,}", line), line
