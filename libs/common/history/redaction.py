"""What must not leave: sealed or not, an environment's variables are nobody's business who reads its story. Pure."""

from __future__ import annotations

from typing import Any

HIDDEN = frozenset({"variables_sealed", "variables"})
_MARK = "variables"


def without_secrets(value: Any) -> Any:
    """Parsed JSON without the variables, at any depth."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items() if key not in HIDDEN}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value


def readable_text(payload: bytes) -> str:
    """Bytes that are no JSON, as text for people: it ends where variables may begin."""
    text = payload.decode(errors="replace")
    head, mark, _ = text.partition(_MARK)
    return f"{head}… (hidden from here on: variables)" if mark else text
