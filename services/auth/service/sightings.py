"""When and from where sessions and API keys were used last, as all services tell."""

from __future__ import annotations

from libs.common.contracts.telemetry import Sighting
from services.auth.ports import ApiKeys, Sessions


class SightingService:
    """Keeps the latest."""

    def __init__(self, sessions: Sessions, keys: ApiKeys) -> None:
        self._sessions = sessions
        self._keys = keys

    async def note(self, seen: Sighting) -> None:
        """Of a session or a key; an unknown one is passed over."""
        keeper = self._keys if seen.kind == "api_key" else self._sessions
        await keeper.seen(seen.id, seen.at, seen.address)
