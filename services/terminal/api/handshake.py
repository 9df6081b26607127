"""Before a WebSocket is accepted: who is it, from where, and may it? A no is an HTTP answer with the right code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel, ValidationError
from starlette.responses import Response
from starlette.websockets import WebSocket

from libs.common import mongo, redis
from libs.common.context import set_actor
from libs.common.errors import DevPocketError, ErrorKind, UnauthenticatedError, UnavailableError
from libs.common.http.address import client_address
from libs.common.http.auth import bearer_token
from libs.common.http.problems import STATUS_OF, FieldProblem, problem_response
from libs.common.ids import new_id
from services.terminal.api.state import TerminalState
from services.terminal.domain import Caller, OriginRefusedError, SocketKind

_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNAVAILABLE = (*mongo.UNAVAILABLE_ERRORS, *redis.UNAVAILABLE_ERRORS)

QueryT = TypeVar("QueryT", bound=BaseModel)

log = structlog.get_logger(__name__)


class BadQueryError(DevPocketError):
    """The URL's query does not fit; carries what is wrong field by field."""

    kind = ErrorKind.UNPROCESSABLE
    code = "validation_error"

    def __init__(self, error: ValidationError) -> None:
        self.fields = [
            FieldProblem(field=f"query.{item['loc'][0]}", message=item["msg"], type=item["type"])
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        super().__init__("; ".join(f"{field.field}: {field.message}" for field in self.fields[:3]))


def parse_query(websocket: WebSocket, model: type[QueryT]) -> QueryT:
    """The query as `model`. Raises BadQueryError."""
    try:
        return model.model_validate(dict(websocket.query_params))
    except ValidationError as error:
        raise BadQueryError(error) from error


@asynccontextmanager
async def refusing(websocket: WebSocket) -> AsyncIterator[None]:
    """Answers the handshake with a problem when the block raises an expected error, and passes it on.

    Only for what comes before `accept`.
    """
    try:
        yield
    except DevPocketError as error:
        await websocket.send_denial_response(_problem(websocket, error))
        raise RefusedError from error
    except _UNAVAILABLE as error:
        log.warning("a part is away", path=websocket.url.path, error=repr(error))
        away = UnavailableError(
            "A part of the service is not reachable right now, please try again in a moment",
            headers={"Retry-After": "2"},
        )
        await websocket.send_denial_response(_problem(websocket, away))
        raise RefusedError from error


class RefusedError(Exception):
    """The handshake was answered with a problem; nothing more is to be done."""


async def admit(websocket: WebSocket, state: TerminalState, environment_id: str, kind: SocketKind) -> Caller:
    """Who connects, by a ticket, an access token or an API key with the scope for this kind.

    Raises ForbiddenError, UnauthenticatedError, UnavailableError.
    """
    _check_origin(websocket, state.settings.allowed_origins)
    ticket = websocket.query_params.get("ticket")
    if ticket is not None:
        caller = await state.tickets.redeem(ticket, environment_id, kind)
    else:
        token = websocket.query_params.get("token") or bearer_token(websocket.scope)
        if token is None:
            raise UnauthenticatedError("Not authenticated")
        principal = await state.tokens.verify(token)
        websocket.app.state.platform.sightings.note(principal, client_address(websocket.scope))
        caller = Caller.of(principal, kind)
    set_actor(caller.user_id)
    structlog.contextvars.bind_contextvars(user_id=caller.user_id, environment_id=environment_id)
    return caller


@asynccontextmanager
async def slot(state: TerminalState, caller: Caller) -> AsyncIterator[None]:
    """One of the connections a user may have. Raises TooManyConnectionsError."""
    connection_id = new_id()
    await state.slots.take(caller, connection_id)
    try:
        yield
    finally:
        await state.slots.release(caller.user_id, connection_id)


def _check_origin(websocket: WebSocket, allowed: list[str]) -> None:
    """Browsers send Origin with every WebSocket and no CORS check follows (RFC 6455, 10.2); apps send none."""
    origin = websocket.headers.get("origin")
    if origin is None or "*" in allowed or origin.rstrip("/") in allowed:
        return
    page = urlsplit(origin)
    host = urlsplit(f"//{websocket.headers.get('host', '')}")
    try:
        default = _DEFAULT_PORTS.get(page.scheme)
        same = (page.hostname, page.port or default) == (host.hostname, host.port or default)
    except ValueError:
        same = False
    if not same or page.hostname is None:
        raise OriginRefusedError


def _problem(websocket: WebSocket, error: DevPocketError) -> Response:
    return problem_response(
        STATUS_OF[error.kind],
        error.code,
        error.message,
        request_id=websocket.scope.get("state", {}).get("request_id"),
        headers=error.headers,
        errors=error.fields if isinstance(error, BadQueryError) else None,
    )
