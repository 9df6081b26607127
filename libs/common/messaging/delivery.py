"""What happens to a message after its handler: ack, delayed retry, or dead letter. Decided here and nowhere else.

FastStream's own policies terminate at the first exception or redeliver without a pause, so every subscriber uses
manual acknowledgement and this middleware. The server's `max_deliver` stays unlimited: a limit there would drop a
message with nothing but an advisory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any

import structlog
from faststream import BaseMiddleware, ContextRepo
from faststream.message import StreamMessage
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from opentelemetry import propagate
from pydantic import ValidationError

from libs.common.context import Cause, acting
from libs.common.contracts.events import Event, UnknownEventError
from libs.common.errors import PermanentError, TemporaryError
from libs.common.messaging.streams import DEAD_LETTER_STREAM
from libs.common.telemetry import tracer

MAX_DELIVERIES = 8
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
# Well below the consumers' ack wait, so that a held message never goes to another replica.
_LONGEST_HOLD_S = 5.0
# Below the server's default maximum payload of 1 MiB, headers included; the original stays in the event stream.
_MAX_DEAD_LETTER_BYTES = 512 * 1024
_MAX_HEADER_CHARS = 512

_PERMANENT = (PermanentError, UnknownEventError, ValidationError, json.JSONDecodeError, UnicodeDecodeError)

log = structlog.get_logger(__name__)


def retry_delay_s(deliveries: int) -> float:
    """Seconds until the next try after `deliveries` tries: 1, 2, 4 … 60."""
    return min(_FIRST_DELAY_S * 2.0 ** max(deliveries - 1, 0), _LONGEST_DELAY_S)


class DeliveryPolicy:
    """Makes the middleware for one service.

    `jetstream` is asked for late: the broker connects after it is built. `outages` are errors that mean that something
    the handler needs is away.
    """

    def __init__(
        self, service: str, jetstream: Callable[[], JetStreamContext], outages: tuple[type[Exception], ...]
    ) -> None:
        self.service = service
        self.jetstream = jetstream
        self.outages = outages

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> DeliveryMiddleware:
        return DeliveryMiddleware(msg, context=context, policy=self)


class DeliveryMiddleware(BaseMiddleware[Any, Any]):
    """Wraps one message: sets the cause and the trace for its handler, then acknowledges according to the outcome."""

    def __init__(self, msg: Any, /, *, context: ContextRepo, policy: DeliveryPolicy) -> None:
        super().__init__(msg, context=context)
        self._policy = policy

    async def consume_scope(self, call_next: Callable[[Any], Any], msg: StreamMessage[Any]) -> Any:
        """Run the handler as a child of the span that published the event."""
        raw: Msg = self.msg
        if not raw.reply:
            return await call_next(msg)
        if raw.metadata.num_delivered > MAX_DELIVERIES:
            raise PermanentError("gave up: the service died while handling it")
        body = json.loads(raw.data)
        if not isinstance(body, dict):
            raise PermanentError("not a CloudEvents envelope")
        event = Event.model_validate(body)
        cause = Cause(correlation_id=event.correlationid, causation_id=event.id, actor=self._policy.service)
        parent = propagate.extract(raw.headers or {})
        with (
            acting(cause),
            tracer().start_as_current_span(f"handle {event.type}", context=parent),
            structlog.contextvars.bound_contextvars(correlation_id=event.correlationid, event_type=event.type),
        ):
            return await self._handle(call_next, msg)

    async def _handle(self, call_next: Callable[[Any], Any], msg: StreamMessage[Any]) -> Any:
        """Wait while the database is away, keeping the message ours.

        An outage is nobody's fault: it must not use up the tries of the events that happen to pass through it, and
        holding them is the back-pressure that is wanted.
        """
        tries = 0
        while True:
            try:
                return await call_next(msg)
            except self._policy.outages as error:
                tries += 1
                delay_s = min(retry_delay_s(tries), _LONGEST_HOLD_S)
                log.warning(
                    "event is held: a part is away", subject=self.msg.subject, retry_in_s=delay_s, error=repr(error)
                )
                await self.msg.in_progress()
                await asyncio.sleep(delay_s)

    async def after_processed(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> bool | None:
        """Ack, nak with a delay, or dead-letter; the error ends here. Core NATS messages have nothing to ack."""
        raw: Msg = self.msg
        if exc_val is not None and not isinstance(exc_val, Exception):
            return False
        if not raw.reply:
            if exc_val is not None:
                log.warning("message ignored", subject=raw.subject, error=str(exc_val))
            return True
        if exc_val is None:
            await raw.ack()
        else:
            await self._failed(raw, exc_val)
        return True

    async def _failed(self, raw: Msg, error: Exception) -> None:
        deliveries = raw.metadata.num_delivered
        if isinstance(error, _PERMANENT) or deliveries >= MAX_DELIVERIES:
            await self._dead_letter(raw, error, deliveries)
            return
        delay_s = retry_delay_s(deliveries)
        if isinstance(error, TemporaryError) and error.delay_s is not None:
            delay_s = error.delay_s
        log.warning(
            "event will be retried",
            subject=raw.subject,
            deliveries=deliveries,
            delay_s=delay_s,
            error=repr(error),
        )
        await raw.nak(delay=delay_s)

    async def _dead_letter(self, raw: Msg, error: Exception, deliveries: int) -> None:
        metadata = raw.metadata
        headers = {
            **(raw.headers or {}),
            "Nats-Msg-Id": f"{metadata.consumer}:{metadata.sequence.stream}",
            "Devpocket-Error-Type": type(error).__name__,
            "Devpocket-Error-Message": " ".join(str(error).split())[:_MAX_HEADER_CHARS],
            "Devpocket-Deliveries": str(deliveries),
            "Devpocket-Consumer": str(metadata.consumer),
            "Devpocket-Original-Subject": raw.subject,
            "Devpocket-Original-Sequence": str(metadata.sequence.stream),
        }
        payload = raw.data
        if len(payload) > _MAX_DEAD_LETTER_BYTES:
            headers["Devpocket-Truncated-From-Bytes"] = str(len(payload))
            payload = payload[:_MAX_DEAD_LETTER_BYTES]
        headers.pop("Nats-Expected-Stream", None)
        subject = f"dlq.{self._policy.service}.{raw.subject}"
        try:
            await self._policy.jetstream().publish(subject, payload, stream=DEAD_LETTER_STREAM, headers=headers)
        except Exception as publish_error:
            log.warning("dead letter not stored, will be retried", subject=subject, error=repr(publish_error))
            await raw.nak(delay=retry_delay_s(deliveries))
            return
        log.error("event is dead", subject=raw.subject, deliveries=deliveries, error=repr(error))
        await raw.term()
