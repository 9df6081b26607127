"""Identifiers: UUIDv7 (RFC 9562), so that they sort by time of creation."""

from __future__ import annotations

import uuid_utils


def new_id() -> str:
    """A UUIDv7 as 32 lower-case hex digits: one NATS subject token, a DNS label part and a safe file name."""
    return uuid_utils.uuid7().hex
