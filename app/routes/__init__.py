"""The HTTP and WebSocket edge; the only Flask importer. Every door goes through policy.py."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, current_app, jsonify
from werkzeug.exceptions import HTTPException

from app.errors import ArgusError
from app.routes import auth, conversation, health, logs, metrics, openapi, page, policy, render, sessions, ws
from app.routes.api import application
from app.wiring import Services

log = logging.getLogger("argus.http")


def create_app(services: Services) -> Flask:
    """The Flask application over these services."""
    app = application()
    app.extensions["argus"] = services
    app.url_map.strict_slashes = False
    policy.install(app)
    for part in (health, auth, sessions, conversation, logs, render, metrics, openapi):
        app.register_api(part.bp)
    app.register_blueprint(page.bp)
    ws.install(app)
    app.register_error_handler(ArgusError, _argus_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)
    return app


def _problem(status: int, detail: str, code: str) -> Any:
    response = jsonify({"detail": detail, "code": code})
    response.status_code = status
    return response


def _argus_error(error: ArgusError) -> Any:
    response = _problem(error.status, error.text, error.code)
    if error.status == 429:
        response.headers["Retry-After"] = "60"
    return response


def _http_error(error: HTTPException) -> Any:
    response = error.get_response()
    code = (error.name or "error").lower().replace(" ", "_")
    detail = {404: "Not Found", 405: "Method Not Allowed"}.get(error.code or 0, error.description or error.name)
    response.data = current_app.json.dumps({"detail": detail, "code": code})
    response.content_type = "application/json"
    return response


def _unexpected(error: Exception) -> Any:
    log.exception("a request failed")
    return _problem(500, "Internal Server Error", "internal")
