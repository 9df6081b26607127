"""What every `ClusterStore` does, run on the one in memory and on the real one: the fake tells the truth."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from libs.common.contracts.clusters import ClusterHealth, ClusterStatus
from services.orchestrator.domain import clusters as domain
from services.orchestrator.domain.clusters import CheckResult, ClusterEdit
from services.orchestrator.ports import ClusterStore
from tests.unit.orchestrator.memory import START
from tests.unit.orchestrator.memory_clusters import a_cluster

LATER = START + timedelta(seconds=10)


class ClusterStoreContract:
    """Subclasses give the fixture `clusters`."""

    async def test_what_is_registered_is_found(self, clusters: ClusterStore) -> None:
        one = a_cluster("b", capacity=3, default_since=START, server_version="v1.36.1")
        assert await clusters.save(domain.registered(one), is_default=True)
        assert await clusters.save(domain.registered(a_cluster("a")), is_default=False)
        assert await clusters.find("b") == one
        assert [cluster.id for cluster in await clusters.all()] == ["a", "b"]
        assert await clusters.find("c") is None

    async def test_of_two_registrations_at_once_one_wins(self, clusters: ClusterStore) -> None:
        rivals = [a_cluster("a", region) for region in ("eu", "us", "asia", "africa")]
        won = await asyncio.gather(*(clusters.save(domain.registered(each), is_default=False) for each in rivals))
        assert sorted(won) == [False, False, False, True]
        assert await clusters.find("a") == rivals[won.index(True)]

    async def test_a_change_of_an_older_version_is_refused(self, clusters: ClusterStore) -> None:
        first = a_cluster("a")
        await clusters.save(domain.registered(first), is_default=False)
        mine = domain.edit(first, ClusterEdit(region="us"), LATER)
        other = domain.edit(first, ClusterEdit(status=ClusterStatus.DRAINING), LATER)
        assert await clusters.save(mine, is_default=False)
        assert not await clusters.save(other, is_default=False)
        assert await clusters.find("a") == mine.cluster

    async def test_what_was_removed_is_known_and_can_come_back(self, clusters: ClusterStore) -> None:
        await clusters.save(domain.registered(a_cluster("a")), is_default=False)
        gone = domain.removed(a_cluster("a"), LATER)
        assert await clusters.save(gone, is_default=False)
        found = await clusters.find("a")
        assert found == gone.cluster
        assert found is not None
        assert (found.status, found.connection_sealed) == (ClusterStatus.REMOVED, None)
        again = a_cluster("a", "us", version=found.version + 1)
        assert not await clusters.save(domain.registered(a_cluster("a", "us")), is_default=False)
        assert await clusters.save(domain.registered(again), is_default=False)
        assert await clusters.find("a") == again

    async def test_a_failed_check_is_kept_without_a_new_version(self, clusters: ClusterStore) -> None:
        first = a_cluster("a")
        await clusters.save(domain.registered(first), is_default=False)
        change = domain.checked(first, CheckResult(None, "ClusterUnreachable", "No answer."), LATER)
        assert await clusters.save(change, is_default=False)
        found = await clusters.find("a")
        assert found is not None
        assert (found.failures, found.version, found.health) == (1, 1, ClusterHealth.HEALTHY)

    async def test_one_replica_checks(self, clusters: ClusterStore) -> None:
        await clusters.save(domain.registered(a_cluster("a")), is_default=False)
        claims = [clusters.claim_check("a", START, START + timedelta(seconds=1)) for _ in range(8)]
        assert sorted(await asyncio.gather(*claims))[-2:] == [False, True]
        assert not await clusters.claim_check("a", START, LATER)
        assert await clusters.claim_check("a", START + timedelta(seconds=1), LATER)
        assert not await clusters.claim_check("nobody", LATER, LATER)

    async def test_a_change_does_not_forget_the_check(self, clusters: ClusterStore) -> None:
        await clusters.save(domain.registered(a_cluster("a")), is_default=False)
        assert await clusters.claim_check("a", START, LATER)
        await clusters.save(domain.edit(a_cluster("a"), ClusterEdit(region="us"), LATER), is_default=False)
        assert not await clusters.claim_check("a", START, LATER)
