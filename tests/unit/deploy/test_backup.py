"""The nightly backup: what it may, and that it fits the rest."""

from __future__ import annotations

from typing import Any

import yaml
from kubernetes_validate.utils import validate

from tests.unit.deploy.manifests import KUBERNETES, NAME
from tests.unit.deploy.test_manifests import SCHEMA

_OBJECTS: dict[str, dict[str, Any]] = {
    item["kind"]: item
    for item in yaml.safe_load_all((KUBERNETES / "components" / "backup" / "backup.yaml").read_text())  # type: ignore[no-untyped-call]
}


def test_it_is_what_the_published_schemas_say() -> None:
    for item in _OBJECTS.values():
        validate(item, SCHEMA, strict=True)


def test_it_has_no_right_in_the_cluster_and_cannot_become_more() -> None:
    pod = _OBJECTS["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert _OBJECTS["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    secrets = {entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"]}
    assert secrets == {"SECRET_KEY", "MONGODB_URL", "NATS_URL"}


def test_the_two_servers_let_it_in() -> None:
    labels = _OBJECTS["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    policy = _OBJECTS["NetworkPolicy"]["spec"]
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {NAME: labels[NAME]}}}]
    assert {port["port"] for port in rule["ports"]} == {27017, 4222}
