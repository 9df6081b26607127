"""Shells for sessions: started anew, or found again."""

from __future__ import annotations

import structlog

from libs.common.errors import UnavailableError
from libs.runtime.holder.held import HoldTerms, find_shell, start_shell
from libs.runtime.holder.shells import HolderMissingError, OwnShell, Shell, ShellGoneError
from libs.runtime.port import (
    ExecRuntime,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceNotFoundError,
    WorkspaceNotRunningError,
)
from services.terminal.domain import Environment, EnvironmentNotRunningError, SessionNotFoundError

# What a user is told; the driver's own words are an operator's.
_MACHINE_AWAY = "The machine your environment runs on cannot be reached right now, please try again in a moment"
_AWAY = {
    "ClusterUnreachable": "The cluster your environment runs on does not answer right now, please try again later",
    "ClusterRemoved": "The cluster your environment runs on was taken out of service, please ask your operator",
}

log = structlog.get_logger(__name__)


class ShellStarter:
    """Has shells held inside their workspaces as `terms` say; with None, or where nothing can hold them, by us."""

    def __init__(self, runtime: ExecRuntime, terms: HoldTerms | None) -> None:
        self._runtime = runtime
        self._terms = terms

    async def start(self, environment: Environment, session_id: str, size: TerminalSize) -> Shell:
        """Raises EnvironmentNotRunningError, UnavailableError."""
        try:
            if self._terms is not None:
                try:
                    return await start_shell(self._runtime, environment.ref, session_id, size, self._terms)
                except HolderMissingError as error:
                    log.warning("a shell will not outlive us", environment_id=environment.id, error=str(error))
            return OwnShell(await self._runtime.exec(environment.ref, tty=True, size=size), size)
        except (WorkspaceNotFoundError, WorkspaceNotRunningError) as error:
            # The environment is said to run, so it is being repaired or has just been stopped.
            log.warning("no shell", environment_id=environment.id, reason=error.reason, error=str(error))
            raise EnvironmentNotRunningError from error
        except RuntimeUnavailableError as error:
            log.warning("no shell", environment_id=environment.id, reason=error.reason, error=str(error))
            raise _unavailable(error) from error

    async def find(self, environment: Environment, session_id: str) -> Shell:
        """Raises SessionNotFoundError when it has ended, UnavailableError."""
        try:
            return await find_shell(self._runtime, environment.ref, session_id)
        except (WorkspaceNotFoundError, WorkspaceNotRunningError, ShellGoneError) as error:
            raise SessionNotFoundError from error
        except RuntimeUnavailableError as error:
            log.warning("shell not found", environment_id=environment.id, reason=error.reason, error=str(error))
            raise _unavailable(error) from error


def _unavailable(error: RuntimeUnavailableError) -> UnavailableError:
    return UnavailableError(_AWAY.get(error.reason, _MACHINE_AWAY))
