"""The whole fake: an API server on loopback, its controllers, its nodes, and every switch a test may turn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from tests.fakes.kube.access import Access
from tests.fakes.kube.admission import DEFAULT_CLASS, Admission
from tests.fakes.kube.api import Api
from tests.fakes.kube.controllers import Controllers
from tests.fakes.kube.faults import FaultPlan
from tests.fakes.kube.node.images import Image, workspace_image
from tests.fakes.kube.node.kubelet import Kubelet
from tests.fakes.kube.node.pace import Pace
from tests.fakes.kube.node.volumes import Volumes
from tests.fakes.kube.recorder import Recorder
from tests.fakes.kube.resources import NAMESPACES, STORAGE_CLASSES
from tests.fakes.kube.scheduler import Scheduler
from tests.fakes.kube.store import Store
from tests.fakes.kube.switches import Switches
from tests.fakes.kube.web.app import Server
from tests.fakes.kube.web.context import Context

Obj = dict[str, Any]
_STORAGE = {"standard": "WaitForFirstConsumer", "immediate": "Immediate"}
WORKSPACE_IMAGES = tuple(f"devpocket/{name}:latest" for name in ("python", "nodejs", "golang", "rust", "ubuntu"))


class FakeCluster(Switches):
    """`async with FakeCluster() as cluster:` serves until the block ends; nothing it started outlives it.

    `images` maps names to images; by default the workspace images' names. `folder` keeps volumes and the kubeconfig.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        images: Mapping[str, Image] | None = None,
        faults: FaultPlan | None = None,
        pace: Pace | None = None,
        folder: Path | None = None,
        token: str | None = None,
        cpu: str = "64",
        memory: str = "256Gi",
        pods: int = 500,
    ) -> None:
        self.pace = pace or Pace()
        self.images: dict[str, Image] = dict(images or {name: workspace_image() for name in WORKSPACE_IMAGES})
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="fake-kube-"))
        self.token = token or secrets.token_hex(16)
        self.access = Access({"admin": self.token})
        self._wire()
        self.context.faults = faults or FaultPlan()
        self._port = port
        self._node_size = {"cpu": cpu, "memory": memory, "pods": str(pods)}
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    def _wire(self) -> None:
        self.store = Store()
        self.recorder = Recorder(self.store)
        self.volumes = Volumes(self.store, self.folder)
        self.api = Api(self.store, Admission(self.store), random.Random(0))
        self.kubelet = Kubelet(self.store, self.api, self.volumes, self.images, self.pace, self.recorder)
        self.scheduler = Scheduler(self.store, self.recorder, self.pace)
        self.controllers = Controllers(self.store, self.api, self.volumes, self.recorder, self.pace)
        self.context = Context(self.store, self.api, self.access, self.kubelet, self.pace)

    @property
    def url(self) -> str:
        """Where the API server listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Obj:
        """A kubeconfig with one context and the administrator's token."""
        return self.kubeconfig_for("admin", self.token)

    def kubeconfig_for(self, user: str, token: str) -> Obj:
        """The same for another account."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": user}}],
        }

    @property
    def kubeconfig_path(self) -> Path:
        """The same as a file; JSON is YAML too."""
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(self.kubeconfig))
        path.chmod(0o600)
        return path

    async def start(self) -> None:
        """Listen, and start controllers and nodes."""
        self._seed()
        await self.listen()
        for part in (self.controllers, self.scheduler, self.kubelet):
            self._tasks.append(asyncio.create_task(part.run()))

    async def stop(self) -> None:
        """End everything, the pods' processes included."""
        await self.hang_up()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.kubelet.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def listen(self) -> None:
        """Open the API server's port; also after `hang_up`, on the same one."""
        self.context.stopping = False
        runner = web.AppRunner(
            Server(self.context, self.volumes, self).application(), access_log=None, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = int(runner.addresses[0][1])
        self._runner = runner

    async def hang_up(self) -> None:
        """The API server goes away: no port, every stream ends. Pods live on."""
        self.context.stopping = True
        self.store.wake()
        for task in set(self.context.streams):
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> FakeCluster:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _seed(self) -> None:
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.api.create(NAMESPACES, "", {"metadata": {"name": name}})
        for name, mode in _STORAGE.items():
            meta: Obj = {"name": name}
            if name == "standard":
                meta["annotations"] = {DEFAULT_CLASS: "true"}
            content = {"provisioner": "fake.devpocket.io/folder", "reclaimPolicy": "Delete", "volumeBindingMode": mode}
            self.api.create(STORAGE_CLASSES, "", {"metadata": meta, "allowVolumeExpansion": True, **content})
        self.add_node("node-1", **self._node_size)


@contextlib.asynccontextmanager
async def fake_cluster(**options: Any) -> AsyncIterator[FakeCluster]:
    """The same as a function, for fixtures."""
    async with FakeCluster(**options) as cluster:
        yield cluster
