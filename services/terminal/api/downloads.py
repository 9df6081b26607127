"""An answer that is sent as it is read, and whatever it is read from let go of in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import AsyncExitStack

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from libs.common.errors import DevPocketError
from libs.runtime.port import DriverError

log = structlog.get_logger(__name__)


class Download(Response):
    """Sends `pieces` at the client's pace, no longer than until `taken_away` returns. `held` is closed when all is
    sent, or as soon as the client has gone.

    What fails in between cuts the answer off, so that no client takes what it has got for all there is.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        held: AsyncExitStack,
        *,
        taken_away: Coroutine[None, None, None],
        status: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(None, status)
        self.init_headers(headers)
        # Nothing is known of the length but what `headers` say.
        if "Content-Length" not in headers:
            del self.headers["content-length"]
        self._pieces = pieces
        self._held = held
        self._taken_away = taken_away

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        sending = asyncio.create_task(self._send(send))
        tasks = {sending, asyncio.create_task(_gone(receive)), asyncio.create_task(self._taken_away)}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._pieces.aclose()
            try:
                await self._held.aclose()
            except DevPocketError as error:
                log.info("a download was ended", code=error.code)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (DevPocketError, DriverError, OSError, TimeoutError) as error:
            # The server closes the connection over an answer that does not end.
            log.warning("a download broke off", error=repr(error))
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
