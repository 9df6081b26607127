"""API keys: personal access tokens for programs."""

from __future__ import annotations

from libs.common.clock import Clock
from libs.common.contracts.base import EventData
from libs.common.contracts.users import UserApiKeyRevoked
from libs.common.errors import UnauthenticatedError
from libs.common.security.api_keys import ApiKey, key_session_id
from services.auth.domain.api_keys import MAX_KEYS, StoredKey, WantedKey, new_key
from services.auth.domain.users import User
from services.auth.errors import ApiKeyNotFoundError, TooManyApiKeysError
from services.auth.ports import ApiKeys, DeadSessions, Users
from services.auth.service.changes import events_about
from services.auth.service.sessions import sessions_revoked


class ApiKeyService:
    """Makes, lists and revokes keys of who is signed in."""

    def __init__(self, users: Users, keys: ApiKeys, dead: DeadSessions, clock: Clock) -> None:
        self._users = users
        self._keys = keys
        self._dead = dead
        self._clock = clock

    async def create(self, user_id: str, wanted: WantedKey) -> tuple[StoredKey, ApiKey]:
        """A new key, and what its owner must keep. Raises TooManyApiKeysError, ScopeNotAllowedError."""
        owner = await self._owner(user_id)
        if len(await self._keys.of(user_id)) >= MAX_KEYS:
            raise TooManyApiKeysError(MAX_KEYS)
        key = ApiKey.new()
        stored = new_key(owner, key, wanted, self._clock())
        await self._keys.insert(stored, events_about(user_id, [stored.created(owner)]))
        await self._keys.announce(stored.id)
        return stored, key

    async def of(self, user_id: str) -> list[StoredKey]:
        """All of a user's, the newest first: never more than MAX_KEYS or so."""
        return await self._keys.of(user_id)

    async def revoke(self, user_id: str, key_id: str) -> None:
        """When this returns the key is void in every service that can be reached. Raises ApiKeyNotFoundError."""
        owner = await self._owner(user_id)
        key = next((key for key in await self._keys.of(user_id) if key.id == key_id), None)
        if key is None:
            raise ApiKeyNotFoundError
        await self._revoke(owner, key)

    async def revoke_all(self, owner: User) -> None:
        """As `revoke`, for each."""
        for key in await self._keys.of(owner.id):
            await self._revoke(owner, key)

    async def _revoke(self, owner: User, key: StoredKey) -> None:
        known_as = key_session_id(key.id, owner.session_epoch)
        said: list[EventData] = [UserApiKeyRevoked(user_id=owner.id, key_id=key.id, name=key.name)]
        said += sessions_revoked(owner.id, [known_as], "key_revoked")
        await self._keys.revoke(key, self._clock(), events_about(owner.id, said))
        await self._dead.store([known_as])
        await self._keys.announce(key.id)

    async def _owner(self, user_id: str) -> User:
        user = await self._users.get(user_id)
        if user is None or not user.is_active:
            raise UnauthenticatedError
        return user
