"""Names, labels and annotations: what the real server lets through."""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.kube.errors import Cause, invalid_value, required
from tests.fakes.kube.resources import NAMESPACES, Resource

Obj = dict[str, Any]
LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_QUALIFIED = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")

LABEL_WORDS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_VALUE_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_NAME_WORDS = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_ANNOTATION_BYTES = 256 * 1024


def metadata_causes(resource: Resource, obj: Obj) -> list[Cause]:
    """What is wrong with name, labels and annotations."""
    meta = obj["metadata"]
    causes: list[Cause] = []
    name = meta.get("name", "")
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif resource is NAMESPACES:
        causes += label_causes("metadata.name", name)
    else:
        causes += subdomain_causes("metadata.name", name)
    causes += label_map_causes("metadata.labels", meta.get("labels") or {})
    annotations: dict[str, str] = meta.get("annotations") or {}
    for key in annotations:
        causes += key_causes("metadata.annotations", key.lower())
    if sum(len(key) + len(value) for key, value in annotations.items()) > _ANNOTATION_BYTES:
        causes.append(Cause("metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes"))
    return causes


def label_causes(field: str, value: str) -> list[Cause]:
    """An RFC 1123 label, at most 63 characters."""
    if len(value) > 63:
        return [invalid_value(field, value, "must be no more than 63 characters")]
    return [] if LABEL.match(value) else [invalid_value(field, value, LABEL_WORDS)]


def subdomain_causes(field: str, value: str) -> list[Cause]:
    """An RFC 1123 subdomain, at most 253 characters."""
    if len(value) > 253:
        return [invalid_value(field, value, "must be no more than 253 characters")]
    return [] if _SUBDOMAIN.match(value) else [invalid_value(field, value, _SUBDOMAIN_WORDS)]


def label_map_causes(field: str, labels: dict[str, str]) -> list[Cause]:
    """Keys and values of labels."""
    causes: list[Cause] = []
    for key, value in labels.items():
        causes += key_causes(field, key)
        if len(value) > 63:
            causes.append(invalid_value(field, value, "must be no more than 63 characters"))
        elif not _VALUE.match(value):
            causes.append(invalid_value(field, value, _VALUE_WORDS))
    return causes


def key_causes(field: str, key: str) -> list[Cause]:
    """A qualified name: an optional DNS prefix and a name."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or not _SUBDOMAIN.match(prefix)):
        return [invalid_value(field, key, f"prefix part {_SUBDOMAIN_WORDS}")]
    if len(name) > 63:
        return [invalid_value(field, key, "name part must be no more than 63 characters")]
    return [] if _QUALIFIED.match(name) else [invalid_value(field, key, _NAME_WORDS)]
