"""Ports of programs inside a workspace: what every driver must do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from libs.runtime.port import (
    ByteStream,
    ListeningPort,
    PortClosedError,
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
    WorkspaceRef,
)
from tests.runtime_contract.workspaces import MIB, Driver, Workspaces, make_spec, opened, read_until

ECHO = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listening = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("ready", flush=True)
while True:
    connection, _ = listening.accept()
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()
"""
GREET = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    connection, _ = listening.accept()
    connection.sendall(sys.argv[2].encode())
    connection.close()
"""
# Writes until it is paused, and says so.
FLOOD = """
import select, socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
connection, _ = listening.accept()
connection.setblocking(False)
sent = 0
while sent < 256 << 20:
    if not select.select([], [connection], [], 1.0)[1]:
        print("paused", sent, flush=True)
        select.select([], [connection], [])
    sent += connection.send(bytes(65536))
"""


def free_port() -> int:
    """One that nobody is likely to use: without a sandbox, workspaces share the machine's ports."""
    return random.randint(20_000, 32_000)


@contextlib.asynccontextmanager
async def serving(runtime: Driver, ref: WorkspaceRef, program: str, *arguments: object) -> AsyncIterator[None]:
    """While a program inside listens."""
    argv = ["python3", "-c", program, *map(str, arguments)]
    async with opened(await runtime.exec(ref, argv, tty=False)) as stream:
        await read_until(stream, b"ready")
        yield


@contextlib.asynccontextmanager
async def connected(runtime: Driver, ref: WorkspaceRef, port: int) -> AsyncIterator[ByteStream]:
    stream = await runtime.connect(ref, port)
    try:
        yield stream
    finally:
        await stream.close()


async def received(stream: ByteStream, size: int) -> bytes:
    data = b""
    async with asyncio.timeout(60):
        while len(data) < size:
            part = await stream.read()
            assert part, f"ended after {len(data)} of {size} bytes"
            data += part
    return data


async def write_for_ever(stream: ByteStream) -> None:
    """The other side may need a moment to say that nobody takes it."""
    while True:
        await stream.write(bytes(65536))


async def refused(runtime: Driver, ref: WorkspaceRef, port: int) -> None:
    """Told at once, or at the first read."""
    with pytest.raises(PortClosedError):
        async with connected(runtime, ref, port) as stream, asyncio.timeout(60):
            await stream.read()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1"])
async def test_bytes_go_both_ways(runtime: Driver, workspaces: Workspaces, address: str) -> None:
    ref, port = await workspaces.start(), free_port()
    async with serving(runtime, ref, ECHO, address, port):
        for text in (b"first", b"second"):
            async with connected(runtime, ref, port) as stream:
                await stream.write(text)
                assert await received(stream, len(text)) == text


async def test_nothing_is_lost_of_much(runtime: Driver, workspaces: Workspaces) -> None:
    ref, port = await workspaces.start(), free_port()
    data = random.Random(1).randbytes(8 * MIB)
    async with serving(runtime, ref, ECHO, "127.0.0.1", port), connected(runtime, ref, port) as stream:
        _, back = await asyncio.gather(stream.write(data), received(stream, len(data)))
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()


async def test_the_end_is_told(runtime: Driver, workspaces: Workspaces) -> None:
    ref, port = await workspaces.start(), free_port()
    async with serving(runtime, ref, GREET, port, "hello"), connected(runtime, ref, port) as stream:
        assert await received(stream, 5) == b"hello"
        async with asyncio.timeout(60):
            assert await stream.read() == b""
            with pytest.raises(BrokenPipeError):
                await write_for_ever(stream)


async def test_who_does_not_read_pauses_the_program(runtime: Driver, workspaces: Workspaces) -> None:
    ref, port = await workspaces.start(), free_port()
    argv = ["python3", "-c", FLOOD, str(port)]
    async with opened(await runtime.exec(ref, argv, tty=False)) as program:
        await read_until(program, b"ready")
        async with connected(runtime, ref, port) as stream:
            assert await stream.read(1)
            said = await read_until(program, b"\n")
            while b"paused" not in said:
                said += await read_until(program, b"\n")


async def test_a_port_where_nothing_listens_is_closed(runtime: Driver, workspaces: Workspaces) -> None:
    await refused(runtime, await workspaces.start(), free_port())


async def test_ports_are_listed(runtime: Driver, workspaces: Workspaces) -> None:
    ref, port = await workspaces.start(), free_port()
    async with (
        serving(runtime, ref, ECHO, "127.0.0.1", port),
        serving(runtime, ref, ECHO, "0.0.0.0", port + 1),
        serving(runtime, ref, ECHO, "::1", port + 2),
    ):
        assert list(await runtime.ports(ref)) == [
            ListeningPort(port, "127.0.0.1"),
            ListeningPort(port + 1, "0.0.0.0"),
            ListeningPort(port + 2, "::1"),
        ]


async def test_another_workspaces_port_is_not_reached(runtime: Driver, workspaces: Workspaces) -> None:
    ours, port = await workspaces.start(), free_port()
    theirs = await workspaces.start(make_spec(ref=WorkspaceRef(f"env-{port}-other", "user-2")))
    async with serving(runtime, theirs, GREET, port, "secret"):
        await refused(runtime, ours, port)
        assert list(await runtime.ports(ours)) == []


async def test_a_port_of_this_machine_is_not_reached(runtime: Driver, workspaces: Workspaces) -> None:
    """Where the services listen."""
    ref, accepted = await workspaces.start(), asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await refused(runtime, ref, port)
        assert port not in {found.port for found in await runtime.ports(ref)}
    assert not accepted.is_set()


async def test_there_must_be_a_workspace_that_runs(runtime: Driver, workspaces: Workspaces) -> None:
    nowhere = WorkspaceRef("env-nowhere", "user-1")
    with pytest.raises(WorkspaceNotFoundError):
        await runtime.connect(nowhere, 8000)
    with pytest.raises(WorkspaceNotFoundError):
        await runtime.ports(nowhere)

    ref = await workspaces.start()
    await runtime.stop(ref)
    with pytest.raises(WorkspaceNotRunningError):
        await runtime.connect(ref, 8000)
    with pytest.raises(WorkspaceNotRunningError):
        await runtime.ports(ref)


async def test_a_stopped_workspace_ends_its_connections(runtime: Driver, workspaces: Workspaces) -> None:
    ref, port = await workspaces.start(), free_port()
    async with serving(runtime, ref, ECHO, "127.0.0.1", port), connected(runtime, ref, port) as stream:
        await stream.write(b"x")
        assert await received(stream, 1) == b"x"
        await runtime.stop(ref, grace_seconds=0.5)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):
                assert await stream.read() == b""
