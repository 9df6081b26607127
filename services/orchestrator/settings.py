"""Settings of the orchestrator."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from libs.common.settings import CommonSettings


class OrchestratorSettings(CommonSettings):
    """Times carry their unit in their name."""

    runtime: Literal["local", "kubernetes"] = Field(default="local", description="What runs the workspaces")
    local_runtime_dir: Path = Field(
        default=Path(".devpocket/runtime"), description="State and workspaces of the local runtime"
    )
    local_runtime_isolation: Literal["require", "auto", "none"] = Field(
        default="auto",
        description="Sandboxes of the local runtime: require them, use them where possible, or plain processes",
    )
    region_name: str = Field(default="local", description="The one region there is")

    reconcile_concurrency: int = Field(default=8, ge=1, description="Environments in work at a time, per replica")
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
    crash_loop_window_seconds: float = Field(default=600.0, gt=0)
    metrics_interval_seconds: float = Field(default=5.0, gt=0, description="Between usage samples of an environment")
    orphan_scan_interval_seconds: float = Field(default=60.0, gt=0)
    orphan_grace_seconds: float = Field(
        default=600.0, ge=0, description="A workspace without a record is left alone for this long"
    )
    shutdown_grace_seconds: float = Field(
        default=2.0, ge=0, description="What work at hand gets to finish on shutdown, before it is cancelled"
    )
