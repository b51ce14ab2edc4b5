"""How a route of the HTTP API is written: typed models in, typed models out, and /openapi.json follows from them.

    bp = blueprint("things")

    class ThingIn(Body):
        title: str

    @bp.post("/things/<id>", responses={201: Thing})
    @body_limit(11 << 20)                             # only if 1 MiB is not right
    def make_thing(path: IdPath, body: ThingIn) -> Any:
        \"\"\"What it does.\"\"\"
        return answer(Thing(...), 201)

Names are snake_case here and camelCase in JSON. A body that does not fit is a 400 in words before the view is called.
Errors are raised (app/errors.py), never returned. Every view needs a token unless it is marked `@public`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from flask import Response, current_app
from flask_openapi3 import APIBlueprint, Info, OpenAPI, Tag
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from app import VERSION
from app.errors import BadRequest
from app.routes.body import Request

TOKEN = {"token": []}
INFO = Info(
    title="Argus", version=VERSION, description="A self-hosted gateway between people and AI agents: its HTTP API."
)


class Model(BaseModel):
    """What goes over the wire."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @classmethod
    @cache
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """Made once for each way to ask: every route names the same errors, and asks at the start."""
        return super().model_json_schema(*args, **options)


class Body(Model):
    """What comes in a request: exact types, and no field that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid")


class OptionalBody(Body):
    """A body that may be left out."""

    model_config = ConfigDict(openapi_extra={"required": False})


class Problem(Model):
    """Every error: what was wrong and what to do, and a stable word for programs."""

    detail: str
    code: str


class IdPath(Model):
    """The `<id>` of a path."""

    id: str


class Done(Model):
    """It was done."""

    ok: Literal[True] = True


class SessionDone(Done):
    """It was done to this session."""

    session_id: str


def application() -> OpenAPI:
    """The Flask application, without routes yet."""
    app = OpenAPI(
        "argus",
        info=INFO,
        doc_ui=False,  # no page of anybody else's, and no document without a token
        security_schemes={"token": {"type": "http", "scheme": "bearer"}},
        validation_error_status=400,
        validation_error_model=Problem,
        validation_error_callback=_refuse,
        static_folder=None,
    )
    app.request_class = Request
    return app


def blueprint(name: str, prefix: str | None = None, public: bool = False) -> APIBlueprint:
    """Routes of one resource; all need a token, or (`public`) say themselves which do, with `security=[TOKEN]`."""
    return APIBlueprint(
        name,
        name,
        url_prefix=prefix,
        abp_tags=[Tag(name=name)],
        abp_security=None if public else [TOKEN],
        abp_responses={"400": Problem, "4XX": Problem, "5XX": Problem},
    )


def answer(model: BaseModel, status: int = 200) -> Response:
    """A model as the response."""
    return Response(model.model_dump_json(by_alias=True), status, mimetype="application/json")


def document() -> bytes:
    """The OpenAPI document of all routes, as JSON."""
    return current_app.json.dumps(current_app.api_doc).encode()


def _refuse(error: ValidationError) -> Any:
    """flask-openapi3 asks what to answer; the answer is an error like any other."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part)[:50] for part in first["loc"])
    if first["type"] == "missing":
        raise BadRequest(f"{where} is missing")
    if first["type"] == "extra_forbidden":
        raise BadRequest(f"unknown field {where!r}")
    raise BadRequest(f"{where}: {first['msg'][:300]}" if where else first["msg"][:300])
