"""What this service listens to. Decode, call the service; the outcome is acknowledged by the delivery policy."""

from __future__ import annotations

from faststream.nats.annotations import NatsMessage

from libs.common.contracts.events import EVENT_TYPES, Event, RuntimeReport, TerminalSessionOpened, UserState
from libs.common.contracts.telemetry import USAGE_SUBJECTS, UsageSample
from libs.common.errors import PermanentError
from libs.common.messaging.broker import Bus
from services.envs.service.accounts import AccountService
from services.envs.service.reports import ReportService
from services.envs.service.usage import UsageService


def subscribe(bus: Bus, reports: ReportService, accounts: AccountService, usage: UsageService) -> None:
    """Register all subscribers; they start with the bus."""

    async def on_runtime(event: Event, message: NatsMessage) -> None:
        data = event.payload()
        if not isinstance(data, RuntimeReport):
            raise PermanentError(f"{event.type} is no report of the runtime")
        _same_subject(event, data.environment_id)
        await reports.apply(data, message.raw_message.metadata.sequence.stream)

    async def on_user(event: Event) -> None:
        kind = EVENT_TYPES.get(event.type)
        # Most events of users are none of our business, and auth may add some we have never heard of.
        if kind is None or not issubclass(kind, UserState):
            return
        data = event.payload()
        assert isinstance(data, UserState)
        _same_subject(event, data.user_id)
        await accounts.keep(data)

    async def on_terminal(event: Event) -> None:
        if EVENT_TYPES.get(event.type) is not TerminalSessionOpened:
            return
        data = event.payload()
        assert isinstance(data, TerminalSessionOpened)
        _same_subject(event, data.environment_id)
        await reports.opened_terminal(data.environment_id, event.time)

    async def on_usage(sample: UsageSample) -> None:
        await usage.record(sample)

    bus.durable("runtime", "devpocket.runtime.*.*")(on_runtime)
    bus.durable("users", "devpocket.user.*.*")(on_user)
    bus.durable("terminal", "devpocket.terminal.*.*")(on_terminal)
    bus.broker.subscriber(USAGE_SUBJECTS, queue="envs")(on_usage)


def _same_subject(event: Event, data_id: str) -> None:
    """Raises PermanentError for an envelope that is about one thing while its data are about another."""
    if event.subject != data_id:
        raise PermanentError(f"the envelope is about {event.subject}, the data about {data_id}")
