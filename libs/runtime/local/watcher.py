"""Tells of changes: at once when a sandbox of ours ends, within a scan for everything else."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from libs.runtime.local.layout import Layout
from libs.runtime.local.lifecycle import observe
from libs.runtime.local.processes import open_pidfd, read_process
from libs.runtime.local.records import load_run
from libs.runtime.port import ObservedWorkspace, WorkspacePhase

_SCAN_SECONDS = 2.0

_Result = TypeVar("_Result")
RunInThread = Callable[[Callable[[], _Result]], Awaitable[_Result]]


class Watcher:
    """One watch. Follows the shims' pidfds: a shim ends when it has recorded how its sandbox ended.

    `has_begun`: it knows how everything is, and changes from now on are told.
    """

    def __init__(self, layout: Layout, run_in_thread: Callable[..., Awaitable[object]]) -> None:
        self.has_begun = False
        self._layout = layout
        self._run = run_in_thread
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, ObservedWorkspace] = {}
        self._handles: dict[str, tuple[int, int]] = {}
        self._ended: set[str] = set()
        self._wake = asyncio.Event()

    async def changes(self) -> AsyncIterator[ObservedWorkspace]:
        """Changes once it has begun. Closing the iterator releases every handle."""
        try:
            for observed in await self._look(None):
                self._note(observed)
            self.has_begun = True
            while True:
                # Not `wait_for`: in Python 3.11 it drops a cancellation that comes together with a poke.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SCAN_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
                hurt, self._ended = self._ended, set()
                seen = await self._look(hurt or None)
                if not hurt:
                    self._known = {key: self._known[key] for key in self._ids(seen) if key in self._known}
                for observed in seen:
                    if self._note(observed):
                        yield observed
        finally:
            for environment_id in list(self._handles):
                self._unfollow(environment_id)

    def poke(self) -> None:
        """Look now: this process changed something."""
        self._wake.set()

    async def _look(self, only: set[str] | None) -> list[ObservedWorkspace]:
        """Observe the named workspaces, or all, and follow those that run."""

        def look() -> list[tuple[ObservedWorkspace, int, int]]:
            found = []
            for environment_id in sorted(only) if only else self._layout.environment_ids():
                observed = observe(self._layout, environment_id)
                if observed is not None:
                    found.append((observed, *self._handle(environment_id, observed)))
            return found

        result: list[tuple[ObservedWorkspace, int, int]] = await self._run(look)  # type: ignore[assignment]
        for observed, shim_start, handle in result:
            if handle >= 0:
                self._follow(observed.ref.environment_id, shim_start, handle)
        return [observed for observed, _, _ in result]

    def _handle(self, environment_id: str, observed: ObservedWorkspace) -> tuple[int, int]:
        run = load_run(self._layout.state(environment_id)) if observed.phase is WorkspacePhase.RUNNING else None
        shim = read_process(run.shim_pid) if run is not None else None
        if shim is None or self._handles.get(environment_id, (0, 0))[0] == shim.start:
            return 0, -1
        handle = open_pidfd(shim.pid, shim.start)
        return (0, -1) if handle is None else (shim.start, handle)

    def _follow(self, environment_id: str, shim_start: int, handle: int) -> None:
        self._unfollow(environment_id)
        self._handles[environment_id] = (shim_start, handle)
        self._loop.add_reader(handle, self._shim_ended, environment_id)

    def _unfollow(self, environment_id: str) -> None:
        _, handle = self._handles.pop(environment_id, (0, -1))
        if handle >= 0:
            self._loop.remove_reader(handle)
            os.close(handle)

    def _shim_ended(self, environment_id: str) -> None:
        self._unfollow(environment_id)
        self._ended.add(environment_id)
        self._wake.set()

    @staticmethod
    def _ids(seen: list[ObservedWorkspace]) -> list[str]:
        return [observed.ref.environment_id for observed in seen]

    def _note(self, observed: ObservedWorkspace) -> bool:
        """Remember; True when this is news."""
        before = self._known.get(observed.ref.environment_id)
        self._known[observed.ref.environment_id] = observed
        return before != observed
