"""Everything below /preview: who is it, and may they? Beside the API's routes, because any method and body pass."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from libs.common import mongo, redis
from libs.common.context import set_actor
from libs.common.errors import DevPocketError, UnauthenticatedError, UnavailableError
from libs.common.http.address import client_address
from libs.common.http.auth import bearer_token
from libs.common.http.middleware import RequestContextMiddleware
from libs.common.security.api_keys import PREFIX as API_KEY_PREFIX
from services.terminal.api.preview.http import answer_request
from services.terminal.api.preview.refusals import NotFoundError, refuse
from services.terminal.api.preview.sites import check_site
from services.terminal.api.preview.visit import Visit
from services.terminal.api.preview.websocket import answer_websocket
from services.terminal.api.state import TerminalState, terminal_state
from services.terminal.domain import Caller, SocketKind
from services.terminal.preview.address import ROOT, PreviewAddress
from services.terminal.preview.headers import Asker, preview_cookies, set_cookie

_UNAVAILABLE = (*mongo.UNAVAILABLE_ERRORS, *redis.UNAVAILABLE_ERRORS)
_TICKET = "ticket"
_HTTP_SCHEME = {"ws": "http", "wss": "https"}

log = structlog.get_logger(__name__)


class PreviewMiddleware:
    """Takes what is below /preview and passes everything else on. Must be the outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._preview = RequestContextMiddleware(_answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] in {"http", "websocket"} and scope["path"].startswith(f"{ROOT}/"):
            await self._preview(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Admission:
    """Who it is. `with_authorization`: that header was not for us. `by_ticket`: which is used up now."""

    caller: Caller
    with_authorization: bool = False
    by_ticket: bool = False


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    connection = HTTPConnection(scope, receive)
    state = terminal_state(connection)
    has_begun = False

    async def sending(message: dict[str, object]) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    try:
        await _pass(connection, state, receive, sending)  # type: ignore[arg-type]
    except DevPocketError as error:
        failure = error
    except _UNAVAILABLE as error:
        log.warning("a part is away", error=repr(error))
        failure = UnavailableError("A part of the service is not reachable right now, please try again in a moment")
    else:
        return
    if has_begun:
        # The server closes the connection over an answer that does not end.
        log.info("a preview was cut off", code=failure.code)
    else:
        await refuse(connection, failure, receive, send)


async def _pass(connection: HTTPConnection, state: TerminalState, receive: Receive, send: Send) -> None:
    scope = connection.scope
    address = PreviewAddress.parse(scope.get("raw_path") or scope["path"].encode())
    host = connection.headers.get("host", "")
    if address is None or not state.venue.admits(host, address.environment_id):
        raise NotFoundError
    if not address.target and scope["type"] == "http":
        query = scope["query_string"].decode("latin-1")
        await RedirectResponse(f"{address.prefix}/{f'?{query}' if query else ''}")(scope, receive, send)
        return
    admission = await _admission(connection, state, address)
    set_actor(admission.caller.user_id)
    structlog.contextvars.bind_contextvars(user_id=admission.caller.user_id, environment_id=address.environment_id)
    environment = await state.previews.admit(admission.caller, address.environment_id)
    query = _without_ticket(scope["query_string"]) if admission.by_ticket else scope["query_string"]
    if admission.by_ticket and scope["type"] == "http" and scope["method"] in {"GET", "HEAD"}:
        secret = await state.previews.grant(admission.caller, address.environment_id)
        await _welcome(connection, state, address, query, secret)(scope, receive, send)
        return
    scheme = str(_HTTP_SCHEME.get(scope["scheme"], scope["scheme"]))
    asker = Asker(client_address(scope), scheme, host)
    visit = Visit(address, admission.caller, environment, asker, query, admission.with_authorization)
    answer = answer_websocket if scope["type"] == "websocket" else answer_request
    await answer(visit, state, scope, receive, send)


async def _admission(connection: HTTPConnection, state: TerminalState, address: PreviewAddress) -> _Admission:
    """By a token or key in the Authorization header, a ticket in the URL, or the cookie that one was exchanged for.

    A ticket or header that is none of ours may be the application's own. Raises UnauthenticatedError and others.
    """
    failure = UnauthenticatedError("This preview needs to be opened from DevPocket, with a fresh ticket")
    token = bearer_token(connection.scope)
    if token is not None:
        try:
            principal = await state.tokens.verify(token)
        except UnauthenticatedError as error:
            failure = error
        else:
            connection.app.state.platform.sightings.note(principal, client_address(connection.scope))
            return _Admission(Caller.of(principal, SocketKind.PREVIEW))
    ticket = connection.query_params.get(_TICKET)
    if ticket is not None:
        try:
            caller = await state.previews.redeem(ticket, address.environment_id)
        except UnauthenticatedError as error:
            failure = error
        else:
            return _Admission(caller, by_ticket=True)
    for secret in preview_cookies(connection.scope["headers"])[:3]:
        recalled = await state.previews.recall(secret, address.environment_id)
        if recalled is not None:
            in_sandbox = state.venue.in_sandbox(connection.headers.get("host", ""), address.environment_id)
            check_site(connection, in_sandbox=in_sandbox)
            return _Admission(recalled, with_authorization=not (token or "").startswith(API_KEY_PREFIX))
    raise failure


def _welcome(
    connection: HTTPConnection, state: TerminalState, address: PreviewAddress, query: bytes, secret: str
) -> RedirectResponse:
    """To the same place without the ticket, with the cookie."""
    target = address.prefix + (address.target + (b"?" + query if query else b"")).decode("latin-1")
    cookie = set_cookie(
        secret,
        address.environment_id,
        life_seconds=state.previews.life_seconds,
        is_secure=connection.scope["scheme"] == "https",
    )
    headers = {"Set-Cookie": cookie, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(target, 303, headers=headers)


def _without_ticket(query: bytes) -> bytes:
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] != _TICKET.encode())
