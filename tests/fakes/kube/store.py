"""What etcd is to a real cluster: objects, one growing resourceVersion, a history to watch, compaction."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.fakes.kube.resources import STORED, Resource

Obj = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `old` is what was there before; `new` is None after a removal, whose `old` carries the version."""

    version: int
    resource: Resource
    old: Obj | None
    new: Obj | None


def now() -> str:
    """A metav1.Time: seconds, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(obj: Obj) -> Key:
    """Namespace (empty for cluster-wide objects) and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class Store:
    """Objects are never changed in place: readers may keep what they got, writers hand over copies."""

    def __init__(self, *, history: int = 20_000) -> None:
        self._objects: dict[Resource, dict[Key, Obj]] = {resource: {} for resource in STORED}
        self._history: list[Change] = []
        self._keep = history
        self._listeners: list[Callable[[Change], None]] = []
        self._waiters: set[asyncio.Future[None]] = set()
        self.version = 1
        self.compacted = 0

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """The object, or None."""
        return self._objects[resource].get((namespace, name))

    def list(self, resource: Resource, namespace: str | None = None) -> list[Obj]:
        """Sorted by namespace and name, as etcd's keys are."""
        found = self._objects[resource]
        return [found[key] for key in sorted(found) if namespace is None or key[0] == namespace]

    def create(self, resource: Resource, obj: Obj) -> Obj:
        """Store a new object: uid, creationTimestamp and resourceVersion are given here."""
        obj = copy.deepcopy(obj)
        obj["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        return self._write(resource, None, obj)

    def replace(self, resource: Resource, obj: Obj) -> Obj:
        """Store a changed object. A write that changes nothing gives no new version, as with the real one."""
        old = self._objects[resource][key_of(obj)]
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        return old if obj == old else self._write(resource, old, obj)

    def edit(self, resource: Resource, obj: Obj, change: Callable[[Obj], None]) -> Obj | None:
        """Read, change, write in one go; None when that very object (by uid) is gone."""
        current = self.get(resource, *key_of(obj))
        if current is None or current["metadata"]["uid"] != obj["metadata"]["uid"]:
            return None
        changed = copy.deepcopy(current)
        change(changed)
        return self.replace(resource, changed)

    def remove(self, resource: Resource, obj: Obj) -> Obj:
        """Delete for good; the answer is the last state with the version of the deletion."""
        old = self._objects[resource].pop(key_of(obj))
        self.version += 1
        last = copy.deepcopy(old)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._publish(Change(self.version, resource, last, None))
        return last

    def compact(self) -> None:
        """Forget the history: watches from before now get 410."""
        self.compacted = self.version
        self._history.clear()

    def changes_after(self, version: int, resource: Resource) -> Iterator[Change]:
        """Writes to `resource` later than `version`, oldest first."""
        low, high = 0, len(self._history)
        while low < high:
            middle = (low + high) // 2
            if self._history[middle].version <= version:
                low = middle + 1
            else:
                high = middle
        return (change for change in self._history[low:] if change.resource is resource)

    def listen(self, listener: Callable[[Change], None]) -> None:
        """Call `listener` at every write, from inside it."""
        self._listeners.append(listener)

    async def changed(self, timeout: float) -> None:
        """Return at the next write, or after `timeout`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=timeout)
        finally:
            self._waiters.discard(waiter)

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def _write(self, resource: Resource, old: Obj | None, new: Obj) -> Obj:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self._objects[resource][key_of(new)] = new
        self._publish(Change(self.version, resource, old, new))
        return new

    def _publish(self, change: Change) -> None:
        self._history.append(change)
        if len(self._history) > self._keep:
            self.compacted = self._history[len(self._history) // 2].version
            del self._history[: len(self._history) // 2 + 1]
        for listener in self._listeners:
            listener(change)
        self.wake()
