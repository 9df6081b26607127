"""The cluster that the contract is held against: the fake one, or a real one that was asked for.

TEST_KUBECONFIG=/path takes the cluster of that file's current context; TEST_BACKEND=containers takes k3s in a container
(needs Docker). TEST_KUBERNETES_IMAGE names the workspace image, one of those that deploy/images/build.sh makes: a
cluster must be able to pull it; k3s gets it from this machine's Docker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import yaml

from libs.runtime.kubernetes.api import KubeApi
from libs.runtime.kubernetes.connection import Connection
from libs.runtime.kubernetes.names import OURS
from libs.runtime.kubernetes.options import ClusterAccess
from tests.runtime_contract.workspaces import IMAGE

_KUBECONFIG = os.environ.get("TEST_KUBECONFIG")
_IN_CONTAINERS = os.environ.get("TEST_BACKEND") == "containers"
_K3S = os.environ.get("TEST_K3S_IMAGE", "rancher/k3s:v1.34.1-k3s1")
# From here k3s takes images as it starts.
_K3S_IMAGES = "/var/lib/rancher/k3s/agent/images"


@dataclass(frozen=True, slots=True)
class RealCluster:
    """A cluster in which we may do everything."""

    access: ClusterAccess

    async def remove_namespaces(self, prefix: str) -> None:
        """Ask for the end of everything that was made under this prefix."""
        connection = Connection(self.access)
        await connection.open()
        try:
            api = KubeApi(connection, 4)
            for item in (await api.list("namespaces", labelSelector=OURS))["items"]:
                if item["metadata"]["name"].startswith(f"{prefix}-"):
                    await api.delete("namespaces", None, item["metadata"]["name"])
        finally:
            await connection.close()


def chosen_cluster(folder: Path) -> AbstractContextManager[RealCluster | None]:
    """The real cluster that the environment names; None stands for the fake one. Raises RuntimeError without Docker."""
    if _KUBECONFIG:
        return nullcontext(RealCluster(ClusterAccess(path=_KUBECONFIG)))
    return _k3s(folder) if _IN_CONTAINERS else nullcontext(None)


@contextmanager
def _k3s(folder: Path) -> Iterator[RealCluster]:
    """k3s in a container, with the workspace image in it."""
    import docker  # type: ignore[import-untyped]
    from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]
    from testcontainers.community.k3s import K3SContainer

    try:
        with (folder / "workspace.tar").open("wb") as file:
            for part in docker.from_env().images.get(IMAGE).save(named=True):
                file.write(part)
    except ImageNotFound as error:
        raise RuntimeError(f"Docker has no image {IMAGE}: run deploy/images/build.sh first.") from error
    except DockerException as error:
        raise RuntimeError(f"TEST_BACKEND=containers needs Docker, which does not answer: {error}") from error
    with K3SContainer(_K3S).with_volume_mapping(str(folder), _K3S_IMAGES, "ro") as k3s:
        kubeconfig = yaml.safe_load(k3s.config_yaml())  # type: ignore[no-untyped-call]
        yield RealCluster(ClusterAccess(kubeconfig=kubeconfig))
