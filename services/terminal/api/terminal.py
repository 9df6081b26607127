"""WS /api/v1/ws/terminal/{environment_id}: a shell in a workspace."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.websockets import WebSocket

from libs.runtime.port import TerminalSize
from services.terminal import protocol
from services.terminal.api.channel import SocketChannel, receive
from services.terminal.api.handshake import RefusedError, admit, parse_query, refusing, slot
from services.terminal.api.state import TerminalState, terminal_state
from services.terminal.domain import TOO_LARGE, Caller, Environment, Mode, SocketKind
from services.terminal.protocol import BINARY_SUBPROTOCOL, FrameError, Input, Ping
from services.terminal.schemas import TerminalQuery
from services.terminal.service.rate import MessageRate
from services.terminal.sessions.attachment import Attachment
from services.terminal.sessions.session import TerminalSession

router = APIRouter()


@router.websocket("/api/v1/ws/terminal/{environment_id}")
async def terminal(websocket: WebSocket, environment_id: str) -> None:
    """Open a shell, or come back to one with `?session=&offset=`."""
    state = terminal_state(websocket)
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with refusing(websocket):
                caller = await admit(websocket, state, environment_id, SocketKind.TERMINAL)
                query = parse_query(websocket, TerminalQuery)
                environment = await state.access.to_running(caller, environment_id)
                await stack.enter_async_context(slot(state, caller))
                session = await _session(state, caller, environment, query)
                attachment = await stack.enter_async_context(_attached(websocket, state, session, caller, query))
        except RefusedError:
            return
        await websocket.accept(BINARY_SUBPROTOCOL if _is_binary(websocket) else None)
        await _serve(websocket, state, session, attachment)


async def _session(
    state: TerminalState, caller: Caller, environment: Environment, query: TerminalQuery
) -> TerminalSession:
    default = TerminalSize()
    size = TerminalSize(query.cols or default.cols, query.rows or default.rows)
    if query.session is None:
        return await state.sessions.open(caller, environment, size)
    session = state.sessions.find(caller, environment.id, query.session)
    if query.mode is Mode.READ_WRITE and (query.cols or query.rows):
        await session.resize(size)
    return session


@contextlib.asynccontextmanager
async def _attached(
    websocket: WebSocket, state: TerminalState, session: TerminalSession, caller: Caller, query: TerminalQuery
) -> AsyncIterator[Attachment]:
    codec = protocol.BinaryCodec() if _is_binary(websocket) else protocol.JsonCodec()
    channel = SocketChannel(websocket)
    # A new session has no past to come back to.
    offset = query.offset if query.session is not None else None
    attachment = session.attach(channel, codec, caller=caller, mode=query.mode, offset=offset)
    try:
        with state.connections.holding(attachment):
            yield attachment
    finally:
        session.detach(attachment)
        if attachment.saw_exit:
            state.sessions.forget_if_over(session)


async def _serve(websocket: WebSocket, state: TerminalState, session: TerminalSession, attachment: Attachment) -> None:
    sending = asyncio.create_task(attachment.run())
    receiving = asyncio.create_task(_receive(websocket, state, session, attachment))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _receive(
    websocket: WebSocket, state: TerminalState, session: TerminalSession, attachment: Attachment
) -> None:
    largest = state.settings.terminal_message_bytes
    per_second = state.settings.terminal_messages_per_second
    rate = MessageRate(per_second)
    while (message := await receive(websocket)) is not None:
        if len(message) > largest:
            attachment.close(TOO_LARGE)
        elif not rate.allows_one():
            attachment.undelivered("rate_limited", f"at most {per_second} messages a second are allowed")
        else:
            await _handle(message, session, attachment)
        if attachment.owes_many_answers:
            await asyncio.sleep(0)


async def _handle(message: str | bytes, session: TerminalSession, attachment: Attachment) -> None:
    try:
        frame = protocol.parse(message)
    except FrameError as error:
        attachment.answer(protocol.error(error.code, error.message))
        return
    if isinstance(frame, Ping):
        attachment.answer(protocol.pong())
    elif attachment.mode is Mode.READ_ONLY:
        return
    elif isinstance(frame, Input):
        if frame.data and not session.type(frame.data):
            attachment.undelivered("input_overflow", "the shell has not taken yet what came before")
    else:
        await session.resize(frame.size)


def _is_binary(websocket: WebSocket) -> bool:
    return BINARY_SUBPROTOCOL in websocket.scope.get("subprotocols", [])
