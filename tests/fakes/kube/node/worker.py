"""Keeps one container of a pod going: image, configuration, start, probes, end, restart."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.kube.node.container import CannotStartError, Container
from tests.fakes.kube.node.images import Image
from tests.fakes.kube.node.pace import Pace
from tests.fakes.kube.node.sandbox import World
from tests.fakes.kube.node.volumes import VolumeNotReadyError
from tests.fakes.kube.node.worlds import ConfigError

Obj = dict[str, Any]
_REFERENCE = re.compile(r"^[a-z0-9._-]+(:\d+)?(/[a-z0-9._-]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?$")


class ContainerWorker:
    """`changed` is called whenever the status should be written; `event(kind, reason, message)` writes an Event."""

    def __init__(
        self,
        pod: Obj,
        spec: Obj,
        images: Mapping[str, Image],
        pace: Pace,
        make_world: Callable[[Obj, Image], World],
        changed: Callable[[], None],
        event: Callable[[str, str, str], None],
    ) -> None:
        self.spec = spec
        self.current: Container | None = None
        self.last: Container | None = None
        self.waiting: tuple[str, str] | None = ("ContainerCreating", "")
        self.restarts = 0
        self.ready = False
        self.finished = False
        self._pod = pod
        self._images = images
        self._pace = pace
        self._make_world = make_world
        self._changed = changed
        self._event = event
        self._pulled = False

    async def run(self) -> None:
        """Until the container is over for good, or this is cancelled."""
        while True:
            container = await self._start()
            await container.ended.wait()
            self.ready = False
            if container.exit_code and self.spec["terminationMessagePolicy"] == "FallbackToLogsOnError":
                container.message = container.message or container.log.tail()
            if not self._restarts(container):
                self.finished = True
                self._changed()
                return
            self._changed()
            await asyncio.sleep(self._pace.step)
            self._back_off(container)
            await asyncio.sleep(self._pace.crash_backoff * min(2**self.restarts, 16) if self.restarts else 0)
            self.restarts += 1

    async def _start(self) -> Container:
        while True:
            image = await self._pull()
            container = await self._create(image)
            if container is not None:
                return container
            await asyncio.sleep(self._pace.retry)

    async def _create(self, image: Image) -> Container | None:
        try:
            container = Container(self._make_world(self.spec, image))
        except ConfigError as error:
            self._wait("CreateContainerConfigError", str(error))
            self._event("Warning", "Failed", f"Error: {error}")
            return None
        except VolumeNotReadyError as error:
            self._wait("ContainerCreating", "")
            self._event("Warning", "FailedMount", str(error))
            return None
        try:
            await self._start_whole(container)
        except CannotStartError as error:
            container.fail(str(error))
            self._event("Warning", "Failed", f"Error: {error}")
            self.current, self.waiting = container, None
            self._changed()
            return container
        self.current, self.waiting = container, None
        self._event("Normal", "Started", f"Started container {self.spec['name']}")
        probe = self.spec.get("readinessProbe", {}).get("exec")
        if probe is None:
            self.ready = True
        else:
            self._probing = asyncio.create_task(self._probe(container, probe["command"]))
        self._changed()
        return container

    @staticmethod
    async def _start_whole(container: Container) -> None:
        start = asyncio.ensure_future(container.start())
        try:
            await asyncio.shield(start)
        except asyncio.CancelledError:
            await asyncio.gather(start, return_exceptions=True)
            container.kill()
            raise

    async def _pull(self) -> Image:
        name, policy = self.spec["image"], self.spec["imagePullPolicy"]
        while True:
            image = self._images.get(name)
            if image is not None:
                if not self._pulled and image.pull_seconds and policy == "Always":
                    self._event("Normal", "Pulling", f'Pulling image "{name}"')
                    await asyncio.sleep(image.pull_seconds)
                self._pulled = True
                return image
            await self._cannot_pull(name, policy)

    async def _cannot_pull(self, name: str, policy: str) -> None:
        if not _REFERENCE.match(name):
            why = f'couldn\'t parse image name "{name}": invalid reference format'
            words = f'Failed to apply default image tag "{name}": {why}'
            self._fail_pull("InvalidImageName", words)
        elif policy == "Never":
            words = f'Container image "{name}" is not present with pull policy of Never'
            self._fail_pull("ErrImageNeverPull", words)
        else:
            self._event("Normal", "Pulling", f'Pulling image "{name}"')
            words = f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {name}: not found'
            self._event("Warning", "Failed", f'Failed to pull image "{name}": {words}')
            self._fail_pull("ErrImagePull", words)
            await asyncio.sleep(self._pace.retry)
            self._event("Normal", "BackOff", f'Back-off pulling image "{name}"')
            self._wait("ImagePullBackOff", f'Back-off pulling image "{name}": ErrImagePull: {words}')
        await asyncio.sleep(self._pace.retry)

    def _fail_pull(self, reason: str, message: str) -> None:
        self._event("Warning", "Failed", f"Error: {reason}")
        self._wait(reason, message)

    def _wait(self, reason: str, message: str) -> None:
        if self.waiting != (reason, message) or self.current is not None:
            self.last, self.current = self.current or self.last, None
            self.waiting = (reason, message)
            self._changed()

    def _restarts(self, container: Container) -> bool:
        policy = self._pod["spec"]["restartPolicy"]
        return policy == "Always" or (policy == "OnFailure" and container.exit_code != 0)

    def _back_off(self, container: Container) -> None:
        meta = self._pod["metadata"]
        seconds = min(10 * 2 ** max(self.restarts - 1, 0), 300)
        who = f"{self.spec['name']} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
        if self.restarts:
            self._event("Warning", "BackOff", f"Back-off restarting failed container {who}")
            self._wait("CrashLoopBackOff", f"back-off {seconds}s restarting failed container={who}")
        else:
            self.last = container

    async def _probe(self, container: Container, command: list[str]) -> None:
        probe = self.spec["readinessProbe"]
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while container.exit_code is None:
            started = await container.exec(command, tty=False, stdin=False, wanted=())
            ok = False
            if not isinstance(started, str):
                with contextlib.suppress(TimeoutError):
                    ok = await asyncio.wait_for(started.pump(_nowhere), probe["timeoutSeconds"]) == 0
            if ok != self.ready and container is self.current and container.exit_code is None:
                self.ready = ok
                self._changed()
            await asyncio.sleep(probe["periodSeconds"])


async def _nowhere(channel: int, data: bytes) -> None:
    """Output nobody reads."""
