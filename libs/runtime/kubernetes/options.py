"""How a cluster is used. One set of options per driver instance, and one driver instance per cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from libs.runtime.port import PullPolicy

GIB = 1 << 30

# What no workspace may reach: private, shared, link-local (cloud metadata) and loopback addresses. Pods, services and
# nodes of a cluster have such addresses; a cluster with others names them in `blocked_cidrs`.
PRIVATE_CIDRS_V4 = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
    *("169.254.0.0/16", "127.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15"),
)
PRIVATE_CIDRS_V6 = ("fc00::/7", "fe80::/10", "::1/128")

# Bounds of one user's namespace, large enough for the largest plan: plans are enforced where environments are made,
# this stops what would otherwise grow without end.
NAMESPACE_QUOTA: Mapping[str, str] = {
    "pods": "110",
    "limits.cpu": "400",
    "limits.memory": "800Gi",
    "persistentvolumeclaims": "110",
    "requests.storage": "5Ti",
    "services": "0",
    "services.nodeports": "0",
    "services.loadbalancers": "0",
}


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """Names and policies of one cluster. Requests are a share of the limits, so that idle workspaces cost little."""

    cluster: str = "default"
    namespace_prefix: str = "devpocket"
    pull_policy: PullPolicy = "IfNotPresent"
    storage_class: str | None = None
    runtime_class: str | None = None
    cpu_request_share: float = 0.1
    memory_request_share: float = 0.5
    ephemeral_storage_bytes: int = 4 * GIB
    blocked_cidrs: tuple[str, ...] = ()
    namespace_quota: Mapping[str, str] = field(default_factory=lambda: dict(NAMESPACE_QUOTA))
    requests_in_flight: int = 32
    # A pod that makes no progress for this long is reported with its reason; the next `ensure` waits on.
    start_patience_s: float = 5.0
    # What a node that is there may take beyond a pod's grace before the end is called stuck.
    end_patience_s: float = 10.0
    # Proxies cut connections that are silent for 60 s or more. Three unanswered pings: the way to the server is gone.
    exec_ping_s: float = 20.0
    exec_dead_s: float = 65.0


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """How a cluster is reached: `kubeconfig` as a mapping (untrusted: no plugins, no files), else `path`, else the
    service account of the pod this process runs in."""

    kubeconfig: Mapping[str, Any] | None = field(default=None, repr=False)
    path: str | None = None
    context: str | None = None
