"""What a user may do here: from auth's events where they have arrived, else from the token."""

from __future__ import annotations

from libs.common.contracts.users import UserState
from libs.common.security.principal import Principal
from services.envs.plans import Account
from services.envs.ports import AccountStore


class AccountService:
    """Keeps and answers from the read model of users."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store

    async def keep(self, state: UserState) -> None:
        """Take over what auth says, unless something newer is known."""
        await self._store.keep(
            Account(
                user_id=state.user_id,
                plan=state.plan,
                is_active=state.is_active,
                is_verified=state.is_verified,
                version=state.version,
            )
        )

    async def of(self, principal: Principal) -> Account:
        """The caller's account; the token's word counts until auth's first event about this user is here."""
        known = await self._store.get(principal.user_id)
        return known or Account(principal.user_id, principal.plan, is_active=True, is_verified=principal.is_verified)
