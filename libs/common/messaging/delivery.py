"""What happens to a message after its handler: ack, delayed retry, or dead letter. Decided here and nowhere else.

FastStream's own policies terminate at the first exception or redeliver without a pause, so subscribers acknowledge
manually, here. The server's `max_deliver` stays unlimited: a limit there would drop a message with nothing but an
advisory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from enum import StrEnum

import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from opentelemetry.trace import Span

from libs.common.context import Cause, acting
from libs.common.contracts.events import EventData, UnknownEventError
from libs.common.errors import PermanentError, TemporaryError
from libs.common.messaging.dead_letter import bury
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE, Delivery, Handler, decoded
from libs.common.telemetry import explain, fail_span, handling

# Failures of a handler that it did not expect. An expected one (TemporaryError) deserves more patience: over an hour.
MAX_DELIVERIES = 8
MAX_TEMPORARY_DELIVERIES = 100
# Deliveries without any outcome: the process died or hung each time.
MAX_ABANDONED_DELIVERIES = 16
# From here on a message is suspected of killing its process: suspects are handled one after the other.
_SUSPECT_DELIVERIES = 4
_SUSPECTS = ""
# Messages with an outcome in this process that are remembered; more are not in retry at a time.
_MAX_SURVIVED = 1_000
# Far above what any handler needs; one that hangs must not hang for ever.
_HANDLER_LIMIT_S = 120.0
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
_LONGEST_HOLD_S = 5.0

_PERMANENT = (PermanentError, UnknownEventError)

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """What becomes of one delivery."""

    DONE = "done"
    RETRIED = "retried"
    DEAD_LETTERED = "dead_lettered"


Observer = Callable[[str, Outcome, float], None]
"""Hears of each delivery: its consumer, its outcome, and how many seconds it took."""


def unobserved(_consumer: str, _outcome: Outcome, _seconds: float) -> None:
    """Nobody wants to know."""


def retry_delay_s(deliveries: int) -> float:
    """Seconds until the next try after `deliveries` tries: 1, 2, 4 … 60."""
    return min(_FIRST_DELAY_S * 2.0 ** min(max(deliveries - 1, 0), 20), _LONGEST_DELAY_S)


def turn_of(message: Msg) -> str:
    """Messages with the same turn are handled one after the other: those of one aggregate, and all suspects.

    Suspects are kept apart from everything else, so that what they do to their process is counted for them alone.
    """
    if message.metadata.num_delivered >= _SUSPECT_DELIVERIES:
        return _SUSPECTS
    aggregate_and_id: str = message.subject.rsplit(".", 1)[0]
    return aggregate_and_id


class DeliveryPolicy:
    """Delivers messages to the handlers of one service and sees to their outcome.

    `jetstream` is asked for late: the broker connects after it is built. `outages` are errors that mean that something
    the handler needs is away.
    """

    def __init__(
        self,
        service: str,
        jetstream: Callable[[], JetStreamContext],
        outages: tuple[type[Exception], ...],
        observer: Observer = unobserved,
    ) -> None:
        self._service = service
        self._observer = observer
        self._jetstream = jetstream
        self._outages = outages
        self._has_condemned = False
        self._survived: dict[tuple[str, int], None] = {}

    async def deliver(self, message: Msg, handler: Handler, *, told: Collection[type[EventData]] = ()) -> None:
        """Run the handler, then acknowledge according to the outcome. Raises nothing but cancellation.

        The work is a child of the span that published the event. `told`: see Subscription.
        """
        with handling(message.subject, message.metadata.consumer, message.headers or {}) as span:
            await self._deliver(message, _telling(handler, told), span)

    async def _deliver(self, message: Msg, handler: Handler, span: Span) -> None:
        started = time.perf_counter()
        try:
            # History of another system is for reading; acting upon it would happen a second time.
            if IMPORTED_SEQUENCE not in (message.headers or {}):
                await self._handle(message, handler)
        except Exception as error:
            fail_span(span, error)
            telling = self._failed(message, error)
        else:
            telling = _done(message)
        try:
            outcome = await telling
        except Exception as error:
            # The connection is gone, and with it the claim to the message: it is delivered again.
            log.warning("outcome could not be told", subject=message.subject, error=repr(error))
            outcome = Outcome.RETRIED
        self._observer(message.metadata.consumer, outcome, time.perf_counter() - started)

    def condemns(self, consumer: str, sequence: int, deliveries: int) -> bool:
        """Whether a message delivered so often without an outcome is to blame.

        A process that dies takes all that it holds with it, and each of these deliveries is counted. Suspects are
        handled one by one, so the guilty one is the first that is met: one verdict in the life of a process. A message
        that this process has tried in vain and survived waits for something and kills nobody.
        """
        if deliveries <= MAX_ABANDONED_DELIVERIES or self._has_condemned or (consumer, sequence) in self._survived:
            return False
        self._has_condemned = True
        return True

    def survived(self, consumer: str, sequence: int) -> None:
        """The message will be tried again, and it was not it that ended a process."""
        self._survived[consumer, sequence] = None
        if len(self._survived) > _MAX_SURVIVED:
            del self._survived[next(iter(self._survived))]

    async def _handle(self, message: Msg, handler: Handler) -> None:
        """As the cause of what the handler does."""
        metadata = message.metadata
        if self.condemns(metadata.consumer, metadata.sequence.stream, metadata.num_delivered):
            raise PermanentError(f"gave up: {metadata.num_delivered - 1} deliveries ended without an outcome")
        delivery = decoded(message.data, subject=message.subject, sequence=metadata.sequence.stream)
        event = delivery.event
        explain(event.type, event.correlationid)
        tries = 0
        with acting(Cause(event.correlationid, event.id, self._service)):
            while True:
                try:
                    async with asyncio.timeout(_HANDLER_LIMIT_S):
                        await handler(delivery)
                except self._outages as error:
                    tries += 1
                    await self._hold(message, tries, error)
                else:
                    return

    async def _hold(self, message: Msg, tries: int, error: Exception) -> None:
        """Wait while the database is away, keeping the message ours.

        An outage is nobody's fault: it must not use up the tries of the events that happen to pass through it, and
        holding them is the back-pressure that is wanted.
        """
        delay_s = min(retry_delay_s(tries), _LONGEST_HOLD_S)
        log.warning("event is held: a part is away", subject=message.subject, retry_in_s=delay_s, error=repr(error))
        await asyncio.sleep(delay_s)

    async def _failed(self, message: Msg, error: Exception) -> Outcome:
        deliveries = message.metadata.num_delivered
        most = MAX_TEMPORARY_DELIVERIES if isinstance(error, TemporaryError) else MAX_DELIVERIES
        if isinstance(error, _PERMANENT) or deliveries >= most:
            return await self._dead_letter(message, error, deliveries)
        delay_s = retry_delay_s(deliveries)
        if isinstance(error, TemporaryError) and error.delay_s is not None:
            delay_s = error.delay_s
        log.warning(
            "event will be retried",
            subject=message.subject,
            deliveries=deliveries,
            delay_s=delay_s,
            error=repr(error),
        )
        self.survived(message.metadata.consumer, message.metadata.sequence.stream)
        await message.nak(delay=delay_s)
        return Outcome.RETRIED

    async def _dead_letter(self, message: Msg, error: Exception, deliveries: int) -> Outcome:
        try:
            await bury(self._jetstream(), self._service, message, error, deliveries)
        except Exception as publish_error:
            log.warning("dead letter not stored, will be retried", subject=message.subject, error=repr(publish_error))
            await message.nak(delay=retry_delay_s(deliveries))
            return Outcome.RETRIED
        log.error("event is dead", subject=message.subject, deliveries=deliveries, error=repr(error))
        await message.term()
        return Outcome.DEAD_LETTERED


async def _done(message: Msg) -> Outcome:
    await message.ack()
    return Outcome.DONE


def _telling(handler: Handler, told: Collection[type[EventData]]) -> Handler:
    async def handle(delivery: Delivery) -> None:
        await handler(delivery)
        if type(delivery.data) in told:
            log.info("event handled", sequence=delivery.sequence)

    return handle if told else handler
