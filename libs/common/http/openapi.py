"""OpenAPI documents: what FastAPI leaves out, and one made of several, which the gateway shows as the API."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from libs.common.http.problems import Problem

_Json = dict[str, Any]
_DESCRIPTION = """Development environments for coding from a phone.

Every error is a `Problem`, also the gateway's own: 404 and 405 for what is not described here, 408 and 431 for requests
that come too slowly or with too large headers, 502 and 504 while the service behind an address does not answer."""
_COMPONENT = "#/components/schemas/{model}"


def merge_openapi(documents: Mapping[str, _Json], *, version: str) -> _Json:
    """Merge `documents` (by service name). A path belongs to the first service that has it.

    Component schemas of one name and one content are shared; of one name and different content, the later service's is
    renamed to `<Service><Name>`.
    """
    merged: _Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "DevPocket API",
            "version": version,
            "description": _DESCRIPTION,
        },
        "paths": {},
        "components": {"schemas": {}, "securitySchemes": {}},
    }
    for service, original in documents.items():
        document = _renamed(service, original, merged["components"]["schemas"])
        components = document.get("components", {})
        merged["components"]["schemas"].update(components.get("schemas", {}))
        merged["components"]["securitySchemes"].update(components.get("securitySchemes", {}))
        for path, item in document["paths"].items():
            merged["paths"].setdefault(path, item)
    return merged


def with_problem_schema(document: _Json) -> _Json:
    """The `document` itself, with the schema that its errors refer to."""
    schema = Problem.model_json_schema(ref_template=_COMPONENT)
    parts = schema.pop("$defs", {})
    document.setdefault("components", {}).setdefault("schemas", {}).update(parts, Problem=schema)
    return document


def _renamed(service: str, document: _Json, taken: _Json) -> _Json:
    schemas = document.get("components", {}).get("schemas", {})
    clashes = {name for name, schema in schemas.items() if name in taken and taken[name] != schema}
    if not clashes:
        return copy.deepcopy(document)
    text = json.dumps(document)
    for name in clashes:
        text = text.replace(f'"#/components/schemas/{name}"', f'"#/components/schemas/{service.title()}{name}"')
    result: _Json = json.loads(text)
    found = result["components"]["schemas"]
    for name in clashes:
        found[f"{service.title()}{name}"] = found.pop(name)
    return result
