"""Who listens: what FastStream's subscribers and its own generator tell without a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faststream.nats import NatsBroker

from libs.common.messaging.streams import EVENTS_SUBJECTS
from libs.common.security import revocation


@dataclass(frozen=True, slots=True)
class Listener:
    """One subscription of a service. `durable`: its JetStream consumer; `queue`: its core NATS queue group.

    With neither, every replica gets every message while it is connected; `purpose` says what for.
    """

    service: str
    subject: str
    purpose: str
    durable: str | None = None
    queue: str | None = None

    @property
    def name(self) -> str:
        """Unique within the system."""
        return self.durable or f"{self.service}-{self.purpose}"


def durable_listeners(brokers: Mapping[str, NatsBroker]) -> list[Listener]:
    """What the services have subscribed to by their brokers: durable consumers and queue groups."""
    found = []
    for service, broker in brokers.items():
        for subscriber in broker.subscribers:
            subject: str = getattr(subscriber, "subject").broker_address  # noqa: B009 - only some kinds have it
            queue: str | None = getattr(subscriber, "queue", None) or None
            found.append(Listener(service, subject, subject.rsplit(".", maxsplit=1)[-1], _durable(subscriber), queue))
    return found


def live_listeners(services: Mapping[str, NatsBroker]) -> list[Listener]:
    """Subscriptions outside of the brokers, where each replica needs every message."""
    found = [Listener(service, revocation.SUBJECT, "revocations") for service in services]
    found.append(Listener("envs", EVENTS_SUBJECTS, "live"))
    found.append(Listener("terminal", "devpocket.env.*.*", "sockets"))
    found += [Listener("terminal", f"devpocket.user.*.{name}", f"{name}-users") for name in ("updated", "deleted")]
    return found


def plain_schemas(brokers: Mapping[str, NatsBroker]) -> dict[str, dict[str, Any]]:
    """What FastStream's generator says of payloads on core NATS, by the subscribed subject.

    Durable consumers are left out: their handlers get any event, and the event models say more about those.
    """
    return {
        str(channel.address): channel.operation.message.payload
        for broker in brokers.values()
        for subscriber in broker.subscribers
        if _durable(subscriber) is None
        for channel in subscriber.schema().values()
    }


def _durable(subscriber: Any) -> str | None:
    durable: str | None = subscriber.extra_options.get("durable")
    return durable
