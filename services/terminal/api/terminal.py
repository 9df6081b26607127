"""WS /api/v1/ws/terminal/{environment_id}: a shell in a workspace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from fastapi import APIRouter
from starlette.websockets import WebSocket

from services.terminal.api.channel import receive
from services.terminal.api.handshake import RefusedError, admit, parse_query, refusing, slot
from services.terminal.api.lines import Line, is_binary, line_to_session
from services.terminal.api.state import terminal_state
from services.terminal.domain import TOO_LARGE, SocketKind
from services.terminal.protocol import BINARY_SUBPROTOCOL
from services.terminal.schemas import TerminalQuery
from services.terminal.service.rate import MessageRate

router = APIRouter()


@router.websocket("/api/v1/ws/terminal/{environment_id}")
async def terminal(websocket: WebSocket, environment_id: str) -> None:
    """Open a shell, or come back to one with `?session=&offset=`. `client` names who numbers what it types."""
    state = terminal_state(websocket)
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with refusing(websocket):
                caller = await admit(websocket, state, environment_id, SocketKind.TERMINAL)
                query = parse_query(websocket, TerminalQuery)
                environment = await state.access.to_running(caller, environment_id)
                await stack.enter_async_context(slot(state, caller))
                line = await stack.enter_async_context(line_to_session(websocket, state, environment, caller, query))
        except RefusedError:
            return
        await websocket.accept(BINARY_SUBPROTOCOL if is_binary(websocket) else None)
        with state.rates.of(caller) as rate:
            await _serve(line, _receive(websocket, line, rate, state.settings.terminal_message_bytes))


async def _serve(line: Line, receiving_all: Coroutine[Any, Any, None]) -> None:
    sending = asyncio.create_task(line.run())
    receiving = asyncio.create_task(receiving_all)
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _receive(websocket: WebSocket, line: Line, rate: MessageRate, largest_bytes: int) -> None:
    while (message := await receive(websocket)) is not None:
        if len(message) > largest_bytes:
            line.close(TOO_LARGE)
        elif not await rate.allows_one():
            await line.drop(message, "rate_limited", f"at most {rate.per_second} messages a second are allowed")
        else:
            await line.take(message)
