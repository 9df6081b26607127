"""A runtime that answers at once, and the orchestrator with it.

What it has is in memory. A journal, a short line for each change, makes replicas see the same and lets it outlive them,
as workspaces of a real cluster do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import FastAPI

from libs.common.clock import utc_now
from libs.runtime.port import (
    ObservedWorkspace,
    WorkspaceNotRunningError,
    WorkspacePhase,
    WorkspaceRef,
    WorkspaceSpec,
    WorkspaceStats,
)
from services.orchestrator import main

JOURNAL = "BENCH_SCALE_JOURNAL"
# Made beside the journal once every workspace has been looked at since this process began.
SEEN_ALL = "seen-all"
_MIB = 1024 * 1024


def create_app() -> FastAPI:
    """The orchestrator; settings come from the environment, the runtime's journal from BENCH_SCALE_JOURNAL."""
    return main.create_app(runtime=NoopRuntime(Path(os.environ[JOURNAL])))


class NoopRuntime:
    """Implements WorkspaceRuntime. Nothing ever ends by itself in it."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._file = -1
        self._read_bytes = 0
        # By environment: whose it is, the generation that runs, 0 when stopped.
        self._workspaces: dict[str, tuple[str, str, int]] = {}
        self._seen: set[str] | None = set()

    async def open(self) -> None:
        """Read what others have done."""
        if self._file < 0:
            self._file = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._catch_up()

    async def close(self) -> None:
        """Workspaces stay: they are in the journal."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def check(self) -> str:
        """It always works."""
        return "none"

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """It runs."""
        ref = spec.ref
        self._note(f"{ref.environment_id} {ref.user_id} {ref.cluster} {spec.generation}")
        return _observed(ref.environment_id, (ref.user_id, ref.cluster, spec.generation))

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        """It does not run."""
        self._note(f"{ref.environment_id} {ref.user_id} {ref.cluster} 0")

    async def delete(self, ref: WorkspaceRef) -> None:
        """It is gone."""
        self._note(ref.environment_id)

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """See the port."""
        self._catch_up()
        found = self._workspaces.get(ref.environment_id)
        if self._seen is not None and found is not None:
            self._seen.add(ref.environment_id)
            if len(self._seen) >= len(self._workspaces):
                self._seen = None
                self._journal.with_name(SEEN_ALL).touch()
        return None if found is None or found[1] != ref.cluster else _observed(ref.environment_id, found)

    async def watch(self) -> AsyncIterator[ObservedWorkspace]:
        """Nothing happens by itself."""
        await asyncio.Event().wait()
        for observed in await self.list():
            yield observed

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        """Always the same."""
        observed = await self.inspect(ref)
        if observed is None or observed.phase is not WorkspacePhase.RUNNING:
            raise WorkspaceNotRunningError("It does not run.")
        return WorkspaceStats(cpu_millis=1.0, memory_bytes=_MIB, storage_bytes=_MIB, sampled_at=utc_now())

    def _note(self, line: str) -> None:
        # One write of a short line to a file opened for appending is whole, whoever else writes.
        os.write(self._file, f"{line}\n".encode())
        self._catch_up()

    def _catch_up(self) -> None:
        if os.fstat(self._file).st_size == self._read_bytes:
            return
        while chunk := os.pread(self._file, _MIB, self._read_bytes):
            whole = chunk[: chunk.rfind(b"\n") + 1]
            if not whole:
                return
            self._read_bytes += len(whole)
            for line in whole.decode().splitlines():
                self._take(*line.split())

    def _take(self, environment_id: str, *known: str) -> None:
        if not known:
            self._workspaces.pop(environment_id, None)
        else:
            user_id, cluster, generation = known
            self._workspaces[environment_id] = (user_id, cluster, int(generation))

    async def list(self) -> Sequence[ObservedWorkspace]:
        """See the port."""
        self._catch_up()
        return [_observed(environment_id, known) for environment_id, known in self._workspaces.items()]


def _observed(environment_id: str, known: tuple[str, str, int]) -> ObservedWorkspace:
    user_id, cluster, generation = known
    phase = WorkspacePhase.RUNNING if generation else WorkspacePhase.STOPPED
    return ObservedWorkspace(WorkspaceRef(environment_id, user_id, cluster), generation, phase)
