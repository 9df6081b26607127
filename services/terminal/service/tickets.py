"""Tickets: what a browser puts into a WebSocket URL instead of its access token, which would end up in logs."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from libs.common.errors import UnauthenticatedError
from services.terminal.domain import Caller, SocketKind
from services.terminal.ports import Ticket, TicketStore
from services.terminal.service.access import Access

_TICKET_BYTES = 32


class TicketDesk:
    """Issues tickets and takes them back. Only their hashes are stored."""

    def __init__(
        self, access: Access, store: TicketStore, *, life_seconds: int, is_revoked: Callable[[str], bool]
    ) -> None:
        self._access = access
        self._store = store
        self._is_revoked = is_revoked
        self.life_seconds = life_seconds

    async def issue(self, caller: Caller, environment_id: str, kind: SocketKind) -> str:
        """A ticket for one connection of this kind. Raises EnvironmentNotFoundError, UnavailableError."""
        await self._access.to_environment(caller, environment_id)
        secret = secrets.token_urlsafe(_TICKET_BYTES)
        await self._store.put(_hash(secret), Ticket(caller, environment_id, kind), self.life_seconds)
        return secret

    async def redeem(self, secret: str, environment_id: str, kind: SocketKind) -> Caller:
        """Who got this ticket; it is used up, also by a wrong use. Raises UnauthenticatedError, UnavailableError."""
        ticket = await self._store.take(_hash(secret))
        if ticket is None or ticket.environment_id != environment_id or ticket.kind is not kind:
            raise UnauthenticatedError("The ticket is unknown, used or expired, please get a new one")
        if self._is_revoked(ticket.caller.login_id):
            raise UnauthenticatedError("Session has ended, please sign in again")
        return ticket.caller


def _hash(secret: str) -> str:
    # 256 random bits cannot be guessed, so one round of a fast hash is enough.
    return hashlib.sha256(secret.encode()).hexdigest()
