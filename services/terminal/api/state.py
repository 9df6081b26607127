"""What the routes find in `app.state.terminal`; the composition root puts it there."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from libs.common.security.tokens import TokenVerifier
from libs.runtime.port import ExecRuntime
from services.terminal.bridge.guest import Bridges
from services.terminal.logs.feed import LogFeeds
from services.terminal.ports import ConnectionSlots
from services.terminal.preview.address import Venue
from services.terminal.service.access import Access
from services.terminal.service.commands import Commands
from services.terminal.service.connections import Connections
from services.terminal.service.files import Files
from services.terminal.service.previews import Previews
from services.terminal.service.rate import MessageRates
from services.terminal.service.sessions import Sessions
from services.terminal.service.shells import Shells
from services.terminal.service.takeovers import Takeovers
from services.terminal.service.tickets import TicketDesk
from services.terminal.settings import TerminalSettings


@dataclass(frozen=True, slots=True)
class TerminalState:
    """The use cases, put together."""

    settings: TerminalSettings
    tokens: TokenVerifier
    access: Access
    tickets: TicketDesk
    sessions: Sessions
    bridges: Bridges
    shells: Shells
    takeovers: Takeovers
    connections: Connections
    slots: ConnectionSlots
    rates: MessageRates
    runtime: ExecRuntime
    logs: LogFeeds
    files: Files
    commands: Commands
    previews: Previews
    venue: Venue


def terminal_state(connection: HTTPConnection) -> TerminalState:
    """Of the app that this request or WebSocket came to."""
    state: TerminalState = connection.app.state.terminal
    return state
