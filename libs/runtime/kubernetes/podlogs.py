"""The log of one pod, read from the API, and the log of pods that are gone, kept in the cluster.

A pod's log goes with the pod, but a workspace that was stopped must still be able to say what it said. So whoever ends
a pod reads its last words while it ends, and keeps them in a ConfigMap beside the environment's record.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from libs.runtime.kubernetes.api import KubeApi, Object, path_of
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError
from libs.runtime.kubernetes.loglines import LineSplitter, RawLine, newest, parse
from libs.runtime.kubernetes.manifests import workspace as manifests
from libs.runtime.kubernetes.mapping import is_over
from libs.runtime.kubernetes.names import CONTAINER, log_name
from libs.runtime.port import WorkspaceRef

log = logging.getLogger(__name__)

# An object of the cluster may hold 1 MiB; this much text, compressed, is far below it.
KEPT_BYTES = 256 * 1024
_LAST_LINES = 2000
# A node that answers does so at once; one that does not must not hold up the end of its pods.
_HEAR_S = 2.0
# The end of the log arrives with the end of the container, which is before the pod is gone.
_LAST_WORDS_S = 1.0
# A log may be silent for hours, and so is a connection that died: it is opened anew, and the cursor loses nothing.
_QUIET_S = 300.0
_READ_S = 20.0


class PodLogs:
    """The logs of one cluster's pods."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def read(
        self,
        namespace: str,
        pod: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: int | None = None,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[RawLine, None]:
        """Lines of a pod, from the second of `since` (nanoseconds) on; with `follow` until the container ends.

        Raises ApiError (400: no container has started yet; 404: no such pod) and ApiUnreachableError.
        """
        query = {"container": CONTAINER, "timestamps": "true", "follow": "true" if follow else "false"}
        if tail is not None:
            query["tailLines"] = str(tail)
        if since is not None:
            query["sinceTime"] = datetime.fromtimestamp(since // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        splitter = LineSplitter()
        path = f"{path_of('pods', namespace, pod)}/log"
        async with self._api.stream(path, query, silence_s=_QUIET_S if follow else _READ_S) as content:
            on_open()
            async for chunk in content.iter_any():
                for raw in splitter.feed(chunk):
                    yield raw
        for raw in splitter.end():
            yield raw

    async def kept(self, namespace: str, environment_id: str) -> list[RawLine]:
        """What pods that are gone have said, oldest first."""
        item = await self._api.find("configmaps", namespace, log_name(environment_id))
        return _unpack(item) if item is not None else []

    async def keep_while(
        self, namespace: str, ref: WorkspaceRef, pod: Object, end: Callable[[], Awaitable[None]]
    ) -> None:
        """End a pod, and keep what it said until then. Only `end` may fail."""
        said: deque[RawLine] = deque(maxlen=_LAST_LINES)
        heard = asyncio.Event()
        listening = asyncio.create_task(self._listen(namespace, pod["metadata"]["name"], said, heard))
        try:
            # What has ended already is gone as soon as it is deleted; what runs still has something to say.
            await (_wait(listening, _HEAR_S) if is_over(pod) else _hear(heard))
            await end()
            await _wait(listening, _LAST_WORDS_S)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if said:
            await self._keep(namespace, ref, list(said))

    async def _listen(self, namespace: str, pod: str, said: deque[RawLine], heard: asyncio.Event) -> None:
        try:
            reading = self.read(namespace, pod, follow=True, tail=_LAST_LINES, on_open=heard.set)
            async with aclosing(reading) as lines:
                async for raw in lines:
                    said.append(raw)
        except (ApiError, ApiUnreachableError) as error:
            log.info("the log of pod %s/%s ended early: %s", namespace, pod, error)
        finally:
            heard.set()

    async def _keep(self, namespace: str, ref: WorkspaceRef, said: list[RawLine]) -> None:
        try:
            before = await self.kept(namespace, ref.environment_id)
            lines = newest([*before, *said], KEPT_BYTES)
            content = gzip.compress(b"".join(raw.encode() for raw in lines), mtime=0)
            await self._api.put("configmaps", namespace, manifests.kept_log(ref, content))
        except (ApiError, ApiUnreachableError) as error:
            log.warning("the log of %s could not be kept: %s", ref.environment_id, error)


async def _hear(heard: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_HEAR_S):
            await heard.wait()


async def _wait(task: asyncio.Task[Any], seconds: float) -> None:
    await asyncio.wait([task], timeout=seconds)


def _unpack(item: Object) -> list[RawLine]:
    try:
        return parse(gzip.decompress(base64.b64decode((item.get("binaryData") or {}).get("log") or "")))
    except (OSError, EOFError, ValueError):
        return []
