"""Following objects: list, then watch from there, and again from wherever it broke off."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from libs.runtime.kubernetes.api import KubeApi, Object, path_of
from libs.runtime.kubernetes.errors import ApiError, ApiUnreachableError

log = logging.getLogger(__name__)

ADDED, MODIFIED, DELETED = "ADDED", "MODIFIED", "DELETED"

# The server ends a watch after this; then it goes on from where it was. Spread, so that not all end at once.
_WATCH_S = (120, 180)
# Bookmarks come about every minute. A connection that is silent for longer than a watch lasts is dead.
_SILENCE_S = 190.0
# Between watches that end as they should: a server that ends them at once must not be asked without a pause.
_BREATH_S = 0.05
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is ADDED, MODIFIED or DELETED; `item` the object, in its last state when it is gone."""

    kind: str
    item: Object


class _ExpiredError(Exception):
    """The server no longer knows the version that was asked for."""


class Follower:
    """Follows one collection, or with `name` one object of it, for which no right to list is needed.

    Errors that another try will not cure are raised.
    """

    def __init__(
        self,
        api: KubeApi,
        resource: str,
        namespace: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._query = dict(query or {})
        self._name = name
        self._known: dict[str, Object] = {}
        self._version: str | None = None
        self._pause_s = _FIRST_PAUSE_S

    async def changes(self, *, initial: bool = False, after: Object | None = None) -> AsyncGenerator[Change, None]:
        """Changes from now on; with `initial`, what is there comes first as ADDED; with `after`, all since that state
        of the one object that is followed."""
        if after is not None:
            self._remember(after)
            self._version = after["metadata"]["resourceVersion"]
        quiet = not initial and after is None
        while True:
            try:
                if self._version is None:
                    for change in await self._relist():
                        if not quiet:
                            yield change
                    quiet = False
                async with aclosing(self._watch(self._version or "")) as news:
                    async for change in news:
                        yield change
                await asyncio.sleep(_BREATH_S)
            except _ExpiredError:
                self._version = None
                await asyncio.sleep(_BREATH_S)
            except (ApiError, ApiUnreachableError) as error:
                await self._endure(error)

    async def _endure(self, error: ApiError | ApiUnreachableError) -> None:
        """Pause before the next try, or raise."""
        if isinstance(error, ApiError):
            if error.status == 410:
                self._version = None
                await asyncio.sleep(_BREATH_S)
                return
            if error.status < 500 and error.status != 429:
                raise error
        log.info("watch of %s interrupted, going on from %s: %s", self._resource, self._version, error)
        asked = (error.retry_after_s if isinstance(error, ApiError) else None) or 0.0
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
        await asyncio.sleep(max(min(asked, _LONGEST_PAUSE_S), pause_s))
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    async def _relist(self) -> list[Change]:
        """List again, and tell what has changed since the last known state."""
        items, version = await self._look()
        found = {_key(item): _slim(item) for item in items}
        changes = [Change(DELETED, item) for key, item in self._known.items() if key not in found]
        for key, item in found.items():
            before = self._known.get(key)
            if before is None:
                changes.append(Change(ADDED, item))
            elif _version(before) != _version(item):
                changes.append(Change(MODIFIED, item))
        self._known = found
        self._version = version
        return changes

    async def _look(self) -> tuple[list[Object], str]:
        """What is there, and the version from which on to watch; empty when the watch itself is to tell."""
        if self._name is None:
            listing = await self._api.list(self._resource, self._namespace, **self._query)
            return listing["items"], _version(listing)
        item = await self._api.find(self._resource, self._namespace, self._name)
        return ([item], _version(item)) if item is not None else ([], "")

    async def _watch(self, version: str) -> AsyncGenerator[Change, None]:
        seconds = random.randint(*_WATCH_S)  # noqa: S311 - spreads load
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        if version:
            query["resourceVersion"] = version
        if self._name is not None:
            query["fieldSelector"] = f"metadata.name={self._name}"
        path = path_of(self._resource, self._namespace)
        async with self._api.stream(path, query, silence_s=_SILENCE_S) as content:
            self._pause_s = _FIRST_PAUSE_S
            rest = b""
            async for chunk in content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    change = self._take(line)
                    if change is not None:
                        yield change

    def _take(self, line: bytes) -> Change | None:
        """One line of a watch."""
        if not line.strip():
            return None
        try:
            event = json.loads(line)
        except ValueError as error:
            raise ApiUnreachableError("the watch broke off within a line") from error
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            if item.get("code") == 410:
                raise _ExpiredError
            raise ApiError(int(item.get("code") or 500), item.get("reason") or "", item.get("message") or "")
        self._version = _version(item) or self._version
        if kind == "BOOKMARK":
            return None
        item = _slim(item)
        if kind == DELETED:
            self._known.pop(_key(item), None)
        else:
            self._remember(item)
        return Change(str(kind), item)

    def _remember(self, item: Object) -> None:
        self._known[_key(item)] = item


def one_object(api: KubeApi, resource: str, namespace: str | None, name: str) -> Follower:
    """Follows a single object by its name."""
    return Follower(api, resource, namespace, name=name)


async def wait_until_gone(
    api: KubeApi, resource: str, namespace: str | None, name: str, *, uid: str | None = None, seconds: float
) -> bool:
    """Wait for the end of an object (of this `uid`); False when it is still there after so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            found = await api.find(resource, namespace, name)
            if found is None or (uid is not None and found["metadata"]["uid"] != uid):
                return True
            async with aclosing(one_object(api, resource, namespace, name).changes(after=found)) as changes:
                async for change in changes:
                    if change.kind == DELETED:
                        return True
    except TimeoutError:
        return False
    raise AssertionError("a watch never ends by itself")


def _key(item: Object) -> str:
    metadata = item.get("metadata", {})
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}/{metadata.get('uid', '')}"


def _version(item: Object) -> str:
    return str(item.get("metadata", {}).get("resourceVersion") or "")


def _slim(item: Object) -> Object:
    """Without what only the server's own bookkeeping needs; it is often the largest part."""
    metadata: dict[str, Any] = item.get("metadata", {})
    if "managedFields" not in metadata:
        return item
    return {**item, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}
