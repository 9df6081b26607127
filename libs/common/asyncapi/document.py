"""The AsyncAPI 3.0 document of the whole system: https://www.asyncapi.com/docs/reference/specification/v3.0.0"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from faststream.nats import NatsBroker
from pydantic.json_schema import models_json_schema

from libs.common.asyncapi import dead_letters
from libs.common.asyncapi.families import Family, families
from libs.common.asyncapi.listeners import Listener, durable_listeners, live_listeners, plain_schemas
from libs.common.contracts.events import EVENT_TYPES, Event
from libs.common.contracts.telemetry import SIGHTING_SUBJECTS, USAGE_SUBJECTS
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.messaging.subscriptions import IMPORTED_SEQUENCE

_Json = dict[str, Any]

_DESCRIPTION = f"""\
Every lifecycle event is a CloudEvents 1.0 envelope in JSON on the JetStream stream `{EVENTS_STREAM}`: one total order,
so a sequence number names a moment of the whole system. Delivery is at least once and may be out of order: keep the
newest `version`, `generation` or stream sequence. Consumers ignore fields they do not know; a new meaning is a new type
with a higher version. Usage samples and sightings travel on core NATS, at most once, and are not stored."""
_PARAMETERS = {
    "environment_id": "An environment's id: 32 hex digits",
    "user_id": "A user's id: 32 hex digits",
    "cluster_id": "A cluster's id",
}


def asyncapi_document(brokers: Mapping[str, NatsBroker], *, version: str) -> _Json:
    """What `brokers` (by service, not connected) and the event models say."""
    found = families()
    durable = durable_listeners(brokers)
    plain = plain_schemas(brokers)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:devpocket:server",
        "info": {"title": "DevPocket events", "version": version, "description": _DESCRIPTION},
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "{host}:{port}",
                "protocol": "nats",
                "description": "NATS with JetStream, the one in NATS_URL",
                "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "4222"}},
            }
        },
        "channels": {**{family.name: _channel(family) for family in found}, "dlq": dead_letters.CHANNEL},
        "operations": {
            **{f"{name}.send.{family.name}": _send(family, name) for family in found for name in family.publishers},
            **_receives([*durable, *live_listeners(brokers)], found),
            **dead_letters.operations(sorted({listener.service for listener in durable if listener.durable})),
        },
        "components": {
            "messages": {
                **{name: _event(name) for name in EVENT_TYPES},
                "usage": _plain("usage", "UsageSample", "What an environment uses now"),
                "sighting": _plain("sighting", "Sighting", "A session or an API key was used"),
                "deadLetter": dead_letters.MESSAGE,
            },
            "schemas": {
                **_event_schemas(),
                "UsageSample": plain[USAGE_SUBJECTS],
                "Sighting": plain[SIGHTING_SUBJECTS],
                "DeadLetterHeaders": dead_letters.HEADERS,
            },
        },
    }


def _channel(family: Family) -> _Json:
    names = [part.strip("{}") for part in family.address.split(".") if part.startswith("{")]
    parameters: _Json = {name: {"description": _PARAMETERS[name]} for name in names if name != "event"}
    if "event" in names:
        events = sorted(subject.split(".")[-1] for subject in family.messages.values())
        parameters["event"] = {"description": "The event's name within its type", "enum": sorted(set(events))}
    return {
        "address": family.address,
        "description": f"Published by {' and '.join(family.publishers)} only.",
        "servers": [{"$ref": "#/servers/nats"}],
        "parameters": parameters,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in family.messages},
    }


def _send(family: Family, publisher: str) -> _Json:
    return {
        "action": "send",
        "title": f"{publisher} publishes",
        "channel": {"$ref": f"#/channels/{family.name}"},
        "tags": [{"name": publisher}],
        "messages": _references(family, family.messages),
    }


def _receives(listeners: Sequence[Listener], found: Sequence[Family]) -> _Json:
    operations: _Json = {}
    for listener in listeners:
        heard = [(family, family.heard_by(listener.subject)) for family in found]
        for family, messages in heard:
            if messages:
                name = f"{listener.service}.receive.{family.name}.{listener.name.removeprefix(f'{listener.service}-')}"
                operations[name] = _receive(listener, family, messages)
    return operations


def _receive(listener: Listener, family: Family, messages: Sequence[str]) -> _Json:
    operation: _Json = {
        "action": "receive",
        "title": f"{listener.service} hears",
        "channel": {"$ref": f"#/channels/{family.name}"},
        "tags": [{"name": listener.service}],
        "messages": _references(family, messages),
        "x-nats-subject": listener.subject,
    }
    if listener.durable is not None:
        operation["description"] = "A durable consumer that the replicas share: at least once."
        operation["x-nats-stream"] = EVENTS_STREAM
        operation["x-nats-durable"] = listener.durable
    elif listener.queue is not None:
        operation["description"] = "A queue group that the replicas share: at most once."
        operation["bindings"] = {"nats": {"queue": listener.queue, "bindingVersion": "0.1.0"}}
    else:
        operation["description"] = "Every replica gets it while it is connected."
    return operation


def _references(family: Family, names: Mapping[str, str] | Sequence[str]) -> list[_Json]:
    return [{"$ref": f"#/channels/{family.name}/messages/{name}"} for name in sorted(names)]


def _event(name: str) -> _Json:
    model = EVENT_TYPES[name]
    return {
        "name": name,
        "title": model.__name__,
        "summary": inspect.getdoc(model),
        "contentType": "application/cloudevents+json",
        "headers": {"$ref": "#/components/schemas/EventHeaders"},
        "correlationId": {"location": "$message.payload#/correlationid"},
        "payload": {
            "allOf": [
                {"$ref": "#/components/schemas/Event"},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": name},
                        "data": {"$ref": f"#/components/schemas/{model.__name__}"},
                    },
                },
            ]
        },
    }


def _plain(name: str, model: str, summary: str) -> _Json:
    return {
        "name": name,
        "title": model,
        "summary": summary,
        "payload": {"$ref": f"#/components/schemas/{model}"},
    }


def _event_schemas() -> _Json:
    models = [(model, "validation") for model in (Event, *EVENT_TYPES.values())]
    _, definitions = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas: _Json = definitions["$defs"]
    return {**schemas, "EventHeaders": _HEADERS}


_HEADERS: _Json = {
    "type": "object",
    "properties": {
        "Nats-Msg-Id": {"type": "string", "description": "The envelope's id; the stream drops a repeated one"},
        "traceparent": {"type": "string", "description": "W3C trace context of the publisher"},
        "tracestate": {"type": "string"},
        IMPORTED_SEQUENCE: {
            "type": "string",
            "description": "History brought in from another stream: its sequence there",
        },
    },
    "required": ["Nats-Msg-Id"],
}
