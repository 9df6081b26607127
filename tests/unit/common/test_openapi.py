"""Merging contracts keeps every path and tells clashing schemas apart."""

from __future__ import annotations

from typing import Any

from libs.common.http.openapi import merge_openapi


def document(path: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "t", "version": "1"},
        "paths": {path: {"get": {"schema": {"$ref": "#/components/schemas/Item"}}}},
        "components": {"schemas": {"Item": schema}, "securitySchemes": {"HTTPBearer": {"type": "http"}}},
    }


def test_same_schemas_are_shared() -> None:
    merged = merge_openapi(
        {"auth": document("/a", {"type": "object"}), "envs": document("/b", {"type": "object"})}, version="1"
    )
    assert list(merged["paths"]) == ["/a", "/b"]
    assert list(merged["components"]["schemas"]) == ["Item"]


def test_different_schemas_of_one_name_are_renamed_with_their_references() -> None:
    merged = merge_openapi(
        {"auth": document("/a", {"type": "object"}), "envs": document("/b", {"type": "string"})}, version="1"
    )
    assert merged["components"]["schemas"] == {"Item": {"type": "object"}, "EnvsItem": {"type": "string"}}
    assert merged["paths"]["/b"]["get"]["schema"]["$ref"] == "#/components/schemas/EnvsItem"


def test_the_first_service_keeps_a_shared_path() -> None:
    first, second = document("/health", {"type": "object"}), document("/health", {"type": "object"})
    first["paths"]["/health"]["get"]["summary"] = "first"
    merged = merge_openapi({"auth": first, "envs": second}, version="1")
    assert merged["paths"]["/health"]["get"]["summary"] == "first"
