"""What a user's namespace consists of."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from libs.runtime.kubernetes.names import (
    MANAGED_BY,
    MANAGER,
    POLICY,
    SERVICE_ACCOUNT,
    USER,
    label_value,
    namespace_of,
)
from libs.runtime.kubernetes.options import PRIVATE_CIDRS_V4, PRIVATE_CIDRS_V6, KubernetesOptions

Manifest = dict[str, Any]

_POD_SECURITY = "pod-security.kubernetes.io"


def namespace(options: KubernetesOptions, user_id: str) -> Manifest:
    """The namespace itself; Pod Security refuses whatever is not `restricted`, ours included."""
    labels = _labels(user_id)
    for mode in ("enforce", "audit", "warn"):
        labels[f"{_POD_SECURITY}/{mode}"] = "restricted"
        labels[f"{_POD_SECURITY}/{mode}-version"] = "latest"
    metadata = {
        "name": namespace_of(options.namespace_prefix, user_id),
        "labels": labels,
        "annotations": {USER: user_id},
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def policies(options: KubernetesOptions, user_id: str) -> list[tuple[str, Manifest]]:
    """Everything that must be there before a pod is: (resource, manifest)."""
    return [
        ("serviceaccounts", service_account(user_id)),
        ("resourcequotas", resource_quota(options, user_id)),
        ("limitranges", limit_range(options, user_id)),
        ("networkpolicies", deny_ingress(user_id)),
        ("networkpolicies", world_egress(options, user_id)),
    ]


def policy_digest(options: KubernetesOptions, user_id: str) -> str:
    """Names this set of policies; a namespace annotated with another one is brought up to date."""
    text = json.dumps([namespace(options, user_id), policies(options, user_id)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def policy_annotation(options: KubernetesOptions, user_id: str) -> Manifest:
    """The patch that records that the policies are in place."""
    return {
        "metadata": {
            "labels": namespace(options, user_id)["metadata"]["labels"],
            "annotations": {POLICY: policy_digest(options, user_id)},
        }
    }


def service_account(user_id: str) -> Manifest:
    """An account without rights or token. Not the default one, which appears some time after the namespace."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": SERVICE_ACCOUNT, "labels": _labels(user_id)},
        "automountServiceAccountToken": False,
    }


def resource_quota(options: KubernetesOptions, user_id: str) -> Manifest:
    """An upper bound of everything the user's environments take together."""
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": MANAGER, "labels": _labels(user_id)},
        "spec": {"hard": dict(options.namespace_quota)},
    }


def limit_range(options: KubernetesOptions, user_id: str) -> Manifest:
    """What a container gets that says nothing itself. Ours says everything; this catches what is made by hand."""
    ephemeral = str(options.ephemeral_storage_bytes)
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": MANAGER, "labels": _labels(user_id)},
        "spec": {
            "limits": [
                {
                    "type": "Container",
                    "default": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": ephemeral},
                    "defaultRequest": {"cpu": "50m", "memory": "256Mi", "ephemeral-storage": "64Mi"},
                }
            ]
        },
    }


def deny_ingress(user_id: str) -> Manifest:
    """Nobody reaches a workspace over the network."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-ingress", "labels": _labels(user_id)},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }


def world_egress(options: KubernetesOptions, user_id: str) -> Manifest:
    """Names are resolved and the world is reached; the cluster, its nodes and the cloud's metadata are not."""
    dns_ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    blocked_v4 = [cidr for cidr in options.blocked_cidrs if ":" not in cidr]
    blocked_v6 = [cidr for cidr in options.blocked_cidrs if ":" in cidr]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "world-egress", "labels": _labels(user_id)},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [_cluster_dns(), {"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": dns_ports},
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*PRIVATE_CIDRS_V4, *blocked_v4]}}]},
                {"to": [{"ipBlock": {"cidr": "::/0", "except": [*PRIVATE_CIDRS_V6, *blocked_v6]}}]},
            ],
        },
    }


def _cluster_dns() -> Manifest:
    # 169.254.20.10 beside it is where a node-local DNS cache listens.
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }


def _labels(user_id: str) -> dict[str, str]:
    return {MANAGED_BY: MANAGER, USER: label_value(user_id)}
