"""Cursors: opaque to clients, so that what they hold may change."""

from __future__ import annotations

import base64
import binascii

from services.envs.errors import InvalidCursorError

_MAX_CHARS = 200


def encode_cursor(position: str) -> str:
    """Text that is safe in a URL."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """The position, None for None. Raises InvalidCursorError."""
    if cursor is None:
        return None
    try:
        if len(cursor) > _MAX_CHARS:
            raise InvalidCursorError
        position = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise InvalidCursorError from error
    if not position.isalnum():
        raise InvalidCursorError
    return position
