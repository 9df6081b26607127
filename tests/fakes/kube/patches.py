"""PATCH in its four shapes: JSON patch, merge patch, strategic merge patch, apply."""

from __future__ import annotations

import copy
from typing import Any

from tests.fakes.kube.errors import StatusError, bad_request

Obj = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
SHAPES = (JSON_PATCH, MERGE, STRATEGIC, APPLY)

# Lists that a strategic merge merges by key; all others are replaced.
_MERGE_KEYS = {
    **{"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath"},
    **{"ports": "containerPort", "conditions": "type", "ownerReferences": "uid", "imagePullSecrets": "name"},
}
_SETS = {"finalizers"}


def apply_patch(shape: str, obj: Obj, patch: Any) -> Obj:
    """The patched copy. Raises 400, 415 or 422."""
    if shape == JSON_PATCH:
        return _json_patch(copy.deepcopy(obj), patch)
    if shape not in SHAPES:
        listed = ", ".join(SHAPES)
        raise StatusError(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format - accepted media types include: {listed}",
        )
    if not isinstance(patch, dict):
        raise bad_request("json: cannot unmarshal the patch into Go value of type map[string]interface {}")
    return _merge(obj, patch, strategic=shape != MERGE)


def _merge(target: Any, patch: Obj, *, strategic: bool) -> Obj:
    result: Obj = copy.deepcopy(target) if isinstance(target, dict) else {}
    if strategic and patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    for key, value in patch.items():
        if strategic and key.startswith("$"):
            _directive(result, key, value)
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merge(result.get(key), value, strategic=strategic)
        elif strategic and isinstance(value, list) and key in _SETS:
            result[key] = [*result.get(key, []), *(item for item in value if item not in result.get(key, []))]
        elif strategic and isinstance(value, list) and key in _MERGE_KEYS:
            result[key] = _merge_list(result.get(key, []), value, _MERGE_KEYS[key])
        else:
            result[key] = copy.deepcopy(value)
    return result


def _directive(result: Obj, key: str, value: Any) -> None:
    prefix = "$deleteFromPrimitiveList/"
    if key.startswith(prefix):
        name = key.removeprefix(prefix)
        result[name] = [item for item in result.get(name, []) if item not in value]


def _merge_list(old: list[Any], patch: list[Any], key: str) -> list[Any]:
    result = list(old)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        index = next((i for i, found in enumerate(result) if found.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if index is not None:
                del result[index]
        elif index is None:
            result.append(copy.deepcopy(item))
        else:
            result[index] = _merge(result[index], item, strategic=True)
    return result


def _json_patch(obj: Obj, patch: Any) -> Obj:
    if not isinstance(patch, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document: Any = {"": obj}
    for operation in patch:
        try:
            _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise StatusError(
                422, "Invalid", f"the server rejected our request due to an error in our request: {error}", details={}
            ) from error
    result: Obj = document[""]
    return result


def _operate(document: Any, operation: Obj) -> None:
    parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")]
    kind = operation["op"]
    if kind in ("move", "copy"):
        source = [part.replace("~1", "/").replace("~0", "~") for part in operation["from"].split("/")]
        value = copy.deepcopy(_get(document, source))
        if kind == "move":
            _remove(document, source)
        _add(document, parts, value)
    elif kind == "test":
        if _get(document, parts) != operation["value"]:
            raise ValueError(f"testing value {operation['path']} failed")
    elif kind == "remove":
        _remove(document, parts)
    elif kind == "add":
        _add(document, parts, operation["value"])
    elif kind == "replace":
        _get(document, parts)
        parent = _get(document, parts[:-1])
        parent[_index(parent, parts[-1])] = operation["value"]
    else:
        raise ValueError(f"unexpected operation {kind}")


def _get(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = document[_index(document, part)]
    return document


def _index(parent: Any, part: str) -> Any:
    return int(part) if isinstance(parent, list) else part


def _add(document: Any, parts: list[str], value: Any) -> None:
    parent = _get(document, parts[:-1])
    if isinstance(parent, list):
        parent.insert(len(parent) if parts[-1] == "-" else int(parts[-1]), value)
    else:
        parent[parts[-1]] = value


def _remove(document: Any, parts: list[str]) -> None:
    parent = _get(document, parts[:-1])
    del parent[_index(parent, parts[-1])]
