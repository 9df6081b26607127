"""Identifiers: UUIDv7 (RFC 9562), so that they sort by time of creation."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import uuid_utils


def new_id() -> str:
    """A UUIDv7 as 32 lower-case hex digits: one NATS subject token, a DNS label part and a safe file name."""
    return uuid_utils.uuid7().hex


def time_of(identifier: str) -> datetime | None:
    """When an id was made, to the millisecond; None for what is no UUIDv7."""
    try:
        parsed = uuid.UUID(identifier)
    except ValueError:
        return None
    return datetime.fromtimestamp((parsed.int >> 80) / 1000, UTC) if parsed.version == 7 else None
