"""Processes beside the main one, through the official client's WebSockets."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from kubernetes.aio.stream import WsApiClient

from tests.fakes.kube import FakeCluster
from tests.integration.fakes.talk import Plain, eventually, pod, sandboxed

V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
EXEC = "/api/v1/namespaces/space/pods/p/exec"


@pytest.fixture
async def running(cluster: FakeCluster, core: Any, space: str) -> str:
    await core.create_namespaced_pod(space, pod())
    await cluster.settle(space, "p", phase="Running")
    return "p"


@asynccontextmanager
async def started(streams: Any, command: list[str], protocol: str = V5, **flags: Any) -> AsyncIterator[Any]:
    """The client's socket."""
    options = {"stdin": True, "stdout": True, "stderr": True, "tty": False} | flags
    connection = await streams.connect_get_namespaced_pod_exec_without_preload_content(
        "p", "space", command=command, _headers={"sec-websocket-protocol": protocol}, **options
    )
    async with connection as socket:
        yield socket


async def collect(socket: Any) -> tuple[dict[int, bytes], dict[str, Any]]:
    """All output by channel, and the status."""
    output: dict[int, bytes] = {1: b"", 2: b"", 3: b""}
    async for message in socket:
        output[message.data[0]] += message.data[1:]
    return output, json.loads(output[3])


async def read_until(socket: Any, words: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(30):
        while words not in seen:
            seen += (await socket.receive()).data[1:]
    return seen


LONG_RUNNING = ["sh", "-c", "echo runs; exec sleep 60"]


async def test_output_and_exit_code(streams: Any, running: str) -> None:
    async with started(streams, ["sh", "-c", "echo out; echo err >&2; exit 3"]) as socket:
        first = await socket.receive()
        assert first.data == b"\x01"
        output, status = await collect(socket)
    assert (output[1], output[2]) == (b"out\n", b"err\n")
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert WsApiClient.parse_error_data(json.dumps(status)) == 3


async def test_the_preloading_client_works_too(streams: Any, running: str) -> None:
    async with started(streams, ["true"]) as socket:
        _, status = await collect(socket)
    assert status == {"metadata": {}, "status": "Success"}


async def test_stdin_ends_by_a_half_close_in_v5_and_not_in_v4(streams: Any, running: str) -> None:
    async with started(streams, ["cat"]) as socket:
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(b"\xff\x00")
        output, status = await collect(socket)
    assert (output[1], status["status"]) == (b"hello", "Success")
    async with started(streams, ["cat"], V4) as socket:
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(b"\xff\x00")
        assert await read_until(socket, b"hello") == b"hello"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.receive(), 0.3)


async def test_a_terminal_is_one_and_can_be_resized(streams: Any, running: str) -> None:
    async with started(streams, ["bash", "--norc", "-i"], tty=True) as socket:
        await socket.send_bytes(b'\x04{"Width":120,"Height":40}')
        await socket.send_bytes(b"\x00stty size; tty; ps -o pid,tty,args; echo e''nd >&2\n")
        seen = await read_until(socket, b"end\r\n")
        await socket.send_bytes(b"\x00exit 5\n")
        _, status = await collect(socket)
    assert b"40 120\r\n" in seen
    assert b"/dev/pts/" in seen
    assert status["details"]["causes"][0]["message"] == "5"


@sandboxed
async def test_processes_of_a_pod_see_each_other_and_nobody_else(streams: Any, running: str) -> None:
    async with started(streams, ["ps", "-eo", "pid,args"]) as socket:
        output, _ = await collect(socket)
    lines = output[1].decode().splitlines()
    assert len(lines) <= 6
    assert lines[1].split()[0] == "1"


async def test_a_missing_program_upgrades_and_fails_on_channel_three(streams: Any, running: str) -> None:
    async with started(streams, ["nosuch"]) as socket:
        _, status = await collect(socket)
    assert (status["status"], status["reason"], status["code"]) == ("Failure", "InternalError", 500)
    assert 'exec: "nosuch": executable file not found in $PATH' in status["message"]


