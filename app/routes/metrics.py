"""The gateway's own numbers, for Prometheus."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.routes.api import blueprint
from app.routes.policy import services

bp = blueprint("metrics")


@bp.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
def metrics() -> Any:
    """Prometheus' text format: sessions, clients, queues, latencies, restarts. It needs a token, as `bearer_token`."""
    return Response(services().metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")
