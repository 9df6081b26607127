"""What must not leave: sealed or not, variables and credentials are nobody's business who reads a story. Pure."""

from __future__ import annotations

from typing import Any

HIDDEN = frozenset({"variables_sealed", "variables", "connection_sealed", "secret_hash"})
_MARKS = ("variables", "connection_sealed", "secret_hash")


def without_secrets(value: Any) -> Any:
    """Parsed JSON without them, at any depth."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items() if key not in HIDDEN}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value


def readable_text(payload: bytes) -> str:
    """Bytes that are no JSON, as text for people: it ends where secrets may begin."""
    text = payload.decode(errors="replace")
    found = [(place, mark) for mark in _MARKS if (place := text.find(mark)) >= 0]
    if not found:
        return text
    place, mark = min(found)
    return f"{text[:place]}… (hidden from here on: {mark})"
