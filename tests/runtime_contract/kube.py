"""The driver on a cluster: the fake one, with an image that starts as those in deploy/images do, or a real one."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from libs.runtime.kubernetes.options import ClusterAccess, KubernetesOptions
from libs.runtime.kubernetes.runtime import KubernetesRuntime
from tests.fakes.kube import FakeCluster
from tests.fakes.kube.node.images import Image, workspace_image
from tests.runtime_contract.clusters import RealCluster
from tests.runtime_contract.rights import rules_of
from tests.runtime_contract.workspaces import IMAGE

_BASE = Path(__file__).parents[2] / "deploy" / "images" / "base" / "devpocket"


def contract_image() -> Image:
    """The image that every contract test asks for: the entrypoint of the real ones."""
    return workspace_image(entrypoint=("/opt/devpocket/entrypoint.sh",), files={"/opt/devpocket": _BASE})


class Halves:
    """The port as it is used: the orchestrator's half and the terminal's, each with a connection and rights of its own.

    They share nothing but the cluster, so whatever the contract finds works across processes.
    """

    def __init__(self, orchestrator: KubernetesRuntime, terminal: KubernetesRuntime) -> None:
        self._both = (orchestrator, terminal)
        for name in ("check", "ensure", "stop", "delete", "inspect", "list", "watch", "stats"):
            setattr(self, name, getattr(orchestrator, name))
        for name in ("exec", "logs", "connect", "ports"):
            setattr(self, name, getattr(terminal, name))

    async def open(self) -> None:
        """Open both."""
        for half in self._both:
            await half.open()

    async def close(self) -> None:
        """Close both."""
        for half in self._both:
            await half.close()


@asynccontextmanager
async def kubernetes_runtime(
    folder: Path, options: KubernetesOptions | None = None
) -> AsyncIterator[tuple[KubernetesRuntime, FakeCluster]]:
    """The driver as administrator, open, on a fake cluster of its own."""
    async with FakeCluster(images={IMAGE: contract_image()}, folder=folder) as cluster:
        runtime = KubernetesRuntime(ClusterAccess(kubeconfig=cluster.kubeconfig), options)
        await runtime.open()
        try:
            yield runtime, cluster
        finally:
            await runtime.close()


@asynccontextmanager
async def kubernetes_halves(
    folder: Path, options: KubernetesOptions | None = None
) -> AsyncIterator[tuple[Halves, FakeCluster]]:
    """Both halves, open, with no more rights than deploy/k8s/rbac gives them."""
    async with FakeCluster(images={IMAGE: contract_image()}, folder=folder) as cluster:
        halves = []
        for user in ("orchestrator", "terminal"):
            cluster.access.add_user(user, f"token-of-{user}", rules_of(f"{user}.yaml"))
            access = ClusterAccess(kubeconfig=cluster.kubeconfig_for(user, f"token-of-{user}"))
            halves.append(KubernetesRuntime(access, options))
        runtime = Halves(*halves)
        await runtime.open()
        try:
            yield runtime, cluster
        finally:
            await runtime.close()


@asynccontextmanager
async def real_halves(cluster: RealCluster) -> AsyncIterator[Halves]:
    """Both halves, open, in namespaces of their own, which are removed in the end."""
    options = KubernetesOptions(namespace_prefix=f"test-{secrets.token_hex(4)}", start_patience_s=60.0)
    runtime = Halves(KubernetesRuntime(cluster.access, options), KubernetesRuntime(cluster.access, options))
    await runtime.open()
    try:
        yield runtime
    finally:
        await runtime.close()
        await cluster.remove_namespaces(options.namespace_prefix)
