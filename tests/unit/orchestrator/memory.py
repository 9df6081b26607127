"""The orchestrator's ports in memory, a clock that tests move, and wishes to play with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from libs.common.contracts.clusters import DEFAULT_CLUSTER
from libs.common.contracts.environments import DesiredState, Resources
from libs.common.contracts.events import (
    EnvironmentCreated,
    EnvironmentDeleteRequested,
    EnvironmentStartRequested,
    EnvironmentStopRequested,
    EnvironmentUpdated,
    EnvironmentWish,
    RuntimeReport,
    WorkspaceTemplate,
)
from libs.common.contracts.telemetry import UsageSample
from libs.runtime.port import WorkspaceRuntime
from services.orchestrator.domain.model import Change, Environment, Report, Said, WishCause
from services.orchestrator.service.fleet import FleetRuntime

EPOCH = datetime.fromtimestamp(0, UTC)
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class FakeClock:
    """Stands still until `forward`."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Record:
    environment: Environment
    due_at: datetime | None
    holder: str | None = None
    until: datetime = EPOCH
    sampled_at: datetime = EPOCH


@dataclass
class MemoryStore:
    """`EnvironmentStore`; `reports` holds what went out, with the environment it was about."""

    records: dict[str, Record] = field(default_factory=dict)
    reports: list[tuple[Environment, Report]] = field(default_factory=list)

    async def accept(self, wish: EnvironmentWish, cause: WishCause | None, now: datetime) -> bool:
        record = self.records.get(wish.environment_id)
        if record is None:
            self.records[wish.environment_id] = Record(_first(wish, cause or WishCause()), now)
            return True
        there = record.environment
        if _rank(wish.desired, wish.version) <= _rank(there.desired, there.version):
            return False
        record.environment = replace(
            there,
            user_id=wish.user_id,
            name=wish.name,
            region=wish.region,
            desired=wish.desired,
            generation=wish.generation,
            version=wish.version,
            spec=wish.spec,
            cause=cause or there.cause,
        )
        record.due_at = now
        return True

    async def acquire(
        self, environment_id: str, holder: str, now: datetime, until: datetime, *, only_if_due: bool
    ) -> Environment | None:
        record = self.records.get(environment_id)
        if record is None or record.until > now:
            return None
        if only_if_due and (record.due_at is None or record.due_at > now):
            return None
        record.holder, record.until = holder, until
        return record.environment

    async def renew(self, environment_id: str, holder: str, until: datetime) -> tuple[DesiredState, int] | None:
        record = self._held(environment_id, holder)
        if record is None:
            return None
        record.until = until
        return record.environment.desired, record.environment.generation

    async def reload(self, environment_id: str, holder: str) -> Environment | None:
        record = self._held(environment_id, holder)
        return None if record is None else record.environment

    async def save(self, holder: str, change: Change, now: datetime, runtime: str) -> Environment | None:
        after = change.environment
        record = self._held(after.id, holder)
        if record is None:
            return None
        there = record.environment
        if (there.desired, there.generation) != (after.desired, after.generation):
            return None
        spec = there.spec.model_copy(update={"variables_sealed": None}) if after.is_buried else there.spec
        record.environment = replace(
            there,
            reported=after.reported,
            progress=after.progress,
            losses=after.losses,
            spec=spec,
            cluster=after.cluster,
            delayed_by=after.delayed_by,
        )
        record.due_at = change.look_again_at
        if change.report is not None:
            self.reports.append((after, change.report))
        if change.report is not None and after.said is Said.RUNNING:
            record.sampled_at = EPOCH
        if change.done:
            record.holder, record.until = None, EPOCH
        return record.environment

    async def release(self, environment_id: str, holder: str) -> None:
        record = self._held(environment_id, holder)
        if record is not None:
            record.holder, record.until = None, EPOCH

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        waiting = [
            (record.due_at, key)
            for key, record in self.records.items()
            if record.due_at is not None and record.due_at <= now and record.until <= now
        ]
        return [key for _, key in sorted(waiting)[:limit]]

    async def living(self, cluster_id: str | None = None) -> Sequence[str]:
        return [
            key
            for key, record in self.records.items()
            if record.due_at is not None and cluster_id in {None, record.environment.cluster}
        ]

    async def count(self, cluster_id: str) -> int:
        environments = [record.environment for record in self.records.values()]
        return sum(found.cluster == cluster_id and found.reported.said is not Said.DELETED for found in environments)

    async def wake(self, cluster_id: str | None, now: datetime) -> int:
        records = [each for each in self.records.values() if each.due_at and each.environment.cluster == cluster_id]
        for record in records:
            record.due_at = now
            progress = record.environment.progress
            if progress is not None and progress.retry_at is not None and progress.retry_at > now:
                record.environment = replace(record.environment, progress=replace(progress, retry_at=now))
        return len(records)

    async def buried(self, environment_ids: Sequence[str]) -> dict[str, bool]:
        return {key: self.records[key].environment.is_buried for key in environment_ids if key in self.records}

    async def unsampled(self, before: datetime, limit: int) -> Sequence[Environment]:
        return [
            record.environment
            for record in self.records.values()
            if record.environment.reported.said is Said.RUNNING
            and record.environment.desired is DesiredState.RUNNING
            and record.sampled_at <= before
        ][:limit]

    async def claim_sample(self, environment_id: str, before: datetime, now: datetime) -> bool:
        record = self.records[environment_id]
        if record.sampled_at > before:
            return False
        record.sampled_at = now
        return True

    def reported(self, environment_id: str) -> list[type[RuntimeReport]]:
        """The kinds of reports about one environment, in order."""
        return [report.kind for about, report in self.reports if about.id == environment_id]

    def _held(self, environment_id: str, holder: str) -> Record | None:
        record = self.records.get(environment_id)
        return record if record is not None and record.holder == holder else None


