"""Regions: what the orchestrator's events say of clusters decides which a new environment may name."""

from __future__ import annotations

import pytest

from libs.common.contracts.clusters import (
    ClusterHealth,
    ClusterRegistered,
    ClusterRemoved,
    ClusterState,
    ClusterStatus,
    ClusterUpdated,
)
from libs.common.contracts.events import RuntimeDelayed, RuntimeDeleted, RuntimeRunning, RuntimeStopped
from services.envs.repository import EnvironmentRepository
from tests.integration.envs.conftest import World
from tests.integration.envs.test_replay_api import replayed


async def tell(
    world: World, kind: type[ClusterState], cluster: str, region: str, version: int, *, draining: bool = False
) -> None:
    """What the orchestrator says of a cluster, known to the service when this returns."""
    status = ClusterStatus.DRAINING if draining else ClusterStatus.ACTIVE
    data = kind(
        cluster_id=cluster,
        region=region,
        runtime="kubernetes",
        is_default=cluster == "default",
        status=ClusterStatus.REMOVED if kind is ClusterRemoved else status,
        health=ClusterHealth.HEALTHY,
        connection_sealed="gAAAA-sealed",
        version=version,
    )
    await world.publish(data, cluster)
    await world.settled("clusters")


class TestRegions:
    async def test_any_is_taken_while_no_cluster_is_known(self, world: World) -> None:
        assert (await world.create("one", region="moon"))["region"] == "moon"

    async def test_one_without_a_cluster_is_refused_in_words(self, world: World) -> None:
        await tell(world, ClusterRegistered, "eu-1", "europe", 1)
        await tell(world, ClusterRegistered, "us-1", "america", 1)
        refused = await world.create("one", 422, region="moon")
        assert refused["code"] == "unknown_region"
        sentence = "Unknown region 'moon'; there are: america, europe"
        assert (refused["status"], refused["detail"]) == (422, sentence)
        assert refused["errors"] == [{"field": "body.region", "message": sentence, "type": "unknown_region"}]
        assert refused["request_id"]
        assert (await world.create("two", region="europe"))["region"] == "europe"
        assert (await world.create("three"))["region"] is None

    async def test_the_newest_word_counts(self, world: World) -> None:
        await tell(world, ClusterUpdated, "eu-1", "asia", 3)
        await tell(world, ClusterRegistered, "eu-1", "europe", 1)
        await world.create("one", region="asia")
        await world.create("two", 422, region="europe")
        await tell(world, ClusterRegistered, "us-1", "america", 1)
        await tell(world, ClusterRemoved, "eu-1", "asia", 4)
        await world.create("three", 422, region="asia")

    async def test_a_draining_cluster_counts_and_health_does_not(self, world: World) -> None:
        await tell(world, ClusterUpdated, "eu-1", "europe", 1, draining=True)
        assert (await world.create("one", region="europe"))["region"] == "europe"

    @pytest.mark.parametrize("known", [True, False])
    async def test_a_name_is_trimmed_and_lowered(self, world: World, known: bool) -> None:
        if known:
            await tell(world, ClusterRegistered, "eu-1", "eu-west", 1)
        created = await world.create("one", region=" EU-West ")
        assert created["region"] == "eu-west"
        ((_, data),) = await world.told(created["id"], 1)
        assert data["region"] == "eu-west"

    @pytest.mark.parametrize("region", ["", "eu_west", "-eu", "x" * 51])
    async def test_what_is_no_name_is_refused_in_words(self, world: World, region: str) -> None:
        refused = await world.create("one", 422, region=region)
        (error,) = refused["errors"]
        assert error["field"] == "body.region"
        assert error["message"].startswith("A region has 1 to 50 letters a-z, digits and hyphens")

    async def test_no_credential_is_kept(self, world: World) -> None:
        await tell(world, ClusterRegistered, "eu-1", "europe", 1)
        stored = await world.app.state.platform.database["clusters"].find_one({"_id": "eu-1"})
        assert stored == {"_id": "eu-1", "region": "europe", "is_default": False, "status": "active", "version": 1}


