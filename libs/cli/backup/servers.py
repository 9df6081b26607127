"""NATS and the database of a local stack that is down, for as long as a backup or a restore takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing

from libs.cli.stack.credentials import Credentials
from libs.cli.stack.logfiles import LogFile
from libs.cli.stack.managed import ManagedProcess
from libs.cli.stack.paths import StackPaths
from libs.cli.stack.plan import infrastructure
from libs.cli.stack.ports import PortPicker
from libs.cli.stack.specs import ProcessSpec

_NEEDED = ("nats", "mongodb")
_START_S = 60.0
_GRACE_S = 5.0


class _Quiet:
    """Implements Reporter: what goes wrong reaches the caller as an exception."""

    def came_up(self, name: str, seconds: float) -> None: ...
    def notice(self, text: str) -> None: ...
    def problem(self, text: str, log_tail: Sequence[str] = ()) -> None: ...
    def log_line(self, name: str, line: str) -> None: ...
    def ready(self, url: str) -> None: ...


@asynccontextmanager
async def servers_alone(
    paths: StackPaths, operator: Mapping[str, str], credentials: Credentials
) -> AsyncIterator[Mapping[str, str]]:
    """MONGODB_URL and NATS_URL of the stack's own servers, or of the operator's. The caller holds the stack's lock.

    Raises MissingProgramError, NoFreePortError, ComponentFailedError, ProvisioningError.
    """
    with closing(PortPicker()) as ports:
        specs, urls = infrastructure(paths, operator, credentials, {}, ports)
        processes = [_managed(paths, spec) for spec in specs if spec.name in _NEEDED]
        try:
            for process in processes:
                await process.start(_START_S)
            yield {**operator, **urls}
        finally:
            await asyncio.gather(*(process.stop(_GRACE_S) for process in processes))


def _managed(paths: StackPaths, spec: ProcessSpec) -> ManagedProcess:
    log = LogFile(paths.logs / f"{spec.name}.log", lambda _line: None)
    return ManagedProcess(spec, log, _Quiet(), lambda _record: None)
