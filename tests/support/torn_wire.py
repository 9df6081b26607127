"""A WebSocket client of which every byte is ours to send or not, and whose connection can be reset at any of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

from websockets.client import ClientProtocol
from websockets.protocol import Event
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from services.terminal.protocol import BINARY_SUBPROTOCOL

_RESET = struct.pack("ii", 1, 0)
# Between two pieces of output of a shell that is busy; a server that says nothing for longer hangs.
_SILENT_S = 60.0


class Wire:
    """One connection. Leaving its block resets it (RST), whatever is still on the way."""

    def __init__(self, protocol: ClientProtocol, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_ready = False
        self.has_ended = False
        self.said_goodbye = False
        self.received_bytes = 0
        self._protocol = protocol
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connected, with nothing sent. Raises OSError."""
        uri = parse_uri(url)
        protocol = ClientProtocol(uri, subprotocols=[Subprotocol(BINARY_SUBPROTOCOL)], max_size=None)
        return cls(protocol, *await asyncio.open_connection(uri.host, uri.port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def cut(self) -> None:
        """Reset the connection: no close frame, no FIN, what the kernel still holds is thrown away."""
        opened: socket.socket = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()

    async def send_request(self, share: float = 1.0) -> None:
        """The handshake's request, or its first `share`."""
        self._protocol.send_request(self._protocol.connect())
        await self._flush(share)

    async def send_binary(self, data: bytes) -> None:
        """Input."""
        self._protocol.send_binary(data)
        await self._flush()

    async def send_part_of_input(self, data: bytes, share: float) -> None:
        """A frame that does not become whole, if the connection still takes anything."""
        if not self.has_ended:
            self._protocol.send_binary(data)
            await self._flush(share)

    async def send_close(self) -> None:
        """Our close frame; what comes after it is still read."""
        self.said_goodbye = True
        self._protocol.send_close(1000)
        await self._flush()

    async def receive(self, most: int) -> list[Event]:
        """What the next `most` bytes of the network make whole; nothing when it has ended."""
        try:
            async with asyncio.timeout(_SILENT_S):
                data = await self._reader.read(most)
        except ConnectionError:
            data = b""
        self.received_bytes += len(data)
        if data:
            self._protocol.receive_data(data)
            await self._flush()
        else:
            self.has_ended = True
            self._protocol.receive_eof()
        return self._protocol.events_received()

    async def _flush(self, share: float = 1.0) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and not self._writer.is_closing():
            self._writer.write(data[: int(len(data) * share)])
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
