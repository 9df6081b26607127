"""The envs service on real servers, with everything around it played by the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import nats
import pytest
from fastapi import FastAPI
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from libs.common.clock import utc_now
from libs.common.context import Cause
from libs.common.contracts.clusters import DEFAULT_CLUSTER
from libs.common.contracts.events import (
    Event,
    EventData,
    RuntimeFailed,
    RuntimeReport,
    RuntimeRunning,
    TerminalSessionOpened,
)
from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.telemetry import UsageSample, usage_subject
from libs.common.contracts.users import UserApiKeyCreated, UserEvent, UserUpdated
from libs.common.ids import new_id
from libs.common.messaging.outbox import PENDING
from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from libs.common.security.api_keys import ApiKey
from services.envs.main import create_app
from services.envs.settings import EnvsSettings
from tests.support.accounts import OUTDATED
from tests.support.app import running_app
from tests.support.servers import Servers
from tests.support.tokens import TestIssuer

API = "/api/v1/environments"
_WAIT_S = 30.0


class World:
    """The service's app and client, users, and the other services as far as they publish."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient, issuer: TestIssuer, bus: NatsClient) -> None:
        self.app = app
        self.http = http
        self.issuer = issuer
        self.bus = bus
        self.js = bus.jetstream(timeout=10)
        self.user_id = new_id()
        self.headers = issuer.headers(self.user_id, plan=Plan.PRO)

    async def call(
        self, method: str, path: str, expected: int = 200, *, headers: dict[str, str] | None = None, **more: Any
    ) -> Any:
        """The JSON of an answer that must have this code."""
        response = await self.http.request(method, path, headers=headers or self.headers, **more)
        assert response.status_code == expected, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    async def create(self, name: str = "one", expected: int = 201, **body: Any) -> Any:
        """A new environment of the pro user, or of `headers`."""
        headers = body.pop("headers", None)
        body = {"name": name, "template": "python", **body}
        return await self.call("POST", API, expected, json=body, headers=headers)

    async def running(self, name: str = "one", **body: Any) -> str:
        """The id of an environment that the runtime has reported as running."""
        created = await self.create(name, **body)
        await self.report(created["id"], RuntimeRunning, generation=1)
        await self.until_status(created["id"], "running")
        environment_id: str = created["id"]
        return environment_id

    async def publish(self, data: EventData, subject: str, *, source: str = "orchestrator") -> int:
        """Store an event as another service would; its place in the stream."""
        event = Event.new(data, subject=subject, source=source, cause=Cause())
        return await self.publish_raw(event.nats_subject, event.model_dump_json().encode(), event.id)

    async def publish_raw(self, subject: str, payload: bytes, message_id: str | None = None) -> int:
        """Store any bytes."""
        headers = {"Nats-Msg-Id": message_id or new_id()}
        return (await self.js.publish(subject, payload, stream=EVENTS_STREAM, headers=headers)).seq

    async def report(
        self,
        environment_id: str,
        kind: type[RuntimeReport],
        *,
        generation: int,
        reason: str | None = None,
        message: str | None = None,
        cluster: str = DEFAULT_CLUSTER,
    ) -> int:
        """What the orchestrator says, which it can only say after it has heard of the wish."""
        await self.until(lambda: self._published(environment_id))
        data = kind(
            environment_id=environment_id,
            user_id=self.user_id,
            generation=generation,
            runtime="local",
            cluster=cluster,
            reason=reason,
            message=message,
        )
        return await self.publish(data, environment_id)

    async def fail(self, environment_id: str, *, generation: int) -> int:
        """A failure report."""
        return await self.report(
            environment_id, RuntimeFailed, generation=generation, reason="ImagePullFailed", message="No such image."
        )

    async def user_state(self, user_id: str, plan: Plan, version: int, *, active: bool = True) -> None:
        """What auth says about a user, known to the service when this returns."""
        data = UserUpdated(
            user_id=user_id, username="u", plan=plan, is_active=active, is_verified=True, version=version
        )
        await self.tell(data)

    async def tell(self, data: UserEvent) -> None:
        """What auth says about a user, acted upon when this returns."""
        await self.publish(data, data.user_id, source="auth")
        await self.settled("users")

    async def api_key(self, user_id: str, *scopes: Scope) -> tuple[str, dict[str, str]]:
        """A new key of a user whom auth has told of: its id, and the header that holds it."""
        key = ApiKey.new()
        await self.tell(
            UserApiKeyCreated(
                **OUTDATED, user_id=user_id, key_id=key.id, name="ci", scopes=list(scopes), secret_hash=key.secret_hash
            )
        )
        return key.id, {"Authorization": f"Bearer {key}"}

    async def farewells(self, user_id: str) -> list[int]:
        """The numbers in what was told of a deleted user's end, once everything is handled and published."""
        await self.settled("users")
        await self.settled("runtime")

        async def published() -> bool:
            users = self.app.state.platform.database["users"]
            document = await users.find_one({"_id": user_id}, {PENDING: 1})
            return not (document or {}).get(PENDING)

        await self.until(published)
        subject = f"devpocket.owner.{user_id}.emptied"
        state = (await self.js.stream_info(EVENTS_STREAM, subjects_filter=subject)).state
        count = (state.subjects or {}).get(subject, 0)
        if not count:
            return []
        subscription = await self.js.pull_subscribe(subject, stream=EVENTS_STREAM)
        return [
            json.loads(message.data)["data"]["environments"] for message in await subscription.fetch(count, _WAIT_S)
        ]

    async def opened_terminal(self, environment_id: str) -> None:
        """What the terminal service says, handled when this returns."""
        data = TerminalSessionOpened(session_id=new_id(), environment_id=environment_id, user_id=self.user_id)
        await self.publish(data, environment_id, source="terminal")
        await self.settled("terminal")

    async def sample(self, environment_id: str, cpu: float, memory: int, storage: int, at: Any = None) -> None:
        """A usage sample on core NATS."""
        sample = UsageSample(
            environment_id=environment_id,
            sampled_at=at or utc_now(),
            cpu_millis=cpu,
            memory_bytes=memory,
            storage_bytes=storage,
        )
        await self.bus.publish(usage_subject(environment_id), sample.model_dump_json().encode())

    async def settled(self, purpose: str) -> None:
        """Until the consumer has handled everything that is in the stream."""

        async def nothing_left() -> bool:
            info = await self.js.consumer_info(EVENTS_STREAM, f"envs-{purpose}")
            return not info.num_pending and not info.num_ack_pending

        await self.until(nothing_left)

    async def _published(self, environment_id: str) -> bool:
        environments = self.app.state.platform.database["environments"]
        document = await environments.find_one({"_id": environment_id}, {PENDING: 1})
        return not (document or {}).get(PENDING)

    async def until_status(self, environment_id: str, status: str) -> dict[str, Any]:
        """The environment once it has this status."""
        found: dict[str, Any] = {}

        async def reached() -> bool:
            nonlocal found
            found = await self.call("GET", f"{API}/{environment_id}")
            return bool(found["status"] == status)

        await self.until(reached)
        return found

    async def until(self, condition: Callable[[], Any]) -> None:
        """Until the condition holds. Raises TimeoutError."""
        async with asyncio.timeout(_WAIT_S):
            while not await condition():  # noqa: ASYNC110 - what is awaited happens in other services
                await asyncio.sleep(0.01)

    async def stored(self, environment_id: str, count: int) -> list[Msg]:
        """The first `count` messages of the stream about an environment from all services, once they are there."""
        subscription = await self.js.pull_subscribe(f"devpocket.*.{environment_id}.>", stream=EVENTS_STREAM)
        found: list[Msg] = []
        while len(found) < count:
            found += await subscription.fetch(count - len(found), timeout=_WAIT_S)
        return found

    async def told(self, environment_id: str, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Event names and data of the first `count` events."""
        events = [json.loads(message.data) for message in await self.stored(environment_id, count)]
        return [(event["type"].removeprefix("devpocket.").removesuffix(".v1"), event["data"]) for event in events]

    async def dead_letter(self) -> Msg:
        """The first dead letter, once it is there."""
        subscription = await self.js.pull_subscribe("dlq.>", stream=DEAD_LETTER_STREAM)
        (message,) = await subscription.fetch(1, timeout=_WAIT_S)
        return message


@pytest.fixture
async def settings(clean_backend: Servers, make_settings: Callable[..., Any]) -> EnvsSettings:
    settings: EnvsSettings = make_settings(EnvsSettings)
    return settings


@pytest.fixture
async def world(settings: EnvsSettings) -> AsyncIterator[World]:
    issuer = TestIssuer(settings)
    app = create_app(settings, keys=issuer)
    bus = await nats.connect(settings.nats_url.get_secret_value())
    async with running_app(app) as http:
        yield World(app, http, issuer, bus)
    await bus.close()
