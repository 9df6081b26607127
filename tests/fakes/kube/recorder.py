"""Events (core/v1) that scheduler, kubelet and controllers write; repeated ones are counted."""

from __future__ import annotations

import itertools
from typing import Any

from tests.fakes.kube.resources import EVENTS, NAMESPACES, Resource
from tests.fakes.kube.store import Store, now

Obj = dict[str, Any]


class Recorder:
    """Writes events about objects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = itertools.count(1)

    def event(self, resource: Resource, obj: Obj, kind: str, reason: str, message: str, source: str) -> None:
        """`kind` is Normal or Warning."""
        meta = obj["metadata"]
        namespace = meta.get("namespace", "default")
        for found in self._store.list(EVENTS, namespace):
            about = found["involvedObject"]
            if (about["uid"], found["reason"], found["message"]) == (meta["uid"], reason, message):
                self._store.edit(EVENTS, found, self._again)
                return
        if self._store.get(NAMESPACES, "", namespace) is None:
            return
        moment = now()
        self._store.create(
            EVENTS,
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": f"{meta['name']}.{next(self._numbers):016x}", "namespace": namespace},
                "involvedObject": {
                    "kind": resource.kind,
                    "apiVersion": resource.api_version,
                    "namespace": namespace,
                    "name": meta["name"],
                    "uid": meta["uid"],
                    "resourceVersion": meta["resourceVersion"],
                },
                "type": kind,
                "reason": reason,
                "message": message,
                "source": {"component": source},
                "reportingComponent": source,
                "reportingInstance": "",
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
            },
        )

    @staticmethod
    def _again(found: Obj) -> None:
        found["count"] += 1
        found["lastTimestamp"] = now()
