"""Events as users may see them."""

from __future__ import annotations

from libs.common.contracts.events import Event
from libs.common.history.redaction import without_secrets
from services.envs.ports import StoredEvent


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
            "data": without_secrets(event.data),
        },
    )
