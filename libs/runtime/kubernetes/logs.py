"""The log of a workspace across its pods: what is kept of those that are gone, then the one that is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime

from libs.runtime.kubernetes.api import KubeApi, Object
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError
from libs.runtime.kubernetes.loglines import Cursor, RawLine
from libs.runtime.kubernetes.mapping import is_over
from libs.runtime.kubernetes.names import check_ref, namespace_of, workspace_name
from libs.runtime.kubernetes.options import KubernetesOptions
from libs.runtime.kubernetes.podlogs import PodLogs
from libs.runtime.kubernetes.watches import Follower, one_object
from libs.runtime.port import LogLine, WorkspaceNotFoundError, WorkspaceRef

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
# No container has started yet, or the pod has just gone: nothing is wrong.
_NOT_YET = frozenset({400, 404})


class Logs:
    """The logs of one cluster's workspaces."""

    def __init__(self, api: KubeApi, pods: PodLogs, options: KubernetesOptions) -> None:
        self._api = api
        self._pods = pods
        self._options = options

    async def lines(
        self, ref: WorkspaceRef, *, follow: bool, tail: int | None, since: datetime | None
    ) -> AsyncGenerator[LogLine, None]:
        """See `ExecRuntime.logs`. A `since` without a time zone is UTC."""
        check_ref(ref)
        oldest = _nanoseconds(since)
        reader = _Reader(self._api, self._pods, namespace_of(self._options.namespace_prefix, ref.user_id), ref)
        if await reader.is_missing():
            raise WorkspaceNotFoundError("There is no such workspace.")
        async with aclosing(reader.history(tail, oldest)) as lines:
            async for raw in lines:
                if raw.stamp >= oldest:
                    yield raw.line
        if follow:
            async with aclosing(reader.news()) as lines:
                async for raw in lines:
                    if raw.stamp >= oldest:
                        yield raw.line


class _Reader:
    """One reading. Knows which pod it stands in, and where."""

    def __init__(self, api: KubeApi, pods: PodLogs, namespace: str, ref: WorkspaceRef) -> None:
        self._api = api
        self._pods = pods
        self._namespace = namespace
        self._environment_id = ref.environment_id
        self._name = workspace_name(ref.environment_id)
        self._pod_uid: str | None = None
        self._cursor = Cursor()
        self._pause_s = _FIRST_PAUSE_S

    async def is_missing(self) -> bool:
        """There is neither a record nor a pod."""
        return await self._record() is None and await self._pod() is None

    async def history(self, tail: int | None, oldest: int) -> AsyncGenerator[RawLine, None]:
        """What was said until now: the last `tail` lines, or all."""
        pod = await self._pod()
        kept = await self._pods.kept(self._namespace, self._environment_id)
        self._enter(pod)
        if tail is None:
            for raw in kept:
                yield raw
            async with aclosing(self._said(follow=False, since=oldest or None)) as lines:
                async for raw in lines:
                    yield raw
            return
        # At least one, to know where `news` has to go on.
        live = [raw async for raw in self._said(follow=False, tail=max(tail, 1))] if pod is not None else []
        last = [raw for raw in (*kept, *live) if raw.stamp >= oldest]
        for raw in last[-tail:] if tail > 0 else []:
            yield raw

    async def news(self) -> AsyncGenerator[RawLine, None]:
        """What is said from then on, in this pod and the ones after it, until the workspace is deleted."""
        while True:
            record, pod = await self._record(), await self._pod()
            if record is None and pod is None:
                return
            if pod is None or pod["metadata"]["uid"] != self._pod_uid:
                for raw in await self._missed():
                    yield raw
                self._enter(pod)
            if pod is not None:
                async with aclosing(self._follow()) as lines:
                    async for raw in lines:
                        yield raw
                pod = await self._pod()
                if pod is not None and pod["metadata"]["uid"] == self._pod_uid and not is_over(pod):
                    await self._rest()
                    continue
            await self._wait_for_change(record, pod)

    async def _follow(self) -> AsyncGenerator[RawLine, None]:
        """The pod's log until it ends, or the connection does."""
        try:
            async with aclosing(self._said(follow=True, since=self._cursor.stamp or None)) as lines:
                async for raw in lines:
                    self._pause_s = _FIRST_PAUSE_S
                    yield raw
        except ApiUnreachableError:
            return
        except ApiError as error:
            if error.status < 500 and error.status != 429:
                raise

    async def _said(
        self, *, follow: bool, tail: int | None = None, since: int | None = None
    ) -> AsyncGenerator[RawLine, None]:
        """Lines of the pod that were not given yet."""
        if self._pod_uid is None:
            return
        self._cursor.rewind()
        reading = self._pods.read(self._namespace, self._name, follow=follow, tail=tail, since=since)
        try:
            async with aclosing(reading) as lines:
                async for raw in lines:
                    if self._cursor.is_new(raw):
                        yield raw
        except ApiError as error:
            if error.status not in _NOT_YET:
                raise

    async def _missed(self) -> list[RawLine]:
        """What the pod said after we lost it, if somebody has kept it."""
        if self._pod_uid is None:
            return []
        self._cursor.rewind()
        kept = await self._pods.kept(self._namespace, self._environment_id)
        return [raw for raw in kept if self._cursor.is_new(raw)]

    def _enter(self, pod: Object | None) -> None:
        self._pod_uid = pod["metadata"]["uid"] if pod is not None else None
        self._cursor = Cursor()

    async def _rest(self) -> None:
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    async def _wait_for_change(self, record: Object | None, pod: Object | None) -> None:
        """Until the pod or the record changes; a pod that came in between counts."""
        pods = one_object(self._api, "pods", self._namespace, self._name)
        records = one_object(self._api, "configmaps", self._namespace, self._name)
        waiting = [
            asyncio.create_task(_next_change(pods, after=pod)),
            asyncio.create_task(_next_change(records, after=record)),
        ]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _record(self) -> Object | None:
        return await self._api.find("configmaps", self._namespace, self._name)

    async def _pod(self) -> Object | None:
        return await self._api.find("pods", self._namespace, self._name)


async def _next_change(follower: Follower, *, after: Object | None) -> None:
    async with aclosing(follower.changes(initial=after is None, after=after)) as changes:
        await anext(changes)


def _nanoseconds(since: datetime | None) -> int:
    if since is None:
        return 0
    at = since if since.tzinfo else since.replace(tzinfo=UTC)
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000
