"""ResourceQuota: how much an object uses, admission, and the controller's recount."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.fakes.kube.errors import forbidden
from tests.fakes.kube.quantity import add, listing, parse, show
from tests.fakes.kube.resources import CLAIMS, PODS, QUOTAS, STORED, Resource
from tests.fakes.kube.store import Store

Obj = dict[str, Any]
Usage = dict[str, Decimal]
_COMPUTE = ("cpu", "memory", "ephemeral-storage")


def usage_of(resource: Resource, obj: Obj) -> Usage:
    """What one object counts for; a pod that has ended counts for nothing."""
    if resource is PODS:
        return {} if obj.get("status", {}).get("phase") in ("Succeeded", "Failed") else _pod_usage(obj)
    usage = {f"count/{resource.plural}": Decimal(1), resource.plural: Decimal(1)}
    if resource is CLAIMS:
        usage["requests.storage"] = parse(obj["spec"]["resources"]["requests"]["storage"])
    return usage


def _pod_usage(pod: Obj) -> Usage:
    total: Usage = {"pods": Decimal(1), "count/pods": Decimal(1)}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        for kind in ("requests", "limits"):
            amounts = {name: parse(value) for name, value in resources.get(kind, {}).items()}
            total = add(total, {f"{kind}.{name}": value for name, value in amounts.items()})
            if kind == "requests":
                total = add(total, amounts)
    return total


def admit(store: Store, resource: Resource, namespace: str, obj: Obj, *, charge: bool) -> None:
    """Charge a new object to the namespace's quotas, or only check. Raises 403; nothing is charged then."""
    wanted = usage_of(resource, obj)
    charged: list[tuple[Obj, Usage]] = []
    for quota in store.list(QUOTAS, namespace):
        hard = _amounts(quota.get("status", {}).get("hard", {}))
        names = set(quota["spec"].get("hard", {})) & _counted(resource)
        if not names:
            continue
        if not names <= set(hard):
            why = f"status unknown for quota: {quota['metadata']['name']}, resources: {','.join(sorted(names))}"
            raise forbidden(resource, obj["metadata"]["name"], why)
        _all_given(resource, obj, quota, names, wanted)
        used = _amounts(quota["status"].get("used", {}))
        over = [n for n in names if n in wanted and used.get(n, Decimal(0)) + wanted[n] > hard[n]]
        if over:
            why = (
                f"exceeded quota: {quota['metadata']['name']}, requested: {listing(wanted, over)}, "
                f"used: {listing(used, over)}, limited: {listing(hard, over)}"
            )
            raise forbidden(resource, obj["metadata"]["name"], why)
        charged.append((quota, {name: used.get(name, Decimal(0)) + wanted.get(name, Decimal(0)) for name in names}))
    for quota, used in charged if charge else ():
        store.edit(QUOTAS, quota, lambda found, u=used: found["status"]["used"].update(_shown(u)))  # type: ignore[misc]


def recount(store: Store, namespace: str) -> None:
    """What the controller does now and then: hard from the spec, used from what is there."""
    for quota in store.list(QUOTAS, namespace):
        hard: dict[str, str] = quota["spec"].get("hard", {})
        total: Usage = {}
        for resource in STORED:
            if resource.namespaced and set(hard) & _counted(resource):
                total = add(total, *(usage_of(resource, obj) for obj in store.list(resource, namespace)))
        used = {name: total.get(name, Decimal(0)) for name in hard}
        status = {"hard": dict(hard), "used": _shown(used)}
        store.edit(QUOTAS, quota, lambda found, s=status: found.update(status=s))  # type: ignore[misc]


def _all_given(resource: Resource, obj: Obj, quota: Obj, names: set[str], wanted: Usage) -> None:
    if resource is not PODS:
        return
    missing = []
    for name in sorted(names):
        if name in wanted and name in ("pods", "count/pods"):
            continue
        kind, _, compute = name.rpartition(".")
        lacking = [
            c["name"] for c in obj["spec"]["containers"] if compute not in c["resources"].get(kind or "requests", {})
        ]
        if lacking:
            missing.append(f"{name} for: {','.join(lacking)}")
    if missing:
        why = f"failed quota: {quota['metadata']['name']}: must specify {'; '.join(missing)}"
        raise forbidden(resource, obj["metadata"]["name"], why)


def _counted(resource: Resource) -> set[str]:
    names = {f"count/{resource.plural}"}
    if resource is PODS:
        return names | {"pods", *_COMPUTE, *(f"{kind}.{n}" for kind in ("requests", "limits") for n in _COMPUTE)}
    return names | {resource.plural} | ({"requests.storage"} if resource is CLAIMS else set())


def _amounts(values: dict[str, str]) -> Usage:
    return {name: parse(value) for name, value in values.items()}


def _shown(usage: Usage) -> dict[str, str]:
    return {name: show(value, name) for name, value in usage.items()}
