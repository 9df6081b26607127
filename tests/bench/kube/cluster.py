"""The cluster that is measured: the one KUBECONFIG names, else a fake one, started for this run."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio import client
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.config.kube_config import load_kube_config

_FAKE_END_S = 30.0
_GONE_TIMEOUT_S = 120.0
_LOOK_AGAIN_S = 0.5


@dataclass(frozen=True)
class Cluster:
    """How it is reached. Every namespace that this run makes begins with `prefix`."""

    kubeconfig: str
    context: str | None
    is_fake: bool
    prefix: str

    @property
    def title(self) -> str:
        """For the table."""
        return "FAKE cluster" if self.is_fake else "cluster of KUBECONFIG"

    @property
    def settings(self) -> dict[str, str]:
        """What a stack needs to work with it, and with nothing of what others have there."""
        return {
            **{"RUNTIME": "kubernetes", "KUBECONFIG": self.kubeconfig, "KUBERNETES_CONTEXT": self.context or ""},
            **{"KUBERNETES_NAMESPACE_PREFIX": self.prefix, "ORPHAN_GRACE_SECONDS": "86400"},
        }


@contextmanager
def measured_cluster() -> Iterator[Cluster]:
    """At the end, also of an interrupted run, every namespace of this run is gone, and a fake cluster with them."""
    named = os.environ.get("KUBECONFIG", "")
    # Two runs in one cluster must not meet.
    prefix = f"bench-{secrets.token_hex(3)}"
    if not named:
        with _fake_cluster() as kubeconfig:
            yield Cluster(kubeconfig, None, True, prefix)
        return
    cluster = Cluster(named, os.environ.get("KUBERNETES_CONTEXT") or None, False, prefix)
    print(f"the cluster of KUBECONFIG={named}; namespaces of this run begin with {prefix}-", file=sys.stderr)
    try:
        yield cluster
    finally:
        print("removing what this run has made …", file=sys.stderr)
        left = asyncio.run(_remove_namespaces(cluster))
        if left:
            print(f"still there, remove with: kubectl delete namespace {' '.join(left)}", file=sys.stderr)


@asynccontextmanager
async def connected(cluster: Cluster) -> AsyncIterator[client.CoreV1Api]:
    """The official client on it."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = 0
    await load_kube_config(
        config_file=cluster.kubeconfig,
        context=cluster.context,
        client_configuration=configuration,
        persist_config=False,
    )
    async with client.ApiClient(configuration) as api:
        yield client.CoreV1Api(api)


@contextmanager
def _fake_cluster() -> Iterator[str]:
    """Its kubeconfig. It listens to SIGTERM only, in a session of its own: Ctrl-C is for us, and it goes last."""
    print(
        "KUBECONFIG is not set: measuring with a FAKE cluster on this machine. Its pods are processes here, its API "
        "server shares our cores; the numbers say what our own work costs, not what a cluster does.",
        file=sys.stderr,
    )
    with tempfile.TemporaryDirectory(prefix="devpocket-bench-kube-") as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        argv = [sys.executable, "-m", "tests.fakes.kube", "--kubeconfig-out", str(kubeconfig)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            if not ready:
                raise RuntimeError("the fake cluster did not start")
            print(ready.strip(), file=sys.stderr)
            yield str(kubeconfig)
        finally:
            process.terminate()
            process.wait(_FAKE_END_S)


async def until_gone(api: client.CoreV1Api, prefix: str, *, besides: str = "") -> list[str]:
    """Wait until the namespaces of this run are gone; names of those that are still there after a while."""
    names: list[str] = []
    try:
        async with asyncio.timeout(_GONE_TIMEOUT_S):
            while True:
                names = [name for name in await _namespaces(api, prefix) if name != besides]
                if not names:
                    break
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError:
        pass
    return names


async def _remove_namespaces(cluster: Cluster) -> list[str]:
    async with connected(cluster) as api:
        for name in await _namespaces(api, cluster.prefix):
            try:
                await api.delete_namespace(name)
            except ApiException as error:
                if error.status not in (404, 409):
                    raise
        return await until_gone(api, cluster.prefix)


async def _namespaces(api: client.CoreV1Api, prefix: str) -> list[str]:
    items = (await api.list_namespace()).items
    names = [item.metadata.name or "" for item in items if item.metadata is not None]
    return [name for name in names if name.startswith(f"{prefix}-")]