async def handshake(plain: Plain, path: str = EXEC, protocol: str = V5, **query: str) -> int:
    """The status of an upgrade that is refused; 101 when it is not."""
    params = {"command": "true", "stdout": "true"} | query
    try:
        async with plain.session.ws_connect(plain.url(path), protocols=[protocol], params=params):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def test_what_is_refused_before_the_upgrade(cluster: FakeCluster, plain: Plain, running: str) -> None:
    assert await handshake(plain) == 101
    assert await handshake(plain, EXEC.replace("/p/", "/nobody/")) == 404
    assert await handshake(plain, container="sidecar") == 400
    assert await handshake(plain, protocol="v9.channel.k8s.io") == 403
    cluster.access.revoke("admin")
    assert await handshake(plain) == 401


async def test_a_pod_without_a_running_container(cluster: FakeCluster, core: Any, plain: Plain, space: str) -> None:
    cluster.pause_scheduler()
    await core.create_namespaced_pod(space, pod(container={"image": "nowhere:1"}))
    assert await handshake(plain) == 400
    cluster.resume_scheduler()
    async with asyncio.timeout(30):
        while not (await core.read_namespaced_pod("p", space)).spec.node_name:
            await cluster.store.changed(1)
    assert await handshake(plain, protocol=V4) == 500
    async with plain.session.ws_connect(plain.url(EXEC), protocols=[V5], params={"command": "true"}) as socket:
        message = await socket.receive()
    assert 'container not found (\\"main\\")' in message.data[1:].decode()


async def test_a_process_outlives_its_connection(streams: Any, running: str) -> None:
    async with started(streams, ["sh", "-c", "echo $$; while :; do echo tick; sleep 0.05; done"], tty=True) as socket:
        pid = (await read_until(socket, b"tick")).split()[0].decode()
    for _ in range(3):
        async with started(streams, ["sh", "-c", f"sleep 0.1; kill -0 {pid}"]) as socket:
            _, status = await collect(socket)
        assert status["status"] == "Success"
    async with started(streams, ["sh", "-c", f"kill -9 {pid}; while kill -0 {pid}; do sleep 0.02; done"]) as socket:
        await collect(socket)


async def test_a_deleted_pod_ends_its_streams_with_137(
    cluster: FakeCluster, core: Any, streams: Any, running: str
) -> None:
    async with started(streams, LONG_RUNNING, tty=True) as socket:
        await read_until(socket, b"runs")
        await core.delete_namespaced_pod("p", "space", grace_period_seconds=1)
        _, status = await collect(socket)
    assert status["details"]["causes"][0]["message"] == "137"


async def test_a_server_that_goes_ends_streams_at_once_and_leaves_processes(
    cluster: FakeCluster, streams: Any, running: str
) -> None:
    async with started(streams, LONG_RUNNING, tty=True) as socket:
        await read_until(socket, b"runs")
        await cluster.hang_up()
        async with asyncio.timeout(30):
            while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
    await cluster.listen()
    async with started(streams, ["pgrep", "-f", "sleep 60"]) as socket:
        output, _ = await collect(socket)
    assert output[1].strip()


async def test_a_reader_that_pauses_pauses_the_process_and_loses_nothing(streams: Any, running: str) -> None:
    amount = 20 * 1024 * 1024
    async with started(streams, ["head", "-c", str(amount), "/dev/zero"]) as socket:
        await socket.receive()
        await asyncio.sleep(0.3)
        output, _ = await collect(socket)
    assert len(output[1]) == amount


async def test_rules_need_get_and_create(cluster: FakeCluster, plain: Plain, running: str) -> None:
    from tests.fakes.kube import Rule

    both = [Rule("", "pods", "exec", "get"), Rule("", "pods", "exec", "create")]
    for rules, status in ((both[:1], 403), (both[1:], 403), (both, 101)):
        cluster.access.allow_only("admin", rules)
        assert await handshake(plain) == status


async def test_nothing_is_left_behind(streams: Any, running: str) -> None:
    async def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = await descriptors()
    for _ in range(20):
        async with started(streams, ["true"], tty=True) as socket:
            await collect(socket)
    # What the last ones had is given back after their ends are told.
    await eventually(descriptors, lambda count: count <= before + 4)
