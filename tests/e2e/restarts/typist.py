"""A person who types into a shell while it is handed from one replica to the next."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support.phone import Phone

# Without an echo of its own: what comes back is what `cat` was given, byte by byte.
_ECHO = "PS1=; stty raw -echo; echo go$((1+1)); exec cat\n"
_PATIENCE_S = 60.0
_PAUSE_S = 0.05
_KEY_S = 0.02
_MOST_PENDING = 20


class Typist:
    """Types numbered messages, and sends those again that were not acknowledged when the connection ends."""

    def __init__(self, phone: Phone, environment_id: str) -> None:
        self.endings: Counter[str] = Counter()
        self.longest_gap_s = 0.0
        self.typed = 0
        self._phone = phone
        self._environment_id = environment_id
        self._where = "&client=phone"
        self._offset = 0
        self._session = ""
        self._output = ""
        self._written = ""
        self._pending: dict[int, str] = {}
        self._last_sign = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, then until all is back. Raises AssertionError when a byte is missing, doubled or another."""
        await self._begin()
        while not self._is_done(stop):
            async for socket in self._connections():
                await self._converse(socket, stop)
                if self._is_done(stop):
                    break
        assert self._output == self._written

    async def _begin(self) -> None:
        async with self._phone.socket(self._environment_id, self._where) as socket:
            await self._hear(socket)
            await socket.send(json.dumps({"type": "input", "data": _ECHO}))
            while not self._output.endswith("go2\r\n") and not self._output.endswith("go2\n"):
                await self._hear(socket)
        self._output = ""

    async def _connections(self) -> AsyncIterator[ClientConnection]:
        """One after the other; each time is a try to resume."""
        async with asyncio.timeout(None) as patience:
            while True:
                patience.reschedule(asyncio.get_running_loop().time() + _PATIENCE_S)
                query = f"{self._where}&session={self._session}&offset={self._offset}"
                try:
                    async with self._phone.socket(self._environment_id, query) as socket:
                        await self._hear(socket)
                        patience.reschedule(None)
                        yield socket
                        return
                except (InvalidHandshake, ConnectionClosed, OSError) as error:
                    self.endings[
                        f"{type(error).__name__} {getattr(getattr(error, 'response', None), 'status_code', '')}"
                    ] += 1
                await asyncio.sleep(_PAUSE_S)

    async def _converse(self, socket: ClientConnection, stop: asyncio.Event) -> None:
        typing = asyncio.create_task(self._type(socket, stop))
        try:
            while not self._is_done(stop):
                await self._hear(socket)
        except ConnectionClosed as closed:
            self.endings[str(closed.rcvd.code) if closed.rcvd else "cut"] += 1
        finally:
            typing.cancel()
            await asyncio.gather(typing, return_exceptions=True)

    async def _type(self, socket: ClientConnection, stop: asyncio.Event) -> None:
        for number, data in list(self._pending.items()):
            await self._send(socket, number, data)
        while not stop.is_set():
            if len(self._pending) < _MOST_PENDING:
                self.typed += 1
                data = f"<{self.typed}>"
                self._written += data
                self._pending[self.typed] = data
                await self._send(socket, self.typed, data)
            # A plan has a rate of messages.
            await asyncio.sleep(_KEY_S)
        # What comes back makes whoever waits for output look whether all is done.
        await socket.send('{"type":"ping"}')

    def _is_done(self, stop: asyncio.Event) -> bool:
        return stop.is_set() and not self._pending and len(self._output) >= len(self._written)

    async def _send(self, socket: ClientConnection, number: int, data: str) -> None:
        await socket.send(json.dumps({"type": "input", "data": data, "seq": number}))

    async def _hear(self, socket: ClientConnection) -> None:
        frame: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), _PATIENCE_S))
        if frame["type"] == "output":
            self._output += frame["data"]
            self._offset = frame["offset"]
            now = time.monotonic()
            self.longest_gap_s = max(self.longest_gap_s, now - self._last_sign if self._last_sign else 0.0)
            self._last_sign = now
        elif frame["type"] == "ready":
            assert self._session in {"", frame["session_id"]}, frame
            assert frame["offset"] == self._offset, (frame, self._offset)
            self._session = frame["session_id"]
            self._forget(frame["seq"])
        elif frame["type"] == "ack":
            self._forget(frame["seq"])
        elif frame["type"] != "pong":
            assert frame["type"] == "error", frame
            assert frame["code"] in {"shutting_down", "session_moved", "bridge_lost"}, frame

    def _forget(self, taken: int | None) -> None:
        for number in [number for number in self._pending if number <= (taken or 0)]:
            del self._pending[number]
