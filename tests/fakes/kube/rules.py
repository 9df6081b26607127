"""Validation at create and update, for every kind; answers 422 with a cause for each wrong field."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from tests.fakes.kube.errors import (
    Cause,
    forbidden_field,
    invalid,
    invalid_value,
    required,
    unsupported,
)
from tests.fakes.kube.names import label_map_causes, metadata_causes
from tests.fakes.kube.pod_rules import pod_causes, pod_update_causes
from tests.fakes.kube.quantity import parse
from tests.fakes.kube.resources import (
    CLAIMS,
    CONFIG_MAPS,
    LIMIT_RANGES,
    NETWORK_POLICIES,
    PODS,
    QUOTAS,
    SECRETS,
    Resource,
)

Obj = dict[str, Any]
_KEY = re.compile(r"^[-._a-zA-Z0-9]+$")
_SECRET_BYTES = 1024 * 1024
_IMMUTABLE = "field is immutable"


def validate_new(resource: Resource, obj: Obj) -> None:
    """Raises 422."""
    causes = metadata_causes(resource, obj)
    causes += list(_NEW.get(resource, _nothing)(obj))
    _raise(resource, obj, causes)


def validate_update(resource: Resource, old: Obj, new: Obj) -> None:
    """Raises 422. Both are whole objects after defaulting."""
    causes = metadata_causes(resource, new)
    if resource is PODS:
        causes += pod_update_causes(old, new)
    elif resource is CLAIMS:
        causes += list(_claim_update(old, new))
    elif resource in (SECRETS, CONFIG_MAPS):
        causes += list(_data_update(old, new)) + list(_data(new))
    else:
        causes += list(_NEW.get(resource, _nothing)(new))
    _raise(resource, new, causes)


def _raise(resource: Resource, obj: Obj, causes: list[Cause]) -> None:
    if causes:
        raise invalid(resource, obj["metadata"].get("name", ""), causes)


def _nothing(_: Obj) -> Iterator[Cause]:
    return iter(())


def _pod(obj: Obj) -> Iterator[Cause]:
    return iter(pod_causes(obj))


def _claim(obj: Obj) -> Iterator[Cause]:
    spec: Obj = obj["spec"]
    modes = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")
    if not spec.get("accessModes"):
        yield required("spec.accessModes", "at least 1 access mode is required")
    for index, mode in enumerate(spec.get("accessModes", [])):
        if mode not in modes:
            yield unsupported(f"spec.accessModes[{index}]", mode, modes)
    storage = spec.get("resources", {}).get("requests", {}).get("storage")
    if storage is None:
        yield required("spec.resources[storage]")
    elif parse(storage) <= 0:
        yield invalid_value("spec.resources[storage]", storage, "must be greater than zero")
    yield from label_map_causes("spec.selector.matchLabels", spec.get("selector", {}).get("matchLabels", {}))


def _claim_update(old: Obj, new: Obj) -> Iterator[Cause]:
    def fixed(obj: Obj) -> Obj:
        return {k: v for k, v in obj["spec"].items() if k not in ("resources", "volumeAttributesClassName")}

    bound = old.get("status", {}).get("phase") == "Bound"
    same_size = old["spec"].get("resources") == new["spec"].get("resources")
    if fixed(old) != fixed(new) or (not bound and not same_size):
        yield forbidden_field(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        )
    elif not same_size:
        before, after = (parse(o["spec"]["resources"]["requests"]["storage"]) for o in (old, new))
        if after < before:
            yield forbidden_field("spec.resources.requests.storage", "field can not be less than status.capacity")


def _data(obj: Obj) -> Iterator[Cause]:
    total = 0
    for key, value in (obj.get("data") or {}).items():
        if not _KEY.match(key) or key in (".", "..") or len(key) > 253:
            yield invalid_value(
                f"data[{key}]",
                key,
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
                "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            )
        total += len(value) * 3 // 4
    if total > _SECRET_BYTES:
        yield Cause("data", "FieldValueTooLong", f"Too long: may not be more than {_SECRET_BYTES} bytes")


def _data_update(old: Obj, new: Obj) -> Iterator[Cause]:
    if old.get("type") != new.get("type"):
        yield invalid_value("type", new.get("type"), _IMMUTABLE)
    if old.get("immutable"):
        if not new.get("immutable"):
            yield forbidden_field("immutable", "field is immutable when `immutable` is set")
        if old.get("data") != new.get("data"):
            yield forbidden_field("data", "field is immutable when `immutable` is set")


def _quota(obj: Obj) -> Iterator[Cause]:
    known = (
        *("cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage", "limits.cpu"),
        *("limits.memory", "requests.ephemeral-storage", "limits.ephemeral-storage", "pods", "services", "secrets"),
        *("configmaps", "persistentvolumeclaims", "resourcequotas", "replicationcontrollers", "services.nodeports"),
        "services.loadbalancers",
    )
    for name, value in obj.get("spec", {}).get("hard", {}).items():
        field = f"spec.hard[{name}]"
        if "/" not in name and name not in known:
            yield invalid_value(field, name, "must be a standard resource for quota")
        if parse(value) < 0:
            yield invalid_value(field, value, "must be greater than or equal to 0")


def _limit_range(obj: Obj) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, item in enumerate(obj.get("spec", {}).get("limits", [])):
        field = f"spec.limits[{index}]"
        if item.get("type") in seen:
            yield Cause(f"{field}.type", "FieldValueDuplicate", f'Duplicate value: "{item["type"]}"')
        seen.add(item.get("type", ""))
        if item.get("type") == "Pod" and (item.get("default") or item.get("defaultRequest")):
            yield forbidden_field(f"{field}.default", "may not be specified when `type` is 'Pod'")
        if item.get("type") == "PersistentVolumeClaim" and not (item.get("min") or item.get("max")):
            yield required(
                f"{field}.limits", "either minimum or maximum storage value is required, but neither was provided"
            )
        for low, high in (("min", "max"), ("defaultRequest", "default"), ("default", "max"), ("min", "defaultRequest")):
            yield from _ordered(field, item, low, high)


def _ordered(field: str, item: Obj, low: str, high: str) -> Iterator[Cause]:
    for name, value in item.get(low, {}).items():
        other = item.get(high, {}).get(name)
        if other is not None and parse(value) > parse(other):
            detail = f"{low} value {value} is greater than {high} value {other}"
            yield invalid_value(f"{field}.{low}[{name}]", value, detail)


def _policy(obj: Obj) -> Iterator[Cause]:
    spec: Obj = obj["spec"]
    types = ("Ingress", "Egress")
    for index, kind in enumerate(spec.get("policyTypes", [])):
        if kind not in types:
            yield unsupported(f"spec.policyTypes[{index}]", kind, types)
    for way, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(way, [])):
            for number, peer in enumerate(rule.get(peers, [])):
                yield from _peer(f"spec.{way}[{index}].{peers}[{number}]", peer)
            for number, port in enumerate(rule.get("ports", [])):
                yield from _policy_port(f"spec.{way}[{index}].ports[{number}]", port)


def _peer(field: str, peer: Obj) -> Iterator[Cause]:
    if not peer:
        yield required(field, "must specify a peer")
    if "ipBlock" not in peer:
        return
    if len(peer) > 1:
        yield forbidden_field(field, "may not specify both ipBlock and another peer")
    block = peer["ipBlock"]
    network = _network(block.get("cidr", ""))
    if network is None:
        yield invalid_value(
            f"{field}.ipBlock.cidr",
            block.get("cidr", ""),
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        )
        return
    for index, text in enumerate(block.get("except", [])):
        inner = _network(text)
        here = f"{field}.ipBlock.except[{index}]"
        if inner is None:
            yield invalid_value(here, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
        elif inner.version != network.version or inner == network or not inner.subnet_of(network):  # type: ignore[arg-type]
            yield invalid_value(here, text, "must be a strict subset of `cidr`")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _policy_port(field: str, port: Obj) -> Iterator[Cause]:
    protocols = ("TCP", "UDP", "SCTP")
    if port["protocol"] not in protocols:
        yield unsupported(f"{field}.protocol", port["protocol"], protocols)
    number = port.get("port")
    if isinstance(number, int) and not 1 <= number <= 65535:
        yield invalid_value(f"{field}.port", number, "must be between 1 and 65535, inclusive")
    if "endPort" in port and (not isinstance(number, int) or port["endPort"] < number):
        yield invalid_value(f"{field}.endPort", port["endPort"], "must be greater than or equal to `port`")


_NEW = {
    PODS: _pod,
    CLAIMS: _claim,
    SECRETS: _data,
    CONFIG_MAPS: _data,
    QUOTAS: _quota,
    LIMIT_RANGES: _limit_range,
    NETWORK_POLICIES: _policy,
}
