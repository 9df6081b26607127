"""labelSelector and fieldSelector."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.fakes.kube.errors import bad_request
from tests.fakes.kube.resources import CLAIMS, EVENTS, NAMESPACES, PODS, SECRETS, Resource

Obj = dict[str, Any]
Matcher = Callable[[Obj], bool]

_SET = re.compile(r"^\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*$")
_ALWAYS = ("metadata.name", "metadata.namespace")
_FIELDS: dict[Resource, tuple[str, ...]] = {
    PODS: (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName"),
        *("spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"),
    ),
    NAMESPACES: ("status.phase",),
    SECRETS: ("type",),
    CLAIMS: (),
    EVENTS: (
        *("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid"),
        *("involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath"),
        *("reason", "reportingComponent", "source", "type"),
    ),
}


def label_matcher(selector: str) -> Matcher:
    """Equality and set requirements, joined by commas. Raises 400."""
    tests = [_label_test(part) for part in _split(selector)]
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def field_matcher(resource: Resource, selector: str) -> Matcher:
    """Equality on the fields that this resource can be selected by. Raises 400."""
    tests = [_field_test(resource, part) for part in _split(selector)]
    return lambda obj: all(test(obj) for test in tests)


def _split(selector: str) -> list[str]:
    return [part for part in re.split(r",(?![^(]*\))", selector) if part.strip()]


def _label_test(text: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET.match(text):
        key, operator, values = match.group(1), match.group(2), {v.strip() for v in match.group(3).split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    for operator in ("!=", "==", "="):
        if operator in text:
            key, value = (side.strip() for side in text.split(operator, 1))
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?|", value):
                raise bad_request(f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}"')
            wanted = operator != "!="
            return lambda labels, k=key, v=value, w=wanted: (labels.get(k) == v) == w  # type: ignore[misc]
    key = text.strip()
    if key.startswith("!"):
        return lambda labels: key[1:].strip() not in labels
    if " " in key:
        raise bad_request(
            f"unable to parse requirement: found '{key.split()[1]}', expected: in, notin, =, ==, !=, gt, lt"
        )
    return lambda labels: key in labels


def _field_test(resource: Resource, text: str) -> Matcher:
    match = re.match(r"^\s*([\w.]+)\s*(!=|==|=)\s*(.*?)\s*$", text)
    if match is None:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    path, operator, value = match.groups()
    if path not in (*_ALWAYS, *_FIELDS.get(resource, ())):
        raise bad_request(f"field label not supported: {path}")
    return lambda obj: (_at(obj, path) == value) == (operator != "!=")


def _at(obj: Obj, path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
