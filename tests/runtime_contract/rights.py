"""The rights that deploy/k8s/rbac gives to each service, as the fake cluster enforces them."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.fakes.kube import Rule

RBAC = Path(__file__).parents[2] / "deploy" / "k8s" / "rbac"


def rules_of(file: str) -> list[Rule]:
    """Every single permission of the ClusterRole in a manifest."""
    documents = list(yaml.safe_load_all((RBAC / file).read_text()))  # type: ignore[no-untyped-call]
    (role,) = (document for document in documents if document["kind"] == "ClusterRole")
    return [
        Rule(group, *_split(resource), verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]


def _split(resource: str) -> tuple[str, str]:
    name, _, subresource = resource.partition("/")
    return name, subresource
