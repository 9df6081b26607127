"""Opens the WebSockets of exec and portforward."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from socket import SO_RCVBUF, SO_SNDBUF, SOL_SOCKET

import aiohttp
from kubernetes.aio.stream.ws_client import get_websocket_url
from yarl import URL

from libs.runtime.kubernetes.api import path_of
from libs.runtime.kubernetes.channels import V4, V5
from libs.runtime.kubernetes.connection import Connection
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError
from libs.runtime.kubernetes.names import CONTAINER
from libs.runtime.tracing import cluster_request

Socket = aiohttp.ClientWebSocketResponse
ENDS = (
    aiohttp.WSMsgType.CLOSE,
    aiohttp.WSMsgType.CLOSING,
    aiohttp.WSMsgType.CLOSED,
    aiohttp.WSMsgType.ERROR,
)
_Query = list[tuple[str, str | list[str]]]

# The node's runtime needs tens of milliseconds to start a process, seconds when it is very busy.
_UPGRADE_S = 15.0
# How long a server may take to answer our close frame before the connection is dropped.
_CLOSE_S = 1.0
_MAX_FRAME_BYTES = 4 * 1024 * 1024
# Enough for 5 MB/s over a way of 50 ms.
_KERNEL_BYTES = 256 * 1024


class Sockets:
    """Connections into the pods of one cluster.

    `open` and `forward` raise ApiError (without the API's words) and ApiUnreachableError. Pings are ours to answer and
    to send, because the client's own heartbeat takes a reader that pauses for a dead server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def open(self, namespace: str, pod: str, argv: Sequence[str], *, tty: bool) -> Socket:
        """Start `argv` in the pod's container. The server picks the protocol: v5 where it knows it, else v4."""
        yes_or_no = {True: "true", False: "false"}
        query: _Query = [
            ("container", CONTAINER),
            ("stdin", "true"),
            ("stdout", "true"),
            ("stderr", yes_or_no[not tty]),
            ("tty", yes_or_no[tty]),
            ("command", list(argv)),
        ]
        return await self._open(f"{path_of('pods', namespace, pod)}/exec", query, (V5, V4))

    async def forward(self, namespace: str, pod: str, port: int) -> Socket:
        """Have the node connect to a port of the pod."""
        return await self._open(f"{path_of('pods', namespace, pod)}/portforward", [("ports", str(port))], (V4,))

    async def _open(self, path: str, query: _Query, protocols: tuple[str, ...]) -> Socket:
        for is_last in (False, True):
            try:
                async with asyncio.timeout(_UPGRADE_S):
                    return await self._upgrade(path, query, protocols)
            except aiohttp.WSServerHandshakeError as error:
                if error.status != 401 or is_last:
                    raise ApiError(error.status, message=error.message) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise ApiUnreachableError(str(error) or type(error).__name__) from error
            await self._connection.refresh()
        raise AssertionError("unreachable")

    async def _upgrade(self, path: str, query: _Query, protocols: tuple[str, ...]) -> Socket:
        client = self._connection.http
        _, url, headers, _, _ = await client.param_serialize(
            "GET",
            path,
            query_params=query,
            auth_settings=["BearerToken"],
            collection_formats={"command": "multi"},
        )
        session = self._connection.session
        configuration = client.configuration
        with cluster_request("GET", path):
            socket = await session.ws_connect(
                URL(get_websocket_url(url), encoded=True),
                headers=headers,
                protocols=protocols,
                autoping=False,
                max_msg_size=_MAX_FRAME_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                proxy=configuration.proxy or None,
                server_hostname=configuration.tls_server_name or None,
            )
        _bound_buffers(socket)
        return socket


def _bound_buffers(socket: Socket) -> None:
    """Keep the kernel from buffering megabytes for a process that does not read, or a client that does not."""
    descriptor = socket.get_extra_info("socket")
    if descriptor is not None:
        for option in (SO_SNDBUF, SO_RCVBUF):
            descriptor.setsockopt(SOL_SOCKET, option, _KERNEL_BYTES)
