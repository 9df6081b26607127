"""The entrypoint as the first process of a pod: read-only root, user 1000, a volume at /workspace."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kube import FakeCluster
from tests.fakes.kube.node.images import workspace_image
from tests.fakes.kube.node.sandbox import bubblewrap
from tests.fakes.kube.resources import CLAIMS, PODS

pytestmark = pytest.mark.skipif(bubblewrap() is None, reason="needs a root of its own")
IMAGE = "workspace:1"


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    async with FakeCluster(images={IMAGE: workspace_image()}) as running:
        await running.has_account("default")
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        running.api.create(CLAIMS, "default", {"metadata": {"name": "work"}, "spec": claim})
        yield running


def pod(command: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": IMAGE,
        "env": [{"name": "DEVPOCKET_STARTUP_COMMAND", "value": command}],
        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
        "volumeMounts": [{"name": "work", "mountPath": "/workspace"}],
    }
    return {
        "metadata": {"name": "p"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "work", "persistentVolumeClaim": {"claimName": "work"}}],
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "runAsNonRoot": True},
        },
    }


async def test_it_works_on_a_read_only_root_as_an_ordinary_user_and_ends_at_once(cluster: FakeCluster) -> None:
    command = "id -un; pwd; touch /opt/x 2>/dev/null || echo read-only; touch made; command -v bash; echo oops >&2"
    cluster.api.create(PODS, "default", pod(command))
    found = await cluster.settle("default", "p", phase="Running")
    worker = cluster.kubelet.container(found, "main")
    assert worker is not None
    assert worker.current is not None
    log = worker.current.log
    while "ended with code 0" not in log.tail():
        await log.more()
    lines = log.tail().replace("\x1e", "^").splitlines()
    assert lines[0] == "^sStarting."
    assert {"dev", "/workspace", "read-only", "/usr/bin/bash", "^eoops"} <= set(lines)
    claim = cluster.store.get(CLAIMS, "default", "work")
    assert claim is not None
    folder: Path = cluster.volumes.claim_folder(claim)
    assert {".bashrc", ".profile", ".devpocket", "made"} == set(os.listdir(folder))
    start = time.monotonic()
    cluster.api.delete(PODS, "default", "p", {"gracePeriodSeconds": 20})
    await worker.current.ended.wait()
    # Its grace is 20 s.
    assert time.monotonic() - start < 15
    assert worker.current.exit_code == 0
