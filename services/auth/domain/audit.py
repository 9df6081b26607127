"""The audit trail: which events are worth remembering as somebody's deed, and what of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from libs.common.contracts.events import Event

_WISH = ("name", "region", "generation")
_DETAILS: dict[str, tuple[str, ...]] = {
    "user.registered": ("username", "plan"),
    "user.plan_changed": ("plan",),
    "user.updated": ("is_active", "is_verified"),
    "user.deleted": (),
    "user.logged_in": ("session_id", "method", "device"),
    "user.login_failed": ("failures",),
    "user.locked": ("locked_until",),
    "user.unlocked": (),
    "user.sessions_revoked": ("reason",),
    "user.password_changed": ("how",),
    "user.mail_requested": ("purpose",),
    "user.api_key_created": ("key_id", "name", "scopes", "expires_at"),
    "user.api_key_revoked": ("key_id", "name"),
    "user.erased": ("environments",),
    "owner.emptied": ("environments",),
    "env.created": _WISH,
    "env.start_requested": _WISH,
    "env.stop_requested": _WISH,
    "env.restart_requested": _WISH,
    "env.delete_requested": _WISH,
    "env.updated": _WISH,
    "terminal.session_opened": ("session_id",),
    "terminal.session_closed": ("session_id", "reason"),
    "cluster.registered": ("region", "status"),
    "cluster.updated": ("region", "status"),
    "cluster.removed": ("region",),
}
"""What is kept of each kind of event; others are no deeds but their consequences."""

ACTIONS = tuple(_DETAILS)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what to what, when, from where. `id` is that of the event; `user_id` whose account or environment it is.

    `actor` is a user id, or the service or tool that acted on its own.
    """

    id: str
    at: datetime
    action: str
    actor: str
    address: str | None
    subject: str
    user_id: str | None
    correlation_id: str | None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Entries that fit all that is given; `since` is included, `until` is not."""

    user_id: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def entry_of(event: Event) -> AuditEntry | None:
    """None for an event that is no deed."""
    _, aggregate, name, _ = event.type.split(".")
    action = f"{aggregate}.{name}"
    kept = _DETAILS.get(action)
    if kept is None:
        return None
    user_id = event.data.get("user_id")
    return AuditEntry(
        id=event.id,
        at=event.time,
        action=action,
        actor=event.actor or event.source,
        address=event.actoraddress,
        subject=event.subject,
        user_id=user_id if isinstance(user_id, str) else None,
        correlation_id=event.correlationid,
        details={key: event.data[key] for key in kept if event.data.get(key) is not None},
    )
