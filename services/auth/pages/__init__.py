"""The two pages that links in mails lead to.

Showing them changes nothing, so a mail scanner that follows the link does no harm: the token is used up by the POST
that the button sends. The script reads the token from the address, so it is in no page and no cache.
"""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from string import Template
from typing import NamedTuple

from services.auth.domain.rules import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS

_FOLDER = Path(__file__).parent


class Page(NamedTuple):
    """A page and the Content-Security-Policy that it must be sent with."""

    html: str
    csp: str

    @property
    def headers(self) -> dict[str, str]:
        """What it must be sent with; the gateway adds the headers that all answers have."""
        return {
            "Content-Security-Policy": self.csp,
            "Referrer-Policy": "no-referrer",
            # The nonce is good for one answer.
            "Cache-Control": "no-store",
        }


def confirm_email_page() -> Page:
    """A button that posts the token to /api/v1/auth/verify-email."""
    return _page("Confirm your email address", _template("confirm_email.html").substitute())


def new_password_page() -> Page:
    """One field; posts token and password to /api/v1/auth/reset-password."""
    body = _template("new_password.html").substitute(min_chars=MIN_PASSWORD_CHARS, max_chars=MAX_PASSWORD_CHARS)
    return _page("Choose a new password", body)


def _page(title: str, body: str) -> Page:
    nonce = secrets.token_urlsafe(16)
    csp = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    return Page(_template("layout.html").substitute(title=title, body=body, nonce=nonce), csp)


@cache
def _template(name: str) -> Template:
    return Template((_FOLDER / name).read_text(encoding="utf-8"))
