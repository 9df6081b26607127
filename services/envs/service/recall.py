"""Environments from what this service itself has said about them: the other half of a replay.

Reports of the runtime change an environment through `ReportService`, live and in a replay. What users wanted came by
HTTP, which a replay does not have; but every wish was published whole, so it can be taken back from the stream.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from libs.common.contracts.environments import EnvironmentStatus
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentRestartRequested,
    EnvironmentStartRequested,
    EnvironmentStatusChanged,
    EnvironmentStopRequested,
    EnvironmentUpdated,
    EnvironmentWish,
)
from services.envs.domain import STOPPED, STOPPING, TRANSITIONS
from services.envs.entities import Change, Command, Environment
from services.envs.ports import EnvironmentStore, TakenError

_COMMANDS: dict[type[EnvironmentWish], Command] = {
    EnvironmentStartRequested: Command.START,
    EnvironmentStopRequested: Command.STOP,
    EnvironmentRestartRequested: Command.RESTART,
    EnvironmentDeleteRequested: Command.DELETE,
}
_ENTERED = {command: target for (_, command), target in TRANSITIONS.items() if isinstance(command, Command)}


class RecallService:
    """Takes wishes in the order in which they were published, each once."""

    def __init__(self, store: EnvironmentStore) -> None:
        self._store = store

    async def recall(self, wish: EnvironmentWish, at: datetime) -> None:
        """The environment as it was when this had been published, for all that events tell."""
        known = await self._store.get(wish.environment_id)
        if known is None:
            await self._insert(_first_known(wish, at))
        elif not isinstance(wish, EnvironmentCreated):
            await self._store.save(Change(known, _wanted(known, wish, at)), [])

    async def recall_reason(self, told: EnvironmentStatusChanged) -> None:
        """Why it was stopped when its owner did not ask for it: no wish says that, but what is told beside it does.

        Only a wish makes an environment `stopping`, so it is known by that.
        """
        if told.status is not STOPPING or told.previous is STOPPING or told.status_reason is None:
            return
        known = await self._store.get(told.environment_id)
        if known is None or known.generation != told.generation:
            return
        shows_it = known.status in {STOPPING, STOPPED} and known.status_reason is None
        reason = told.status_reason if shows_it else known.status_reason
        after = replace(known, stop_reason=told.status_reason, status_reason=reason)
        await self._store.save(Change(known, after), [])

    async def _insert(self, environment: Environment) -> None:
        """In the first free place: the stream does not tell which one it was, and nothing depends on it."""
        while True:
            taken = {place.slot for place in await self._store.places(environment.user_id)}
            slot = next(number for number in range(len(taken) + 1) if number not in taken)
            try:
                await self._store.insert(replace(environment, slot=slot), [])
            except TakenError:
                if slot in {place.slot for place in await self._store.places(environment.user_id)}:
                    continue
                raise
            return


def _wanted(environment: Environment, wish: EnvironmentWish, at: datetime) -> Environment:
    spec = wish.spec
    after = replace(
        environment,
        name=wish.name,
        resources=spec.resources,
        startup_command=spec.startup_command,
        variables_sealed=spec.variables_sealed,
        version=wish.version,
        updated_at=at,
    )
    if isinstance(wish, EnvironmentUpdated):
        return after
    return replace(
        after,
        desired=wish.desired,
        generation=wish.generation,
        status=_ENTERED[_COMMANDS[type(wish)]],
        status_reason=None,
        stop_reason=None,
        report_sequence=0,
        delay_sequence=0,
        delay_reason=None,
    )


def _first_known(wish: EnvironmentWish, at: datetime) -> Environment:
    """From its creation, or from the oldest wish that the stream still holds."""
    spec = wish.spec
    command = _COMMANDS.get(type(wish))
    return Environment(
        id=wish.environment_id,
        user_id=wish.user_id,
        name=wish.name,
        description=None,
        template=spec.template,
        image=spec.image,
        image_pull_policy=spec.image_pull_policy,
        web_port=spec.web_port,
        resources=spec.resources,
        region=wish.region,
        startup_command=spec.startup_command,
        variables_sealed=spec.variables_sealed,
        status=EnvironmentStatus.CREATING if command is None else _ENTERED[command],
        status_reason=None,
        desired=wish.desired,
        generation=wish.generation,
        version=wish.version,
        report_sequence=0,
        slot=None,
        created_at=at,
        updated_at=at,
    )
