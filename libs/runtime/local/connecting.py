"""Connections to programs in a workspace, and which of them listen."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from libs.runtime.listening import Listener, listeners, reachable_ports
from libs.runtime.local.isolation import Isolation
from libs.runtime.local.members import members_of
from libs.runtime.local.processes import is_alive
from libs.runtime.local.records import RunRecord
from libs.runtime.local.sockets import socket_inside
from libs.runtime.port import ListeningPort, PortClosedError, WorkspaceNotRunningError

RunInThread = Callable[..., Awaitable[Any]]

# Loopback answers at once; a program that accepts nothing lets its queue fill up.
_CONNECT_SECONDS = 5.0
_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class LocalByteStream:
    """See `libs.runtime.port.ByteStream`: a socket whose other end is inside, with nothing in between."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_close: Callable[[LocalByteStream], None],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._on_close = on_close
        # So that `write` returns when all is with the kernel, and `close` has nothing left to wait for.
        writer.transport.set_write_buffer_limits(high=0)

    async def read(self, max_bytes: int = 65536) -> bytes:
        """See the port."""
        return await self._reader.read(max_bytes)

    async def write(self, data: bytes) -> None:
        """See the port."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise BrokenPipeError(errno.EPIPE, "the program has closed the connection") from error

    async def write_eof(self) -> None:
        """See the port."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    async def close(self) -> None:
        """See the port."""
        # What is unsent now, nobody waits for any more.
        self._writer.transport.abort()
        self._on_close(self)


async def connect_to(
    environment_id: str,
    run: RunRecord,
    port: int,
    run_in_thread: RunInThread,
    on_close: Callable[[LocalByteStream], None],
) -> LocalByteStream:
    """Raises PortClosedError, WorkspaceNotRunningError, RuntimeUnavailableError."""
    if run.isolation == Isolation.PLAIN:
        connected = await _connect_plain(environment_id, run, port, run_in_thread)
    else:
        connected = await _connect(port, lambda family: run_in_thread(lambda: socket_inside(run, family)))
    try:
        reader, writer = await asyncio.open_connection(sock=connected)
    except BaseException:
        connected.close()
        raise
    return LocalByteStream(reader, writer, on_close)


def listening_in(environment_id: str, run: RunRecord) -> list[ListeningPort]:
    """Blocks. Raises WorkspaceNotRunningError."""
    if run.isolation == Isolation.PLAIN:
        held = _held_sockets(environment_id, run)
        return reachable_ports(listener for listener in _listeners("self") if listener.inode in held)
    try:
        found = _listeners(str(run.init_pid))
    except OSError as error:
        raise WorkspaceNotRunningError("The workspace has just ended.") from error
    # Still the same process after the read: then it was not a stranger's network.
    if not is_alive(run.init_pid, run.init_start):
        raise WorkspaceNotRunningError("The workspace has just ended.")
    return reachable_ports(found)


async def _connect(port: int, make: Callable[[socket.AddressFamily], Awaitable[socket.socket]]) -> socket.socket:
    for family, address in _ADDRESSES:
        connecting = await make(family)
        connecting.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(connecting, (address, port))
        except BaseException as error:
            connecting.close()
            if not isinstance(error, OSError):  # TimeoutError is one
                raise
        else:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connecting
    raise PortClosedError(f"Nothing listens at port {port}.")


async def _connect_plain(environment_id: str, run: RunRecord, port: int, run_in_thread: RunInThread) -> socket.socket:
    """Without a network of its own the workspace shares ours, with the services in it: what listens must be its own,
    before and after."""

    def inspect() -> tuple[bool, bool]:
        """Whether anything listens there, and whether all of it is the workspace's."""
        # In this order: what ends in between is then held by the workspace or listens no more.
        held = _held_sockets(environment_id, run)
        inodes = {found.inode for found in _listeners("self") if found.port == port and found.is_reachable}
        return bool(inodes), inodes <= held

    async def make(family: socket.AddressFamily) -> socket.socket:
        return socket.socket(family, socket.SOCK_STREAM)

    if await run_in_thread(inspect) == (True, True):
        connected = await _connect(port, make)
        # A program that served one connection may listen no more.
        if (await run_in_thread(inspect))[1]:
            return connected
        connected.close()
    raise PortClosedError(f"Nothing of this environment listens at port {port}.")


def _held_sockets(environment_id: str, run: RunRecord) -> set[int]:
    """Inodes of the sockets that processes of a workspace have open."""
    inodes = set()
    with members_of(environment_id, run) as members:
        for info in members.all():
            folder = f"/proc/{info.pid}/fd"
            with contextlib.suppress(OSError):
                for name in os.listdir(folder):
                    with contextlib.suppress(OSError):
                        target = os.readlink(f"{folder}/{name}")
                        if target.startswith("socket:["):
                            inodes.add(int(target[8:-1]))
    return inodes


def _listeners(process: str) -> list[Listener]:
    tables = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            tables.append(Path(f"/proc/{process}/net/{name}").read_text())
    return listeners(*tables)
