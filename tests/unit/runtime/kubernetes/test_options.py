"""Options, credentials and quantities."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from libs.runtime.factory import create_exec_runtime, create_workspace_runtime, kubernetes_runtime
from libs.runtime.kubernetes.connection import Connection, check_kubeconfig
from libs.runtime.kubernetes.options import ClusterAccess, options_from
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.kubernetes.stats import from_metrics, from_summary, quantity
from libs.runtime.port import RuntimeUnavailableError


def test_options_come_from_the_environment() -> None:
    access, options = options_from(
        {
            "KUBECONFIG": "/etc/kubeconfig",
            "KUBERNETES_IMAGE_PULL_POLICY": "Never",
            "KUBERNETES_STORAGE_CLASS": "fast",
            "KUBERNETES_RUNTIME_CLASS": "gvisor",
            "KUBERNETES_NAMESPACE_PREFIX": "dp",
            "KUBERNETES_BLOCKED_CIDRS": "203.0.113.0/24, 198.51.100.0/24",
        }
    )
    assert access.path == "/etc/kubeconfig"
    assert (options.pull_policy, options.storage_class, options.runtime_class) == ("Never", "fast", "gvisor")
    assert options.namespace_prefix == "dp"
    assert options.blocked_cidrs == ("203.0.113.0/24", "198.51.100.0/24")


def test_a_wrong_pull_policy_is_named() -> None:
    with pytest.raises(ValueError, match="KUBERNETES_IMAGE_PULL_POLICY"):
        options_from({"KUBERNETES_IMAGE_PULL_POLICY": "Sometimes"})


def test_the_factory_makes_the_kubernetes_driver(tmp_path: Path) -> None:
    assert isinstance(create_workspace_runtime("kubernetes", local_dir=tmp_path), KubernetesRuntime)
    assert isinstance(create_exec_runtime("kubernetes", local_dir=tmp_path), KubernetesRuntime)


@pytest.mark.parametrize(
    "kubeconfig",
    [
        {"users": [{"name": "u", "user": {"exec": {"command": "curl"}}}]},
        {"users": [{"name": "u", "user": {"tokenFile": "/etc/shadow"}}]},
        {"users": [{"name": "u", "user": {"client-key": "/root/.ssh/id"}}]},
        {"clusters": [{"name": "c", "cluster": {"certificate-authority": "/etc/passwd"}}]},
    ],
)
def test_a_kubeconfig_from_outside_runs_and_reads_nothing_here(kubeconfig: dict[str, Any]) -> None:
    with pytest.raises(RuntimeUnavailableError, match="would read files"):
        check_kubeconfig(kubeconfig)


@pytest.mark.parametrize("access", [ClusterAccess(path="/no/such/file"), ClusterAccess(kubeconfig={}), ClusterAccess()])
async def test_credentials_that_cannot_be_used_are_told_in_words(
    access: ClusterAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(RuntimeUnavailableError, match="credentials") as caught:
        await Connection(access).open()
    assert caught.value.reason == "ClusterConfigInvalid"


async def test_a_driver_that_is_not_open_says_so() -> None:
    runtime = kubernetes_runtime((ClusterAccess(path="/x"), options_from({})[1]))
    with pytest.raises(RuntimeUnavailableError, match="not open"):
        await runtime.list()


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", 0.25), ("12345678n", 0.012345678), ("64Mi", 64 * 2**20), ("1k", 1000), ("3", 3), ("1.5Gi", 1.5 * 2**30)],
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == pytest.approx(number)


def test_metrics_of_the_workspaces_container() -> None:
    usage = from_metrics(
        {
            "timestamp": "2026-11-25T10:00:00Z",
            "containers": [
                {"name": "sidecar", "usage": {"cpu": "9", "memory": "9Gi"}},
                {"name": "workspace", "usage": {"cpu": "250m", "memory": "64Mi"}},
            ],
        }
    )
    assert usage is not None
    assert (usage.cpu_millis, usage.memory_bytes) == (250, 64 * 2**20)
    assert usage.sampled_at == datetime(2026, 11, 25, 10, tzinfo=UTC)


@pytest.mark.parametrize(("capacity", "storage"), [(5 << 30, 1234), (500 << 30, None)])
def test_a_volume_on_a_shared_disk_is_not_measured_by_the_disk(capacity: int, storage: int | None) -> None:
    summary = {
        "pods": [
            {"podRef": {"uid": "other"}},
            {
                "podRef": {"uid": "mine"},
                "volume": [
                    {"name": "workspace", "pvcRef": {"name": "ws"}, "usedBytes": 1234, "capacityBytes": capacity}
                ],
                "containers": [
                    {
                        "name": "workspace",
                        "cpu": {"time": "2026-11-25T10:00:00Z", "usageNanoCores": 500_000_000},
                        "memory": {"workingSetBytes": 4096},
                    }
                ],
            },
        ]
    }
    usage = from_summary(summary, "mine", 5 << 30)
    assert usage is not None
    assert (usage.cpu_millis, usage.memory_bytes, usage.storage_bytes) == (500, 4096, storage)
    assert from_summary(summary, "nobody", 5 << 30) is None
