"""Errors as RFC 9457 `application/problem+json`, made in this one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from libs.common.errors import DevPocketError, ErrorKind
from libs.common.telemetry import trace_answer

PROBLEM_JSON = "application/problem+json"

STATUS_OF: dict[ErrorKind, int] = {
    ErrorKind.BAD_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.UNPROCESSABLE: 422,
    ErrorKind.TOO_MANY: 429,
    ErrorKind.UNAVAILABLE: 503,
}
_CODES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "content_too_large"}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
RETRY_AFTER_UNAVAILABLE_S = "2"

log = structlog.get_logger(__name__)


class FieldProblem(BaseModel):
    """One field that was refused."""

    field: str = Field(description="Where, e.g. body.name")
    message: str
    type: str


class Problem(BaseModel):
    """RFC 9457 problem details. `code` is stable and meant for programs, `detail` for people."""

    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    errors: list[FieldProblem] | None = None


_HEADERS_OF: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How to authenticate", "required": True, "schema": {"type": "string"}}},
    **{
        status: {"Retry-After": {"description": "Seconds", "required": True, "schema": {"type": "integer"}}}
        for status in (429, 503)
    },
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may fail with these codes.

    Without `model=`, for which FastAPI would claim `application/json` too; `with_problem_schema` adds the schema.
    """
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            **({"headers": _HEADERS_OF[status]} if status in _HEADERS_OF else {}),
        }
        for status in statuses
    }


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str | None,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[FieldProblem] | None = None,
) -> JSONResponse:
    """An answer in the common shape."""
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_sendable(detail),
        code=code,
        request_id=request_id,
        errors=list(errors) if errors is not None else None,
    )
    answer_headers = {**(headers or {}), **({"X-Request-ID": request_id} if request_id else {}), **trace_answer()}
    return JSONResponse(problem.model_dump(exclude_none=True), status, headers=answer_headers, media_type=PROBLEM_JSON)


def add_problem_handlers(app: FastAPI, unavailable: tuple[type[Exception], ...]) -> None:
    """Map every exception to a problem. `unavailable`: errors of databases and brokers that are away (503)."""

    async def on_known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, DevPocketError)
        status = STATUS_OF[error.kind]
        headers = dict(error.headers)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.setdefault("Retry-After", RETRY_AFTER_UNAVAILABLE_S)
        if error.field is None:
            return _answer(request, status, error.code, error.message, headers)
        refused = FieldProblem(field=error.field, message=_sendable(error.message), type=error.code)
        return problem_response(
            status, error.code, error.message, request_id=request_id_of(request), headers=headers, errors=[refused]
        )

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [
            FieldProblem(
                field=_sendable(".".join(str(part) for part in item["loc"])),
                message=_sendable(_sentence(item["msg"])),
                type=item["type"],
            )
            for item in error.errors()
        ]
        detail = "; ".join(f"{item.field}: {item.message}" for item in errors[:3])
        return problem_response(422, "validation_error", detail, request_id=request_id_of(request), errors=errors)

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        code = _CODES.get(status) or status.phrase.lower().replace(" ", "_").replace("-", "_")
        detail = error.detail if error.detail != status.phrase else status.description or status.phrase
        headers = {"Allow": _allowed(request)} if status == HTTPStatus.METHOD_NOT_ALLOWED else error.headers
        return _answer(request, status, code, detail, headers)

    async def on_unavailable(request: Request, error: Exception) -> JSONResponse:
        log.warning("a part is away", path=request.url.path, error=repr(error))
        detail = "A part of the service is not reachable right now, please try again in a moment"
        return _answer(request, 503, "unavailable", detail, {"Retry-After": RETRY_AFTER_UNAVAILABLE_S})

    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", path=request.url.path, exc_info=error)
        detail = "Something went wrong on our side; the request id helps us to find out what"
        return _answer(request, 500, "internal_error", detail, None)

    app.add_exception_handler(DevPocketError, on_known)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    for kind in unavailable:
        app.add_exception_handler(kind, on_unavailable)
    app.add_exception_handler(Exception, on_bug)


def _allowed(request: Request) -> str:
    """All methods of this address: Starlette names those of the first route that it finds there."""
    routes: list[BaseRoute] = request.app.routes

    def is_offered(method: str) -> bool:
        return any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)

    return ", ".join(filter(is_offered, _METHODS))


def request_id_of(request: Request) -> str | None:
    """The id the middleware gave this request."""
    request_id: str | None = request.scope.get("state", {}).get("request_id")
    return request_id


def _answer(request: Request, status: int, code: str, detail: str, headers: Mapping[str, str] | None) -> JSONResponse:
    return problem_response(status, code, detail, request_id=request_id_of(request), headers=headers)


def _sendable(text: str) -> str:
    """JSON can escape half a character (a lone surrogate); what we say about such a text cannot be sent as it is."""
    return text.encode(errors="replace").decode()


def _sentence(message: str) -> str:
    return message.removeprefix("Value error, ")
