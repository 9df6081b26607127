"""Dead letters in the document: what no consumer could handle, as it came, with the reason in its headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from libs.common.messaging import dead_letter
from libs.common.messaging.streams import DEAD_LETTER_STREAM

_Json = dict[str, Any]

CHANNEL: _Json = {
    "address": "dlq.{service}.devpocket.{aggregate}.{id}.{event}",
    "description": f"`dlq.<service>.<original subject>`, on the stream `{DEAD_LETTER_STREAM}`.",
    "servers": [{"$ref": "#/servers/nats"}],
    "parameters": {
        "service": {"description": "Who could not handle it"},
        "aggregate": {"description": "Of the original subject"},
        "id": {"description": "Of the original subject"},
        "event": {"description": "Of the original subject"},
    },
    "messages": {"deadLetter": {"$ref": "#/components/messages/deadLetter"}},
}

MESSAGE: _Json = {
    "name": "deadLetter",
    "title": "DeadLetter",
    "summary": "The message as it was published; `devpocket events dlq redrive` hands it over again",
    "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
    "payload": {},
}

_HEADERS = {
    dead_letter.ERROR_TYPE: "The error's class",
    dead_letter.ERROR_MESSAGE: "What was wrong, in one line",
    dead_letter.DELIVERIES: "How often it was tried",
    dead_letter.CONSUMER: "The durable consumer that gave up",
    dead_letter.ORIGINAL_SUBJECT: "Where it was published",
    dead_letter.ORIGINAL_SEQUENCE: "Where it stands in the event stream",
}

HEADERS: _Json = {
    "type": "object",
    "description": "Beside the headers that the message had",
    "properties": {
        **{name: {"type": "string", "description": text} for name, text in _HEADERS.items()},
        dead_letter.TRUNCATED_FROM: {"type": "string", "description": "How long it was, if only its beginning is kept"},
    },
    "required": sorted(_HEADERS),
}


def operations(services: Iterable[str]) -> _Json:
    """One for each service that may give up on an event."""
    return {
        f"{service}.send.dlq": {
            "action": "send",
            "title": f"{service} gives up on a message",
            "channel": {"$ref": "#/channels/dlq"},
            "tags": [{"name": service}],
            "messages": [{"$ref": "#/channels/dlq/messages/deadLetter"}],
        }
        for service in services
    }
