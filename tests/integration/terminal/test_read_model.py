"""The read model: any order, any repetition, the same result."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from libs.common import mongo
from libs.common.clock import utc_now
from libs.common.contracts.environments import DesiredState, EnvironmentStatus
from libs.common.contracts.events import (
    EnvironmentDeleteRequested,
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    EventData,
)
from libs.common.ids import new_id
from libs.runtime.port import WorkspaceRef
from services.terminal.repository import MongoEnvironments
from tests.integration.terminal.harness import created, terminal_settings
from tests.support.servers import Servers


@pytest.fixture
async def environments(backend: Servers) -> AsyncIterator[MongoEnvironments]:
    settings = terminal_settings(backend, database_name=f"test_{new_id()[-12:]}")
    client = mongo.connect(settings)
    repository = MongoEnvironments(mongo.database(client, settings, "terminal"), utc_now, tombstone_days=1)
    await repository.prepare()
    yield repository
    await mongo.close(client)


def status(environment_id: str, value: EnvironmentStatus, version: int, generation: int) -> EventData:
    return EnvironmentStatusChanged(
        environment_id=environment_id,
        user_id="u",
        status=value,
        previous=EnvironmentStatus.CREATING,
        generation=generation,
        version=version,
    )


def life(environment_id: str) -> list[EventData]:
    wish = created(environment_id, "u").model_dump()
    stop = {**wish, "desired": DesiredState.STOPPED, "version": 3, "generation": 2}
    delete = {**wish, "desired": DesiredState.DELETED, "version": 5, "generation": 3}
    return [
        created(environment_id, "u"),
        status(environment_id, EnvironmentStatus.RUNNING, 2, 1),
        EnvironmentStopRequested.model_validate(stop),
        # One write of envs may tell both, with the same version.
        status(environment_id, EnvironmentStatus.STOPPING, 3, 2),
        status(environment_id, EnvironmentStatus.STOPPED, 4, 2),
        EnvironmentDeleteRequested.model_validate(delete),
        status(environment_id, EnvironmentStatus.TERMINATED, 6, 3),
    ]


async def test_in_order_each_step_shows(environments: MongoEnvironments) -> None:
    environment_id = new_id()
    seen = []
    for event in life(environment_id):
        await environments.apply(event)
        found = await environments.find(environment_id)
        assert found is not None
        assert found.user_id == "u"
        seen.append((found.desired, found.status, found.generation))
    running, stopped, deleted = DesiredState.RUNNING, DesiredState.STOPPED, DesiredState.DELETED
    assert seen == [
        (running, None, 1),
        (running, EnvironmentStatus.RUNNING, 1),
        (stopped, EnvironmentStatus.RUNNING, 2),
        (stopped, EnvironmentStatus.STOPPING, 2),
        (stopped, EnvironmentStatus.STOPPED, 2),
        (deleted, EnvironmentStatus.STOPPED, 3),
        (deleted, EnvironmentStatus.TERMINATED, 3),
    ]


@pytest.mark.parametrize("seed", range(5))
async def test_in_any_order_and_repeated_the_newest_stays(environments: MongoEnvironments, seed: int) -> None:
    environment_id = new_id()
    events = life(environment_id) * 2
    random.Random(seed).shuffle(events)
    for event in events:
        await environments.apply(event)
    found = await environments.find(environment_id)
    assert found is not None
    assert (found.desired, found.status, found.generation) == (
        DesiredState.DELETED,
        EnvironmentStatus.TERMINATED,
        3,
    )
    assert found.is_deleted


async def test_many_are_found_by_id_and_unknown_ones_are_left_out(environments: MongoEnvironments) -> None:
    first, second = new_id(), new_id()
    for environment_id in (first, second):
        await environments.apply(created(environment_id, "u"))
    assert set(await environments.find_many([first, second, new_id()])) == {first, second}
    assert await environments.find(new_id()) is None


async def test_the_cluster_is_the_one_last_reported(environments: MongoEnvironments) -> None:
    environment_id = new_id()
    await environments.apply(created(environment_id, "u"))
    found = await environments.find(environment_id)
    assert found is not None
    assert found.ref == WorkspaceRef(environment_id, "u", "default")
    told = status(environment_id, EnvironmentStatus.RUNNING, 3, 1)
    for version, cluster in ((3, "far"), (2, "earlier")):
        await environments.apply(told.model_copy(update={"version": version, "cluster": cluster}))
    await environments.apply(created(environment_id, "u"))
    found = await environments.find(environment_id)
    assert found is not None
    assert found.ref == WorkspaceRef(environment_id, "u", "far")


async def test_a_document_from_before_there_were_clusters_is_of_default(
    environments: MongoEnvironments,
) -> None:
    environment_id = new_id()
    await environments.apply(status(environment_id, EnvironmentStatus.RUNNING, 2, 1))
    await environments._collection.update_one({"_id": environment_id}, {"$unset": {"cluster": ""}})
    found = await environments.find(environment_id)
    assert found is not None
    assert found.cluster == "default"
