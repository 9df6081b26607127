"""A real API server would take the manifests: TEST_KUBECONFIG=/path names one, and kubectl asks it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.unit.deploy.manifests import KUBERNETES, OVERLAYS

KUBECONFIG = os.environ.get("TEST_KUBECONFIG")
PROGRAM = shutil.which("kubectl")

pytestmark = pytest.mark.skipif(not (KUBECONFIG and PROGRAM), reason="needs TEST_KUBECONFIG and kubectl")

Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl() -> Kubectl:
    """kubectl with that cluster, ended."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(PROGRAM), "--kubeconfig", str(KUBECONFIG), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module", autouse=True)
def namespace(kubectl: Kubectl) -> Iterator[None]:
    """A dry run makes none, and nothing can be made in one that is not there. One that was there before stays."""
    was_there = kubectl("get", "namespace", "devpocket").returncode == 0
    if not was_there:
        made = kubectl("apply", "--kustomize", str(KUBERNETES / "namespace"))
        assert made.returncode == 0, made.stderr
    yield
    if not was_there:
        kubectl("delete", "namespace", "devpocket", "--wait=true")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_object_without_a_warning(kubectl: Kubectl, overlay: str) -> None:
    folder = str(KUBERNETES / "overlays" / overlay)
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "--kustomize", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.endswith("(server dry run)") for line in done.stdout.splitlines())
