"""Who is who for the orchestrator: API keys as bearer tokens, and revocations from before it was started."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from libs.common import mongo
from libs.common.context import Cause
from libs.common.contracts.base import EventData
from libs.common.contracts.events import Event
from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.users import (
    UserApiKeyCreated,
    UserApiKeyRevoked,
    UserDeleted,
    UserRegistered,
    UserSessionsRevoked,
    UserState,
)
from libs.common.history.drift import drifts
from libs.common.history.reader import StreamReader
from libs.common.history.rebuilding import ReplayJob, ReplayPlan, scratch_database
from libs.common.ids import new_id
from libs.common.messaging.streams import EVENTS_STREAM
from libs.common.security.api_keys import ApiKey
from libs.common.security.tokens import TokenVerifier
from services.orchestrator.main import create_app
from services.orchestrator.replay import replay_target
from services.orchestrator.settings import OrchestratorSettings
from tests.fakes.runtime import FakeRuntime
from tests.integration.orchestrator.conftest import Envs
from tests.support.accounts import OUTDATED
from tests.support.app import eventually, running_app
from tests.support.tokens import TestIssuer


class Auth:
    """Plays auth: says who is who."""

    def __init__(self, envs: Envs) -> None:
        self._envs = envs

    async def say(self, data: EventData, user_id: str) -> None:
        event = Event.new(data, subject=user_id, source="auth", cause=Cause())
        payload = event.model_dump_json(exclude_none=True).encode()
        await self._envs.jetstream.publish(event.nats_subject, payload, stream=EVENTS_STREAM)

    async def user(self, user_id: str, kind: type[UserState] = UserRegistered, **changes: Any) -> None:
        state = {"plan": Plan.ADMIN, "is_active": True, "is_verified": True, "version": 1, **changes}
        await self.say(kind(user_id=user_id, username=user_id, **state), user_id)

    async def key(self, user_id: str, *scopes: Scope) -> ApiKey:
        key = ApiKey.new()
        data = UserApiKeyCreated(
            **OUTDATED, user_id=user_id, key_id=key.id, name="ci", scopes=list(scopes), secret_hash=key.secret_hash
        )
        await self.say(data, user_id)
        return key


@pytest.fixture
def auth(envs: Envs) -> Auth:
    return Auth(envs)


def bearer(token: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def answers(client: httpx.AsyncClient, token: object, status: int) -> None:
    """Until this token is answered with it: what auth says is on its way."""

    async def is_so() -> bool:
        return (await client.get("/api/v1/regions", headers=bearer(token))).status_code == status

    await eventually(is_so)


async def test_keys_are_good_for_what_they_were_made_for(
    settings: OrchestratorSettings, issuer: TestIssuer, auth: Auth
) -> None:
    async with running_app(create_app(settings, keys=issuer, runtime=FakeRuntime())) as client:
        admin_id, user_id = new_id(), new_id()
        await auth.user(admin_id)
        await auth.user(user_id, plan=Plan.PRO)
        administrating, reading = await auth.key(admin_id, Scope.ADMIN), await auth.key(admin_id, Scope.READ)
        users = await auth.key(user_id, Scope.ADMIN)
        for key, clusters in ((administrating, 200), (reading, 403), (users, 403)):
            await answers(client, key, 200)
            assert (await client.get("/api/v1/clusters", headers=bearer(key))).status_code == clusters
        forged = ApiKey(administrating.id, reading.secret)
        assert (await client.get("/api/v1/regions", headers=bearer(forged))).status_code == 401


async def test_a_key_is_dead_with_its_revocation_or_its_user(
    settings: OrchestratorSettings, issuer: TestIssuer, auth: Auth
) -> None:
    async with running_app(create_app(settings, keys=issuer, runtime=FakeRuntime())) as client:
        user_id, gone = new_id(), new_id()
        await auth.user(user_id)
        await auth.user(gone)
        revoked, other, orphan = [await auth.key(owner, Scope.READ) for owner in (user_id, user_id, gone)]
        for key in (revoked, other, orphan):
            await answers(client, key, 200)
        await auth.say(UserApiKeyRevoked(user_id=user_id, key_id=revoked.id, name="ci"), user_id)
        await auth.user(gone, UserDeleted, version=2)
        await asyncio.gather(answers(client, revoked, 401), answers(client, orphan, 401))
        assert (await client.get("/api/v1/regions", headers=bearer(other))).status_code == 200


async def test_a_service_that_starts_after_redis_has_lost_its_data_refuses_dead_tokens(
    settings: OrchestratorSettings, issuer: TestIssuer, auth: Auth, clean_backend: Any
) -> None:
    token, alive = issuer.token("u"), issuer.token("u")
    reader = create_app(settings, keys=issuer, runtime=FakeRuntime())
    tokens: TokenVerifier = reader.state.platform.tokens
    session_id = (await tokens.verify(token)).session_id
    await auth.say(UserSessionsRevoked(user_id="u", session_ids=[session_id], reason="logout"), "u")
    redis = Redis.from_url(clean_backend.redis_url)
    await redis.flushdb()
    await redis.aclose()
    async with running_app(reader) as client:
        assert (await client.get("/api/v1/regions", headers=bearer(token))).status_code == 401
        assert (await client.get("/api/v1/regions", headers=bearer(alive))).status_code == 200


async def test_a_replay_knows_the_same_users_and_keys(
    settings: OrchestratorSettings, issuer: TestIssuer, auth: Auth, envs: Envs
) -> None:
    app = create_app(settings, keys=issuer, runtime=FakeRuntime())
    async with running_app(app):
        user_id = new_id()
        await auth.user(user_id)
        key, revoked = await auth.key(user_id, Scope.READ), await auth.key(user_id, Scope.ADMIN)
        await auth.say(UserApiKeyRevoked(user_id=user_id, key_id=revoked.id, name="ci"), user_id)
        keys = app.state.platform.database["api_keys"]

        async def is_told() -> bool:
            return bool(await keys.count_documents({"_id": revoked.id, "secret_hash": None}))

        await eventually(is_told)
    client = mongo.connect(settings)
    live, name = mongo.database(client, settings, "orchestrator"), f"{settings.database_name}_again"
    scratch = await scratch_database(client, settings, name)
    plan = ReplayPlan("orchestrator", name, diff=True)
    job = ReplayJob(StreamReader(envs.jetstream), plan, replay_target, live=live, scratch=scratch)
    assert (await job.run()).drift == []
    await live["api_keys"].update_one({"_id": key.id}, {"$set": {"scopes": ["admin"]}})
    await live["api_keys"].update_one({"_id": revoked.id}, {"$set": {"secret_hash": revoked.secret_hash}})
    await live["users"].update_one({"_id": user_id}, {"$set": {"is_active": False}})
    found = [one for model in job.target.models async for one in drifts(live, scratch, model, since=None)]
    assert {(one.collection, one.id, one.field) for one in found} == {
        ("api_keys", key.id, "scopes"),
        ("api_keys", revoked.id, "secret_hash"),
        ("users", user_id, "is_active"),
    }
    assert revoked.secret_hash not in str(found)
    await mongo.close(client)
