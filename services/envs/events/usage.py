"""Usage samples, on core NATS: each is taken by one replica, and a lost one is no harm."""

from __future__ import annotations

from faststream.nats import NatsMessage

from libs.common.contracts.telemetry import USAGE_SUBJECTS, UsageSample
from libs.common.messaging.broker import Bus
from services.envs.service.usage import UsageService


def subscribe_usage(bus: Bus, usage: UsageService) -> None:
    """Register the subscriber; it starts with the bus."""

    async def on_usage(sample: UsageSample) -> None:
        await usage.record(sample)

    bus.broker.subscriber(USAGE_SUBJECTS, queue="envs", decoder=_decode)(on_usage)


async def _decode(message: NatsMessage) -> UsageSample:
    return UsageSample.model_validate_json(message.body)
