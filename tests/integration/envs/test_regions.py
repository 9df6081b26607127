"""Regions: what the orchestrator's events say of clusters decides which a new environment may name."""

from __future__ import annotations

from libs.common.contracts.clusters import (
    ClusterHealth,
    ClusterRegistered,
    ClusterRemoved,
    ClusterState,
    ClusterStatus,
    ClusterUpdated,
)
from libs.common.contracts.events import RuntimeDelayed, RuntimeRunning
from tests.integration.envs.conftest import World


async def tell(world: World, kind: type[ClusterState], cluster: str, region: str, version: int) -> None:
    status = ClusterStatus.REMOVED if kind is ClusterRemoved else ClusterStatus.ACTIVE
    data = kind(
        cluster_id=cluster,
        region=region,
        runtime="kubernetes",
        is_default=False,
        status=status,
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
        assert refused["detail"] == "Unknown region 'moon'; choose one of america, europe, or none"
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

    async def test_no_credential_is_kept(self, world: World) -> None:
        await tell(world, ClusterRegistered, "eu-1", "europe", 1)
        stored = await world.app.state.platform.database["clusters"].find_one({"_id": "eu-1"})
        assert stored == {"_id": "eu-1", "region": "europe", "status": "active", "version": 1}


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
