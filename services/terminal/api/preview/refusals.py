"""A no: as a problem for programs, as a small page for people."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Send

from libs.common.errors import DevPocketError, ErrorKind
from libs.common.http.problems import STATUS_OF, problem_response
from services.terminal.preview.errors import ApplicationError

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:1rem/1.5 sans-serif;margin:3rem auto;max-width:34rem;padding:0 1rem}}small{{color:#777}}</style>
<h1>{title}</h1><p>{detail}.</p><p><small>{status} {code} {request_id}</small></p></html>
"""
_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'"


class NotFoundError(DevPocketError):
    """No address of a preview."""

    kind = ErrorKind.NOT_FOUND
    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is nothing at this address; previews are at /preview/{environment}/{port}/")


async def refuse(connection: HTTPConnection, error: DevPocketError, receive: Receive, send: Send) -> None:
    """Answer with what is wrong, to a request or to a WebSocket's handshake."""
    status = error.status if isinstance(error, ApplicationError) else STATUS_OF[error.kind]
    request_id: str | None = connection.scope["state"].get("request_id")
    wants_page = connection.scope["type"] == "http" and "text/html" in connection.headers.get("accept", "")
    headers = {"Cache-Control": "no-store", **error.headers}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", "2")
    answer: Response
    if wants_page:
        words = {"title": HTTPStatus(status).phrase, "detail": error.message, "code": error.code}
        page = _PAGE.format(
            status=status, request_id=escape(request_id or ""), **{key: escape(word) for key, word in words.items()}
        )
        answer = HTMLResponse(page, status, headers={**headers, "Content-Security-Policy": _POLICY})
    else:
        answer = problem_response(status, error.code, error.message, request_id=request_id, headers=headers)
    await answer(connection.scope, receive, send)
