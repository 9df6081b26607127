"""When pods appear and become ready, by the clock of this process: Kubernetes writes whole seconds only."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import client

_READY_TIMEOUT_S = 300.0


@dataclass(slots=True)
class PodTimes:
    """`time.perf_counter` when the watch told of it."""

    added: float
    ready: float | None = None
    gone: float | None = None


class PodWatch:
    """Sees the pods whose namespace begins with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._pods: dict[str, PodTimes] = {}
        self._news = asyncio.Condition()
        self._failed: BaseException | None = None

    async def ready(self, name: str) -> PodTimes:
        """The pod of this name once it is ready. Raises TimeoutError."""
        return await self._when(name, lambda pod: pod is not None and pod.ready is not None)

    async def gone(self, name: str) -> PodTimes:
        """The pod of this name once it is gone. Raises TimeoutError."""
        return await self._when(name, lambda pod: pod is not None and pod.gone is not None)

    async def _when(self, name: str, wanted: Any) -> PodTimes:
        async with asyncio.timeout(_READY_TIMEOUT_S), self._news:
            await self._news.wait_for(lambda: self._failed is not None or wanted(self._pods.get(name)))
        if self._failed is not None:
            raise RuntimeError("the watch of pods broke off; measure again") from self._failed
        return self._pods[name]

    async def follow(self, api: client.CoreV1Api, version: str) -> None:
        """Until cancelled. A watch that ends is no measurement any more, so there is no second one."""
        try:
            answer = await api.list_pod_for_all_namespaces_without_preload_content(
                watch=True, resource_version=version, timeout_seconds=3600, _request_timeout=3600.0
            )
            async for line in answer.content:
                now = time.perf_counter()
                await self._take(json.loads(line), now)
            raise RuntimeError("the server ended it")
        except Exception as error:
            async with self._news:
                self._failed = error
                self._news.notify_all()

    async def _take(self, event: dict[str, Any], now: float) -> None:
        pod = event["object"]
        if event["type"] == "ERROR":
            raise RuntimeError(pod.get("message"))
        metadata = pod["metadata"]
        if not metadata["namespace"].startswith(f"{self._prefix}-"):
            return
        times = self._pods.setdefault(metadata["name"], PodTimes(now))
        if event["type"] == "DELETED":
            times.gone = now
        elif times.ready is None and _is_ready(pod):
            times.ready = now
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def watched_pods(api: client.CoreV1Api, prefix: str) -> AsyncIterator[PodWatch]:
    """From now on."""
    listing = await api.list_pod_for_all_namespaces(limit=1)
    watch = PodWatch(prefix)
    version = listing.metadata.resource_version if listing.metadata is not None else None
    following = asyncio.create_task(watch.follow(api, version or ""))
    try:
        yield watch
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
