"""The replica with the socket: asks the owner of a session for an attachment, and relays."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NoReturn, Protocol

import structlog

from libs.common.ids import new_id
from services.terminal import protocol
from services.terminal.bridge.link import Carrier, CarrierError, Link, LinkEndedError, LinkLimits
from services.terminal.bridge.wire import BROKEN_OFF, Closed, Dropped, Wish, in_subject, out_subject
from services.terminal.domain import (
    Closing,
    OffsetBeyondEndError,
    OwnerSilentError,
    SessionNotFoundError,
    ShuttingDownError,
)
from services.terminal.ports import Channel, ChannelClosedError, OpenedSession
from services.terminal.protocol import Frame

BRIDGE_LOST = Closing(
    BROKEN_OFF.socket_code, BROKEN_OFF.reason, "The way to your terminal was interrupted, please connect again"
)

_NORMAL = 1000
_GONE = Closed(1001, "client gone")
# As for an attachment here: a revoked login must be out within a second.
_GOODBYE_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Owners(Protocol):
    """Asking a replica for an attachment to a session of its own."""

    async def attach(self, session_id: str, owner: str, request: dict[str, Any]) -> dict[str, Any]:
        """Its answer. Raises OwnerSilentError."""
        ...


class Guest:
    """One WebSocket here on a session elsewhere. `run` is the only sender on its channel."""

    def __init__(self, channel: Channel, carrier: Carrier, session_id: str, wish: Wish, limits: LinkLimits) -> None:
        self.id = new_id()
        self.caller = wish.caller
        self.environment_id = wish.environment_id
        self._channel = channel
        self._closing: Closing | None = None
        self._sending_since: float | None = None
        self._task: asyncio.Task[object] | None = None
        self._link = Link(
            carrier,
            hears=out_subject(session_id, self.id),
            tells=in_subject(session_id, self.id),
            limits=limits,
            # The client comes back, to whichever replica, for what it has not got.
            on_lost=lambda: self.close(BRIDGE_LOST),
            on_close=self._owner_closes,
        )

    async def open(self) -> None:
        """Listen to the owner; before it is asked. Raises CarrierError."""
        await self._link.open()

    def close(self, closing: Closing) -> None:
        """Say goodbye and end; what the client has not taken by then is left to a resume."""
        if self._closing is None:
            self._closing = closing
            self._link.halt()
            self._give_up_soon()

    def stalled_for(self) -> float:
        """For how many seconds the client has not taken the frame at hand."""
        since = self._sending_since
        return 0.0 if since is None else asyncio.get_running_loop().time() - since

    async def run(self) -> None:
        """Relay to the client until the session ends, `close` is called or the client is gone."""
        self._task = asyncio.current_task()
        if self._closing is not None:
            self._give_up_soon()
        with contextlib.suppress(ChannelClosedError):
            while (arrival := await self._link.receive()) not in (None, BROKEN_OFF):
                if isinstance(arrival, Closed):
                    await self._channel.close(arrival.socket_code, arrival.reason)
                    return
                if isinstance(arrival, str | bytes):
                    await self._send(arrival)
            closing = self._closing or BRIDGE_LOST
            await self._send(protocol.error(closing.code, closing.message))
            await self._channel.close(closing.socket_code, closing.code)

    async def take(self, message: Frame) -> None:
        """A frame of the client; waits while the owner has too many of them at hand."""
        # When the link has ended, the connection is being closed.
        with contextlib.suppress(LinkEndedError):
            await self._link.send(message)

    async def drop(self, message: Frame, code: str, why: str) -> None:
        """A frame that is not looked at; the owner counts it and tells the client."""
        with contextlib.suppress(LinkEndedError):
            await self._link.send_dropped(Dropped(isinstance(message, str), code, why))

    async def leave(self) -> None:
        """The connection is over; the owner is told, so that it need not wait to notice."""
        with contextlib.suppress(LinkEndedError):
            await self._link.send_close(_GONE)
        await self._link.close()

    def _owner_closes(self, closed: Closed) -> None:
        # After an exit the client may take its time for the rest of the output.
        if closed.socket_code != _NORMAL:
            self._give_up_soon()

    def _give_up_soon(self) -> None:
        if self._task is not None:
            asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, self._task.cancel)

    async def _send(self, frame: Frame) -> None:
        self._sending_since = asyncio.get_running_loop().time()
        await self._channel.send(frame)
        self._sending_since = None


class Bridges:
    """Connections from here to sessions of other replicas."""

    def __init__(self, carrier: Carrier, owners: Owners, *, limits: LinkLimits) -> None:
        self._carrier = carrier
        self._owners = owners
        self._limits = limits

    async def join(self, session: OpenedSession, wish: Wish, channel: Channel) -> Guest:
        """An attachment to a session of another replica, which may have closed and held its end; `leave` ends it.

        Raises SessionNotFoundError, OffsetBeyondEndError, OwnerSilentError, ShuttingDownError.
        """
        guest = Guest(channel, self._carrier, session.id, wish, self._limits)
        try:
            await guest.open()
            answer = await self._owners.attach(session.id, session.owner, {"attachment": guest.id, **wish.fields()})
            if not answer.get("attached"):
                _raise_refusal(answer, wish)
        except CarrierError as error:
            log.warning("no bridge", session_id=session.id, error=repr(error))
            raise OwnerSilentError from error
        except BaseException:
            await guest.leave()
            raise
        return guest


def _raise_refusal(answer: dict[str, Any], wish: Wish) -> NoReturn:
    match answer.get("refused"):
        case "offset_beyond_end":
            raise OffsetBeyondEndError(wish.offset or 0, answer["end"])
        case "shutting_down":
            raise ShuttingDownError
        case "session_not_found":
            raise SessionNotFoundError
        case _:
            # A replica of an older version.
            raise OwnerSilentError
