"""/api/v1/auth: links in mails, to verify an address and to choose another password."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends
from fastapi.responses import HTMLResponse

from libs.common.http.problems import responses
from libs.common.http.rate_limit import RouteLimit
from libs.common.http.routing import CallerFirstRoute
from services.auth.deps import Recovery
from services.auth.pages import Page, confirm_email_page, new_password_page
from services.auth.schemas.accounts import EmailIn, LinkIn, MessageOut, ResetIn

# Longer than the writes take that only an existing account needs.
_SAME_TIME_S = 0.25
_ON_ITS_WAY = "If there is such an account and it needs one, a mail is on its way"

router = APIRouter(route_class=CallerFirstRoute, prefix="/api/v1/auth", tags=["auth"])


@asynccontextmanager
async def _same_time() -> AsyncIterator[None]:
    """How long the block takes must not tell what it found."""
    started = time.monotonic()
    try:
        yield
    finally:
        await asyncio.sleep(max(_SAME_TIME_S - (time.monotonic() - started), 0))


@router.post(
    "/resend-verification",
    status_code=202,
    summary="Mail me the link to verify my address",
    dependencies=[Depends(RouteLimit("mail"))],
)
async def resend_verification(body: EmailIn, recovery: Recovery) -> MessageOut:
    """Public. The answer does not tell whether there is an account; at most one mail a minute is sent."""
    async with _same_time():
        await recovery.ask_for_mail(body.email, "verify_email")
    return MessageOut(message=_ON_ITS_WAY)


@router.get("/verify-email", summary="Page that a mailed link leads to", response_class=HTMLResponse)
async def verification(token: str = "") -> HTMLResponse:
    """Public. Looking at it does nothing: programs that look through mails do."""
    return _page(confirm_email_page())


@router.post(
    "/verify-email",
    summary="Verify my address",
    responses=responses(400),
    dependencies=[Depends(RouteLimit("link"))],
)
async def verify_email(body: LinkIn, recovery: Recovery) -> MessageOut:
    """Public, with the token of a mailed link, which works once."""
    await recovery.verify(body.token)
    return MessageOut(message="Email address verified")


@router.post(
    "/forgot-password",
    status_code=202,
    summary="Mail me a link to choose another password",
    dependencies=[Depends(RouteLimit("mail"))],
)
async def forgot_password(body: EmailIn, recovery: Recovery) -> MessageOut:
    """Public. The answer does not tell whether there is an account; at most one mail a minute is sent."""
    async with _same_time():
        await recovery.ask_for_mail(body.email, "reset_password")
    return MessageOut(message=_ON_ITS_WAY)


@router.get("/reset-password", summary="Page that a mailed link leads to", response_class=HTMLResponse)
async def choose_password(token: str = "") -> HTMLResponse:
    """Public. Looking at it does nothing: programs that look through mails do."""
    return _page(new_password_page())


@router.post(
    "/reset-password",
    summary="Choose another password",
    responses=responses(400),
    dependencies=[Depends(RouteLimit("link"))],
)
async def reset_password(body: ResetIn, recovery: Recovery) -> MessageOut:
    """Public, with the token of a mailed link, which works once. Signs out all devices."""
    await recovery.reset(body.token, body.new_password)
    return MessageOut(message="Password changed, please sign in")


def _page(page: Page) -> HTMLResponse:
    return HTMLResponse(page.html, headers=page.headers)
