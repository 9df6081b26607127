"""A dead letter gets another chance: at the request of an operator, through the handler that had failed.

A request on core NATS, answered by whichever replica takes it, instead of a second publication: history stays as it
was, no other consumer hears of it, and the operator sees at once whether it worked. The handler gets the event with its
original place in the stream, so what is newer than the event still wins.
"""

from __future__ import annotations

import json
from typing import Any

import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from libs.common.context import Cause, acting
from libs.common.messaging.dead_letter import ORIGINAL_SEQUENCE, ORIGINAL_SUBJECT, one_line
from libs.common.messaging.subscriptions import MalformedEventError, Subscription, decoded
from libs.common.telemetry import explain, handling

log = structlog.get_logger(__name__)


def redrive_subject(consumer: str) -> str:
    """Where the replicas behind the durable consumer take redrives."""
    return f"redrive.{consumer}"


class RedriveDesk:
    """One service's answers to redrive requests: `{"ok": true}`, or `{"ok": false, "error_type", "message"}`."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._subscriptions: dict[str, Subscription] = {}

    def add(self, consumer: str, subscription: Subscription) -> None:
        """Take redrives for this consumer once the desk is open."""
        self._subscriptions[consumer] = subscription

    async def open(self, client: NatsClient) -> None:
        """Begin to answer; the replicas share the requests."""
        for consumer, subscription in self._subscriptions.items():

            async def on_request(
                message: Msg, consumer: str = consumer, subscription: Subscription = subscription
            ) -> None:
                headers = message.headers or {}
                with handling(headers.get(ORIGINAL_SUBJECT, message.subject), consumer, headers):
                    await message.respond(json.dumps(await self._handle(message, subscription)).encode())

            await client.subscribe(redrive_subject(consumer), queue=self._service, cb=on_request)

    async def _handle(self, message: Msg, subscription: Subscription) -> dict[str, Any]:
        headers = message.headers or {}
        try:
            subject, sequence = headers.get(ORIGINAL_SUBJECT, ""), headers.get(ORIGINAL_SEQUENCE, "")
            if not subject or not sequence.isdecimal():
                raise MalformedEventError(f"the headers {ORIGINAL_SUBJECT} and {ORIGINAL_SEQUENCE} are missing")
            delivery = decoded(message.data, subject=subject, sequence=int(sequence))
            event = delivery.event
            explain(event.type, event.correlationid)
            with acting(Cause(event.correlationid, event.id, self._service)):
                await subscription.handle(delivery)
        except Exception as error:
            log.warning("redrive failed", subject=headers.get(ORIGINAL_SUBJECT), error=repr(error))
            return {"ok": False, "error_type": type(error).__name__, "message": one_line(str(error))}
        log.info("redriven", subject=subject, sequence=sequence)
        return {"ok": True}
