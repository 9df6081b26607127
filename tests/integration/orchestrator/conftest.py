"""The orchestrator on real NATS, Redis and MongoDB, and the bus as envs sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from libs.common.context import Cause
from libs.common.contracts.events import EnvironmentWish, Event
from libs.common.ids import new_id
from libs.common.messaging.streams import EVENTS_STREAM, ensure_streams
from services.orchestrator.settings import OrchestratorSettings
from tests.support.servers import Servers
from tests.support.tokens import TestIssuer
from tests.unit.orchestrator.memory import wish

_PATIENCE_S = 30.0


@dataclass
class Envs:
    """Plays envs: says wishes, hears reports."""

    client: Client
    jetstream: JetStreamContext

    async def say(self, data: EnvironmentWish, *, request_id: str = "request-1") -> Event:
        """Publish a wish; returns its event."""
        event = Event.new(data, subject=data.environment_id, source="envs", cause=Cause(request_id, None, "user1"))
        payload = event.model_dump_json(exclude_none=True).encode()
        await self.jetstream.publish(
            event.nats_subject, payload, stream=EVENTS_STREAM, headers={"Nats-Msg-Id": event.id}
        )
        return event

    async def reports(self, environment_id: str, last: str, *, times: int = 1) -> list[Event]:
        """All reports about an environment until the one named `last`, e.g. `running`, has come so many times."""
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
        subject = f"devpocket.runtime.{environment_id}.*"
        subscription = await self.jetstream.subscribe(subject, stream=EVENTS_STREAM, config=config)
        found: list[Event] = []
        try:
            while [name_of(event) for event in found].count(last) < times:
                message = await subscription.next_msg(_PATIENCE_S)
                found.append(Event.model_validate_json(message.data))
        finally:
            await subscription.unsubscribe()
        return found


def name_of(event: Event) -> str:
    """`running` of `devpocket.runtime.running.v1`."""
    return event.type.split(".")[2]


def a_wish(kind: type[EnvironmentWish], environment_id: str | None = None, *, generation: int = 1) -> EnvironmentWish:
    """A wish about a new environment, or a later one about an old."""
    return wish(kind, environment_id=environment_id or new_id(), generation=generation)


@pytest.fixture
def settings(clean_backend: Servers, make_settings: Callable[..., Any]) -> OrchestratorSettings:
    settings: OrchestratorSettings = make_settings(
        OrchestratorSettings, scan_interval_seconds=0.1, metrics_interval_seconds=0.5
    )
    return settings


@pytest.fixture
def issuer(settings: OrchestratorSettings) -> TestIssuer:
    return TestIssuer(settings)


@pytest.fixture
async def envs(settings: OrchestratorSettings) -> AsyncIterator[Envs]:
    client = await nats.connect(settings.nats_url.get_secret_value())
    jetstream = client.jetstream(timeout=_PATIENCE_S)
    await ensure_streams(jetstream, settings)
    yield Envs(client, jetstream)
    await client.close()
