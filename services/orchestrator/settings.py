"""Settings of the orchestrator."""

from __future__ import annotations

from pydantic import Field

from libs.common.settings import CommonSettings
from libs.runtime.settings import RuntimeSettings


class OrchestratorSettings(CommonSettings, RuntimeSettings):
    """Times carry their unit in their name."""

    region_name: str = Field(
        default="local",
        pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
        description="Region of the cluster `default`; a DNS label of 1 to 40 characters",
    )

    reconcile_concurrency: int = Field(default=64, ge=1, description="Environments in work at a time, per replica")
    cluster_operations: int = Field(
        default=32, ge=1, description="Workspaces being made, stopped or deleted at a time, per cluster and replica"
    )
    cluster_refresh_seconds: float = Field(
        default=2.0, gt=0, description="How soon every replica works with what an administrator has changed"
    )
    cluster_check_seconds: float = Field(
        default=10.0, gt=0, description="How often a cluster is asked whether it works; twice without an answer is away"
    )
    lease_seconds: float = Field(
        default=15.0, gt=0, description="After this long a dead replica's work goes to another one"
    )
    scan_interval_seconds: float = Field(default=1.0, gt=0, description="How often to look for what is due")
    resync_interval_seconds: float = Field(
        default=30.0, gt=0, description="Each environment is compared with the runtime at least this often"
    )
    provision_deadline_seconds: float = Field(default=300.0, gt=0, description="A start that takes longer has failed")
    stop_deadline_seconds: float = Field(default=60.0, gt=0, description="A stop that takes longer has failed")
    delete_deadline_seconds: float = Field(
        default=300.0, gt=0, description="After this long a deletion is retried more slowly; it is never given up"
    )
    stop_grace_seconds: float = Field(default=5.0, ge=0, description="What processes get to end by themselves")
    crash_loop_losses: int = Field(default=5, ge=0, description="More losses within the window are a crash loop")
    crash_loop_window_seconds: float = Field(
        default=600.0, gt=0, description="The window that losses of a workspace are counted in"
    )
    metrics_interval_seconds: float = Field(default=5.0, gt=0, description="Between usage samples of an environment")
    orphan_scan_interval_seconds: float = Field(
        default=60.0, gt=0, description="How often to look for workspaces that no environment knows"
    )
    orphan_grace_seconds: float = Field(
        default=600.0, ge=0, description="A workspace without a record is left alone for this long"
    )
    shutdown_grace_seconds: float = Field(
        default=2.0, ge=0, description="What work at hand gets to finish on shutdown, before it is cancelled"
    )
