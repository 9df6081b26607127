"""A fake cluster for each test, and two ways to talk to it: the official client, and plain HTTP for what it hides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import client, config
from kubernetes.aio.client import ApiClient
from kubernetes.aio.stream import WsApiClient

from tests.fakes.kube import FakeCluster
from tests.integration.fakes.talk import Plain


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """Just started: the namespaces every cluster has, one node."""
    async with FakeCluster() as running:
        yield running


@pytest.fixture
async def api_client(cluster: FakeCluster) -> AsyncIterator[ApiClient]:
    """The official client as the administrator."""
    async with await config.new_client_from_config_dict(cluster.kubeconfig) as connected:
        yield connected


@pytest.fixture
def core(api_client: ApiClient) -> Any:
    """The core group; untyped, because its models would have every field optional."""
    return client.CoreV1Api(api_client)


@pytest.fixture
async def streams(api_client: ApiClient) -> AsyncIterator[Any]:
    """The core group over WebSockets."""
    connected = WsApiClient(configuration=api_client.configuration)
    yield client.CoreV1Api(connected)
    await connected.close()


@pytest.fixture
async def plain(cluster: FakeCluster) -> AsyncIterator[Plain]:
    """HTTP without a client library in between."""
    async with Plain(cluster.url, cluster.token) as talk:
        yield talk


@pytest.fixture
async def space(cluster: FakeCluster, core: Any) -> str:
    """A namespace in which pods can be made."""
    await core.create_namespace({"metadata": {"name": "space"}})
    await cluster.has_account("space")
    return "space"
