"""POST /api/v1/admin/replays/envs: the read models of the running service against the stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from libs.common.contracts.identity import Plan
from tests.integration.envs.conftest import World

PATH = "/api/v1/admin/replays/envs"


async def replayed(world: World, **query: str) -> dict[str, Any]:
    """The last line of the answer."""
    headers = world.issuer.headers(plan=Plan.ADMIN)
    answer = await world.http.post(PATH, headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    last: dict[str, Any] = json.loads(answer.text.splitlines()[-1])
    return last


async def test_it_is_for_administrators(world: World) -> None:
    assert (await world.http.post(PATH)).status_code == 401
    assert (await world.http.post(PATH, headers=world.headers)).status_code == 403


async def test_the_live_read_models_are_what_the_events_say(world: World) -> None:
    environment_id = await world.running(environment_variables={"TOKEN": "a-secret"})
    await world.stored(environment_id, 3)
    await world.call("POST", f"/api/v1/environments/{environment_id}/stop")
    report = (await replayed(world))["report"]
    assert (report["failed"], report["drift"]) == (0, [])
    assert report["handled"] >= 3


@pytest.mark.parametrize("only", [True, False])
async def test_a_field_that_drifted_is_named_and_the_scratch_database_is_gone(world: World, only: bool) -> None:
    environment_id = await world.running()
    await world.stored(environment_id, 3)
    database = world.app.state.platform.database
    await database["environments"].update_one({"_id": environment_id}, {"$set": {"status": "error"}})
    report = (await replayed(world, **({"environment": environment_id} if only else {})))["report"]
    assert report["drift"] == [
        {"collection": "environments", "id": environment_id, "field": "status", "live": "error", "replayed": "running"}
    ]
    assert report["into"] not in await world.app.state.platform.mongo.list_database_names()
