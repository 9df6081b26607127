"""Chooses the driver of the runtime port."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from libs.runtime.local.isolation import IsolationPolicy
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import ExecRuntime, RuntimeUnavailableError, WorkspaceRuntime

if TYPE_CHECKING:
    from libs.runtime.kubernetes.options import ClusterAccess, KubernetesOptions
    from libs.runtime.kubernetes.runtime import KubernetesRuntime

    Cluster = tuple[ClusterAccess, KubernetesOptions]


def create_workspace_runtime(
    kind: str,
    *,
    local_dir: Path,
    isolation: Literal["require", "auto", "none"] = "auto",
    cluster: Cluster | None = None,
) -> WorkspaceRuntime:
    """The lifecycle half for RUNTIME=`kind`. `cluster` says which one and how; None takes it from the environment.

    Raises RuntimeUnavailableError for a driver that is unknown or whose packages or settings are missing.
    """
    return _local(local_dir, isolation) if _check(kind) == "local" else kubernetes_runtime(cluster)


def create_exec_runtime(
    kind: str,
    *,
    local_dir: Path,
    isolation: Literal["require", "auto", "none"] = "auto",
    cluster: Cluster | None = None,
) -> ExecRuntime:
    """The process half for RUNTIME=`kind`; otherwise as `create_workspace_runtime`."""
    return _local(local_dir, isolation) if _check(kind) == "local" else kubernetes_runtime(cluster)


def kubernetes_runtime(cluster: Cluster | None = None) -> KubernetesRuntime:
    """The driver of one cluster, both halves in one."""
    try:
        # Imported late: the client costs 30 MB that a local stack need not pay.
        from libs.runtime.kubernetes.options import options_from  # noqa: PLC0415
        from libs.runtime.kubernetes.runtime import KubernetesRuntime  # noqa: PLC0415
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"RUNTIME=kubernetes needs the kubernetes package: {error}. It comes with the orchestrator and terminal "
            "groups of this distribution.",
            reason="DriverMissing",
        ) from error
    try:
        access, options = cluster or options_from(os.environ)
    except ValueError as error:
        raise RuntimeUnavailableError(str(error), reason="ClusterConfigInvalid") from error
    return KubernetesRuntime(access, options)


def _local(local_dir: Path, isolation: str) -> LocalRuntime:
    return LocalRuntime(local_dir, IsolationPolicy(isolation))


def _check(kind: str) -> str:
    if kind not in ("local", "kubernetes"):
        raise RuntimeUnavailableError(f"RUNTIME={kind} is unknown; use local or kubernetes.", reason="DriverMissing")
    return kind
