"""Markdown as HTML, for the page and any other client that shows what an agent says."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, request

from app.errors import BadRequest
from app.routes.auth import json_body
from app.routes.policy import body_limit, services

bp = Blueprint("render", __name__)


@bp.post("/render")
@body_limit(3 << 20)  # 1 MiB of text, with room for JSON's escapes
def render() -> Any:
    """`{"texts": [Markdown…]}` → `{"html": ["…"…]}`: safe to show. At most 100 texts, 256 KiB each, 1 MiB together.

    503 if a text takes too long: show it as it is. 429 if too much of this caller's waits already.
    """
    texts = json_body(texts=list).get("texts")
    if texts is None:
        raise BadRequest("texts is missing")
    caller = g.principal.token_id or request.remote_addr or "unix"
    html = services().renderer.render(texts, caller)
    return Response(b'{"html":' + html + b"}", mimetype="application/json")
