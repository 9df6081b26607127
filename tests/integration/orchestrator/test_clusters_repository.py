"""Clusters in a real document store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from libs.common import mongo
from libs.common.context import Cause, acting
from libs.common.messaging.outbox import OutboxRelay
from services.orchestrator.domain import clusters as domain
from services.orchestrator.domain.clusters import ClusterEdit
from services.orchestrator.repository import CLUSTERS, MongoClusters
from services.orchestrator.settings import OrchestratorSettings
from tests.support.servers import Servers
from tests.unit.orchestrator.cluster_store_contract import LATER, ClusterStoreContract
from tests.unit.orchestrator.memory_clusters import a_cluster


@pytest.fixture
async def collection(backend: Servers, make_settings: Callable[..., Any]) -> AsyncIterator[mongo.Collection]:
    settings = make_settings(OrchestratorSettings)
    client = mongo.connect(settings)
    yield mongo.database(client, settings, "orchestrator")[CLUSTERS]
    await mongo.close(client)


@pytest.fixture
async def clusters(collection: mongo.Collection) -> MongoClusters:
    # Nobody takes events from their documents.
    return MongoClusters(collection, OutboxRelay.unheard().attach(collection))


class TestMongoClusters(ClusterStoreContract):
    async def test_state_and_event_are_one_write(self, clusters: MongoClusters, collection: mongo.Collection) -> None:
        cluster = a_cluster("a", terminal_sealed="the terminal's")
        with acting(Cause("request-1", None, "admin-1")):
            assert await clusters.save(domain.registered(cluster), is_default=True)
            refused = domain.edit(a_cluster("a", version=7), ClusterEdit(region="us"), LATER)
            assert not await clusters.save(refused, is_default=False)
            assert await clusters.save(domain.removed(cluster, LATER), is_default=False)
        document = await collection.find_one({"_id": "a"})
        assert document is not None
        assert (document["status"], document["connection_sealed"]) == ("removed", None)
        registered, removed = (entry["event"] for entry in document["pending_events"])
        assert registered["type"] == "devpocket.cluster.registered.v1"
        assert (registered["actor"], registered["correlationid"]) == ("admin-1", "request-1")
        assert (registered["data"]["connection_sealed"], registered["data"]["is_default"]) == ("the terminal's", True)
        assert removed["type"] == "devpocket.cluster.removed.v1"
        assert removed["data"].get("connection_sealed") is None
        assert document["pending_events"][1]["subject"] == "devpocket.cluster.a.removed"

    async def test_two_registrations_leave_one_event(
        self, clusters: MongoClusters, collection: mongo.Collection
    ) -> None:
        for region in ("eu", "us"):
            await clusters.save(domain.registered(a_cluster("a", region)), is_default=False)
        document = await collection.find_one({"_id": "a"})
        assert document is not None
        assert [entry["event"]["data"]["region"] for entry in document["pending_events"]] == ["eu"]
