"""Make one environment so: look at what is wanted and what there is, do one step, and again until nothing is left.

Level-triggered and idempotent: it does not matter who asks for it, how often, or what happened to the one before.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from libs.common.clock import Clock
from libs.common.contracts.environments import DesiredState
from libs.common.security.sealing import SealBrokenError
from libs.common.telemetry import about_environment, continued_trace, log_scope
from libs.runtime.port import (
    DriverError,
    ObservedWorkspace,
    RuntimeUnavailableError,
    WorkspaceLimits,
    WorkspacePhase,
    WorkspaceRejectedError,
    WorkspaceSpec,
)
from services.orchestrator.domain import steps
from services.orchestrator.domain.decision import Action, decide
from services.orchestrator.domain.model import Change, Environment, Limits, Said, Trouble
from services.orchestrator.ports import EnvironmentStore, Fleet, Placement
from services.orchestrator.service.lease import Lease, LeaseLostError, SupersededError

OpenSealed = Callable[[str], str]
# Asking is quick where the runtime is well; waiting longer would only hold up other environments.
_INSPECT_TIMEOUT_S = 15.0
_UNEXPECTED = Trouble("InternalError", "Something unexpected went wrong on our side; it is in the orchestrator's log.")

log = structlog.get_logger(__name__)


def _some_jitter() -> float:
    return random.uniform(1.0, 1.2)  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class Work:
    """How this replica works. `jitter` stretches pauses, so that retries spread."""

    limits: Limits
    lease_s: float
    stop_grace_s: float
    serving_since: datetime
    jitter: Callable[[], float] = _some_jitter


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Whether this replica has worked on the environment, and why steps of that failed."""

    worked: bool
    setbacks: tuple[str, ...] = ()


