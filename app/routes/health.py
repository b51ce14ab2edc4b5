"""Whether the gateway is there, and whether it can work."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from app.errors import Unavailable
from app.routes.policy import public, services

bp = Blueprint("health", __name__)


@bp.get("/healthz")
@public
def healthz() -> Any:
    """200 `{"ok": true}` while the process answers; nothing else is looked at."""
    return jsonify(ok=True)


@bp.get("/readyz")
@public
def readyz() -> Any:
    """200 `{"ok", "checks"}` when the gateway can work, 503 with what fails."""
    checks = {"database": "ok"}
    try:
        services().store.check()
    except Unavailable as error:
        checks["database"] = error.text
    ok = all(state == "ok" for state in checks.values())
    return jsonify(ok=ok, checks=checks), 200 if ok else 503


@bp.get("/robots.txt")
@public
def robots() -> Any:
    """No crawler has any business here."""
    return Response("User-agent: *\nDisallow: /\n", mimetype="text/plain")
