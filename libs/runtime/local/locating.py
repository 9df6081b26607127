"""Finds a workspace that runs."""

from __future__ import annotations

from libs.runtime.local.layout import Layout, life_lock_held
from libs.runtime.local.processes import is_alive
from libs.runtime.local.records import SHIM_LOCK_FILE, RunRecord, load_run, load_spec
from libs.runtime.port import WorkspaceNotFoundError, WorkspaceNotRunningError, WorkspaceSpec


def locate(layout: Layout, environment_id: str) -> RunRecord:
    """Its run. Raises WorkspaceNotFoundError or WorkspaceNotRunningError."""
    state = layout.state(environment_id)
    run = load_run(state)
    if run is not None and life_lock_held(state / SHIM_LOCK_FILE) and is_alive(run.init_pid, run.init_start):
        return run
    if not state.is_dir() and not layout.workspace(environment_id).is_dir():
        raise WorkspaceNotFoundError("There is no such workspace.")
    raise WorkspaceNotRunningError("The workspace is not running.")


def locate_with_spec(layout: Layout, environment_id: str) -> tuple[RunRecord, WorkspaceSpec]:
    """Its run and what was wished for. Raises as `locate`."""
    run, spec = locate(layout, environment_id), load_spec(layout.state(environment_id))
    if spec is None:
        raise WorkspaceNotRunningError("The workspace is not running.")
    return run, spec
