"""What happens to environments when something happens to their owner's account."""

from __future__ import annotations

from libs.common.clock import Clock, utc_now
from libs.common.context import current_cause
from libs.common.contracts.events import Event
from libs.common.contracts.users import OwnerEmptied, UserDeleted, UserState
from libs.common.errors import TemporaryError
from services.envs.entities import Environment
from services.envs.errors import EditConflictError
from services.envs.plans import Account
from services.envs.ports import DepartureStore, EnvironmentStore
from services.envs.service.accounts import AccountService
from services.envs.service.upholding import uphold
from services.envs.service.writes import SOURCE


class OwnerService:
    """Upholds the rules of services/envs/allowance.py, and tells when nothing is left of a deleted user.

    It looks at what is there, not at what an event says, so it is right in any order and any number of times.
    All methods raise TemporaryError when other writers were always faster.
    """

    def __init__(
        self, store: EnvironmentStore, accounts: AccountService, departures: DepartureStore, clock: Clock = utc_now
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._departures = departures
        self._clock = clock

    async def account_told(self, state: UserState) -> None:
        """Auth has told of a user, and the read model has it."""
        places = await self._store.places(state.user_id)
        if not places and not isinstance(state, UserDeleted):
            return
        account = await self._accounts.known(state.user_id)
        if account is None:
            return
        if account.is_deleted:
            await self._departures.begin(account.user_id, len(places))
        await self._settle(account)

    async def workspace_runs(self, environment: Environment) -> None:
        """What an unfinished start or create may have left running is found here."""
        account = await self._accounts.known(environment.user_id)
        if account is not None:
            await self._settle(account)

    async def workspace_gone(self, environment: Environment) -> None:
        """It may have been the last one of a deleted user."""
        account = await self._accounts.known(environment.user_id)
        if account is not None and account.is_deleted:
            await self._settle(account)

    async def _settle(self, account: Account) -> None:
        try:
            await uphold(self._store, account, self._clock)
        except EditConflictError as error:
            raise TemporaryError("other writers were always faster", delay_s=0.5) from error
        if account.is_deleted:
            await self._tell_if_empty(account.user_id)

    async def _tell_if_empty(self, user_id: str) -> None:
        """The number is read first: who notes it looks for environments afterwards, so one of the two finds none."""
        environments = await self._departures.untold(user_id)
        if environments is None or await self._store.places(user_id):
            return
        emptied = OwnerEmptied(user_id=user_id, environments=environments)
        event = Event.new(emptied, subject=user_id, source=SOURCE, cause=current_cause())
        await self._departures.tell(user_id, environments, event)