class OneCluster:
    """`Placement` where there is only the cluster `default`."""

    def __init__(self, runtime: WorkspaceRuntime) -> None:
        self._runtime = runtime

    async def locate(self, environment: Environment) -> str | None:
        found = await self._runtime.inspect(environment.ref)
        return None if found is None else DEFAULT_CLUSTER

    async def place(self, environment: Environment) -> str:
        return DEFAULT_CLUSTER

    def runtime_of(self, cluster_id: str | None) -> str:
        return "fake"


def fleet_of(default: WorkspaceRuntime, **others: WorkspaceRuntime) -> FleetRuntime:
    """The workspaces of these clusters, by their names."""
    fleet = FleetRuntime(in_flight=16)
    for name, runtime in {DEFAULT_CLUSTER: default, **others}.items():
        fleet.put(name, name, lambda runtime=runtime: runtime)  # type: ignore[misc]
    return fleet


@dataclass
class MemorySink:
    """`UsageSink` that keeps them."""

    samples: list[UsageSample] = field(default_factory=list)

    async def publish(self, sample: UsageSample) -> None:
        self.samples.append(sample)


@dataclass
class MemoryHistory:
    """`History` of a stream that saw these deletions."""

    deleted: set[str] = field(default_factory=set)

    async def was_deleted(self, environment_id: str) -> bool:
        return environment_id in self.deleted


async def eventually(condition: Callable[[], bool], *, patience_s: float = 60.0) -> None:
    """Until it holds; raises TimeoutError. For states that nothing announces to a test."""
    async with asyncio.timeout(patience_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def template(**changes: object) -> WorkspaceTemplate:
    """What to run."""
    resources = Resources(cpu="500m", memory="1Gi", storage="5Gi")
    values: dict[str, object] = {"template": "python", "image": "python", "resources": resources, **changes}
    return WorkspaceTemplate.model_validate(values)


_STATE_OF: dict[type[EnvironmentWish], DesiredState] = {
    EnvironmentCreated: DesiredState.RUNNING,
    EnvironmentStartRequested: DesiredState.RUNNING,
    EnvironmentStopRequested: DesiredState.STOPPED,
    EnvironmentDeleteRequested: DesiredState.DELETED,
}


def wish(
    kind: type[EnvironmentWish] = EnvironmentCreated,
    *,
    environment_id: str = "env1",
    generation: int = 1,
    version: int | None = None,
    desired: DesiredState | None = None,
    name: str = "box",
    spec: WorkspaceTemplate | None = None,
) -> EnvironmentWish:
    """A wish; its version is the generation and its state follows from the kind when not given."""
    return kind(
        environment_id=environment_id,
        user_id="user1",
        name=name,
        desired=desired or _STATE_OF.get(kind, DesiredState.RUNNING),
        generation=generation,
        version=generation if version is None else version,
        spec=spec or template(),
    )


def an_update(version: int, *, generation: int = 1, name: str = "renamed") -> EnvironmentWish:
    """A changed name: a new version of the same generation."""
    return wish(EnvironmentUpdated, generation=generation, version=version, name=name)


def _rank(desired: DesiredState, version: int) -> tuple[bool, int]:
    return desired is DesiredState.DELETED, version


def _first(first: EnvironmentWish, cause: WishCause) -> Environment:
    return Environment(
        id=first.environment_id,
        user_id=first.user_id,
        name=first.name,
        region=first.region,
        desired=first.desired,
        generation=first.generation,
        version=first.version,
        spec=first.spec,
        cause=cause,
    )
