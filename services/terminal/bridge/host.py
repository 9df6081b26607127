"""The owner's side: attachments of its sessions for connections that other replicas hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import structlog

from services.terminal import protocol
from services.terminal.bridge.link import Carrier, CarrierError, Link, LinkEndedError, LinkLimits
from services.terminal.bridge.wire import BROKEN_OFF, Closed, Dropped, Wish, in_subject, out_subject
from services.terminal.domain import Mode, OffsetBeyondEndError, SessionNotFoundError, ShuttingDownError
from services.terminal.ports import ChannelClosedError
from services.terminal.protocol import Frame
from services.terminal.service.connections import Connections
from services.terminal.service.sessions import Sessions
from services.terminal.sessions.attachment import Attachment
from services.terminal.sessions.session import TerminalSession
from services.terminal.sessions.writer import Writer

log = structlog.get_logger(__name__)


class LinkChannel:
    """A bridge as an attachment sees it: sending waits while the other replica's client takes nothing."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def send_now(self, frame: Frame) -> bool:
        """Never: a bus takes what it can only after a wait for credit."""
        return False

    async def send(self, frame: Frame) -> None:
        """Raises ChannelClosedError."""
        try:
            await self._link.send(frame)
        except LinkEndedError as error:
            raise ChannelClosedError from error

    async def close(self, socket_code: int, reason: str) -> None:
        """How the client's WebSocket is to be closed. Raises ChannelClosedError."""
        try:
            await self._link.send_close(Closed(socket_code, reason))
        except LinkEndedError as error:
            raise ChannelClosedError from error


class Host:
    """All bridges to sessions of this replica. They are among its connections, and end with them."""

    def __init__(self, carrier: Carrier, sessions: Sessions, connections: Connections, limits: LinkLimits) -> None:
        self._carrier = carrier
        self._sessions = sessions
        self._connections = connections
        self._limits = limits
        self._serving: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._serving)

    async def attach(self, session_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to serve a connection of another replica, or say why not; the answer to its request."""
        wish = Wish.of(request)
        attachment_id = request["attachment"]
        try:
            session = self._sessions.find(wish.caller, wish.environment_id, session_id)
            link = Link(
                self._carrier,
                hears=in_subject(session_id, attachment_id),
                tells=out_subject(session_id, attachment_id),
                limits=self._limits,
            )
            await link.open()
            try:
                attachment = _attachment(session, link, wish)
            except BaseException:
                await link.close()
                raise
        except OffsetBeyondEndError as error:
            return {"refused": error.code, "end": session.ring.end}
        except (SessionNotFoundError, ShuttingDownError) as error:
            return {"refused": error.code}
        except CarrierError as error:
            log.warning("no bridge", session_id=session_id, error=repr(error))
            return {"refused": ShuttingDownError.code}
        serving = asyncio.create_task(self._serve(session, attachment, link, wish))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        return {"attached": True}

    async def _serve(self, session: TerminalSession, attachment: Attachment, link: Link, wish: Wish) -> None:
        try:
            with self._connections.holding(attachment):
                if wish.mode is Mode.READ_WRITE and wish.size is not None:
                    await session.active(attachment, wish.size)
                writer = Writer(session, attachment, counts_binary=wish.client is not None)
                await _until_one_ends(attachment, _receive(link, attachment, writer))
        except Exception as error:
            log.warning("bridge failed", session_id=session.id, error=repr(error))
        finally:
            session.detach(attachment)
            if attachment.saw_exit:
                self._sessions.forget_if_over(session)
            if not link.said_close:
                with contextlib.suppress(LinkEndedError):
                    await link.send_close(BROKEN_OFF)
            await link.close()


def _attachment(session: TerminalSession, link: Link, wish: Wish) -> Attachment:
    codec = protocol.BinaryCodec() if wish.is_binary else protocol.JsonCodec()
    return session.attach(
        LinkChannel(link), codec, caller=wish.caller, mode=wish.mode, offset=wish.offset, client=wish.client
    )


async def _until_one_ends(attachment: Attachment, receiving_all: Coroutine[Any, Any, None]) -> None:
    """Raises what the first one to end has raised."""
    sending = asyncio.create_task(attachment.run())
    receiving = asyncio.create_task(receiving_all)
    try:
        ended, _ = await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            if not task.cancelled():
                task.result()
    finally:
        sending.cancel()
        receiving.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _receive(link: Link, attachment: Attachment, writer: Writer) -> None:
    while (arrival := await link.receive()) is not None:
        if isinstance(arrival, Closed):
            return
        if isinstance(arrival, Dropped):
            writer.drop("" if arrival.is_text else b"", arrival.code, arrival.why)
        else:
            await writer.take(arrival)
        if attachment.owes_many_answers:
            await asyncio.sleep(0)
