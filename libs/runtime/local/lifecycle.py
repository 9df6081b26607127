"""Ensure, stop, delete, inspect and list workspaces. Blocking code: the driver calls it in threads.

The truth about a workspace is on disk and in the kernel, in this order: a shim lives while it holds `shim.lock`;
`run.json` says what it runs; without a living shim, `stop` (we ended it) and `exit.json` (how it ended) explain why.
Whoever changes a workspace holds its lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from libs.runtime.local import cgroups as control_groups
from libs.runtime.local.cgroups import Cgroups
from libs.runtime.local.environment import carrier_text, workspace_environment
from libs.runtime.local.isolation import Isolation, find_program
from libs.runtime.local.launcher import START_SECONDS, launch, shim_config
from libs.runtime.local.layout import Layout, life_lock_held, take_life_lock
from libs.runtime.local.members import Members, members_of
from libs.runtime.local.network import NetworkPlan
from libs.runtime.local.processes import (
    ProcessInfo,
    boot_id,
    is_alive,
    open_pidfd,
    read_process,
    wait_for_exit,
    wait_until_gone,
)
from libs.runtime.local.records import (
    EXIT_FILE,
    RUN_FILE,
    SHIM_LOCK_FILE,
    STOP_FILE,
    RunRecord,
    load_exit,
    load_run,
    load_spec,
    save_spec,
)
from libs.runtime.local.sandbox import WORKSPACE, describe_plain, describe_sandbox, login_shell, missing_toolchain
from libs.runtime.local.uids import UidAllocator
from libs.runtime.local.volumes import empty_trash, ensure_volume, remove_volume
from libs.runtime.port import (
    ObservedWorkspace,
    RuntimeUnavailableError,
    WorkspacePhase,
    WorkspaceRef,
    WorkspaceSpec,
)

log = logging.getLogger(__name__)

_SHIM_END_SECONDS = 5.0

Wanted = Callable[[], bool]


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine offers, found out at `open`. `cgroup_prefix` tells runtime directories apart."""

    isolation: Isolation
    groups: Cgroups | None
    network: NetworkPlan
    cgroup_prefix: str


