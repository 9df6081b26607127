"""Runs a service: uvicorn, with an end that loses no request.

`python -m libs.common.http.server services.envs.main:create_app --port 8000`

On SIGTERM the service announces that it goes, and goes on serving: each answer from then on tells its client to connect
anew (`Connection: close`), and idle connections are left to their clients to close. A server that closes an idle
connection itself may do so while a request is on its way, and whoever sent it cannot know what became of it. Then it
takes no new connections, says goodbye to those that would last for ever, and lets requests at hand finish. SIGINT, or a
second signal, makes it hurry.

Under a supervisor (`--listener`, `--private`, `--link`: open descriptors) a successor may serve on the same address:
see `supervised.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.importer import import_from_string
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from libs.common.http.departure import Departure
from libs.common.http.supervised import Supervised
from libs.common.http.websocket import WebSocketProtocol

# Longer than the gateway keeps an idle connection to a service (1 s), by more than a busy machine is late.
_IDLE_S = 3.0
# Between the acceptance of a connection and its request.
_ARRIVING_S = 1.0
_LOOK_EVERY_S = 0.02
# A WebSocket's handshake, which may start a shell.
_OPENING_S = 5.0
# What requests at hand get: on SIGTERM (--drain-seconds), and in a hurry.
DRAIN_S = 20
HURRY_S = 5
# A WebSocket that was told to close and takes not even that.
_STUCK_SOCKET_S = 5.0

# Shorter than what load balancers and phone networks cut silent connections at (60 s).
WS_PING_S = 25.0
# A client that does not read for a while is slowed down, not cut off: its pong waits behind the output.
WS_PING_TIMEOUT_S = 90.0
# A little more than the 1 MiB that the terminal service allows, so that its own words reach the client.
_WS_MAX_BYTES = 1_114_112


class _State(ServerState):
    """What a server and its connections share."""

    is_leaving = False


class HttpProtocol(HttpToolsProtocol):
    """uvicorn makes one for each connection."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is at hand; one may be on its way."""
        cycle: Any = self.cycle
        return (cycle is None or cycle.response_complete) and not self.transport.is_closing()

    def leave(self) -> None:
        """The answer at hand is the last one, and says so."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_headers_complete(self) -> None:
        """A request has come; the parser calls it."""
        super().on_headers_complete()
        if getattr(self.server_state, "is_leaving", False):
            self.leave()


class Server(uvicorn.Server):
    """One process of a service. `supervised` is None where nobody is there to start a successor."""

    def __init__(
        self, config: uvicorn.Config, departure: Departure, *, drain_s: int = DRAIN_S, supervised: Supervised | None
    ) -> None:
        super().__init__(config)
        self.server_state = self._state = _State()
        self._departure = departure
        self._drain_s = drain_s
        self._supervised = supervised
        self._public: list[asyncio.AbstractServer] = []
        self._hurry = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The application starts, then connections are accepted; under a supervisor when it says so."""
        self._loop = asyncio.get_running_loop()
        if self._supervised is None:
            await super().startup(sockets)
            self._public = list(self.servers)
        else:
            await super().startup([self._supervised.private])
            await self._supervised.begin(self._accept, self._hurry.set)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._public.append(await loop.create_server(self._protocol, sock=listener, backlog=self.config.backlog))

    def _protocol(self) -> asyncio.Protocol:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came."""
        if self._loop is None:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._on_signal, sig)

    def _on_signal(self, number: int) -> None:
        if self._leaving is not None or number != signal.SIGTERM:
            self._hurry.set()
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(number))

    async def _leave(self, number: int) -> None:
        try:
            self._departure.announce()
            self._state.is_leaving = True
            for connection in self._http():
                connection.leave()
            if self._supervised is not None:
                await self._unless_hurried(self._supervised.relieved())
                self._stop_accepting()
            await self._unless_hurried(self._nobody_idle(_IDLE_S))
            self._stop_accepting()
            await self._unless_hurried(self._nobody_idle(_ARRIVING_S))
            # One that is being opened is taken in, and told with the others to come back.
            await self._unless_hurried(self._while(self._is_any_opening, _OPENING_S))
            patience_s = 0.0 if self._hurry.is_set() else float(self._drain_s)
            await self._unless_hurried(self._departure.say_goodbye(patience_s), at_least_s=HURRY_S)
        finally:
            self.config.timeout_graceful_shutdown = HURRY_S if self._hurry.is_set() else self._drain_s
            super().handle_exit(number, None)

    async def _unless_hurried(self, waiting: Any, *, at_least_s: float = 0.0) -> None:
        """Wait for it, in a hurry no longer than so long."""
        task, hurry = asyncio.ensure_future(waiting), asyncio.create_task(self._hurry.wait())
        await asyncio.wait([task, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not task.done():
            await asyncio.wait([task], timeout=at_least_s)
            task.cancel()

    async def _nobody_idle(self, at_most_s: float) -> None:
        await self._while(lambda: any(item.is_idle for item in self._http()), at_most_s)

    async def _while(self, so: Callable[[], bool], at_most_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + at_most_s
        while loop.time() < deadline and so():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(_LOOK_EVERY_S)

    def _is_any_opening(self) -> bool:
        sockets = (item for item in self.server_state.connections if isinstance(item, WebSocketProtocol))
        return any(not item.handshake_complete for item in sockets)

    def _http(self) -> list[HttpProtocol]:
        return [item for item in self.server_state.connections if isinstance(item, HttpProtocol)]

    def _stop_accepting(self) -> None:
        for server in self._public:
            server.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What is left is closed, the application ends."""
        asyncio.get_running_loop().call_later(_STUCK_SOCKET_S, self._cut_sockets)
        self._stop_accepting()
        await super().shutdown(sockets)

    def _cut_sockets(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, WebSocketProtocol):
                connection.transport.abort()


def make_server(
    factory: str, *, host: str, port: int, drain_s: int, supervised: Supervised | None, trusted: str | None = None
) -> Server:
    """`factory` makes the application, as `module:function`. `trusted`: proxies whose word counts about clients."""
    app = import_from_string(factory)()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_ping_interval=WS_PING_S,
        ws_ping_timeout=WS_PING_TIMEOUT_S,
        ws_max_size=_WS_MAX_BYTES,
        # Compressing terminal output costs a quarter of its rate, and hides from us that a client has stopped reading.
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        forwarded_allow_ips=trusted,
    )
    departure = getattr(app.state, "departure", None) or Departure()
    return Server(config, departure, drain_s=drain_s, supervised=supervised)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m libs.common.http.server", description="Run one service.")
    parser.add_argument("factory", metavar="MODULE:FUNCTION", help="what makes the application")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--drain-seconds", type=int, default=DRAIN_S, help="for requests at hand, on SIGTERM")
    parser.add_argument("--forwarded-allow-ips", help="proxies that are believed about clients; * for all")
    for name in ("--listener", "--private", "--link"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    supervised = None
    if given.link is not None:
        supervised = Supervised(
            *(socket.socket(fileno=number) for number in (given.listener, given.private, given.link))
        )
    # What is loaded now stays; to look through it for garbage, again and again, is a tenth of the time it takes.
    gc.disable()
    server = make_server(
        given.factory,
        host=given.host,
        port=given.port,
        drain_s=given.drain_seconds,
        supervised=supervised,
        trusted=given.forwarded_allow_ips,
    )
    gc.enable()
    server.run()


if __name__ == "__main__":
    main()
