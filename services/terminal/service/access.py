"""May this caller connect to this environment?"""

from __future__ import annotations

import asyncio

from services.terminal.domain import (
    Caller,
    Environment,
    EnvironmentNotFoundError,
    EnvironmentNotRunningError,
)
from services.terminal.ports import Environments

_LOOK_EVERY_SECONDS = 0.05


class Access:
    """Asks the read model. It lags behind what a client was just told over REST, so a no is looked at again.

    `grace_seconds`: for how long. A foreign environment takes as long as one that does not exist.
    """

    def __init__(self, environments: Environments, *, grace_seconds: float) -> None:
        self._environments = environments
        self._grace_seconds = grace_seconds

    async def to_environment(self, caller: Caller, environment_id: str) -> Environment:
        """The caller's environment, in whatever state. Raises EnvironmentNotFoundError."""
        return await self._look(caller, environment_id, must_run=False)

    async def to_running(self, caller: Caller, environment_id: str) -> Environment:
        """The caller's environment, running. Raises EnvironmentNotFoundError or EnvironmentNotRunningError."""
        return await self._look(caller, environment_id, must_run=True)

    async def _look(self, caller: Caller, environment_id: str, *, must_run: bool) -> Environment:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace_seconds
        while True:
            environment = await self._environments.find(environment_id)
            found = environment is not None and environment.user_id == caller.user_id and not environment.is_deleted
            if found and environment is not None and (environment.is_running or not must_run):
                return environment
            if loop.time() >= deadline:
                raise EnvironmentNotRunningError if found else EnvironmentNotFoundError
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
