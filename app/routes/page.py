"""The bundled page: static files, nothing of anybody else's."""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, redirect, request, send_from_directory

from app.routes.policy import public

bp = Blueprint("page", __name__)

WEB = Path(__file__).resolve().parents[2] / "web"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@bp.get("/")
@public
def index() -> Any:
    """The page itself."""
    return _file("index.html")


@bp.get("/chat")
@bp.get("/nodes")
@public
def elsewhere() -> Any:
    """Where the reference's pages were."""
    return redirect("/")


@bp.get("/assets/<path:name>")
@public
def asset(name: str) -> Any:
    """A module, style sheet or picture of the page."""
    return _file(name)


def _file(name: str) -> Response:
    response = send_from_directory(WEB, name, max_age=0, etag=False)
    response.direct_passthrough = False
    _shorten(response)
    response.make_conditional(request)
    response.headers["Content-Security-Policy"] = CSP
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Frame-Options"] = "DENY"
    return response


def _shorten(response: Response) -> None:
    """Compress a file for who takes that. Its tag is its content's, so that a copy is good over restarts."""
    if response.status_code != 200:
        return
    body = response.get_data()
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"]:
        body = _compressed(body)
        response.set_data(body)
        response.content_encoding = "gzip"
    response.set_etag(hashlib.sha256(body).hexdigest()[:32])


@lru_cache(maxsize=128)
def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)
