"""Chooses the driver of the runtime port."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import ExecRuntime, RuntimeUnavailableError, WorkspaceRuntime


def create_workspace_runtime(
    kind: str, *, local_dir: Path, isolation: Literal["require", "auto", "none"] = "auto"
) -> WorkspaceRuntime:
    """The lifecycle half for RUNTIME=`kind`. Raises RuntimeUnavailableError for a driver this release does not have."""
    return _local(kind, local_dir, isolation)


def create_exec_runtime(
    kind: str, *, local_dir: Path, isolation: Literal["require", "auto", "none"] = "auto"
) -> ExecRuntime:
    """The process half for RUNTIME=`kind`. Raises RuntimeUnavailableError for a driver this release does not have."""
    return _local(kind, local_dir, isolation)


def _local(kind: str, local_dir: Path, isolation: str) -> LocalRuntime:
    if kind == "local":
        return LocalRuntime(local_dir, IsolationPolicy(isolation))
    if kind == "kubernetes":
        raise RuntimeUnavailableError(
            "RUNTIME=kubernetes is not part of this release; use RUNTIME=local.", reason="DriverMissing"
        )
    raise RuntimeUnavailableError(f"RUNTIME={kind} is unknown; use local or kubernetes.", reason="DriverMissing")
