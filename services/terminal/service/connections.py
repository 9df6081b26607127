"""The connections this process holds, so that whoever has to can close them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from services.terminal.domain import CLOSINGS, STALLED, CloseReason, Closing
from services.terminal.ports import Connection


class Connections:
    """Terminals, logs, transfers and previews alike."""

    def __init__(self, is_revoked: Callable[[str], bool]) -> None:
        self._is_revoked = is_revoked
        self._open: set[Connection] = set()
        self._needing_running: set[Connection] = set()
        self._ending_by_themselves: set[Connection] = set()
        self._closed_for: Closing | None = None
        self._is_patient = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def holding(
        self, connection: Connection, *, needs_running: bool = False, ends_by_itself: bool = False
    ) -> Iterator[None]:
        """It is open for the length of the block. After `close_all` it is told at once to end.

        One that `needs_running` ends when its environment is stopped, by `close_running`. One that `ends_by_itself` may
        do so while the service ends.

        So it is when its sign-in has died during the handshake, where nobody could find it yet.
        """
        self._open.add(connection)
        if needs_running:
            self._needing_running.add(connection)
        if ends_by_itself:
            self._ending_by_themselves.add(connection)
        self._empty.clear()
        if self._closed_for is not None and not (ends_by_itself and self._is_patient):
            connection.close(self._closed_for)
        elif self._is_revoked(connection.caller.login_id):
            connection.close(CLOSINGS[CloseReason.REVOKED])
        try:
            yield
        finally:
            self._open.discard(connection)
            self._needing_running.discard(connection)
            self._ending_by_themselves.discard(connection)
            if not self._open:
                self._empty.set()

    def environment_ids(self) -> set[str]:
        """Environments that somebody is connected to."""
        return {connection.environment_id for connection in self._open}

    def user_ids(self) -> set[str]:
        """Users who are connected."""
        return {connection.caller.user_id for connection in self._open}

    def close_login(self, login_id: str) -> None:
        """This sign-in is dead."""
        self._close(CLOSINGS[CloseReason.REVOKED], lambda connection: connection.caller.login_id == login_id)

    def close_user(self, user_id: str) -> None:
        """Nothing may be open to this user any more."""
        self._close(CLOSINGS[CloseReason.REVOKED], lambda connection: connection.caller.user_id == user_id)

    def close_environment(self, environment_id: str, closing: Closing) -> None:
        """Nothing more to see there."""
        self._close(closing, lambda connection: connection.environment_id == environment_id)

    def close_running(self, environment_id: str, closing: Closing) -> None:
        """What was opened to programs that are being ended."""
        self._close(
            closing,
            lambda connection: connection.environment_id == environment_id and connection in self._needing_running,
        )

    def close_stalled(self, after_seconds: float) -> None:
        """Give up clients that have taken nothing for too long: their networks are gone, or they are."""
        self._close(STALLED, lambda connection: connection.stalled_for() > after_seconds)

    async def close_all(self, closing: Closing, patience_s: float = 0.0) -> None:
        """Close every one, also those that come from now on, and wait until they are gone.

        Those that end by themselves may do so for `patience_s` seconds; so may those that begin meanwhile: their
        requests had been taken.
        """
        self._closed_for = closing
        self._is_patient = patience_s > 0
        self._close(closing, lambda connection: connection not in self._ending_by_themselves)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
                return
        self._is_patient = False
        self._close(closing, lambda _: True)
        await self._empty.wait()

    def _close(self, closing: Closing, concerned: Callable[[Connection], bool]) -> None:
        for connection in [connection for connection in self._open if concerned(connection)]:
            connection.close(closing)
