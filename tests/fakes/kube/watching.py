"""WATCH: what a client sees of the history, with bookmarks, 410 and watches that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.kube.errors import expired
from tests.fakes.kube.listing import matcher, parse_version
from tests.fakes.kube.matching import Matcher
from tests.fakes.kube.resources import Resource
from tests.fakes.kube.store import Change, Store

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How long a watch lives, how often it gets bookmarks, and whether its version counts as forgotten.

    `thawed` waits while the network is dead.
    """

    seconds: float
    bookmark_seconds: float
    gone: bool
    thawed: Callable[[], Awaitable[None]]


async def watch(
    store: Store,
    resource: Resource,
    namespace: str | None,
    query: Mapping[str, str],
    options: WatchOptions,
    dropped: Callable[[], bool],
) -> AsyncGenerator[Obj, None]:
    """Events until the time is over or `dropped` says that the server hangs up."""
    matches = matcher(resource, query)
    cursor = parse_version(query.get("resourceVersion", ""))
    if cursor and options.gone:
        yield _too_old(store, cursor)
        return
    if not cursor:
        cursor = store.version
        for event in _initial(store, resource, namespace, matches, query):
            yield event
    clock = _Clock(options, asked=query.get("allowWatchBookmarks") in ("true", "1"))
    while not dropped():
        await options.thawed()
        if cursor < store.compacted:
            yield _too_old(store, cursor)
            return
        current = store.version
        for change in list(store.changes_after(cursor, resource)):
            found = _event(change, namespace, matches)
            if found is not None:
                yield found
        cursor = max(cursor, current)
        if clock.bookmark_is_due():
            yield _bookmark(resource, cursor)
        if clock.is_over():
            return
        if cursor == store.version and not dropped():
            await store.changed(clock.pause())


class _Clock:
    """When the next bookmark is due, and when the watch ends; the last bookmark comes at the end."""

    def __init__(self, options: WatchOptions, *, asked: bool) -> None:
        self._time = asyncio.get_running_loop().time
        self._every, self._asked = options.bookmark_seconds, asked
        self._end = self._time() + options.seconds
        self._next = self._time() + self._every

    def bookmark_is_due(self) -> bool:
        if not self._asked or self._time() < min(self._next, self._end):
            return False
        self._next = self._time() + self._every
        return True

    def is_over(self) -> bool:
        return self._time() >= self._end

    def pause(self) -> float:
        return max(0.0, (min(self._end, self._next) if self._asked else self._end) - self._time())


def _initial(
    store: Store, resource: Resource, namespace: str | None, matches: Matcher, query: Mapping[str, str]
) -> Iterator[Obj]:
    for obj in store.list(resource, namespace):
        if matches(obj):
            yield {"type": "ADDED", "object": obj}
    if query.get("sendInitialEvents") in ("true", "1"):
        yield _bookmark(resource, store.version, initial=True)


def _event(change: Change, namespace: str | None, matches: Matcher) -> Obj | None:
    sample = change.new or change.old
    assert sample is not None
    if namespace is not None and sample["metadata"].get("namespace", "") != namespace:
        return None
    was = change.old is not None and matches(change.old)
    new = change.new
    if new is not None and matches(new):
        return {"type": "MODIFIED" if was else "ADDED", "object": new}
    if not was or change.old is None:
        return None
    last = change.old | {"metadata": change.old["metadata"] | {"resourceVersion": str(change.version)}}
    return {"type": "DELETED", "object": last}


def _bookmark(resource: Resource, version: int, *, initial: bool = False) -> Obj:
    meta: Obj = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj: Obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
    if resource.kind == "Pod":
        obj |= {"spec": {"containers": None}, "status": {}}
    return {"type": "BOOKMARK", "object": obj}


def _too_old(store: Store, version: int) -> Obj:
    error = expired(f"too old resource version: {version} ({store.version})")
    return {"type": "ERROR", "object": error.status()}
