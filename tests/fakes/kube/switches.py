"""Everything that can go wrong in a cluster, as methods for tests."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.fakes.kube.access import Access
from tests.fakes.kube.api import Api
from tests.fakes.kube.controllers import Controllers
from tests.fakes.kube.node.images import Image, workspace_image
from tests.fakes.kube.node.kubelet import NODE_IP, Kubelet, PodWorker
from tests.fakes.kube.node.status import set_condition
from tests.fakes.kube.resources import CLAIMS, NODES, PODS, SERVICE_ACCOUNTS
from tests.fakes.kube.scheduler import Scheduler
from tests.fakes.kube.store import Store, now
from tests.fakes.kube.web.context import Context

Obj = dict[str, Any]
_NODE_INFO = {
    **{"kubeletVersion": "v1.36.1", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"},
    **{"osImage": "Debian GNU/Linux 12", "kernelVersion": "6.1.0", "containerRuntimeVersion": "containerd://2.2.0"},
    **{"machineID": "0" * 32, "systemUUID": "0" * 36, "bootID": "0" * 36},
}
_TAINT = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


class Switches:
    """Mixed into FakeCluster."""

    store: Store
    api: Api
    access: Access
    kubelet: Kubelet
    scheduler: Scheduler
    controllers: Controllers
    context: Context
    images: dict[str, Image]

    def add_image(self, name: str, image: Image | None = None) -> None:
        """From now on this image can be pulled."""
        self.images[name] = image or workspace_image()

    def remove_image(self, name: str) -> None:
        """From now on it cannot."""
        self.images.pop(name, None)

    def add_node(self, name: str, *, cpu: str = "64", memory: str = "256Gi", pods: str = "500") -> None:
        """Another node, ready at once."""
        size = {"cpu": cpu, "memory": memory, "pods": pods, "ephemeral-storage": "100Gi"}
        condition = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now()}
        status: Obj = {"capacity": size, "allocatable": size, "conditions": [condition]}
        status |= {"addresses": [{"type": "InternalIP", "address": NODE_IP}, {"type": "Hostname", "address": name}]}
        status["nodeInfo"] = _NODE_INFO
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        self.api.create(NODES, "", {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": status})

    def resize_node(self, name: str, *, cpu: str, memory: str = "256Gi", pods: int = 500) -> None:
        """Another size; a small one makes pods unschedulable."""
        size = {"cpu": cpu, "memory": memory, "pods": str(pods), "ephemeral-storage": "100Gi"}

        def change(node: Obj) -> None:
            node["status"] |= {"capacity": size, "allocatable": size}

        self.store.edit(NODES, self._node(name), change)

    def lose_node(self, name: str, *, delete_pods: bool = True) -> None:
        """The node falls silent: NotReady, its pods not ready and, as after five minutes, marked for deletion."""
        self.kubelet.lost.add(name)
        self.store.edit(NODES, self._node(name), lambda node: _silence(node, lost=True))
        for pod in self._pods_of(name):
            self.store.edit(PODS, pod, _unready)
            if delete_pods:
                self.api.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})

    def restore_node(self, name: str) -> None:
        """It is back, and ends what was deleted meanwhile."""
        self.kubelet.lost.discard(name)
        self.store.edit(NODES, self._node(name), lambda node: _silence(node, lost=False))

    def evict(self, namespace: str, name: str) -> None:
        """The node is short of memory and ends this pod; the object stays, as failed."""
        words = (
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 81Mi. "
            "Container main was using 1Gi, request is 512Mi, has larger consumption of memory. "
        )
        self._worker(namespace, name).evict("Evicted", words)

    def oom_kill(self, namespace: str, name: str) -> None:
        """The main process of each container is killed by the kernel."""
        for worker in self._worker(namespace, name).containers:
            if worker.current is not None:
                worker.current.reason = "OOMKilled"
                worker.current.kill()

    def kill_main(self, namespace: str, name: str) -> None:
        """The main process of each container dies by SIGKILL, as if by `kill -9 1`."""
        for worker in self._worker(namespace, name).containers:
            if worker.current is not None:
                worker.current.kill()

    def lose_volume(self, namespace: str, name: str) -> None:
        """The claim's volume is gone: phase Lost."""
        claim = self.api.get(CLAIMS, namespace, name)
        self.controllers.lose(claim)

    def stop_provisioning(self) -> None:
        """No new volume is made: claims stay pending."""
        self.controllers.provisioning = False

    def resume_provisioning(self) -> None:
        """Volumes are made again."""
        self.controllers.provisioning = True
        self.store.wake()

    def pause_kubelet(self) -> None:
        """Nothing new happens on nodes."""
        self.kubelet.paused = True

    def resume_kubelet(self) -> None:
        """It goes on."""
        self.kubelet.paused = False
        self.store.wake()

    def pause_scheduler(self) -> None:
        """Pods stay without a node."""
        self.scheduler.paused = True

    def resume_scheduler(self) -> None:
        """It goes on."""
        self.scheduler.paused = False
        self.store.wake()

    def freeze(self) -> None:
        """The network dies without a word: open watches and exec streams stay open and silent. New calls still work."""
        self.context.frozen.set()

    def thaw(self) -> None:
        """It is back: watches go on, exec streams turn out to be gone."""
        self.context.frozen.clear()
        self.store.wake()

    def drop_watches(self) -> None:
        """The server hangs up on every watch."""
        self.context.drop_watches()

    def compact(self, *, drop: bool = True, http_status: bool = False) -> None:
        """Forget the history: whoever resumes a watch gets 410, as an event or as the answer's status."""
        self.context.gone_status = http_status
        self.store.version += 1
        self.store.compact()
        if drop:
            self.context.drop_watches()

    def set_metrics(self, state: str) -> None:
        """`on`, `missing` (404) or `unavailable` (503)."""
        self.context.metrics = state

    def set_exec_protocols(self, protocols: list[str]) -> None:
        """What exec speaks from now on: a server older than 1.29 knows `v4.channel.k8s.io` alone."""
        self.context.exec_protocols = tuple(protocols)

    async def settle(self, namespace: str, name: str, *, phase: str, timeout: float = 30.0) -> Obj:
        """Wait for a pod's phase; for Running also until it is ready."""
        async with asyncio.timeout(timeout):
            while True:
                pod = self.store.get(PODS, namespace, name)
                if pod is not None and pod["status"].get("phase") == phase:
                    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
                    if phase != "Running" or conditions.get("Ready") == "True":
                        return pod
                await self.store.changed(timeout)

    async def has_account(self, namespace: str, timeout: float = 30.0) -> None:
        """Wait until pods can be made in a new namespace."""
        async with asyncio.timeout(timeout):
            while self.store.get(SERVICE_ACCOUNTS, namespace, "default") is None:
                await self.store.changed(timeout)

    def _node(self, name: str) -> Obj:
        return self.api.get(NODES, "", name)

    def _pods_of(self, node: str) -> list[Obj]:
        return [pod for pod in self.store.list(PODS) if pod["spec"].get("nodeName") == node]

    def _worker(self, namespace: str, name: str) -> PodWorker:
        worker = self.kubelet.worker(self.api.get(PODS, namespace, name))
        assert worker is not None, f"pod {namespace}/{name} has not reached a node"
        return worker


def _silence(node: Obj, *, lost: bool) -> None:
    node["status"]["conditions"] = [
        {
            "type": "Ready",
            "status": "Unknown" if lost else "True",
            "reason": "NodeStatusUnknown" if lost else "KubeletReady",
            "message": "Kubelet stopped posting node status." if lost else "kubelet is posting ready status",
            "lastTransitionTime": now(),
        }
    ]
    node["spec"]["taints"] = [_TAINT, _TAINT | {"effect": "NoSchedule"}] if lost else []


def _unready(pod: Obj) -> None:
    set_condition(pod, "Ready", False)
