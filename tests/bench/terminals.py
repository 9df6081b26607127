"""Terminal servers behind one face, so that they are measured by the same client in the same run."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.servers import free_port

_START_TIMEOUT_S = 20.0
_BINARY = Subprotocol("devpocket.terminal.v1+binary")
_TERMINADO = """
import sys, tornado.ioloop, tornado.web
from terminado import TermSocket, UniqueTermManager
manager = UniqueTermManager(shell_command=["bash", "--norc"])
app = tornado.web.Application([(r"/ws", TermSocket, {"term_manager": manager})])
app.listen(int(sys.argv[1]), "127.0.0.1")
tornado.ioloop.IOLoop.current().start()
"""


class Terminal(Protocol):
    """One open shell."""

    async def send(self, data: bytes) -> None:
        """Type."""
        ...

    async def receive(self) -> bytes:
        """The next output; control frames give nothing."""
        ...


class DevPocketTerminal:
    """Ours, through the gateway, binary sub-protocol."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """A binary frame."""
        await self._socket.send(data)

    async def receive(self) -> bytes:
        """Binary frames are output."""
        frame = await self._socket.recv()
        return frame if isinstance(frame, bytes) else b""


class TtydTerminal:
    """ttyd: the first byte of a frame says what it is; 0 is input and output."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Input."""
        await self._socket.send(b"0" + data)

    async def receive(self) -> bytes:
        """Output."""
        frame = await self._socket.recv()
        return frame[1:] if isinstance(frame, bytes) and frame[:1] == b"0" else b""


class TerminadoTerminal:
    """terminado: JSON lists."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Input."""
        await self._socket.send(json.dumps(["stdin", data.decode()]))

    async def receive(self) -> bytes:
        """Output."""
        kind, *rest = json.loads(await self._socket.recv())
        return str(rest[0]).encode() if kind == "stdout" else b""


@asynccontextmanager
async def devpocket(url: str, environment_id: str, http: httpx.AsyncClient) -> AsyncIterator[Terminal]:
    """A shell in a running environment."""
    body = {"environment_id": environment_id, "kind": "terminal"}
    ticket = (await http.post("/api/v1/ws/tickets", json=body)).raise_for_status().json()["ticket"]
    address = f"{url.replace('http', 'ws', 1)}/api/v1/ws/terminal/{environment_id}?ticket={ticket}"
    async with connect(address, subprotocols=[_BINARY], max_size=None, compression=None) as socket:
        yield DevPocketTerminal(socket)


@asynccontextmanager
async def ttyd() -> AsyncIterator[Terminal | None]:
    """An installed ttyd, or None."""
    program = shutil.which("ttyd")
    if program is None:
        yield None
        return
    port = free_port()
    argv = [program, "-i", "127.0.0.1", "-p", str(port), "-W", "bash", "--norc"]
    async with (
        _process(argv, port),
        connect(
            f"ws://127.0.0.1:{port}/ws",
            subprotocols=[Subprotocol("tty")],
            max_size=None,
            compression=None,
        ) as socket,
    ):
        await socket.send(json.dumps({"AuthToken": "", "columns": 80, "rows": 24}).encode())
        yield TtydTerminal(socket)


@asynccontextmanager
async def terminado() -> AsyncIterator[Terminal | None]:
    """terminado in a process of its own, or None when it is not installed."""
    try:
        import terminado as installed  # noqa: F401
    except ImportError:
        yield None
        return
    port = free_port()
    async with (
        _process([sys.executable, "-c", _TERMINADO, str(port)], port),
        connect(f"ws://127.0.0.1:{port}/ws", max_size=None, compression=None) as socket,
    ):
        yield TerminadoTerminal(socket)


@asynccontextmanager
async def _process(argv: list[str], port: int) -> AsyncIterator[None]:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*argv, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        await process.wait()
