"""LimitRange: defaults for containers, and bounds for containers, pods and claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fakes.kube.errors import forbidden
from tests.fakes.kube.quantity import add, parse, show
from tests.fakes.kube.resources import CLAIMS, LIMIT_RANGES, PODS, Resource
from tests.fakes.kube.store import Store

Obj = dict[str, Any]


def fill_defaults(store: Store, namespace: str, pod: Obj) -> None:
    """Requests and limits that the pod leaves out."""
    for item in _items(store, namespace, "Container"):
        for container in pod["spec"].get("containers", []):
            resources = container.setdefault("resources", {})
            for kind, source in (("limits", "default"), ("requests", "defaultRequest")):
                for name, value in item.get(source, {}).items():
                    resources.setdefault(kind, {}).setdefault(name, value)
            for name, value in resources.get("limits", {}).items():
                resources.setdefault("requests", {}).setdefault(name, value)


def check_bounds(store: Store, resource: Resource, namespace: str, obj: Obj) -> None:
    """Raises 403 when a limit range is violated."""
    words: list[str] = []
    if resource is PODS:
        containers = obj["spec"].get("containers", [])
        for item in _items(store, namespace, "Container"):
            for container in containers:
                words += _violations(item, "Container", container["resources"])
        totals = {
            kind: {
                name: show(value, name)
                for name, value in add(
                    *({n: parse(v) for n, v in c["resources"].get(kind, {}).items()} for c in containers)
                ).items()
            }
            for kind in ("limits", "requests")
        }
        for item in _items(store, namespace, "Pod"):
            words += _violations(item, "Pod", totals)
    elif resource is CLAIMS:
        for item in _items(store, namespace, "PersistentVolumeClaim"):
            requests = obj["spec"]["resources"]["requests"]
            words += _violations(item, "PersistentVolumeClaim", {"requests": requests, "limits": requests})
    if words:
        raise forbidden(resource, obj["metadata"]["name"], words[0] if len(words) == 1 else f"[{', '.join(words)}]")


def _items(store: Store, namespace: str, kind: str) -> Iterator[Obj]:
    for limit_range in store.list(LIMIT_RANGES, namespace):
        for item in limit_range.get("spec", {}).get("limits", []):
            if item.get("type") == kind:
                yield item


def _violations(item: Obj, kind: str, resources: Obj) -> Iterator[str]:
    for name, bound in item.get("min", {}).items():
        request = resources.get("requests", {}).get(name)
        if request is None:
            yield f"minimum {name} usage per {kind} is {bound}.  No request is specified"
        elif parse(request) < parse(bound):
            yield f"minimum {name} usage per {kind} is {bound}, but request is {request}"
    for name, bound in item.get("max", {}).items():
        limit = resources.get("limits", {}).get(name)
        if limit is None:
            yield f"maximum {name} usage per {kind} is {bound}.  No limit is specified"
        elif parse(limit) > parse(bound):
            yield f"maximum {name} usage per {kind} is {bound}, but limit is {limit}"
