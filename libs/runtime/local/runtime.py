"""The local driver: both halves of the runtime port on one directory of this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from libs.runtime.holder.held import HoldTerms
from libs.runtime.holder.shells import Shell
from libs.runtime.local.cgroups import detect
from libs.runtime.local.connecting import LocalByteStream, connect_to, listening_in
from libs.runtime.local.enter import Entered, enter
from libs.runtime.local.isolation import Isolation, IsolationPolicy, probe_isolation
from libs.runtime.local.keeper.client import Answer, ask, quit_keeper
from libs.runtime.local.keeper.journal import Pipe
from libs.runtime.local.keeper.shell import KeptShell
from libs.runtime.local.layout import Layout, life_lock_held
from libs.runtime.local.lifecycle import Lifecycle, Machine, Wanted, observe
from libs.runtime.local.locating import locate, locate_with_spec
from libs.runtime.local.logs import read_log
from libs.runtime.local.network import plan_network
from libs.runtime.local.processes import is_alive
from libs.runtime.local.records import LOG_FILE, SHIM_LOCK_FILE, load_run
from libs.runtime.local.session import LocalExecStream
from libs.runtime.local.stats import StatsReader
from libs.runtime.local.volumes import empty_trash
from libs.runtime.local.watcher import Watcher
from libs.runtime.port import (
    ByteStream,
    ExecStream,
    ListeningPort,
    LogLine,
    ObservedWorkspace,
    RuntimeUnavailableError,
    TerminalSize,
    WorkspaceNotFoundError,
    WorkspacePhase,
    WorkspaceRef,
    WorkspaceSpec,
    WorkspaceStats,
)

log = logging.getLogger(__name__)

_THREADS = 32
_STOP_THREADS = 256
_Result = TypeVar("_Result")
# The loop itself keeps only weak references to tasks.
_closing: set[asyncio.Future[None]] = set()


@dataclass(slots=True)
class _Opened:
    isolation: Isolation
    lifecycle: Lifecycle
    stats: StatsReader
    pipe: Pipe = field(default_factory=Pipe)


def layout_for(layout: Layout, isolation: Isolation) -> Layout:
    """Where things really are below that folder. Raises RuntimeUnavailableError."""
    return layout.reachable_by_others() if isolation is Isolation.PLAIN and os.geteuid() == 0 else layout


class LocalRuntime:
    """WorkspaceRuntime and ExecRuntime in one; several processes may use the same directory at the same time."""

    def __init__(
        self,
        directory: Path,
        isolation: IsolationPolicy = IsolationPolicy.REQUIRE,
        blocked_cidrs: Sequence[str] = (),
    ) -> None:
        self._layout = Layout(directory)
        self._policy = isolation
        self._blocked = blocked_cidrs
        self._threads: ThreadPoolExecutor | None = None
        self._opened: _Opened | None = None
        self._watchers: set[Watcher] = set()
        self._streams: set[LocalExecStream | LocalByteStream] = set()

    async def open(self) -> None:
        """Find out what this machine can do. Raises RuntimeUnavailableError."""
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="local-runtime")
        self._opened = await self._in_thread(self._open)

    def _open(self) -> _Opened:
        probe = probe_isolation(self._policy)
        groups, network = detect(), plan_network(probe.isolation, self._blocked)
        if probe.isolation is Isolation.PLAIN:
            log.warning(
                "NO SANDBOX: workspaces run as plain processes that can see this machine and each other. %s",
                probe.problem,
            )
            if os.geteuid() == 0:
                self._layout = layout_for(self._layout, probe.isolation)
                log.warning("Workspaces are kept in %s.", self._layout.workspaces)
        self._layout.create()
        for missing in (network.problem, None if groups else "cgroups cannot be written: limits are per process only."):
            if missing:
                log.warning("%s", missing)
        machine = Machine(probe.isolation, groups, network, f"devpocket-{self._layout.digest}")
        self._collect_trash()
        return _Opened(probe.isolation, Lifecycle(self._layout, machine), StatsReader(groups))

    def _collect_trash(self) -> None:
        try:
            empty_trash(self._layout)
        except RuntimeUnavailableError as error:
            log.warning("%s", error)

    async def close(self) -> None:
        """Close this process's streams and threads; workspaces stay as they are."""
        await asyncio.gather(*(stream.close() for stream in list(self._streams)))
        threads, opened = self._threads, self._opened
        self._threads = self._opened = None
        if opened is not None:
            opened.pipe.close()
        if threads is not None:
            threads.shutdown(wait=False)

    async def check(self) -> str:
        """Whether the folder can be read; says how workspaces are kept apart."""
        isolation = self._need().isolation
        try:
            await self._in_thread(lambda: list(self._layout.environment_ids()))
        except OSError as error:
            raise RuntimeUnavailableError(f"The local runtime's folder cannot be read: {error}") from error
        return f"local, isolation {isolation}"

    async def ensure(self, spec: WorkspaceSpec) -> ObservedWorkspace:
        """See the port."""
        lifecycle = self._need().lifecycle
        observed = await self._change(lambda wanted: lifecycle.ensure(spec, wanted))
        self._poke()
        return observed

    async def stop(self, ref: WorkspaceRef, *, grace_seconds: float = 5.0) -> None:
        """See the port."""
        lifecycle = self._need().lifecycle
        await self._change(lambda wanted: lifecycle.stop(ref.environment_id, grace_seconds, wanted))
        self._poke()

    async def delete(self, ref: WorkspaceRef) -> None:
        """See the port."""
        opened = self._need()
        await self._change(lambda wanted: opened.lifecycle.delete(ref.environment_id, wanted))
        opened.stats.forget(ref.environment_id)
        self._poke()

    async def inspect(self, ref: WorkspaceRef) -> ObservedWorkspace | None:
        """See the port."""
        self._need()
        return await self._in_thread(lambda: observe(self._layout, ref.environment_id))

    async def list(self) -> Sequence[ObservedWorkspace]:  # the port's name; below it, `list` is not the type
        """See the port."""
        self._need()
        return await self._in_thread(self._list)

    def _list(self) -> Sequence[ObservedWorkspace]:
        found = (observe(self._layout, environment_id) for environment_id in self._layout.environment_ids())
        return [observed for observed in found if observed is not None]

    async def watch(self) -> AsyncIterator[ObservedWorkspace]:
        """See the port."""
        self._need()
        watcher = Watcher(self._layout, self._in_thread)
        self._watchers.add(watcher)
        try:
            async for observed in watcher.changes():
                yield observed
        finally:
            self._watchers.discard(watcher)

    async def stats(self, ref: WorkspaceRef) -> WorkspaceStats:
        """See the port."""
        reader = self._need().stats

        def sample() -> WorkspaceStats:
            run = locate(self._layout, ref.environment_id)
            return reader.sample(ref.environment_id, run, self._layout.workspace(ref.environment_id))

        return await self._in_thread(sample)

    async def exec(
        self,
        ref: WorkspaceRef,
        argv: Sequence[str] | None = None,
        *,
        tty: bool = True,
        size: TerminalSize = TerminalSize(),  # noqa: B008 - frozen
        env: Mapping[str, str] | None = None,
    ) -> ExecStream:
        """See the port."""
        self._need()

        def start() -> Entered:
            environment_id = ref.environment_id
            run, spec = locate_with_spec(self._layout, environment_id)
            try:
                workspace = self._layout.workspace(environment_id)
                return enter(run, spec, workspace, argv, tty=tty, size=size, env=env or {})
            except OSError as error:
                raise RuntimeUnavailableError(f"No process could be started: {error}", reason="ExecFailed") from error

        async def begin() -> LocalExecStream:
            entered = await self._in_thread(start)
            stream = LocalExecStream(ref.environment_id, entered, self._in_thread, self._streams.discard)
            self._streams.add(stream)
            await stream.start()
            return stream

        starting = asyncio.create_task(begin())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Nobody will ever close what is on its way.
            starting.add_done_callback(_close_unclaimed)
            raise

    async def start_shell(self, ref: WorkspaceRef, session_id: str, size: TerminalSize, terms: HoldTerms) -> Shell:
        """By this machine's keeper; see ShellRuntime."""
        request = {
            "do": "open",
            "session": session_id,
            "environment_id": ref.environment_id,
            "cols": size.cols,
            "rows": size.rows,
            "limit": terms.burst_bytes,
            "keep_s": terms.keep_seconds,
        }
        return await self._kept(request)

    async def find_shell(self, ref: WorkspaceRef, session_id: str) -> Shell:
        """Of this machine's keeper; see ShellRuntime."""
        return await self._kept({"do": "attach", "session": session_id})

    async def _kept(self, request: dict[str, Any]) -> KeptShell:
        pipe = self._need().pipe
        asking = asyncio.create_task(self._in_thread(lambda: ask(self._layout, request, pipe.out)))
        try:
            return KeptShell(*await asyncio.shield(asking), pipe)
        except asyncio.CancelledError:
            # Nobody will ever release what is on its way.
            asking.add_done_callback(_release_unclaimed)
            raise

    async def logs(
        self,
        ref: WorkspaceRef,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
    ) -> AsyncIterator[LogLine]:
        """See the port. Raises WorkspaceNotFoundError when there is no such workspace."""
        self._need()
        state = self._layout.state(ref.environment_id)
        if await self._in_thread(lambda: observe(self._layout, ref.environment_id)) is None:
            raise WorkspaceNotFoundError("There is no such workspace.")
        async for line in read_log(state / LOG_FILE, self._in_thread, follow=follow, tail=tail, since=since):
            yield line

    async def connect(self, ref: WorkspaceRef, port: int) -> ByteStream:
        """See the port."""
        self._need()
        run = await self._in_thread(lambda: locate(self._layout, ref.environment_id))
        stream = await connect_to(ref.environment_id, run, port, self._in_thread, self._streams.discard)
        self._streams.add(stream)
        return stream

    async def ports(self, ref: WorkspaceRef) -> Sequence[ListeningPort]:
        """See the port."""
        self._need()
        return await self._in_thread(lambda: listening_in(ref.environment_id, locate(self._layout, ref.environment_id)))

    async def stop_all(self, grace_seconds: float = 5.0) -> None:
        """Stop every workspace of this directory at once; volumes stay. For the end of the whole stack."""
        lifecycle = self._need().lifecycle
        running = [observed.ref for observed in await self.list() if observed.phase is not WorkspacePhase.STOPPED]
        if not running:
            await self._in_thread(lambda: quit_keeper(self._layout))
            return
        # One thread each: those that do not listen share one grace instead of queueing for it.
        threads = ThreadPoolExecutor(min(len(running), _STOP_THREADS), thread_name_prefix="local-stop")
        loop = asyncio.get_running_loop()
        stops = [loop.run_in_executor(threads, lifecycle.stop, ref.environment_id, grace_seconds) for ref in running]
        threads.shutdown(wait=False)
        results = await asyncio.gather(*stops, return_exceptions=True)
        self._poke()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await self._in_thread(lambda: quit_keeper(self._layout))

    async def leftovers(self) -> Sequence[int]:
        """Pids of shims and sandboxes of this directory that live now; empty after `stop_all`."""
        self._need()
        return await self._in_thread(self._leftovers)

    def _leftovers(self) -> Sequence[int]:
        pids = []
        for environment_id in self._layout.environment_ids():
            state = self._layout.state(environment_id)
            run = load_run(state)
            if run is not None and life_lock_held(state / SHIM_LOCK_FILE):
                pids.append(run.shim_pid)
            if run is not None and is_alive(run.init_pid, run.init_start):
                pids.append(run.init_pid)
        return pids

    def _need(self) -> _Opened:
        if self._opened is None:
            raise RuntimeUnavailableError("The local runtime is not open.", reason="RuntimeClosed")
        return self._opened

    def _poke(self) -> None:
        for watcher in self._watchers:
            watcher.poke()

    async def _change(self, work: Callable[[Wanted], _Result]) -> _Result:
        """A change in a thread. Who is cancelled takes back what still waits for its turn: a thread cannot be
        cancelled, and would do later what by then contradicts something newer."""
        abandoned = threading.Event()
        try:
            return await self._in_thread(lambda: work(lambda: not abandoned.is_set()))
        except asyncio.CancelledError:
            abandoned.set()
            raise

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        if self._threads is None:
            raise RuntimeUnavailableError("The local runtime is not open.", reason="RuntimeClosed")
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _release_unclaimed(asking: asyncio.Task[Answer]) -> None:
    if not asking.cancelled() and asking.exception() is None:
        connection, _, descriptors = asking.result()
        connection.close()
        for fd in descriptors:
            os.close(fd)


def _close_unclaimed(starting: asyncio.Task[LocalExecStream]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        closing = asyncio.ensure_future(starting.result().close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
