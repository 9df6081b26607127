"""Core NATS as the carrier of bridges."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from libs.common.messaging.broker import Bus
from services.terminal.bridge.link import CarrierError

# More than the credits of one end allow to be under way; what the client library drops beyond is noticed as missing.
_PENDING_BYTES = 4 * 1024 * 1024


class NatsCarrier:
    """The service's own connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @property
    def max_bytes(self) -> int:
        """As the server has told it."""
        return self._bus.client.max_payload

    async def publish(self, subject: str, message: bytes) -> None:
        """While the connection is being made again some are kept and sent then. Raises CarrierError."""
        try:
            await self._bus.client.publish(subject, message)
        except NatsError as error:
            raise CarrierError(repr(error)) from error

    async def subscribe(self, subject: str, hear: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        """Raises CarrierError, also from what it gives back."""

        async def on_message(message: Msg) -> None:
            hear(message.data)

        try:
            subscription = await self._bus.client.subscribe(subject, cb=on_message, pending_bytes_limit=_PENDING_BYTES)
        except NatsError as error:
            raise CarrierError(repr(error)) from error

        async def unsubscribe() -> None:
            try:
                await subscription.unsubscribe()
            except NatsError as error:
                raise CarrierError(repr(error)) from error

        return unsubscribe
