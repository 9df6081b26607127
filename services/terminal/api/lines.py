"""What is between a WebSocket and its session, whichever replica holds that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

from starlette.websockets import WebSocket

from libs.runtime.port import TerminalSize
from services.terminal import protocol
from services.terminal.api.channel import SocketChannel
from services.terminal.api.state import TerminalState
from services.terminal.bridge.guest import Guest
from services.terminal.bridge.wire import Wish
from services.terminal.domain import Caller, Closing, Environment, Mode, OwnerSilentError
from services.terminal.ports import OpenedSession
from services.terminal.protocol import BINARY_SUBPROTOCOL, Frame
from services.terminal.schemas import TerminalQuery
from services.terminal.sessions.attachment import Attachment
from services.terminal.sessions.session import TerminalSession
from services.terminal.sessions.writer import Writer


class Line(Protocol):
    """One connection's way to its session and back."""

    async def run(self) -> None:
        """Send to the client until the session ends, `close` is called or the client is gone."""
        ...

    async def take(self, message: Frame) -> None:
        """A frame of the client."""
        ...

    async def drop(self, message: Frame, code: str, why: str) -> None:
        """A frame that is not looked at; the client is told."""
        ...

    def close(self, closing: Closing) -> None:
        """Say goodbye and end."""
        ...


class DirectLine:
    """To a session of this replica."""

    def __init__(self, attachment: Attachment, writer: Writer) -> None:
        self._attachment = attachment
        self._writer = writer

    async def run(self) -> None:
        """Send to the client until the session ends, `close` is called or the client is gone."""
        await self._attachment.run()

    async def take(self, message: Frame) -> None:
        """A frame of the client."""
        await self._writer.take(message)
        await self._let_answer()

    async def drop(self, message: Frame, code: str, why: str) -> None:
        """A frame that is not looked at; the client is told."""
        self._writer.drop(message, code, why)
        await self._let_answer()

    def close(self, closing: Closing) -> None:
        """Say goodbye and end."""
        self._attachment.close(closing)

    async def _let_answer(self) -> None:
        if self._attachment.owes_many_answers:
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def line_to_session(
    websocket: WebSocket, state: TerminalState, environment: Environment, caller: Caller, query: TerminalQuery
) -> AsyncIterator[Line]:
    """A new session, or the one that the query names; its place there is given back after the block.

    Raises what opening, finding and joining a session raise.
    """
    wish = _wish(websocket, environment, caller, query)
    if query.session is None:
        found: TerminalSession | OpenedSession = await state.sessions.open(caller, environment, _size(query))
    else:
        found = await state.takeovers.find(caller, environment.id, query.session)
    if isinstance(found, OpenedSession):
        try:
            guest = await state.bridges.join(found, wish, SocketChannel(websocket))
        except OwnerSilentError:
            if not found.is_held or found.is_closed:
                raise
            found = await state.takeovers.adopt(found)
        else:
            async with _bridged(state, guest) as line:
                yield line
            return
    async with _direct(websocket, state, found, wish) as line:
        yield line


def is_binary(websocket: WebSocket) -> bool:
    """Whether the client wants terminal bytes as they are."""
    return BINARY_SUBPROTOCOL in websocket.scope.get("subprotocols", [])


def _wish(websocket: WebSocket, environment: Environment, caller: Caller, query: TerminalQuery) -> Wish:
    return Wish(
        caller=caller,
        environment_id=environment.id,
        mode=query.mode,
        is_binary=is_binary(websocket),
        # A new session has no past to come back to.
        offset=query.offset if query.session is not None else None,
        client=query.client,
        size=_size(query) if query.cols or query.rows else None,
    )


def _size(query: TerminalQuery) -> TerminalSize:
    default = TerminalSize()
    return TerminalSize(query.cols or default.cols, query.rows or default.rows)


@contextlib.asynccontextmanager
async def _direct(
    websocket: WebSocket, state: TerminalState, session: TerminalSession, wish: Wish
) -> AsyncIterator[Line]:
    codec = protocol.BinaryCodec() if wish.is_binary else protocol.JsonCodec()
    channel = SocketChannel(websocket)
    attachment = session.attach(
        channel, codec, caller=wish.caller, mode=wish.mode, offset=wish.offset, client=wish.client
    )
    try:
        if wish.mode is Mode.READ_WRITE and wish.size is not None:
            await session.active(attachment, wish.size)
        with state.connections.holding(attachment):
            yield DirectLine(attachment, Writer(session, attachment, counts_binary=wish.client is not None))
    finally:
        session.detach(attachment)
        if attachment.saw_exit:
            state.sessions.forget_if_over(session)


@contextlib.asynccontextmanager
async def _bridged(state: TerminalState, guest: Guest) -> AsyncIterator[Line]:
    try:
        with state.connections.holding(guest):
            yield guest
    finally:
        await guest.leave()
