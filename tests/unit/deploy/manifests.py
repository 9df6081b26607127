"""The overlays as kustomize builds them, and how to find one's way in them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "k8s"
OVERLAYS = ("dev", "production")
SERVICES = ("auth", "envs", "orchestrator", "terminal")
SECRET = "devpocket-secrets"
NAME = "app.kubernetes.io/name"


def builder() -> list[str]:
    """The command that builds a kustomization; the test is skipped where there is none."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if program := shutil.which(command[0]):
            return [program, *command[1:]]
    pytest.skip("neither kustomize nor kubectl is installed")


@functools.cache
def build(folder: Path) -> tuple[Manifest, ...]:
    """All objects of a kustomization."""
    done = subprocess.run([*builder(), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    return tuple(yaml.safe_load_all(done.stdout))  # type: ignore[no-untyped-call]


class Release:
    """The objects of one overlay."""

    def __init__(self, overlay: str) -> None:
        self.overlay = overlay
        self.objects = build(KUBERNETES / "overlays" / overlay)

    def kind(self, *kinds: str) -> Iterator[Manifest]:
        """All objects of these kinds."""
        return (item for item in self.objects if item["kind"] in kinds)

    def one(self, kind: str, name: str) -> Manifest:
        """The object of that kind and name."""
        (found,) = (item for item in self.kind(kind) if item["metadata"]["name"] == name)
        return found

    @property
    def workloads(self) -> list[Manifest]:
        """Whatever runs pods."""
        return list(self.kind("Deployment", "StatefulSet"))

    def settings(self) -> dict[str, str]:
        """What the services are told without it being secret."""
        (found,) = (
            item for item in self.kind("ConfigMap") if item["metadata"]["name"].startswith("devpocket-settings-")
        )
        return dict(found["data"])


def pod_of(workload: Manifest) -> Manifest:
    """The specification of a workload's pods."""
    return dict(workload["spec"]["template"]["spec"])


def container_of(workload: Manifest) -> Manifest:
    """Its only container."""
    (found,) = pod_of(workload)["containers"]
    return dict(found)


def labels_of(workload: Manifest) -> dict[str, str]:
    """The labels of its pods."""
    return dict(workload["spec"]["template"]["metadata"]["labels"])


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector matches, as the API defines it. Raises KeyError for an operator not used here."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    operators = {"In": lambda key, values: labels.get(key) in values}
    return all(
        operators[term["operator"]](term["key"], term["values"]) for term in selector.get("matchExpressions", [])
    )
