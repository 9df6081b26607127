"""LIST: selectors, pages, and the versions a list may be asked for."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from tests.fakes.kube.errors import StatusError, bad_request, expired
from tests.fakes.kube.matching import Matcher, field_matcher, label_matcher
from tests.fakes.kube.resources import Resource
from tests.fakes.kube.store import Store

Obj = dict[str, Any]


def matcher(resource: Resource, query: Mapping[str, str]) -> Matcher:
    """What labelSelector and fieldSelector of a request let through."""
    labels = label_matcher(query.get("labelSelector", ""))
    fields = field_matcher(resource, query.get("fieldSelector", ""))
    return lambda obj: labels(obj) and fields(obj)


def list_objects(store: Store, resource: Resource, namespace: str | None, query: Mapping[str, str]) -> Obj:
    """A page. Raises 400, 410 for a page token from before a compaction, 504 for a version from the future."""
    limit = _number(query.get("limit", "0"), "limit")
    start: tuple[str, str] = ("", "")
    version = store.version
    if query.get("continue"):
        version, start = _resume(store, query["continue"])
    else:
        _check_version(store, query)
    matches = matcher(resource, query)
    found = [obj for obj in store.list(resource, namespace) if _key(obj) > start and matches(obj)]
    meta: Obj = {"resourceVersion": str(version)}
    if limit and len(found) > limit:
        meta |= {"continue": _token(version, _key(found[limit - 1])), "remainingItemCount": len(found) - limit}
        if query.get("labelSelector") or query.get("fieldSelector"):
            del meta["remainingItemCount"]
        found = found[:limit]
    items = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in found]
    return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": items}


def parse_version(text: str) -> int:
    """A resourceVersion. Raises 400."""
    try:
        return int(text or "0")
    except ValueError as error:
        raise bad_request(f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax') from error


def _check_version(store: Store, query: Mapping[str, str]) -> None:
    wanted = parse_version(query.get("resourceVersion", ""))
    if query.get("resourceVersionMatch") == "Exact" and wanted <= store.compacted:
        raise expired("The resourceVersion for the provided list is too old.")
    if wanted > store.version:
        raise StatusError(
            504,
            "Timeout",
            f"Timeout: Too large resource version: {wanted}, current: {store.version}",
            details={"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]}
            | {"retryAfterSeconds": 1},
        )


def _resume(store: Store, token: str) -> tuple[int, tuple[str, str]]:
    try:
        content = json.loads(base64.urlsafe_b64decode(token))
        version, start = int(content["rv"]), (str(content["start"][0]), str(content["start"][1]))
    except (ValueError, KeyError, TypeError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    if version < store.compacted:
        raise expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. Continuing with the provided token results in an inconsistent list - objects that were "
            "created, modified, or deleted between the time the first chunk was returned and now may show up in the "
            "list."
        )
    return version, start


def _token(version: int, key: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": key}).encode()).decode()


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax ({name})') from error
