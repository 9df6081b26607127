"""Where events go that cannot be handled: the stream `DEVPOCKET_DLQ`, with headers that say why and where from."""

from __future__ import annotations

from collections.abc import Mapping

from nats.aio.msg import Msg
from nats.js import JetStreamContext

from libs.common.messaging.streams import DEAD_LETTER_STREAM

ERROR_TYPE = "Devpocket-Error-Type"
ERROR_MESSAGE = "Devpocket-Error-Message"
DELIVERIES = "Devpocket-Deliveries"
CONSUMER = "Devpocket-Consumer"
ORIGINAL_SUBJECT = "Devpocket-Original-Subject"
ORIGINAL_SEQUENCE = "Devpocket-Original-Sequence"
TRUNCATED_FROM = "Devpocket-Truncated-From-Bytes"

# Below the server's default maximum payload of 1 MiB, headers included; the original stays in the event stream.
_MAX_BYTES = 512 * 1024
_MAX_HEADER_CHARS = 512
# Instructions of the first publisher to the server; they must not be followed again.
_NOT_COPIED = ("Nats-Expected-Stream", "Nats-Expected-Last-Msg-Id", "Nats-Expected-Last-Sequence", "Nats-Rollup")


async def bury(js: JetStreamContext, service: str, message: Msg, error: Exception, deliveries: int) -> None:
    """Store the message with its reason, once however often it is tried. Raises what nats-py raises."""
    payload = message.data
    headers = {**_kept(message.headers or {}), **_reason(message, error, deliveries)}
    if len(payload) > _MAX_BYTES:
        headers[TRUNCATED_FROM] = str(len(payload))
        payload = payload[:_MAX_BYTES]
    await js.publish(f"dlq.{service}.{message.subject}", payload, stream=DEAD_LETTER_STREAM, headers=headers)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """A stranger's headers may hold anything; what is too long or spans lines would make the dead letter unstorable."""
    return {name: one_line(value) for name, value in headers.items() if name not in _NOT_COPIED}


def _reason(message: Msg, error: Exception, deliveries: int) -> dict[str, str]:
    metadata = message.metadata
    return {
        "Nats-Msg-Id": f"{metadata.consumer}:{metadata.sequence.stream}",
        ERROR_TYPE: type(error).__name__,
        ERROR_MESSAGE: one_line(str(error)),
        DELIVERIES: str(deliveries),
        CONSUMER: str(metadata.consumer),
        ORIGINAL_SUBJECT: message.subject,
        ORIGINAL_SEQUENCE: str(metadata.sequence.stream),
    }


def one_line(text: str) -> str:
    """Text that fits into a header."""
    return " ".join(text.split())[:_MAX_HEADER_CHARS]
