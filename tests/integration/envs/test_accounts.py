"""What happens to an account takes effect here: plans, deactivation, deletion and API keys, by auth's events."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from libs.common.contracts.events import RuntimeDeleted, RuntimeRunning, RuntimeStopped
from libs.common.contracts.identity import Plan, Scope
from libs.common.contracts.users import (
    UserApiKeyCreated,
    UserApiKeyRevoked,
    UserDeleted,
    UserPlanChanged,
    UserRegistered,
    UserState,
    UserUpdated,
)
from libs.common.security.api_keys import ApiKey
from services.envs.allowance import DEACTIVATED, no_room
from tests.integration.envs.conftest import API, World
from tests.integration.envs.test_replay_api import replayed
from tests.support.accounts import OUTDATED


def a_state(world: World, kind: type[UserState], version: int, *, plan: Plan = Plan.PRO, active: bool = True) -> Any:
    return kind(user_id=world.user_id, username="u", plan=plan, is_active=active, is_verified=True, version=version)


async def registered(world: World, number: int = 0) -> list[str]:
    """A pro user and the ids of this many running environments, the first of which is the oldest."""
    await world.tell(a_state(world, UserRegistered, 1))
    return [await world.running(f"env-{index}", resources={"memory": "4Gi"}) for index in range(number)]


async def statuses(world: World) -> dict[str, str]:
    return {environment["name"]: environment["status"] for environment in await world.call("GET", API)}


async def no_drift(world: World) -> None:
    """Rebuilding the read models from the stream gives the live ones."""
    assert (await replayed(world))["report"]["drift"] == []


class TestPlan:
    async def test_a_smaller_one_stops_those_not_used_for_longest(self, world: World) -> None:
        first, second, third, fourth = await registered(world, 4)
        await world.opened_terminal(first)
        await world.tell(a_state(world, UserPlanChanged, 2, plan=Plan.STARTER))
        assert await statuses(world) == {
            "env-0": "running", "env-1": "stopping", "env-2": "running", "env-3": "running",
        }  # fmt: skip
        await world.report(second, RuntimeStopped, generation=2)
        stopped = await world.until_status(second, "stopped")
        assert stopped["status_reason"] == no_room(Plan.STARTER)
        told = [json.loads(message.data) for message in await world.stored(second, 5)]
        assert {event["actor"] for event in told[3:]} == {"envs"}
        refusal = await world.call("POST", f"{API}/{second}/start", 403)
        assert (refusal["code"], refusal["detail"]) == ("quota_exceeded", no_room(Plan.STARTER))
        await world.call("POST", f"{API}/{third}/stop")
        await world.call("POST", f"{API}/{second}/start")
        started = await world.call("GET", f"{API}/{second}")
        assert (started["status_reason"], started["resources"]["memory"]) == (None, "2Gi")
        await world.report(second, RuntimeRunning, generation=3)
        await world.until_status(second, "running")
        assert (await world.call("GET", f"{API}/{fourth}"))["resources"]["memory"] == "4Gi"
        await no_drift(world)

    async def test_starts_at_once_end_with_what_it_allows(self, world: World) -> None:
        ids = await registered(world, 3)
        await world.tell(a_state(world, UserUpdated, 2, active=False))
        for environment_id in ids:
            await world.report(environment_id, RuntimeStopped, generation=2)
            await world.until_status(environment_id, "stopped")
        await world.tell(a_state(world, UserUpdated, 3, plan=Plan.FREE))
        answers = await asyncio.gather(
            *(world.http.post(f"{API}/{environment_id}/start", headers=world.headers) for environment_id in ids)
        )
        assert set(Counter(answer.status_code for answer in answers)) <= {200, 403}
        database = world.app.state.platform.database
        assert await database["environments"].count_documents({"desired": "running"}) == 1


class TestDeactivation:
    async def test_stops_everything_and_reactivation_starts_nothing(self, world: World) -> None:
        first, second = await registered(world, 2)
        await world.tell(a_state(world, UserUpdated, 2, active=False))
        for environment_id in (first, second):
            await world.report(environment_id, RuntimeStopped, generation=2)
            stopped = await world.until_status(environment_id, "stopped")
            assert stopped["status_reason"] == DEACTIVATED
        assert (await world.call("POST", f"{API}/{first}/start", 403))["code"] == "account_inactive"
        await world.tell(a_state(world, UserUpdated, 3))
        assert set((await statuses(world)).values()) == {"stopped"}
        await world.call("POST", f"{API}/{first}/start")
        await no_drift(world)


class TestDeletion:
    async def test_empties_and_says_so_once(self, world: World) -> None:
        first, second = await registered(world, 2)
        deleted = a_state(world, UserDeleted, 2, active=False)
        await world.tell(deleted)
        assert set((await statuses(world)).values()) == {"terminating"}
        await world.report(first, RuntimeDeleted, generation=2)
        await world.tell(deleted)
        assert await world.farewells(world.user_id) == []
        for _ in range(2):
            await world.report(second, RuntimeDeleted, generation=2)
        await world.tell(deleted)
        assert await world.farewells(world.user_id) == [2]
        assert await statuses(world) == {}
        await no_drift(world)

    async def test_of_who_has_no_environments_is_said_once_too(self, world: World) -> None:
        await registered(world)
        for _ in range(2):
            await world.tell(a_state(world, UserDeleted, 2, active=False))
        assert await world.farewells(world.user_id) == [0]
        assert (await world.create(expected=403))["code"] == "account_inactive"

    async def test_an_older_event_that_comes_late_brings_nothing_back(self, world: World) -> None:
        await registered(world)
        await world.tell(a_state(world, UserDeleted, 3, active=False))
        await world.tell(a_state(world, UserUpdated, 2))
        assert (await world.create(expected=403))["code"] == "account_inactive"


class TestApiKeys:
    async def test_one_that_may_read_sees_and_changes_nothing(self, world: World) -> None:
        (environment_id,) = await registered(world, 1)
        _, reader = await world.api_key(world.user_id, Scope.READ, Scope.TERMINAL)
        assert [found["id"] for found in await world.call("GET", API, headers=reader)] == [environment_id]
        url = f"{API}/{environment_id}"
        await world.call("GET", url, headers=reader)
        for method, path, body in (
            ("POST", API, {"name": "two"}),
            ("PATCH", url, {"name": "two"}),
            ("PUT", url, {"name": "two"}),
            ("POST", f"{url}/start", None),
            ("POST", f"{url}/stop", None),
            ("POST", f"{url}/restart", None),
            ("DELETE", url, None),
        ):
            refusal = await world.call(method, path, 403, headers=reader, json=body)
            assert refusal["detail"] == "This API key lacks the scope 'environments'"
        assert await statuses(world) == {"env-0": "running"}

    async def test_one_for_environments_creates_and_commands_them(self, world: World) -> None:
        await registered(world)
        _, headers = await world.api_key(world.user_id, Scope.ENVIRONMENTS)
        created = await world.create(headers=headers)
        await world.call("POST", f"{API}/{created['id']}/stop", headers=headers)
        await world.call("DELETE", f"{API}/{created['id']}", headers=headers)
        assert created["user_id"] == world.user_id

    @pytest.mark.parametrize(
        ("plan", "scope", "code"),
        [(Plan.ADMIN, Scope.ADMIN, 200), (Plan.ADMIN, Scope.ENVIRONMENTS, 403), (Plan.PRO, Scope.ADMIN, 403)],
    )
    async def test_the_admin_api_needs_an_admin_and_the_scope(
        self, world: World, plan: Plan, scope: Scope, code: int
    ) -> None:
        await world.tell(a_state(world, UserRegistered, 1, plan=plan))
        _, headers = await world.api_key(world.user_id, scope)
        assert (await world.http.post("/api/v1/admin/replays/envs", headers=headers)).status_code == code

    async def test_a_revoked_one_is_401_also_when_its_creation_is_heard_again(self, world: World) -> None:
        await registered(world)
        key_id, headers = await world.api_key(world.user_id, Scope.READ)
        await world.call("GET", API, headers=headers)
        await world.tell(UserApiKeyRevoked(user_id=world.user_id, key_id=key_id, name="ci"))
        await _until_refused(world, headers)
        key = ApiKey.parse(headers["Authorization"].removeprefix("Bearer "))
        assert key is not None
        again = UserApiKeyCreated(
            **OUTDATED,
            user_id=world.user_id,
            key_id=key_id,
            name="ci",
            scopes=[Scope.READ],
            secret_hash=key.secret_hash,
        )
        await world.tell(again)
        await world.call("GET", API, 401, headers=headers)
        await no_drift(world)

    async def test_one_of_a_deactivated_or_deleted_user_is_401(self, world: World) -> None:
        await registered(world)
        keys = [(await world.api_key(world.user_id, Scope.READ))[1] for _ in range(2)]
        await world.tell(a_state(world, UserUpdated, 2, active=False))
        refusal = await world.call("GET", API, 401, headers=keys[0])
        assert refusal["detail"] == "The account of this API key is deactivated"
        await world.tell(a_state(world, UserUpdated, 3))
        await world.call("GET", API, headers=keys[0])
        await world.tell(a_state(world, UserDeleted, 4, active=False))
        await world.call("GET", API, 401, headers=keys[1])
        await no_drift(world)


async def _until_refused(world: World, headers: dict[str, str]) -> None:
    """A good key is remembered for a moment."""

    async def refused() -> bool:
        return (await world.http.get(API, headers=headers)).status_code == 401

    await world.until(refused)
