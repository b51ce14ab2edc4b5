"""What the HTTP API is, for programs that read such documents."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.routes.api import blueprint, document

bp = blueprint("openapi")


@bp.get("/openapi.json", responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})
def openapi() -> Any:
    """This document (OpenAPI 3.1), made from the models that requests are checked with. It needs a token."""
    return Response(document(), mimetype="application/json")
