"""What this service listens to: its own events, which ask for mails, and everybody's, for the audit trail."""

from __future__ import annotations

from faststream.nats import NatsMessage

from libs.common.contracts.telemetry import SIGHTING_SUBJECTS, Sighting
from libs.common.contracts.users import OwnerEmptied, UserDeleted, UserMailRequested, UserRegistered
from libs.common.messaging.broker import Bus
from libs.common.messaging.subscriptions import Delivery, Subscription
from services.auth.service.audit import AuditService
from services.auth.service.deletion import DeletionService
from services.auth.service.mails import MailService
from services.auth.service.sightings import SightingService


def audit_subscription(audit: AuditService) -> Subscription:
    """Every event of every service."""

    async def on_event(delivery: Delivery) -> None:
        await audit.record(delivery.event)

    return Subscription("audit", "devpocket.*.*.*", on_event)


def deletion_subscriptions(deletion: DeletionService) -> list[Subscription]:
    """The rest of a deletion, once the account itself is gone."""

    async def on_deleted(delivery: Delivery) -> None:
        if isinstance(delivery.data, UserDeleted):
            await deletion.forget(delivery.data.user_id)

    async def on_emptied(delivery: Delivery) -> None:
        if isinstance(delivery.data, OwnerEmptied):
            await deletion.emptied(delivery.data.user_id, delivery.data.environments)

    return [
        Subscription("deletions", "devpocket.user.*.deleted", on_deleted),
        Subscription("owners", "devpocket.owner.*.*", on_emptied),
    ]


def mail_subscription(mails: MailService) -> Subscription:
    """What a mail is sent for."""

    async def on_user(delivery: Delivery) -> None:
        event, data = delivery.event, delivery.data
        if isinstance(data, UserRegistered) and not data.is_verified:
            await mails.send(data.user_id, "verify_email", event.id, event.time)
        elif isinstance(data, UserMailRequested):
            await mails.send(data.user_id, data.purpose, event.id, event.time)

    return Subscription("mails", "devpocket.user.*.*", on_user)


def subscribe_sightings(bus: Bus, sightings: SightingService) -> None:
    """Register the subscriber on core NATS; it starts with the bus."""

    async def on_sighting(sighting: Sighting) -> None:
        await sightings.note(sighting)

    bus.broker.subscriber(SIGHTING_SUBJECTS, queue="auth", decoder=_decode)(on_sighting)


async def _decode(message: NatsMessage) -> Sighting:
    return Sighting.model_validate_json(message.body)
