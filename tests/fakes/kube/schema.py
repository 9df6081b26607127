"""Decoding: what the API server does with a JSON body before anybody looks at its meaning.

The schema is the one the official client is generated from, so that a field is known here if and only if it exists.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any

from kubernetes.aio.client import models
from pydantic import BaseModel

from tests.fakes.kube.errors import bad_request
from tests.fakes.kube.quantity import QUANTITY
from tests.fakes.kube.resources import Resource

Obj = dict[str, Any]

_QUANTITY_MAPS = {
    *("requests", "limits", "hard", "used", "max", "min", "default", "defaultRequest", "maxLimitRequestRatio"),
    *("capacity", "allocatable", "allocatedResources", "overhead"),
}
_QUANTITIES = {"sizeLimit", "divisor"}
_SCALARS = {"str", "bool", "int", "float", "bytes", "datetime", "object"}
_GO = {"str": "string", "bool": "bool", "int": "int64", "float": "float64"}
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")


@dataclass(slots=True)
class Decoded:
    """The object with only known fields, and what was wrong with the text: unknown and duplicate fields."""

    obj: Obj
    problems: list[str] = field(default_factory=list)


def decode(resource: Resource, body: bytes, validation: str) -> Decoded:
    """Parse a body for `resource`. Raises 400 for what no typed object can hold, and for problems when Strict."""
    problems: list[str] = []
    try:
        raw = json.loads(body, object_pairs_hook=lambda pairs: _object(pairs, problems))
    except (ValueError, UnicodeDecodeError) as error:
        raise bad_request(f"error decoding JSON: {error}") from error
    return check(resource, raw, validation, problems)


def check(resource: Resource, raw: Any, validation: str, problems: list[str] | None = None) -> Decoded:
    """As `decode`, for a body that is parsed already."""
    problems = [] if problems is None else problems
    if not isinstance(raw, dict):
        raise bad_request(f"json: cannot unmarshal {_json_type(raw)} into Go value of type v1.{resource.kind}")
    _right_kind(resource, raw)
    if resource.model is None:
        return Decoded(raw)
    try:
        obj = _model(resource.model, raw, "", problems)
    except _WrongTypeError as error:
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {error}'
        ) from error
    if problems and validation == "Strict":
        listed = ", ".join(problems)
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {listed}"
        )
    return Decoded(obj | {"kind": resource.kind, "apiVersion": resource.api_version}, problems)


class _WrongTypeError(Exception):
    """A value of another JSON type than the field's."""


def _right_kind(resource: Resource, raw: Obj) -> None:
    version, kind = raw.get("apiVersion") or resource.api_version, raw.get("kind") or resource.kind
    if (version, kind) == (resource.api_version, resource.kind):
        return
    if version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({resource.api_version})"
        )
    raise bad_request(
        f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}: unknown conversion'
    )


def _object(pairs: list[tuple[str, Any]], problems: list[str]) -> Obj:
    result: Obj = {}
    for key, value in pairs:
        if key in result:
            problems.append(f'duplicate field "{key}"')
        result[key] = value
    return result


def _model(model: type[BaseModel], raw: Any, path: str, problems: list[str]) -> Obj:
    if not isinstance(raw, dict):
        raise _WrongTypeError(_mismatch(raw, path, f"v1.{model.__name__.removeprefix('V1')}"))
    types: dict[str, str] = model.openapi_types  # type: ignore[attr-defined]
    names: dict[str, str] = {json_name: name for name, json_name in model.attribute_map.items()}  # type: ignore[attr-defined]
    result: Obj = {}
    for key, value in raw.items():
        here = f"{path}.{key}" if path else key
        if key not in names:
            problems.append(f'unknown field "{here}"')
        elif value is not None:
            result[key] = _value(types[names[key]], value, here, problems)
    return result


def _value(kind: str, value: Any, path: str, problems: list[str]) -> Any:
    name = path.rsplit(".", 1)[-1].partition("[")[0]
    if kind.startswith("List["):
        if not isinstance(value, list):
            raise _WrongTypeError(_mismatch(value, path, f"[]{_go(kind[5:-1])}"))
        return [_value(kind[5:-1], item, f"{path}[{index}]", problems) for index, item in enumerate(value)]
    if kind.startswith("Dict["):
        return _map(kind[5:-1].split(", ", 1)[1], value, path, name, problems)
    if name in _QUANTITIES and kind == "str":
        return _quantity(value)
    if kind in _SCALARS:
        return _scalar(kind, value, path)
    return _model(getattr(models, kind), value, path, problems)


def _map(kind: str, value: Any, path: str, name: str, problems: list[str]) -> Obj:
    if not isinstance(value, dict):
        raise _WrongTypeError(_mismatch(value, path, f"map[string]{_go(kind)}"))
    if name in _QUANTITY_MAPS and kind == "str":
        return {key: _quantity(item) for key, item in value.items()}
    return {key: _value(kind, item, f"{path}.{key}", problems) for key, item in value.items() if item is not None}


def _scalar(kind: str, value: Any, path: str) -> Any:
    right = {
        "str": lambda: isinstance(value, str),
        "bool": lambda: isinstance(value, bool),
        "int": lambda: isinstance(value, int) and not isinstance(value, bool),
        "float": lambda: isinstance(value, int | float) and not isinstance(value, bool),
    }.get(kind)
    if kind == "datetime":
        if not isinstance(value, str) or not _TIME.match(value):
            raise _WrongTypeError(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}"')
    elif kind == "bytes":
        _base64(value, path)
    elif right is not None and not right():
        raise _WrongTypeError(_mismatch(value, path, _go(kind)))
    return value


def _base64(value: Any, path: str) -> None:
    if not isinstance(value, str):
        raise _WrongTypeError(_mismatch(value, path, "[]uint8"))
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise _WrongTypeError("illegal base64 data at input byte 0") from error


def _quantity(value: Any) -> str:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not QUANTITY.match(text):
        raise _WrongTypeError(f"quantities must match the regular expression '{QUANTITY.pattern}'")
    return text


def _mismatch(value: Any, path: str, go_type: str) -> str:
    return f"json: cannot unmarshal {_json_type(value)} into Go struct field .{path} of type {go_type}"


def _go(kind: str) -> str:
    return _GO.get(kind, kind)


def _json_type(value: Any) -> str:
    names = ((bool, "bool"), (int, "number"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"))
    return next((name for cls, name in names if isinstance(value, cls)), "null")
