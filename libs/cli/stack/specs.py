"""A process of the stack as data: what to run, where it listens, how to tell that it works."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ReadyProbe = Callable[[], Awaitable[str | None]]
Preparation = Callable[[], Awaitable[None]]
Renewal = Callable[[int], Awaitable[None]]


async def no_preparation() -> None:
    """Nothing to do before the first start."""


class RenewalError(Exception):
    """A process goes on as it was; the text says why."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What the supervisor needs to know of one process.

    `ready` answers None once the process does its work, else a phrase that says why not. `prepare` runs once before
    the first start and sees to its own timeout. `wake_to_stop`: the process notices SIGTERM only when its next
    connection arrives, so make some. `drain_signal` makes it take no new connections and end with the last one.
    `ready_at`: its successors take over its address while it still runs (`libs.common.http.supervised`); how to ask the
    one that listens on a port of its own. `renew` makes the one with
    that pid work anew without ending; it raises RenewalError.
    `environment` is everything the process sees; it may hold secrets and is left out of `repr`.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    port: int
    ready: ReadyProbe = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    prepare: Preparation = field(default=no_preparation, repr=False)
    wake_to_stop: bool = False
    drain_signal: signal.Signals | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    ready_at: Callable[[int], ReadyProbe] | None = field(default=None, repr=False)
    renew: Renewal | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service of DevPocket: `app` is the factory that uvicorn calls. `name` is also its upstream in the gateway."""

    name: str
    app: str


SERVICES = (
    ServiceSpec("auth", "services.auth.main:create_app"),
    ServiceSpec("envs", "services.envs.main:create_app"),
    ServiceSpec("orchestrator", "services.orchestrator.main:create_app"),
    ServiceSpec("terminal", "services.terminal.main:create_app"),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Processes that start together, once the stage before them works."""

    title: str
    specs: tuple[ProcessSpec, ...]
