"""pods/exec over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.kube.errors import StatusError, bad_request, internal
from tests.fakes.kube.node.container import Container
from tests.fakes.kube.node.processes import ExecProcess
from tests.fakes.kube.resources import PODS
from tests.fakes.kube.web.context import Context, Target

Obj = dict[str, Any]
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"


async def exec_pod(context: Context, request: web.Request, target: Target) -> web.StreamResponse:
    """Upgrade, run, and say how it ended on channel 3."""
    pod = context.api.get(PODS, target.namespace or "", target.name)
    name = chosen_container(pod, request.query.get("container", ""))
    command = request.query.getall("command", [])
    if not command:
        raise StatusError(
            422,
            "Invalid",
            'PodExecOptions "" is invalid: command: Required value: you must specify at least one command',
        )
    protocol = negotiate(request, context.exec_protocols)
    container, problem = running_container(context, pod, name)
    if container is None and protocol == _V4:
        raise problem
    socket = web.WebSocketResponse(protocols=(protocol,), autoping=True, max_msg_size=0)
    await socket.prepare(request)
    bound_buffer(request)
    async with context.following():
        if container is None:
            await _finish(socket, problem.status())
        else:
            await _Session(socket, request, container, context).run(command)
    return socket


def bound_buffer(request: web.Request) -> None:
    """Loopback lets the kernel buffer megabytes; a network in between would not."""
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    if connection is not None:
        connection.setsockopt(SOL_SOCKET, SO_SNDBUF, 256 * 1024)


def chosen_container(pod: Obj, asked: str) -> str:
    """The container a request means. Raises 400."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    pod_name = pod["metadata"]["name"]
    if not asked:
        annotation = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        if len(names) > 1 and annotation not in names:
            raise bad_request(
                f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(names)}]"
            )
        return str(annotation) if annotation in names else str(names[0])
    if asked not in names:
        raise bad_request(f"container {asked} is not valid for pod {pod_name}")
    return asked


def running_container(context: Context, pod: Obj, name: str) -> tuple[Container | None, StatusError]:
    """What processes can be started in, or why not. Raises 400 while there is no node."""
    node = pod["spec"].get("nodeName")
    if not node:
        raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    if node in context.kubelet.lost:
        return None, internal("error dialing backend: dial tcp 10.0.0.10:10250: connect: no route to host")
    if pod["status"].get("phase") in ("Succeeded", "Failed"):
        phase = pod["status"]["phase"]
        raise bad_request(f"cannot exec into a container in a completed pod; current phase is {phase}")
    worker = context.kubelet.container(pod, name)
    current = worker.current if worker else None
    if current is None or current.exit_code is not None:
        return None, internal(f'unable to upgrade connection: container not found ("{name}")')
    return current, internal("")


def negotiate(request: web.Request, known: Sequence[str]) -> str:
    """The first sub-protocol of the client that is known. Raises 400 and 403."""
    offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if p.strip()]
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("Upgrade request required")
    for protocol in offered:
        if protocol in known:
            return protocol
    raise StatusError(403, "Forbidden", f"unable to upgrade: requested protocols {offered} are not supported")


class _Session:
    """One connection and its process. The process does not end with the connection."""

    def __init__(
        self, socket: web.WebSocketResponse, request: web.Request, container: Container, context: Context
    ) -> None:
        flags = {name: request.query.get(name, "") in ("true", "1") for name in ("stdin", "stdout", "stderr", "tty")}
        self._socket, self._container, self._context = socket, container, context
        self._request = request
        self._stdin, self._tty = flags["stdin"], flags["tty"]
        self._wanted: Sequence[int] = [n for n, k in ((STDOUT, "stdout"), (STDERR, "stderr")) if flags[k]]
        self._connected = True

    async def run(self, command: Sequence[str]) -> None:
        """Until the process ends or the client goes."""
        await self._send(self._wanted[0] if self._wanted else ERROR, b"")
        process = await self._container.exec(command, tty=self._tty, stdin=self._stdin, wanted=self._wanted)
        if isinstance(process, str):
            words = (
                "error executing command in container: failed to exec in container: failed to start exec "
                f'"{self._container.id}": OCI runtime exec failed: exec failed: unable to start container process: '
                f"{process}: unknown"
            )
            await _finish(self._socket, internal(words).status())
            return
        output: asyncio.Task[object] = asyncio.create_task(process.pump(self._send))
        self._container.keep(process, output)
        incoming: asyncio.Task[object] = asyncio.create_task(self._receive(process))
        frozen: asyncio.Task[object] = asyncio.create_task(self._context.frozen.wait())
        try:
            await asyncio.wait([output, incoming, frozen], return_when=asyncio.FIRST_COMPLETED)
            if frozen.done():
                await self._freeze(incoming)
            elif output.done() and not output.cancelled():
                await _finish(self._socket, _exit_status(output.result()))  # type: ignore[arg-type]
        finally:
            self._connected = False
            frozen.cancel()
            incoming.cancel()
            process.close_stdin()
            if not self._socket.closed:
                await self._socket.close()

    async def _freeze(self, incoming: asyncio.Task[object]) -> None:
        """Say nothing and hear nothing, pings included, until the network is back; then the connection is gone."""
        self._connected = False
        incoming.cancel()
        await self._context.until_thawed()
        if self._request.transport is not None:
            self._request.transport.abort()

    async def _receive(self, process: ExecProcess) -> None:
        async for message in self._socket:
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or not data:
                continue
            channel, content = data[0], data[1:]
            if channel == STDIN:
                await process.write(content)
            elif channel == RESIZE:
                size = json.loads(content)
                process.resize(int(size["Width"]), int(size["Height"]))
            elif channel == CLOSE and content[:1] == b"\0" and self._socket.ws_protocol == _V5:
                process.close_stdin()

    async def _send(self, channel: int, data: bytes) -> None:
        if not self._connected:
            return
        try:
            await self._socket.send_bytes(bytes([channel]) + data)
        except ConnectionError:
            self._connected = False


async def _finish(socket: web.WebSocketResponse, status: Obj) -> None:
    body = {key: value for key, value in status.items() if key not in ("kind", "apiVersion")}
    try:
        await socket.send_bytes(bytes([ERROR]) + json.dumps(body).encode())
        await socket.close()
    except ConnectionError:
        return


def _exit_status(code: int) -> Obj:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
