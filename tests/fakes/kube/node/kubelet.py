"""The kubelets of all nodes: every pod that is bound to a node gets a worker that makes it so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

from tests.fakes.kube.api import Api
from tests.fakes.kube.node.images import Image
from tests.fakes.kube.node.pace import Pace
from tests.fakes.kube.node.status import set_condition, write_status
from tests.fakes.kube.node.volumes import Volumes
from tests.fakes.kube.node.worker import ContainerWorker
from tests.fakes.kube.node.worlds import make_world
from tests.fakes.kube.recorder import Recorder
from tests.fakes.kube.resources import PODS
from tests.fakes.kube.store import Store, key_of

Obj = dict[str, Any]
NODE_IP = "10.0.0.10"


class PodWorker:
    """One pod on its node, from binding to its end."""

    def __init__(
        self, pod: Obj, store: Store, api: Api, volumes: Volumes, images: Mapping[str, Image], pace: Pace,
        recorder: Recorder,
    ) -> None:  # fmt: skip
        self.pod = pod
        self.failure: tuple[str, str] | None = None
        self.silent = False
        self._store, self._api, self._volumes, self._pace = store, api, volumes, pace
        self._deleting = asyncio.Event()
        self._force = False
        self.containers = [
            ContainerWorker(
                pod, spec, images, pace,
                lambda spec, image: make_world(store, volumes, self.pod, spec, image),
                self.write,
                lambda kind, reason, message: recorder.event(PODS, pod, kind, reason, message, "kubelet"),
            )
            for spec in pod["spec"]["containers"]
        ]  # fmt: skip

    async def run(self) -> None:
        """Until the pod is gone from the API and all its processes have ended."""
        await asyncio.sleep(self._pace.step)
        self.write()
        life = asyncio.ensure_future(asyncio.gather(*(worker.run() for worker in self.containers)))
        try:
            await self._deleting.wait()
        finally:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            await self._end_processes()
        self._volumes.discard_pod(self.pod["metadata"]["uid"])
        self.write()
        if not self._force:
            self._api.finish_delete(PODS, self.pod)

    def delete(self, pod: Obj) -> None:
        """The API says that it should go."""
        self.pod = pod
        self._deleting.set()

    def force(self) -> None:
        """It is gone from the API already."""
        self._force = True
        self._deleting.set()

    def hear(self, silent: bool) -> None:
        """Whether the node can reach the API; what it could not say before it says now."""
        before, self.silent = self.silent, silent
        if before and not silent:
            self.write()

    def evict(self, reason: str, message: str) -> None:
        """End its processes, leave the pod as failed."""
        self.failure = (reason, message)
        for worker in self.containers:
            if worker.current is not None:
                worker.current.kill()
            worker.finished = True
        self.write()

    def write(self) -> None:
        """Put what is known into the status."""
        if not self.silent:
            self._store.edit(PODS, self.pod, self._fill)

    def _fill(self, pod: Obj) -> None:
        if self.failure is None:
            write_status(pod, self.containers, NODE_IP)
            return
        reason, message = self.failure
        pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}
        set_condition(pod, "DisruptionTarget", True, reason="TerminationByKubelet", message=message)
        set_condition(pod, "Ready", False, reason="PodFailed")
        set_condition(pod, "ContainersReady", False, reason="PodFailed")

    async def _end_processes(self) -> None:
        running = [worker.current for worker in self.containers if worker.current and worker.current.exit_code is None]
        if not running:
            return
        for container in running:
            container.signal(signal.SIGTERM)
        ends = [asyncio.ensure_future(container.ended.wait()) for container in running]
        remaining = self._grace()
        loop = asyncio.get_running_loop()
        start = loop.time()
        while loop.time() - start < remaining and not all(end.done() for end in ends):
            await asyncio.wait(ends, timeout=0.05)
            remaining = min(remaining, self._grace())
        for container in running:
            container.kill()
        await asyncio.wait(ends)
        for worker in self.containers:
            worker.ready = False
            worker.finished = True
        for container in running:
            await container.drain()

    def _grace(self) -> float:
        current = self._store.get(PODS, *key_of(self.pod))
        if self._force or current is None or current["metadata"]["uid"] != self.pod["metadata"]["uid"]:
            return 1.0
        seconds = current["metadata"].get("deletionGracePeriodSeconds")
        return 30.0 if seconds is None else float(seconds)


class Kubelet:
    """`lost` nodes do nothing and say nothing, though their processes live on."""

    def __init__(
        self, store: Store, api: Api, volumes: Volumes, images: Mapping[str, Image], pace: Pace, recorder: Recorder
    ) -> None:
        self._store, self._api, self._volumes = store, api, volumes
        self._images, self._pace, self._recorder = images, pace, recorder
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.lost: set[str] = set()
        self.paused = False

    async def run(self) -> None:
        """Follow the API until cancelled."""
        while True:
            seen = self._store.version
            if not self.paused:
                self._sync()
            if self._store.version == seen:
                await self._store.changed(1.0)

    async def stop(self) -> None:
        """End everything at once, without a word to the API."""
        for worker in self._workers.values():
            worker.silent = True
            for container in worker.containers:
                if container.current is not None:
                    container.current.kill()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def worker(self, pod: Obj) -> PodWorker | None:
        """Who looks after this pod; None before a kubelet has seen it."""
        return self._workers.get(pod["metadata"]["uid"])

    def container(self, pod: Obj, name: str) -> ContainerWorker | None:
        """The container of this pod, as its kubelet knows it."""
        worker = self.worker(pod)
        return next((c for c in worker.containers if c.spec["name"] == name), None) if worker else None

    def _sync(self) -> None:
        present: set[str] = set()
        for pod in self._store.list(PODS):
            uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
            present.add(uid)
            worker = self._workers.get(uid)
            if worker is not None:
                worker.hear(node in self.lost)
            if not node or node in self.lost:
                continue
            if worker is None and pod["status"]["phase"] not in ("Succeeded", "Failed"):
                worker = self._begin(pod)
            if "deletionTimestamp" in pod["metadata"]:
                if worker is not None:
                    worker.delete(pod)
                else:
                    self._api.finish_delete(PODS, pod)
        for uid, worker in list(self._workers.items()):
            if uid not in present and worker.pod["spec"].get("nodeName") not in self.lost:
                worker.force()

    def _begin(self, pod: Obj) -> PodWorker:
        worker = PodWorker(pod, self._store, self._api, self._volumes, self._images, self._pace, self._recorder)
        uid = pod["metadata"]["uid"]
        self._workers[uid] = worker
        task = asyncio.create_task(worker.run())
        self._tasks[uid] = task
        task.add_done_callback(lambda _: self._forget(uid))
        return worker

    def _forget(self, uid: str) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)
