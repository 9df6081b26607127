"""A WebSocket between a browser and an application. ASGI gives messages, so we speak the protocol on both sides."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import Receive, Scope, Send
from websockets.http11 import Response

from libs.runtime.port import PortClosedError
from services.terminal.api.preview.visit import Visit
from services.terminal.api.state import TerminalState
from services.terminal.preview.dialogue import Dialogue, Goodbye
from services.terminal.preview.errors import BadAnswerError, NoAnswerError, NothingListensError
from services.terminal.preview.exchange import BrokenAnswerError
from services.terminal.preview.headers import to_application, to_browser
from services.terminal.service.work import EndedError, Work

_SWITCHING = 101
_NO_STATUS = 1005
_GOODBYE_SECONDS = 0.5


async def answer_websocket(visit: Visit, state: TerminalState, scope: Scope, receive: Receive, send: Send) -> None:
    """Raises NothingListensError, BadAnswerError, NoAnswerError, EndedError and others before it is accepted."""
    port = visit.address.port
    async with state.previews.working(visit.caller, visit.environment, lasts=True) as work:
        try:
            stream = work.holds(await state.runtime.connect(visit.environment.ref, port))
            try:
                path, query = (visit.address.target or b"/").decode("latin-1"), visit.query.decode("latin-1")
                dialogue = Dialogue(stream, port, path, query, scope.get("subprotocols", []))
                answer = await _open(dialogue, visit, state, scope)
                if answer.status_code == _SWITCHING:
                    await _Passage(visit, dialogue, work).run(answer, state, receive, send)
                else:
                    await _deny(answer, visit, state, send)
            finally:
                await stream.close()
        except PortClosedError as error:
            raise NothingListensError(port) from error
        except (BrokenAnswerError, ConnectionError) as error:
            if work.closing is not None:
                raise EndedError(work.closing) from error
            raise BadAnswerError(port) from error


async def _open(dialogue: Dialogue, visit: Visit, state: TerminalState, scope: Scope) -> Response:
    headers = to_application(scope["headers"], visit.address, visit.asker, with_authorization=visit.with_authorization)
    seconds = state.settings.preview_answer_seconds
    try:
        async with asyncio.timeout(seconds):
            return await dialogue.open([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    except TimeoutError as error:
        raise NoAnswerError(visit.address.port, seconds) from error


def _headers(answer: Response, visit: Visit, state: TerminalState) -> list[tuple[bytes, bytes]]:
    given = [(name.encode("latin-1"), value.encode("utf-8")) for name, value in answer.headers.raw_items()]
    in_sandbox = state.venue.in_sandbox(visit.asker.host, visit.address.environment_id)
    kept = to_browser(given, visit.address, visit.asker.host, in_sandbox=in_sandbox)
    return [(name, value) for name, value in kept if not name.startswith(b"sec-websocket-")]


async def _deny(answer: Response, visit: Visit, state: TerminalState, send: Send) -> None:
    """The application said no: in its words."""
    status = answer.status_code if answer.status_code >= 300 else 502
    body = bytes(answer.body or b"")
    headers = [(name, value) for name, value in _headers(answer, visit, state) if name != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


class _Passage:
    """Both directions of one WebSocket that both sides have agreed to."""

    def __init__(self, visit: Visit, dialogue: Dialogue, work: Work) -> None:
        self._visit = visit
        self._dialogue = dialogue
        self._work = work

    async def run(self, answer: Response, state: TerminalState, receive: Receive, send: Send) -> None:
        """Until either side closes, or the work is closed."""
        assert (await receive())["type"] == "websocket.connect"
        cookies = [(name, value) for name, value in _headers(answer, self._visit, state) if name == b"set-cookie"]
        await send({"type": "websocket.accept", "subprotocol": self._dialogue.subprotocol, "headers": cookies})
        tasks = {
            asyncio.create_task(self._up(receive)),
            asyncio.create_task(self._down(send)),
            asyncio.create_task(self._work.closed()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        closing = self._work.closing
        if closing is not None:
            # One that takes nothing does not hear it either, and is hung up on.
            with suppress(RuntimeError, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_SECONDS):
                    await send({"type": "websocket.close", "code": closing.socket_code, "reason": closing.message})

    async def _up(self, receive: Receive) -> None:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                await self._dialogue.close(message.get("code") or _NO_STATUS, message.get("reason") or "")
                return
            data = message.get("bytes")
            # An application that has closed says how on the other side.
            with suppress(BrokenPipeError):
                await self._dialogue.say(message["text"] if data is None else data)

    async def _down(self, send: Send) -> None:
        goodbye = Goodbye(1011, "")
        try:
            async for message in self._dialogue.messages():
                if isinstance(message, Goodbye):
                    goodbye = message
                    break
                with self._work.waiting_for_client():
                    kind = "text" if isinstance(message, str) else "bytes"
                    await send({"type": "websocket.send", kind: message})
        except ConnectionError:
            pass
        if self._work.closing is None:
            await send({"type": "websocket.close", "code": goodbye.code, "reason": goodbye.reason})
