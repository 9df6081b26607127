"""pods/portforward over WebSocket, as the kubelet does it: `v4.channel.k8s.io`, two channels for each port.

Each channel begins with the port's number. Connecting is tried after the upgrade, so a refusal is told on the error
channel. Not as `kubectl` speaks it: that is SPDY.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.kube.errors import bad_request
from tests.fakes.kube.node.container import Container
from tests.fakes.kube.resources import PODS
from tests.fakes.kube.web.context import Context, Target
from tests.fakes.kube.web.exec import bound_buffer, chosen_container, negotiate, running_container

_V4 = "v4.channel.k8s.io"
_LARGEST_PORT = 65535
# What a container runtime does inside the pod's network: IPv4, then IPv6, then bytes both ways until one side ends.
_DIAL = """
import os, socket, sys, threading
errors = []
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        connection = socket.socket(family)
        connection.connect((address, int(sys.argv[1])))
        break
    except OSError as error:
        errors.append(f"{address}: connect: {error.strerror.lower()}")
else:
    sys.exit("failed to connect to localhost:%s inside namespace: %s" % (sys.argv[1], " ".join(errors)))
def up():
    while data := os.read(0, 65536):
        connection.sendall(data)
    os._exit(0)
threading.Thread(target=up, daemon=True).start()
while data := connection.recv(65536):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
"""


async def forward(context: Context, request: web.Request, target: Target) -> web.StreamResponse:
    """Upgrade, introduce the channels, then connect each port."""
    pod = context.api.get(PODS, target.namespace or "", target.name)
    ports = [_port(text) for value in request.query.getall("ports", []) for text in value.split(",")]
    if not ports:
        raise bad_request('query parameter "ports" is required')
    negotiate(request, [_V4])
    container, problem = running_container(context, pod, chosen_container(pod, ""))
    if container is None:
        raise problem
    socket = web.WebSocketResponse(protocols=(_V4,), autoping=True, max_msg_size=0)
    await socket.prepare(request)
    bound_buffer(request)
    async with context.following():
        for channel in range(2 * len(ports)):
            await socket.send_bytes(bytes([channel]) + ports[channel // 2].to_bytes(2, "little"))
        frozen: asyncio.Task[Any] = asyncio.create_task(context.frozen.wait())
        try:
            await _forward(socket, container, ports, frozen)
        finally:
            frozen.cancel()
        if context.frozen.is_set():
            # The network is dead, and when it is back the connection is gone.
            await context.until_thawed()
            if request.transport is not None:
                request.transport.abort()
        await socket.close()
    return socket


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= _LARGEST_PORT:
        raise bad_request(f"unable to parse {text!r} as a port")
    return int(text)


async def _forward(
    socket: web.WebSocketResponse, container: Container, ports: list[int], frozen: asyncio.Task[Any]
) -> None:
    dials = [await container.dial([sys.executable, "-I", "-S", "-c", _DIAL, str(port)]) for port in ports]
    incoming: asyncio.Task[Any] = asyncio.create_task(_receive(socket, dials))
    outgoing = asyncio.gather(*(_send(socket, 2 * index, dial, ports[index]) for index, dial in enumerate(dials)))
    try:
        await asyncio.wait([incoming, outgoing, frozen], return_when=asyncio.FIRST_COMPLETED)
    finally:
        incoming.cancel()
        outgoing.cancel()
        await asyncio.gather(incoming, outgoing, return_exceptions=True)
        for dial in dials:
            with contextlib.suppress(ProcessLookupError):
                dial.kill()
            await dial.wait()


async def _receive(socket: web.WebSocketResponse, dials: list[asyncio.subprocess.Process]) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data or message.data[0] % 2:
            continue
        stdin = dials[message.data[0] // 2].stdin
        assert stdin is not None
        with contextlib.suppress(ConnectionError):
            stdin.write(message.data[1:])
            await stdin.drain()


async def _send(socket: web.WebSocketResponse, channel: int, dial: asyncio.subprocess.Process, port: int) -> None:
    assert dial.stdout is not None
    assert dial.stderr is not None
    with contextlib.suppress(ConnectionError):
        while data := await dial.stdout.read(32 * 1024):
            await socket.send_bytes(bytes([channel]) + data)
        words = (await dial.stderr.read()).decode().strip()
        if words:
            text = f"error forwarding port {port} to pod, uid : failed to execute portforward: {words}"
            await socket.send_bytes(bytes([channel + 1]) + text.encode())