class TestDelays:
    async def test_what_holds_an_environment_up_is_shown_and_forgotten(self, world: World) -> None:
        created = await world.create("one")
        said = {"reason": "ImagePullBackOff", "message": "The image cannot be pulled."}
        await world.report(created["id"], RuntimeDelayed, generation=1, **said)
        await world.settled("runtime")
        shown = await world.call("GET", f"/api/v1/environments/{created['id']}")
        assert (shown["status"], shown["status_reason"]) == (
            "creating",
            "The image cannot be pulled (ImagePullBackOff)",
        )
        await world.report(created["id"], RuntimeRunning, generation=1)
        await world.until_status(created["id"], "running")
        shown = await world.call("GET", f"/api/v1/environments/{created['id']}")
        assert shown["status_reason"] is None

    async def test_a_running_one_that_cannot_be_seen_still_runs(self, world: World) -> None:
        environment_id = await world.running()
        said = {"reason": "ClusterUnreachable", "message": "The cluster does not answer."}
        for _ in range(2):
            await world.report(environment_id, RuntimeDelayed, generation=1, cluster="eu-1", **said)
        await world.settled("runtime")
        shown = await world.call("GET", f"/api/v1/environments/{environment_id}")
        assert (shown["status"], shown["status_reason"]) == (
            "running",
            "The cluster does not answer (ClusterUnreachable)",
        )
        for _ in range(2):
            await world.report(environment_id, RuntimeRunning, generation=1, cluster="eu-1")
        await world.settled("runtime")
        shown = await world.call("GET", f"/api/v1/environments/{environment_id}")
        assert (shown["status"], shown["status_reason"]) == ("running", None)
        await world.call("POST", f"/api/v1/environments/{environment_id}/stop")
        # Created, five reports, four changes of status, a wish: nothing was told twice.
        changed = [data for name, data in await world.told(environment_id, 11) if name == "env.status_changed"]
        assert [(data["previous"], data["status"], data["status_reason"], data["cluster"]) for data in changed] == [
            ("creating", "running", None, "default"),
            ("running", "running", "The cluster does not answer (ClusterUnreachable)", "eu-1"),
            ("running", "running", None, "eu-1"),
            ("running", "stopping", None, "eu-1"),
        ]

    async def test_a_held_up_stop_and_deletion_say_so_until_they_are_done(self, world: World) -> None:
        environment_id = await world.running()
        steps = (("POST", "/stop", RuntimeStopped, "stopped"), ("DELETE", "", RuntimeDeleted, None))
        for generation, (method, path, done, status) in enumerate(steps, 2):
            command = await world.call(method, f"/api/v1/environments/{environment_id}{path}")
            await world.report(environment_id, RuntimeDelayed, generation=generation, reason="NodeGone")
            await world.settled("runtime")
            shown = await world.call("GET", f"/api/v1/environments/{environment_id}")
            assert (shown["status"], shown["status_reason"]) == (command["status"], "Node gone")
            await world.report(environment_id, done, generation=generation)
            await world.settled("runtime")
            if status is not None:
                shown = await world.call("GET", f"/api/v1/environments/{environment_id}")
                assert (shown["status"], shown["status_reason"]) == (status, None)
        await world.call("GET", f"/api/v1/environments/{environment_id}", 404)

    async def test_of_an_earlier_wish_neither_reason_nor_cluster_counts(self, world: World) -> None:
        environment_id = await world.running()
        await world.call("POST", f"/api/v1/environments/{environment_id}/restart")
        await world.report(environment_id, RuntimeDelayed, generation=1, reason="NoRoom", cluster="us-1")
        await world.settled("runtime")
        shown = await world.call("GET", f"/api/v1/environments/{environment_id}")
        assert (shown["status"], shown["status_reason"]) == ("restarting", None)
        stored = await EnvironmentRepository(world.app.state.platform.database, None).get(environment_id)
        assert stored is not None
        assert stored.cluster == "default"


class TestReplay:
    async def test_clusters_and_the_cluster_of_an_environment_are_compared(self, world: World) -> None:
        await tell(world, ClusterRegistered, "eu-1", "europe", 1)
        created = await world.create("one", region="europe")
        await world.report(created["id"], RuntimeDelayed, generation=1, reason="NoRoom", cluster="eu-1")
        await world.report(created["id"], RuntimeRunning, generation=1, cluster="eu-1")
        await world.until_status(created["id"], "running")
        plain = await world.running("two")
        await world.stored(created["id"], 5)
        await world.stored(plain, 3)
        assert (await replayed(world))["report"]["drift"] == []
        database = world.app.state.platform.database
        await database["environments"].update_one({"_id": created["id"]}, {"$set": {"cluster": "us-1"}})
        await database["clusters"].update_one({"_id": "eu-1"}, {"$set": {"is_default": True}})
        drift = (await replayed(world))["report"]["drift"]
        assert {(item["collection"], item["field"], item["live"], item["replayed"]) for item in drift} == {
            ("environments", "cluster", "us-1", "eu-1"),
            ("clusters", "is_default", True, False),
        }

    async def test_an_environment_from_before_there_were_clusters_is_no_difference(self, world: World) -> None:
        environment_id = await world.running()
        await world.stored(environment_id, 3)
        new = {"cluster": "", "image_pull_policy": "", "delay_sequence": "", "delay_reason": ""}
        environments = world.app.state.platform.database["environments"]
        await environments.update_one({"_id": environment_id}, {"$unset": new})
        assert (await replayed(world))["report"]["drift"] == []
        await world.call("POST", f"/api/v1/environments/{environment_id}/stop")
        names = [(name, data.get("cluster")) for name, data in await world.told(environment_id, 5)]
        assert names[-1] == ("env.status_changed", "default")
