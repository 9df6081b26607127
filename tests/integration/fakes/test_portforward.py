"""Ports of pods: by the official client, which knows what a cluster says, and byte by byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from kubernetes import client, config
from kubernetes.stream import portforward

from tests.fakes.kube import FakeCluster
from tests.integration.fakes.talk import pod, sandboxed
from tests.runtime_contract.test_ports import ECHO

PORT = 8123
V4 = "v4.channel.k8s.io"


@pytest.fixture
async def running(cluster: FakeCluster, core: Any, space: str) -> str:
    """A pod that echoes."""
    await core.create_namespaced_pod(space, pod(command=["python3", "-c", ECHO, "127.0.0.1", str(PORT)]))
    await cluster.settle(space, "p", phase="Running")
    return "p"


@asynccontextmanager
async def forwarded(cluster: FakeCluster, query: str, protocol: str = V4) -> AsyncIterator[Any]:
    url = f"{cluster.url}/api/v1/namespaces/space/pods/p/portforward{query}"
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(url, protocols=(protocol,)) as opened,
    ):
        yield opened


def by_official_client(cluster: FakeCluster, port: int, said: bytes) -> tuple[bytes, str | None]:
    """What comes back, and what went wrong."""
    configuration = client.Configuration()
    config.load_kube_config_from_dict(dict(cluster.kubeconfig), client_configuration=configuration)
    core = client.CoreV1Api(client.ApiClient(configuration))
    forwarding = portforward(core.connect_get_namespaced_pod_portforward, "p", "space", ports=str(port))
    connection: socket.socket = forwarding.socket(port)
    connection.setblocking(True)
    connection.settimeout(30)
    back = b""
    try:
        connection.sendall(said)
        while len(back) < len(said) and (part := connection.recv(65536)):
            back += part
    except OSError:
        pass
    connection.close()
    return back, forwarding.error(port)


async def until_it_listens(cluster: FakeCluster) -> None:
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(by_official_client, cluster, PORT, b"x"))[0] != b"x":
            pass


async def test_the_official_client_gets_its_bytes(cluster: FakeCluster, running: str) -> None:
    await until_it_listens(cluster)
    said = bytes(range(256)) * 4096
    assert await asyncio.to_thread(by_official_client, cluster, PORT, said) == (said, None)


@sandboxed
async def test_a_refusal_comes_on_the_error_channel(cluster: FakeCluster, running: str) -> None:
    back, error = await asyncio.to_thread(by_official_client, cluster, 8124, b"hello")
    assert back == b""
    assert error is not None
    assert "connection refused" in error


async def test_every_channel_begins_with_its_port(cluster: FakeCluster, running: str) -> None:
    await until_it_listens(cluster)
    async with forwarded(cluster, f"?ports={PORT}&ports=8124") as opened:
        assert opened.protocol == V4
        first = [(await opened.receive()).data for _ in range(4)]
    expected = [PORT, PORT, 8124, 8124]
    assert first == [bytes([channel]) + port.to_bytes(2, "little") for channel, port in enumerate(expected)]


@pytest.mark.parametrize(
    ("query", "protocol", "status"),
    [("", V4, 400), ("?ports=x", V4, 400), ("?ports=0", V4, 400), (f"?ports={PORT}", "v9.channel.k8s.io", 403)],
)
async def test_what_is_refused(cluster: FakeCluster, running: str, query: str, protocol: str, status: int) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with forwarded(cluster, query, protocol):
            pass
    assert refused.value.status == status


async def test_there_must_be_a_pod(cluster: FakeCluster, space: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with forwarded(cluster, f"?ports={PORT}"):
            pass
    assert refused.value.status == 404
