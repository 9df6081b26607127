"""Cursors: opaque to clients, so that what they hold may change."""

from __future__ import annotations

import base64
import binascii
import re

from services.envs.errors import InvalidCursorError

ENVIRONMENT_ID = re.compile(r"[0-9a-f]{32}")
SEQUENCE = re.compile(r"[0-9]{1,18}")
_MAX_CHARS = 100


def encode_cursor(position: str) -> str:
    """Text that is safe in a URL."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, form: re.Pattern[str]) -> str | None:
    """The position, which must be of this form; None for None. Raises InvalidCursorError."""
    if cursor is None:
        return None
    try:
        padded = cursor[:_MAX_CHARS] + "=" * (-len(cursor) % 4)
        position = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidCursorError from error
    if form.fullmatch(position) is None:
        raise InvalidCursorError
    return position
