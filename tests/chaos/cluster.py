"""The kubernetes runtime of a run: a fake cluster in a process of its own, whose pods are processes of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from libs.cli.stack.paths import PROJECT_ROOT
from libs.runtime.kubernetes.names import ENVIRONMENT, USER
from tests.chaos import namespaces
from tests.chaos.cluster_api import ClusterApi, Obj, path_of
from tests.chaos.cluster_faults import ClusterFaults, Weather
from tests.chaos.ground import Dish, Thing
from tests.chaos.namespaces import Living

_END_S = 30.0
_NODES = 4
_KINDS = ("pods", "persistentvolumeclaims", "secrets", "configmaps")


class Cluster:
    """A cluster for `users` at a time, with its files in `folder`; one node may be lost and there is still room."""

    def __init__(self, folder: Path, weather: Weather, *, users: int) -> None:
        self._folder = folder
        self._weather = weather
        self._pods_per_node = max(4, users // 2)
        self._process: subprocess.Popen[str] | None = None
        self._api: ClusterApi | None = None
        self._faults: ClusterFaults | None = None

    @property
    def settings(self) -> Mapping[str, str]:
        """Only while it runs."""
        return {
            "RUNTIME": "kubernetes",
            "KUBECONFIG": str(self._folder / "kubeconfig"),
            "CLUSTER_CHECK_SECONDS": "2",
            # Outside of a run, a workspace that ends so often would be one that crashes.
            "CRASH_LOOP_LOSSES": "1000",
        }

    def start(self) -> None:
        """See Ground."""
        self._folder.mkdir(parents=True)
        argv = [sys.executable, "-m", "tests.chaos.kube", "--folder", str(self._folder)]
        argv += ["--nodes", str(_NODES), "--pods", str(self._pods_per_node)]
        with (self._folder / "kube.log").open("wb") as errors:
            self._process = subprocess.Popen(
                argv,
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # Ctrl-C is for us: the cluster goes last.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        kubeconfig = self._process.stdout.readline().strip()
        if not kubeconfig:
            raise RuntimeError(f"the fake cluster did not start:\n{(self._folder / 'kube.log').read_text()}")
        self._api = ClusterApi(Path(kubeconfig))
        self._faults = ClusterFaults(self._api, self._process.pid, self._weather)

    def stop(self) -> None:
        """See Ground. Raises RuntimeError."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.communicate(timeout=_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise RuntimeError("the fake cluster did not stop and was killed") from None

    @property
    def api(self) -> ClusterApi:
        """Its administrator, once it runs."""
        assert self._api is not None
        return self._api

    @property
    def faults(self) -> ClusterFaults:
        """What is done to it, once it runs."""
        assert self._faults is not None
        return self._faults

    def dishes(self) -> Sequence[Dish]:
        """See Ground."""
        return self.faults.dishes()

    def weather(self, counts: Counter[str]) -> AbstractAsyncContextManager[object]:
        """See Ground."""
        return self.faults.weather(counts)

    def living(self) -> Living:
        """See Ground."""
        return namespaces.living(self._environment_of)

    def twice(self) -> dict[str, list[int]]:
        """See Ground."""
        lost = self.faults.lost_pods
        found = namespaces.twice(self.living)
        seen = {key: [pid for pid in pids if self._pod_of(pid) not in lost] for key, pids in found.items()}
        return {key: pids for key, pids in seen.items() if len(pids) > 1}

    async def things(self) -> list[Thing]:
        """The objects of environments, and the namespaces of users."""
        found = [_thing(kind, item, "labels", ENVIRONMENT) for kind in _KINDS for item in await self.api.list(kind)]
        spaces = await self.api.list("namespaces")
        return found + [_thing("namespaces", item, "annotations", USER) for item in spaces]

    def _environment_of(self, process: Path) -> str | None:
        """By what its container was started with, if its /workspace is one of this cluster's volumes."""
        if namespaces.below(namespaces.mounted_at(process, "/workspace"), self._folder / "volumes") is None:
            return None
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return None
        prefix = b"DEVPOCKET_ENVIRONMENT_ID="
        return next((item.removeprefix(prefix).decode() for item in variables if item.startswith(prefix)), None)

    def _pod_of(self, pid: int) -> str:
        path = namespaces.below(namespaces.mounted_at(Path(f"/proc/{pid}"), "/etc/hostname"), self._folder / "pods")
        return (path or "").split("/")[0]


def _thing(kind: str, item: Obj, where: str, name: str) -> Thing:
    meta = item["metadata"]
    owner = (meta.get(where) or {}).get(name, "?")
    return Thing(kind, path_of(kind, item), owner, ending="deletionTimestamp" in meta)
