"""A runtime in memory, and variants named after the failure they play."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from libs.common.clock import utc_now
from libs.runtime.port import (
    ObservedWorkspace,
    RuntimeUnavailableError,
    WorkspaceNotRunningError,
    WorkspacePhase,
    WorkspaceRef,
    WorkspaceRejectedError,
    WorkspaceSpec,
    WorkspaceStats,
)


class FakeRuntime:
    """Starts workspaces at once. Shared by several services, it plays one cluster.

    `overlaps` counts changing calls on one workspace that ran at the same time: two replicas got in each other's way.
    """

    def __init__(self) -> None:
        self.workspaces: dict[str, ObservedWorkspace] = {}
        self.specs: dict[str, WorkspaceSpec] = {}
        self.volumes: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.overlaps = 0
        self.is_open = False
        self._busy: set[str] = set()
        self._watchers: list[asyncio.Queue[ObservedWorkspace]] = []

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def check(self) -> str:
        return "fake"

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        self.calls["ensure"] += 1
        with self._alone(spec.ref):
            await self.before_ensure(spec)
            present = self.workspaces.get(spec.ref.environment_id)
            if present is None or not _runs(present) or present.generation < spec.generation:
                present = self._come_up(spec)
            return present

    async def before_ensure(self, spec: WorkspaceSpec) -> None:
        """Where variants fail or wait."""
        await asyncio.sleep(0)

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        self.calls["stop"] += 1
        with self._alone(ref):
            await asyncio.sleep(0)
            self.end(ref.environment_id, WorkspacePhase.STOPPED, reason="Stopped")

    async def delete(self, ref: WorkspaceRef) -> None:
        self.calls["delete"] += 1
        with self._alone(ref):
            await asyncio.sleep(0)
            self.workspaces.pop(ref.environment_id, None)
            self.volumes.discard(ref.environment_id)

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        self.calls["inspect"] += 1
        await asyncio.sleep(0)
        return self.workspaces.get(ref.environment_id)

    async def list(self) -> Sequence[ObservedWorkspace]:
        return list(self.workspaces.values())

    async def watch(self) -> AsyncIterator[ObservedWorkspace]:
        queue: asyncio.Queue[ObservedWorkspace] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        if not self.runs(ref.environment_id):
            raise WorkspaceNotRunningError("It does not run.")
        return WorkspaceStats(cpu_millis=12.5, memory_bytes=1 << 20, storage_bytes=1 << 16, sampled_at=utc_now())

    def runs(self, environment_id: str) -> bool:
        """Whether it runs now."""
        present = self.workspaces.get(environment_id)
        return present is not None and _runs(present)

    def put(self, observed: ObservedWorkspace) -> None:
        """Have a workspace that nobody here has made."""
        self.workspaces[observed.ref.environment_id] = observed
        self.volumes.add(observed.ref.environment_id)

    def end(self, environment_id: str, phase: WorkspacePhase, *, reason: str, message: str | None = None) -> None:
        """Its processes are gone, its volume stays, watchers hear of it."""
        present = self.workspaces.get(environment_id)
        if present is None:
            return
        ended = replace(present, phase=phase, reason=reason, message=message)
        self.workspaces[environment_id] = ended
        for watcher in self._watchers:
            watcher.put_nowait(ended)

    def crash(self, environment_id: str) -> None:
        """The workspace ends by itself."""
        self.end(
            environment_id, WorkspacePhase.FAILED, reason="OutOfMemory", message="It used more memory than it may."
        )

    def vanish(self, environment_id: str) -> None:
        """As if somebody had removed it behind our back; not even a watch tells."""
        del self.workspaces[environment_id]

    def _come_up(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        present = ObservedWorkspace(spec.ref, spec.generation, WorkspacePhase.RUNNING, started_at=utc_now())
        self.specs[spec.ref.environment_id] = spec
        self.put(present)
        return present

    @contextmanager
    def _alone(self, ref: WorkspaceRef) -> Iterator[None]:
        if ref.environment_id in self._busy:
            self.overlaps += 1
        self._busy.add(ref.environment_id)
        try:
            yield
        finally:
            self._busy.discard(ref.environment_id)


class SlowRuntime(FakeRuntime):
    """Starts a workspace once `let_go` is set; `entered` says that somebody waits, `cancelled` how many gave up."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.cancelled = 0

    async def before_ensure(self, spec: WorkspaceSpec) -> None:
        self.entered.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class RefusingRuntime(FakeRuntime):
    """Says no to every spec."""

    async def before_ensure(self, spec: WorkspaceSpec) -> None:
        raise WorkspaceRejectedError("There is no image of that name.", reason="ImageUnknown")


class AbsentRuntime(FakeRuntime):
    """Cannot be reached while `absences` is above zero; each call takes one off. None: never."""

    def __init__(self, absences: int | None) -> None:
        super().__init__()
        self.absences = absences

    async def open(self) -> None:
        self._try()
        await super().open()

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        self._try()
        return await super().inspect(ref)

    async def list(self) -> Sequence[ObservedWorkspace]:
        self._try()
        return await super().list()

    def _try(self) -> None:
        if self.absences is None:
            raise RuntimeUnavailableError("The cluster does not answer.")
        if self.absences > 0:
            self.absences -= 1
            raise RuntimeUnavailableError("The cluster does not answer.")


class OverloadedRuntime(FakeRuntime):
    """Answers questions, but the next `failures` starts, stops and deletions fail."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def before_ensure(self, spec: WorkspaceSpec) -> None:
        self._try()

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        self._try()
        await super().stop(ref, grace_seconds=grace_seconds)

    async def delete(self, ref: WorkspaceRef) -> None:
        self._try()
        await super().delete(ref)

    def _try(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise RuntimeUnavailableError("The cluster is full.", reason="NoRoom")


class CrashingRuntime(FakeRuntime):
    """Each workspace ends a moment after it came up, and the watch tells."""

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        observed = await super().ensure(spec)
        asyncio.get_running_loop().call_later(0.01, self.crash, spec.ref.environment_id)
        return observed


class BrokenRuntime(FakeRuntime):
    """Has a bug: the next `failures` starts raise something nobody expects."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def before_ensure(self, spec: WorkspaceSpec) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise KeyError("a bug")


def _runs(observed: ObservedWorkspace) -> bool:
    return observed.phase is WorkspacePhase.RUNNING