class Reconciler:
    """Does what `decide` says, under a lease. `on_running` hears of each workspace that has just become ready."""

    def __init__(
        self,
        store: EnvironmentStore,
        fleet: Fleet,
        placement: Placement,
        open_sealed: OpenSealed,
        *,
        clock: Clock,
        work: Work,
        on_running: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._placement = placement
        self._open_sealed = open_sealed
        self._clock = clock
        self._work = work
        self._on_running = on_running

    async def reconcile(
        self, environment_id: str, *, only_if_due: bool = False, nudge: asyncio.Event | None = None
    ) -> Reconciled:
        """Returns once nothing is left to do now, or somebody else does it. Raises what the database raises."""
        lease = Lease(self._store, self._clock, self._work.lease_s, nudge=nudge or asyncio.Event())
        environment = await lease.acquire(environment_id, only_if_due=only_if_due)
        if environment is None:
            return Reconciled(worked=False)
        setbacks: list[str] = []
        try:
            quiet = environment.is_settled
            while environment is not None:
                with (
                    log_scope(correlation_id=environment.cause.correlation_id),
                    # A look at what is as wanted comes again and again, as long as the environment lives.
                    continued_trace("reconcile", environment.cause.trace, quiet=quiet),
                ):
                    about_environment(environment_id)
                    try:
                        environment = await self._round(environment, lease, setbacks)
                    except LeaseLostError as error:
                        log.warning("work ended", reason=str(error))
                        break
                quiet = False
        except BaseException:
            await self._store.release(environment_id, lease.holder)
            raise
        return Reconciled(True, tuple(setbacks))

    async def _round(self, environment: Environment, lease: Lease, setbacks: list[str]) -> Environment | None:
        """One look and one step; None when nothing is left to do now. `setbacks` gets the reason of one that fails."""
        try:
            async with lease.kept(environment):
                change = await self._step(environment, setbacks)
        except SupersededError:
            log.info("wish has changed, work on the old one ended", generation=environment.generation)
            return await self._reload(environment.id, lease)
        runtime = self._placement.runtime_of(change.environment.cluster)
        saved = await self._store.save(lease.holder, self._spread(change), self._clock(), runtime)
        if saved is None:
            return await self._reload(environment.id, lease)
        _log_report(change)
        if change.environment.said is Said.RUNNING and change.report is not None:
            self._on_running()
        return None if change.done else saved

    async def _reload(self, environment_id: str, lease: Lease) -> Environment:
        environment = await self._store.reload(environment_id, lease.holder)
        if environment is None:
            raise LeaseLostError("another replica has taken the lease")
        return environment

    async def _step(self, environment: Environment, setbacks: list[str]) -> Change:
        began = self._clock()
        try:
            async with asyncio.timeout(steps.attempt_s(environment, began, self._work.limits)):
                return await self._act(environment)
        except WorkspaceRejectedError as error:
            trouble = Trouble(error.reason, str(error), final=True)
        except DriverError as error:
            trouble = Trouble(error.reason, str(error))
        except TimeoutError:
            trouble = Trouble("RuntimeTimeout", "The cluster did not answer in time.")
        except Exception:
            log.exception("unexpected error while reconciling, will be retried")
            trouble = _UNEXPECTED
        setbacks.append(trouble.reason)
        log.warning("step failed", reason=trouble.reason, message=trouble.message, final=trouble.final)
        return steps.setback(environment, trouble, began=began, now=self._clock(), limits=self._work.limits)

    async def _act(self, environment: Environment) -> Change:
        limits, since = self._work.limits, self._work.serving_since
        async with asyncio.timeout(_INSPECT_TIMEOUT_S):
            environment, actual = await self._look(environment)
        now = self._clock()
        action = decide(environment, actual, now=now, limits=limits, serving_since=since)
        match action:
            case Action.REST:
                change = steps.rest(environment, now, limits)
            case Action.WAIT:
                change = steps.wait(environment, now)
            case Action.ANNOUNCE:
                change = steps.announce(environment, now, limits)
            case Action.CONFIRM:
                change = steps.confirm(environment, now, limits)
            case Action.LOSE:
                change = steps.lose(environment, actual, now, limits, since)
            case Action.GIVE_UP:
                change = steps.crash_looped(environment, now, limits)
            case _:
                change = await self._effort(action, environment)
        return change

    async def _look(self, environment: Environment) -> tuple[Environment, ObservedWorkspace | None]:
        """What there is; and where it is or will be, which is stored with the next step, before anything is made."""
        if environment.cluster is None:
            environment = replace(environment, cluster=await self._placement.locate(environment))
        if environment.cluster is not None:
            return environment, await self._fleet.inspect(environment.ref)
        if environment.desired is DesiredState.RUNNING:
            environment = replace(environment, cluster=await self._placement.place(environment))
        return environment, None

    async def _effort(self, action: Action, environment: Environment) -> Change:
        """What takes time: the calls that change the runtime."""
        limits = self._work.limits
        match action:
            case Action.ENSURE:
                await self._ensure(environment)
                return steps.confirm(environment, self._clock(), limits)
            case Action.STOP | Action.HALT:
                if environment.cluster is not None:
                    await self._fleet.stop(environment.ref, grace_seconds=self._work.stop_grace_s)
                done = steps.stopped if action is Action.STOP else steps.repaired
                return done(environment, self._clock(), limits)
            case _:
                if environment.cluster is not None:
                    await self._fleet.delete(environment.ref)
                done = steps.deleted if action is Action.DELETE else steps.repaired
                return done(environment, self._clock(), limits)

    async def _ensure(self, environment: Environment) -> None:
        observed = await self._fleet.ensure(self._spec(environment))
        if observed.phase is not WorkspacePhase.RUNNING:
            message = observed.message or "The workspace ended as soon as it was started."
            raise RuntimeUnavailableError(message, reason=observed.reason or "WorkspaceEnded")

    def _spec(self, environment: Environment) -> WorkspaceSpec:
        template = environment.spec
        return WorkspaceSpec(
            ref=environment.ref,
            generation=environment.generation,
            name=environment.name,
            image=template.image,
            limits=WorkspaceLimits(
                cpu_millis=template.resources.cpu_millis,
                memory_bytes=template.resources.memory_bytes,
                storage_bytes=template.resources.storage_bytes,
            ),
            variables=self._variables(template.variables_sealed),
            startup_command=template.startup_command,
            image_pull_policy=template.image_pull_policy,
        )

    def _variables(self, sealed: str | None) -> dict[str, str]:
        if sealed is None:
            return {}
        try:
            variables = json.loads(self._open_sealed(sealed))
            return {str(name): str(value) for name, value in variables.items()}
        except (SealBrokenError, ValueError, AttributeError) as error:
            raise WorkspaceRejectedError(
                "The environment variables cannot be read: they were stored under another SECRET_KEY. Set them again.",
                reason="VariablesUnreadable",
            ) from error

    def _spread(self, change: Change) -> Change:
        if change.look_again_at is None:
            return change
        now = self._clock()
        pause = max((change.look_again_at - now) * self._work.jitter(), now - now)
        return replace(change, look_again_at=now + pause)


def _log_report(change: Change) -> None:
    if change.report is not None:
        log.info(
            "reported",
            event_kind=change.report.kind.TYPE,
            generation=change.environment.generation,
            reason=change.report.reason,
        )
