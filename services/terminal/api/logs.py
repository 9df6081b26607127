"""WS /api/v1/ws/logs/{environment_id}: what the workspace's main process writes."""

from __future__ import annotations

import asyncio
import contextlib

from fastapi import APIRouter
from starlette.websockets import WebSocket

from services.terminal import protocol
from services.terminal.api.channel import SocketChannel, receive
from services.terminal.api.handshake import RefusedError, admit, parse_query, refusing, slot
from services.terminal.api.state import terminal_state
from services.terminal.domain import SocketKind
from services.terminal.logs.position import Position
from services.terminal.protocol import FrameError, Ping
from services.terminal.schemas import LogsQuery
from services.terminal.service.logs import LogQuery, LogViewer

_DEFAULT_TAIL = 100

router = APIRouter()


@router.websocket("/api/v1/ws/logs/{environment_id}")
async def logs(websocket: WebSocket, environment_id: str) -> None:
    """Send log lines, also of an environment that is stopped: that is when one asks why."""
    state = terminal_state(websocket)
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with refusing(websocket):
                caller = await admit(websocket, state, environment_id, SocketKind.LOGS)
                query = _query(websocket)
                environment = await state.access.to_environment(caller, environment_id)
                await stack.enter_async_context(slot(state, caller))
        except RefusedError:
            return
        viewer = LogViewer(state.logs, SocketChannel(websocket), environment, caller, query)
        stack.enter_context(state.connections.holding(viewer))
        await websocket.accept()
        await _serve(websocket, viewer)


def _query(websocket: WebSocket) -> LogQuery:
    query = parse_query(websocket, LogsQuery)
    if query.offset is not None:
        return LogQuery(follow=query.follow, after=Position.parse(query.offset))
    tail = _DEFAULT_TAIL if query.tail is None and query.since is None else query.tail
    return LogQuery(follow=query.follow, tail=tail, since=query.since)


async def _serve(websocket: WebSocket, viewer: LogViewer) -> None:
    sending = asyncio.create_task(viewer.run())
    receiving = asyncio.create_task(_receive(websocket, viewer))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _receive(websocket: WebSocket, viewer: LogViewer) -> None:
    while (message := await receive(websocket)) is not None:
        try:
            if isinstance(protocol.parse(message), Ping):
                await viewer.answer(protocol.pong())
        except FrameError as error:
            await viewer.answer(protocol.error(error.code, error.message))
