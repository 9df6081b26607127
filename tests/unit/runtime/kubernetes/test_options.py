"""Options, credentials and quantities."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from libs.runtime.factory import default_driver
from libs.runtime.kubernetes.connection import Connection, check_kubeconfig
from libs.runtime.kubernetes.options import ClusterAccess
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from libs.runtime.kubernetes.stats import from_metrics, from_summary, quantity
from libs.runtime.local.runtime import LocalRuntime
from libs.runtime.port import RuntimeUnavailableError
from libs.runtime.settings import RuntimeSettings


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "KUBECONFIG": "/etc/kubeconfig",
        "KUBERNETES_CONTEXT": "",
        "KUBERNETES_IMAGE_PULL_POLICY": "Never",
        "KUBERNETES_STORAGE_CLASS": "fast",
        "KUBERNETES_RUNTIME_CLASS": "gvisor",
        "KUBERNETES_NAMESPACE_PREFIX": "dp",
        "KUBERNETES_BLOCKED_CIDRS": "203.0.113.0/24, 198.51.100.0/24",
    }.items():
        monkeypatch.setenv(name, value)
    settings = RuntimeSettings()
    access, options = settings.kubernetes_access(), settings.kubernetes_options()
    assert (access.path, access.context) == ("/etc/kubeconfig", None)
    assert (options.pull_policy, options.storage_class, options.runtime_class) == ("Never", "fast", "gvisor")
    assert options.namespace_prefix == "dp"
    assert options.blocked_cidrs == ("203.0.113.0/24", "198.51.100.0/24")


@pytest.mark.parametrize(
    ("name", "value"),
    [("KUBERNETES_IMAGE_PULL_POLICY", "Sometimes"), ("KUBERNETES_NAMESPACE_PREFIX", "Dev_"), ("RUNTIME", "docker")],
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        RuntimeSettings()


def test_the_factory_makes_both_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RUNTIME_DIR", str(tmp_path))
    assert isinstance(default_driver(RuntimeSettings(runtime="local")), LocalRuntime)
    assert isinstance(default_driver(RuntimeSettings(runtime="kubernetes")), KubernetesRuntime)


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
    runtime = KubernetesRuntime(ClusterAccess(path="/x"))
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
