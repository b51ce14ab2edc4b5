"""Markdown as HTML, for the page and any other client that shows what an agent says."""

from __future__ import annotations

from typing import Any

from flask import Response, g, request
from pydantic import Field

from app.routes.api import Body, Model, blueprint
from app.routes.policy import body_limit, services
from app.services.renderer import MAX_TEXTS

bp = blueprint("render")


class Texts(Body):
    """Markdown: 256 KiB each, 1 MiB together, in UTF-8."""

    texts: list[str] = Field(max_length=MAX_TEXTS)


class Rendered(Model):
    """HTML that is safe to show, in the order of the texts."""

    html: list[str]


@bp.post("/render", responses={200: Rendered})
@body_limit(3 << 20)  # 1 MiB of text, with room for JSON's escapes
def render(body: Texts) -> Any:
    """Markdown as HTML. 503 if a text takes too long: show it as it is. 429 if too much of this caller's waits."""
    caller = g.principal.token_id or request.remote_addr or "unix"
    html = services().renderer.render(body.texts, caller)
    return Response(b'{"html":' + html + b"}", mimetype="application/json")
