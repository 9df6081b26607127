"""Wishes that no user has made: those that the rules of services/envs/allowance.py ask for."""

from __future__ import annotations

from dataclasses import replace

from libs.common.clock import Clock
from libs.common.context import acting, current_cause
from libs.common.contracts.environments import DesiredState
from services.envs import domain
from services.envs.allowance import Verdict, verdicts
from services.envs.entities import Change, Command, Environment
from services.envs.errors import EnvironmentNotFoundError
from services.envs.plans import Account
from services.envs.ports import EnvironmentStore
from services.envs.service.writes import SOURCE, change_environment


async def uphold(store: EnvironmentStore, account: Account, clock: Clock) -> None:
    """Wish what the rules ask for of the account's environments. Right at any time, also twice.

    Raises EditConflictError.
    """
    for verdict in verdicts(account, await store.occupants(account.user_id)):
        await carry_out(store, verdict, clock)


async def carry_out(store: EnvironmentStore, verdict: Verdict, clock: Clock) -> None:
    """Make one wish in this service's own name, unless it is needless by now. Raises EditConflictError."""

    async def load() -> Environment:
        found = await store.get(verdict.environment_id)
        if found is None:
            raise EnvironmentNotFoundError
        return found

    def decide(current: Environment) -> Change:
        if verdict.command is Command.STOP and current.desired is not DesiredState.RUNNING:
            return Change(current, current)
        return domain.decide(current, verdict.command, clock(), reason=verdict.reason)

    with acting(replace(current_cause(), actor=SOURCE, address=None)):
        try:
            await change_environment(store, load, decide)
        except EnvironmentNotFoundError:
            return
