"""Whether the gateway is there, and whether it can work."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.errors import Unavailable
from app.routes.api import Done, Model, answer, blueprint
from app.routes.policy import public, services

bp = blueprint("health", public=True)


class Ready(Model):
    """Whether it can work, and what was looked at: `ok`, or what is wrong."""

    ok: bool
    checks: dict[str, str]


@bp.get("/healthz", responses={200: Done})
@public
def healthz() -> Any:
    """200 while the process answers; nothing else is looked at."""
    return answer(Done())


@bp.get("/readyz", responses={200: Ready, 503: Ready})
@public
def readyz() -> Any:
    """200 when the gateway can work, 503 with what fails."""
    checks = {"database": "ok"}
    try:
        services().store.check()
    except Unavailable as error:
        checks["database"] = error.text
    ok = all(state == "ok" for state in checks.values())
    return answer(Ready(ok=ok, checks=checks), 200 if ok else 503)


@bp.get("/robots.txt", doc_ui=False)
@public
def robots() -> Any:
    """No crawler has any business here."""
    return Response("User-agent: *\nDisallow: /\n", mimetype="text/plain")
