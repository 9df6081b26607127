"""Cookies go with whatever any page makes a browser send. Which pages may use ours?"""

from __future__ import annotations

from starlette.requests import HTTPConnection

from services.terminal.domain import OriginRefusedError


def check_site(connection: HTTPConnection, *, in_sandbox: bool) -> None:
    """Refuse what a page of another origin sends with our cookie, unless somebody has followed a link.

    `SameSite=Lax` keeps other sites out; this keeps out previews of others at a neighbouring address. Pages in a
    sandbox have no origin, so where previews are shown in one, `null` is what their own requests say.
    Raises OriginRefusedError.
    """
    headers = connection.headers
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin, headers.get("host", "")) and not (origin == "null" and in_sandbox):
        raise OriginRefusedError
    is_link = headers.get("sec-fetch-mode") == "navigate" and connection.scope.get("method") in {"GET", "HEAD"}
    if headers.get("sec-fetch-site") == "same-site" and not in_sandbox and not is_link:
        raise OriginRefusedError


def _is_own(origin: str, host: str) -> bool:
    return origin.partition("://")[2].lower() == host.lower()
