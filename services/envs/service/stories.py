"""Events as users may see them."""

from __future__ import annotations

from typing import Any

from libs.common.contracts.events import Event
from services.envs.ports import StoredEvent

# Sealed or not, variables are nobody's business who reads a story.
_HIDDEN = frozenset({"variables_sealed", "variables"})


def visible(event: Event, sequence: int) -> StoredEvent:
    """The event without what must not leave, in the shape of the API."""
    user_id = event.data.get("user_id")
    return StoredEvent(
        sequence=sequence,
        user_id=user_id if isinstance(user_id, str) else None,
        type=event.type,
        body={
            "sequence": sequence,
            "id": event.id,
            "type": event.type,
            "source": event.source,
            "time": event.time.isoformat().replace("+00:00", "Z"),
            "actor": event.actor,
            "correlation_id": event.correlationid,
            "causation_id": event.causationid,
            "data": _without_secrets(event.data),
        },
    )


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items() if key not in _HIDDEN}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value
