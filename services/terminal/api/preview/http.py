"""One request to an application, passed on as it comes, and the answer as it is made."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from libs.runtime.port import PortClosedError
from services.terminal.api.preview.visit import Visit
from services.terminal.api.state import TerminalState
from services.terminal.preview.errors import BadAnswerError, NoAnswerError, NothingListensError
from services.terminal.preview.exchange import BrokenAnswerError, Exchange
from services.terminal.preview.headers import to_application, to_browser
from services.terminal.service.work import EndedError, Work

# What the server in front of us has a status line for.
_STATUSES = range(200, 600)


async def answer_request(visit: Visit, state: TerminalState, scope: Scope, receive: Receive, send: Send) -> None:
    """Raises NothingListensError, BadAnswerError, NoAnswerError, BadRequestLineError, EndedError and others."""
    port = visit.address.port
    async with state.previews.working(visit.caller, visit.environment) as work:
        try:
            stream = work.holds(await state.runtime.connect(visit.environment.ref, port))
            try:
                passage = _Passage(visit, state, work, Exchange(stream))
                await passage.run(scope, receive, send)
            finally:
                await stream.close()
        except PortClosedError as error:
            raise NothingListensError(port) from error
        except (BrokenAnswerError, ConnectionError) as error:
            raise BadAnswerError(port) from error


class _Passage:
    """Both directions of one request."""

    def __init__(self, visit: Visit, state: TerminalState, work: Work, exchange: Exchange) -> None:
        self._visit = visit
        self._work = work
        self._exchange = exchange
        self._in_sandbox = state.venue.in_sandbox(visit.asker.host, visit.address.environment_id)
        self._answer_seconds = state.settings.preview_answer_seconds
        self._patience: asyncio.Timeout | None = None

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Until the answer is complete, the client has gone, or the work is closed."""
        up = asyncio.create_task(self._up(scope, receive))
        down = asyncio.create_task(self._down(send))
        closed = asyncio.create_task(self._work.closed())
        tasks = {up, down, closed}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        if self._work.closing is not None:
            raise EndedError(self._work.closing)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _up(self, scope: Scope, receive: Receive) -> None:
        """The request, and then until the client has gone."""
        try:
            await self._exchange.send_head(scope["method"].encode(), self._visit.target, self._head(scope))
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                if message.get("body"):
                    await self._exchange.send_body(message["body"])
                    self._be_patient()
                more = message.get("more_body", False)
            await self._exchange.end_body()
        except BrokenPipeError:
            # It reads no more of this; it may still have answered.
            pass
        while (await receive())["type"] != "http.disconnect":
            pass

    def _head(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        visit = self._visit
        head = to_application(scope["headers"], visit.address, visit.asker, with_authorization=visit.with_authorization)
        names = {name for name, _ in scope["headers"]}
        if b"transfer-encoding" in names and b"content-length" not in names:
            head.append((b"transfer-encoding", b"chunked"))
        return head

    def _be_patient(self) -> None:
        """An application need not answer while it is being sent something."""
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time() + self._answer_seconds)

    async def _down(self, send: Send) -> None:
        try:
            async with asyncio.timeout(self._answer_seconds) as self._patience:
                head = await self._exchange.head()
        except TimeoutError as error:
            raise NoAnswerError(self._visit.address.port, self._answer_seconds) from error
        finally:
            self._patience = None
        if head.status_code not in _STATUSES:
            raise BrokenAnswerError
        headers = to_browser(head.headers, self._visit.address, self._visit.asker.host, in_sandbox=self._in_sandbox)
        await send({"type": "http.response.start", "status": head.status_code, "headers": headers})
        async for piece in self._exchange.body():
            with self._work.waiting_for_client():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