class Lifecycle:
    """The lifecycle of all workspaces below one directory. What is not `wanted` any more is not begun."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self._layout = layout
        self._uids = UidAllocator(layout.uids)
        self._isolation = machine.isolation
        self._groups = machine.groups
        self._network = machine.network
        self._cgroup_prefix = machine.cgroup_prefix

    def ensure(self, spec: WorkspaceSpec, wanted: Wanted = _always) -> ObservedWorkspace:
        """Make it run with this spec; see `WorkspaceRuntime.ensure`."""
        environment_id = spec.ref.environment_id
        # What cannot be is refused before anything that runs is touched.
        carrier_text(workspace_environment(spec, home=WORKSPACE, shell=login_shell()))
        with self._layout.lock(environment_id, wanted=wanted):
            state = self._layout.state(environment_id)
            state.mkdir(mode=0o700, exist_ok=True)
            running = self._running(state)
            if running is None or running.generation < spec.generation:
                self._end(state, grace_seconds=5.0)
                self._start(spec, state)
            return observe(self._layout, environment_id) or _gone(spec.ref)

    def stop(self, environment_id: str, grace_seconds: float, wanted: Wanted = _always) -> None:
        """End every process; the volume stays."""
        state = self._layout.state(environment_id)
        if not state.is_dir():
            return
        with self._layout.lock(environment_id, wanted=wanted):
            if state.is_dir():
                self._end(state, grace_seconds)
            else:
                # It was deleted while we waited, so the lock is one that nobody else will ever remove.
                self._layout.forget_lock(environment_id)

    def delete(self, environment_id: str, wanted: Wanted = _always) -> None:
        """Stop it and remove volume, records, logs and uid."""
        with self._layout.lock(environment_id, wanted=wanted):
            state = self._layout.state(environment_id)
            if state.is_dir():
                self._end(state, grace_seconds=0.5)
            remove_volume(self._layout, environment_id)
            shutil.rmtree(state, ignore_errors=True)
            self._uids.release(environment_id)
            empty_trash(self._layout, environment_id)
            self._layout.forget_lock(environment_id)

    def _running(self, state: Path) -> RunRecord | None:
        # A shim whose maker died may still be on its way up.
        deadline = time.monotonic() + START_SECONDS
        while load_run(state) is None and life_lock_held(state / SHIM_LOCK_FILE) and time.monotonic() < deadline:
            time.sleep(0.005)
        run = load_run(state)
        alive = run is not None and life_lock_held(state / SHIM_LOCK_FILE) and is_alive(run.init_pid, run.init_start)
        return run if alive else None

    def _start(self, spec: WorkspaceSpec, state: Path) -> None:
        environment_id = spec.ref.environment_id
        life_lock = take_life_lock(state / SHIM_LOCK_FILE)
        if life_lock is None:
            raise RuntimeUnavailableError("An earlier sandbox of this workspace does not end.", reason="WorkspaceBusy")
        try:
            save_spec(state, spec)
            _forget(state)
            uid = self._uids.acquire(environment_id) if os.geteuid() == 0 else os.geteuid()
            volume = ensure_volume(self._layout, environment_id, uid)
            launch(self._config(spec, state, volume, uid), life_lock)
        except OSError as error:
            raise RuntimeUnavailableError(
                f"The sandbox could not be prepared: {error}", reason="StartFailed"
            ) from error
        finally:
            os.close(life_lock)

    def _config(self, spec: WorkspaceSpec, state: Path, volume: Path, uid: int) -> dict[str, object]:
        network = self._network.config
        notices = [f"Starting {spec.name} (generation {spec.generation})."]
        notices += [text for text in (missing_toolchain(spec.image), self._network.problem) if text]
        if self._isolation is Isolation.PLAIN:
            main = describe_plain(spec, uid, volume)
            notices.append("Warning: there is no sandbox around this environment.")
        else:
            bwrap = find_program("bwrap") or "/usr/bin/bwrap"
            main = describe_sandbox(spec, self._isolation, uid, volume, bwrap, network=network is not None)
        name = self._group_name(spec.ref.environment_id)
        return shim_config(
            spec,
            main,
            state=state,
            workspace=volume,
            isolation=self._isolation,
            uid=uid,
            groups=self._groups,
            cgroups=self._groups.create(name, spec.limits) if self._groups is not None else [],
            network=network,
            notices=notices,
        )

    def _group_name(self, environment_id: str) -> str:
        return f"{self._cgroup_prefix}-{environment_id}"

    def _end(self, state: Path, grace_seconds: float) -> None:
        """End a run and forget it. Repeating it after a crash at any point leads to the same end."""
        self._running(state)
        run = load_run(state)
        if run is not None and run.boot_id == boot_id():
            (state / STOP_FILE).touch(mode=0o600)
            self._end_processes(state, run, grace_seconds)
        elif life_lock_held(state / SHIM_LOCK_FILE):
            self._await_shim(state)
        # Also what no record speaks of, because a crash came first.
        control_groups.destroy(run.cgroups if run is not None else [])
        control_groups.destroy(self._groups.directories(self._group_name(state.name)) if self._groups else [])
        _forget(state)

    def _end_processes(self, state: Path, run: RunRecord, grace_seconds: float) -> None:
        with members_of(state.name, run) as members:
            asked = members.all_but_main()
            _ask_to_end(members, asked)
            wait_until_gone(members.all_but_main, grace_seconds if asked else 0)
        _kill(run)
        wait_for_exit(run.init_pid, run.init_start, _SHIM_END_SECONDS)
        if run.isolation == Isolation.PLAIN:
            # Without a PID namespace the end of the main process is not the end of the others.
            with members_of(state.name, run) as members:
                deadline = time.monotonic() + _SHIM_END_SECONDS
                while (left := members.all()) and time.monotonic() < deadline:
                    members.signal(left, signal.SIGKILL)
                    wait_until_gone(members.all, 0.1)
        self._await_shim(state)

    def _await_shim(self, state: Path) -> None:
        """The shim ends by itself once its sandbox is gone; one that does not is ended."""
        deadline = time.monotonic() + _SHIM_END_SECONDS
        while life_lock_held(state / SHIM_LOCK_FILE):
            if time.monotonic() > deadline:
                run = load_run(state)
                if run is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(run.shim_pid, signal.SIGKILL)
                return
            time.sleep(0.005)


def _ask_to_end(members: Members, processes: list[ProcessInfo]) -> None:
    """SIGTERM for all. Interactive shells ignore it, so a terminal's first process is also told that it hung up.

    Not SIGHUP for all: it would end a server that tidies up on SIGTERM before it could.
    """
    members.signal(processes, signal.SIGTERM, signal.SIGCONT)
    members.signal([info for info in processes if info.terminal and info.session == info.pid], signal.SIGHUP)


def _kill(run: RunRecord) -> None:
    """End the init, and with it everything in its PID namespace."""
    handle = open_pidfd(run.init_pid, run.init_start)
    if handle is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def _forget(state: Path) -> None:
    for name in (EXIT_FILE, RUN_FILE, STOP_FILE):
        with contextlib.suppress(FileNotFoundError):
            (state / name).unlink()


def _gone(ref: WorkspaceRef) -> ObservedWorkspace:
    return ObservedWorkspace(ref, 0, WorkspacePhase.FAILED, "SandboxExited", "The workspace ended as it started.")


def observe(layout: Layout, environment_id: str) -> ObservedWorkspace | None:
    """What there is, or None when there is neither volume nor record."""
    state = layout.state(environment_id)
    spec = load_spec(state)
    if spec is None and not state.is_dir() and not layout.workspace(environment_id).is_dir():
        return None
    ref = spec.ref if spec is not None else WorkspaceRef(environment_id, "")
    run = load_run(state)
    generation = run.generation if run is not None else spec.generation if spec is not None else 0
    phase, reason, message = _phase(state, run)
    started = datetime.fromtimestamp(run.started_at, UTC) if run and phase is WorkspacePhase.RUNNING else None
    return ObservedWorkspace(ref, generation, phase, reason, message, started)


def _phase(state: Path, run: RunRecord | None) -> tuple[WorkspacePhase, str | None, str | None]:
    if life_lock_held(state / SHIM_LOCK_FILE):
        if run is None:
            return WorkspacePhase.STARTING, None, None
        if is_alive(run.init_pid, run.init_start):
            return WorkspacePhase.RUNNING, None, None
        # The shim is writing down how it ended.
        shim = read_process(run.shim_pid)
        if shim is not None:
            wait_for_exit(run.shim_pid, shim.start, 1.0)
    if (state / STOP_FILE).exists():
        return WorkspacePhase.STOPPED, None, None
    ended = load_exit(state)
    if ended is None and run is None:
        return WorkspacePhase.STOPPED, None, None
    if ended is not None:
        reason, message = ended.reason, ended.message
    elif run is not None and run.boot_id != boot_id():
        reason, message = "HostRestarted", "The machine was restarted while the workspace ran."
    else:
        reason, message = "SupervisorLost", "The workspace's supervisor died, and the workspace with it."
    return WorkspacePhase.FAILED, reason, message
