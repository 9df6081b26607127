"""What a user may do here: from auth's events where they have arrived, else from the token."""

from __future__ import annotations

from libs.common.security.principal import Principal
from services.envs.plans import Account
from services.envs.ports import AccountStore


class AccountService:
    """Answers from the read model of users."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store

    async def known(self, user_id: str) -> Account | None:
        """What auth's events said; None when none has arrived yet."""
        return await self._store.get(user_id)

    async def of(self, principal: Principal) -> Account:
        """The caller's account; the token's word counts until auth's first event about this user is here."""
        known = await self._store.get(principal.user_id)
        return known or Account(principal.user_id, principal.plan, is_active=True, is_verified=principal.is_verified)
